"""How much memory a piece of work took, without disturbing the allocator's counter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...supervisor.ports import AllocatorCounter
    from ...supervisor.types import Sample


@dataclass(frozen=True, slots=True)
class Measured:
    """Device memory a piece of work added at its peak.

    Attributes:
        peak_bytes: None where torch does not count (CPU).
        exact: True from the allocator's own counter; False from samples, a lower bound.
    """

    peak_bytes: int | None
    exact: bool | None


class PeakMeter:
    """Reads the counter before and after; samples help where the counter cannot tell.

    The counter is never reset. If it rose, the new value is this work's exact peak. If it
    did not, an earlier peak was higher, and the largest sample is what is known.
    """

    def __init__(
        self,
        device: str,
        counter: AllocatorCounter,
        samples: Callable[[str], Sequence[Sample]],
        now_s: float,
    ) -> None:
        self._device, self._counter, self._samples = device, counter, samples
        self._started_s = now_s
        self._before = counter.allocated_bytes(device)
        self._mark = counter.peak_allocated_bytes(device)

    def measured(self) -> Measured:
        """What the work added since this meter was made."""
        peak = self._counter.peak_allocated_bytes(self._device)
        if self._before is None:
            return Measured(None, None)
        if peak is not None and self._mark is not None and peak > self._mark:
            return Measured(max(0, peak - self._before), exact=True)
        seen = [
            sample.reading.torch_allocated_bytes
            for sample in self._samples(self._device)
            if sample.time_s >= self._started_s
        ]
        known = [seen_bytes for seen_bytes in seen if seen_bytes is not None]
        if not known:
            return Measured(None, None)
        return Measured(max(0, max(known) - self._before), exact=False)
