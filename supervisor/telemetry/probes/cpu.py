"""System RAM and processor load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psutil

from ...types import DeviceInfo, Reading

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ...ports import Clock

    CpuTimes: TypeAlias = Any
    """psutil's named tuple of seconds; its fields differ between systems."""

SLOW_INTERVAL_S: Final = 0.5
"""How old this process's share and the load may be, as with the NVML probe: each costs as much
to read as the memory itself, and a load over a shorter time is mostly noise."""


class CpuProbe:
    """Reads system RAM: ``free`` is what can be had without swapping, ``process`` is this
    process's resident set, ``external`` everybody else's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._process = psutil.Process()
        self._device = DeviceInfo(
            key="cpu", kind="cpu", name=None, total_bytes=psutil.virtual_memory().total
        )
        self._resident_bytes = self._process.memory_info().rss
        self._load_percent: float | None = None
        self._times = psutil.cpu_times()
        self._slow_read_s = clock.monotonic_s()

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
        self._read_slow()
        used_bytes = memory.total - memory.available
        return Reading(
            total_bytes=memory.total,
            used_bytes=used_bytes,
            free_bytes=memory.available,
            process_bytes=self._resident_bytes,
            external_bytes=max(0, used_bytes - self._resident_bytes),
            utilization_percent=self._load_percent,
        )

    def _read_slow(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._slow_read_s < SLOW_INTERVAL_S:
            return
        self._slow_read_s = now_s
        self._resident_bytes = self._process.memory_info().rss
        before, self._times = self._times, psutil.cpu_times()
        self._load_percent = load_percent(before, self._times)


def load_percent(before: CpuTimes, after: CpuTimes) -> float | None:
    """Share of the processor time between two readings that was not idle.

    ``psutil.cpu_percent`` remembers its last reading per thread, so a probe that changes
    threads would read 0. None where no time went by.
    """
    spent_s = {name: getattr(after, name) - getattr(before, name) for name in after._fields}
    # Linux counts a guest's time in the user time as well.
    total_s = sum(value for name, value in spent_s.items() if not name.startswith("guest"))
    idle_s = spent_s["idle"] + spent_s.get("iowait", 0.0)
    if total_s <= 0:
        return None
    return round(min(100.0, max(0.0, 100.0 * (1.0 - idle_s / total_s))), 1)
