"""What one decode took, and how far its pixels are from others."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from _bench_decode_host import Host

INTERVAL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Difference:
    """Between pictures in 0..1.

    Attributes:
        relative: L2 of the difference over L2 of the reference.
        largest: of one value.
        psnr_db: against a peak of 1; infinite where equal.
    """

    relative: float
    largest: float
    psnr_db: float


def difference(pictures: torch.Tensor, reference: torch.Tensor) -> Difference:
    """Summed in 64 bits and picture by picture, for temporaries of all would take gigabytes.

    Args:
        pictures: ``[N, H, W, C]`` on the CPU.
        reference: the same shape.
    """
    squares = norm = largest = 0.0
    for ours, theirs in zip(pictures, reference, strict=True):
        apart = ours.float() - theirs.float()
        squares += float(torch.linalg.vector_norm(apart, dtype=torch.float64)) ** 2
        norm += float(torch.linalg.vector_norm(theirs.float(), dtype=torch.float64)) ** 2
        largest = max(largest, float(apart.abs().max()))
    mean = squares / max(1, pictures.numel())
    psnr_db = -10 * math.log10(mean) if mean else math.inf
    return Difference(math.sqrt(squares / norm) if norm else math.inf, largest, psnr_db)


class RamWatch:
    """How much system memory a piece of work adds at its peak.

    The larger of two figures: what became resident in this process, and what the system calls
    available less than before. The first does not count memory pinned by the driver everywhere,
    the second counts other processes. Copies of weights that ComfyUI pins for itself whenever it
    loads a model are taken off.

    Args:
        pinned: bytes of those now.
    """

    def __init__(self, pinned: Callable[[], int]) -> None:
        self._pinned = pinned

    def __enter__(self) -> RamWatch:
        self._pinned_before = self._pinned()
        self._process = psutil.Process()
        self._resident = self._process.memory_info().rss
        self._available = psutil.virtual_memory().available
        self.growth_bytes = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ram-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        self._ends.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ends.wait(INTERVAL_S):
            self._look()

    def _look(self) -> None:
        resident = self._process.memory_info().rss - self._resident
        taken = self._available - psutil.virtual_memory().available
        pinned = self._pinned() - self._pinned_before
        self.growth_bytes = max(self.growth_bytes, max(resident, taken) - pinned)


@dataclass(frozen=True, slots=True)
class Took:
    """What a piece of work took.

    Attributes:
        peak_bytes: the most torch's allocator held beside what it held before; None on a CPU.
        ram_bytes: see ``RamWatch``.
    """

    seconds: float
    peak_bytes: int | None
    ram_bytes: int


def timed(host: Host, work: Callable[[], None]) -> Took:
    """Do the work with nothing left running before or after."""
    on_gpu = host.device.type == "cuda"
    host.synchronize()
    before = 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(host.device)
        before = torch.cuda.memory_allocated(host.device)
    with RamWatch(host.pinned_bytes) as ram:
        started_s = time.perf_counter()
        work()
        host.synchronize()
        seconds = time.perf_counter() - started_s
    peak = torch.cuda.max_memory_allocated(host.device) - before if on_gpu else None
    return Took(seconds, peak, ram.growth_bytes)
