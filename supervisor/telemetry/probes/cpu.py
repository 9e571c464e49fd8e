"""System RAM and processor load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psutil

from ...types import DeviceInfo, Reading

if TYPE_CHECKING:
    from ...ports import Clock

LOAD_INTERVAL_S: Final = 0.5


class CpuProbe:
    """Reads system RAM: ``free`` is what can be had without swapping, ``process`` is this
    process's resident set, ``external`` everybody else's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._process = psutil.Process()
        self._device = DeviceInfo(
            key="cpu", kind="cpu", name=None, total_bytes=psutil.virtual_memory().total
        )
        psutil.cpu_percent()  # the first call only sets the point to measure from
        self._load_percent: float | None = None
        self._load_read_s = clock.monotonic_s()

    @property
    def device(self) -> DeviceInfo:
        """The system RAM."""
        return self._device

    def read(self) -> Reading:
        """Take one reading; about 0.1 ms."""
        try:
            return self._read()
        except (psutil.Error, OSError) as error:
            return Reading(total_bytes=self._device.total_bytes, error=f"system RAM: {error}")

    def close(self) -> None:
        """Nothing is held."""

    def _read(self) -> Reading:
        memory = psutil.virtual_memory()
        used_bytes = memory.total - memory.available
        resident_bytes = self._process.memory_info().rss
        return Reading(
            total_bytes=memory.total,
            used_bytes=used_bytes,
            free_bytes=memory.available,
            process_bytes=resident_bytes,
            external_bytes=max(0, used_bytes - resident_bytes),
            utilization_percent=self._load(),
        )

    def _load(self) -> float | None:
        """The load since the last time it was read; a shorter time would be mostly noise."""
        now_s = self._clock.monotonic_s()
        if now_s - self._load_read_s >= LOAD_INTERVAL_S:
            self._load_percent, self._load_read_s = psutil.cpu_percent(), now_s
        return self._load_percent
