"""Probes, counters and samples the tests write themselves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vram_supervisor.supervisor.types import DeviceInfo, JobPosition, Reading, Sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CUDA = DeviceInfo("cuda:0", "cuda", total_bytes=1000)
CPU = DeviceInfo("cpu", "cpu", total_bytes=2000)


class ScriptedProbe:
    """Answers with one reading after another; the last one stays."""

    def __init__(
        self, device: DeviceInfo = CUDA, readings: Sequence[Reading] = (Reading(),)
    ) -> None:
        self.device = device
        self.readings = list(readings)
        self.reads = 0
        self.closed = 0

    def read(self) -> Reading:
        reading = self.readings[min(self.reads, len(self.readings) - 1)]
        self.reads += 1
        return reading

    def close(self) -> None:
        self.closed += 1


class StuckProbe(ScriptedProbe):
    """Hangs in ``read`` until released, like a driver call that does not come back."""

    def __init__(self, device: DeviceInfo = CUDA) -> None:
        super().__init__(device, [Reading(used_bytes=7)])
        self.entered = threading.Event()
        self.release = threading.Event()

    def read(self) -> Reading:
        reading = super().read()
        self.entered.set()
        assert self.release.wait(60), "the test never released the probe"
        return reading


class FakeCounter:
    """An allocator whose figures the test moves by hand."""

    def __init__(self, peaks: Mapping[str, int | None] | None = None) -> None:
        self.peaks = dict(peaks or {})
        self.live: dict[str, int | None] = {}

    def allocated_bytes(self, device: str) -> int | None:
        return self.live.get(device)

    def peak_allocated_bytes(self, device: str) -> int | None:
        return self.peaks.get(device)


class FixedPosition:
    def __init__(self, position: JobPosition | None = None) -> None:
        self.at = position or JobPosition()

    def position(self) -> JobPosition:
        return self.at


def make_sample(
    time_s: float = 0.0, device: DeviceInfo = CUDA, position: JobPosition | None = None, **reading
) -> Sample:
    return Sample(time_s, time_s, device, Reading(**reading), position or JobPosition())
