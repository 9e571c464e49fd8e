"""Measures, and on CUDA limits, what a piece of work holds on a device beyond what is held."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from typing_extensions import Self

from ..planning.live_bytes import LiveBytes

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from ..ports import AllocatorCounter


class PeakMeter:
    """Context manager around the work; entered and left on the thread that does it.

    The allocator's own counter is read, never reset: where the work raised it, its rise is
    exact. Otherwise (no such counter on the CPU, or an earlier peak was higher) the peak of
    the live tensors is known, kernel workspace not included.

    Attributes:
        peak_bytes: set when the work is done.
        exact: whether the allocator's counter gave it.
    """

    def __init__(self, device: str, counter: AllocatorCounter) -> None:
        self.peak_bytes = 0
        self.exact = False
        self._device = device
        self._counter = counter
        self._live = LiveBytes(device.partition(":")[0])
        self._held_before = 0
        self._peak_before = 0

    def __enter__(self) -> Self:
        self._held_before = self._counter.allocated_bytes(self._device) or 0
        self._peak_before = self._counter.peak_allocated_bytes(self._device) or 0
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)
        peak = self._counter.peak_allocated_bytes(self._device)
        self.exact = peak is not None and peak > self._peak_before
        if peak is not None and self.exact:
            self.peak_bytes = peak - self._held_before
        else:
            self.peak_bytes = self._live.peak_bytes


@contextmanager
def memory_cap(device: str, budget_bytes: int | None) -> Generator[None]:
    """Let torch's allocator on a CUDA device grow by ``budget_bytes`` only, then as before.

    Makes the budget hold where the prediction does not: a kernel that asks for too much
    workspace is refused and the next one is taken, a tile that is too large is split.
    Process-wide while it lasts, so only for a process of our own. Other devices, and a
    budget of None, are not capped.
    """
    if budget_bytes is None or not device.startswith("cuda"):
        yield
        return
    torch.cuda.empty_cache()
    total_bytes = torch.cuda.get_device_properties(device).total_memory
    share = (torch.cuda.memory_reserved(device) + budget_bytes) / total_bytes
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
