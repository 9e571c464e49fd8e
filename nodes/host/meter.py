"""How much device memory a piece of work added at its peak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from ...supervisor.ports import AllocatorCounter
    from ...supervisor.telemetry.peaks import PeakBook
    from ...supervisor.types import Peak


@dataclass(frozen=True, slots=True)
class Measured:
    """Device memory a piece of work added at its peak; None where torch does not count.

    Attributes:
        peak_bytes: the exact figure, None where it is not known exactly.
        least_bytes: it was at least this much. Kernels run behind the host, so samples of the
            allocator can be far below the truth.
        most_bytes: it was at most this much.
    """

    peak_bytes: int | None = None
    least_bytes: int | None = None
    most_bytes: int | None = None


class PeakMeter:
    """Watches one device while its ``with`` block runs; may be used again afterwards."""

    def __init__(self, device: str, counter: AllocatorCounter, book: PeakBook) -> None:
        self._device, self._counter, self._book = device, counter, book
        self.measured = Measured()
        """What the latest block added; known once it has ended."""

    def __enter__(self) -> Self:
        self.measured = Measured()
        self._before = self._counter.allocated_bytes(self._device)
        self._watch = self._book.watch()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        peaks = {peak.device: peak for peak in self._watch.end()}
        if self._before is not None and self._device in peaks:
            self.measured = added(peaks[self._device], self._before)


def added(peak: Peak, before_bytes: int) -> Measured:
    """The peak less what was held before the work began."""
    if peak.torch_bytes is None:
        return Measured()
    least_bytes = max(0, peak.torch_bytes - before_bytes)
    if peak.torch_exact:
        return Measured(least_bytes, least_bytes, least_bytes)
    bound_bytes = peak.torch_bound_bytes
    most_bytes = None if bound_bytes is None else max(least_bytes, bound_bytes - before_bytes)
    return Measured(None, least_bytes, most_bytes)
