"""What a job, a node or any stretch of work held at most, without disturbing anyone.

Torch keeps one high-water mark per device and every pack in the process may reset it, so it
is only read here. The reasoning, for one stretch of work:

- The mark rose since the stretch began and never fell: it was reached inside, and is exact.
- It did not rise: the stretch stayed at or below it. The largest live figure that was seen is
  the known peak and the mark its upper bound; where the two are equal the peak is exact.
- It fell: somebody reset it. What it shows now was reached after the reset, so it is a lower
  bound; what went on just before the reset is not known, so there is no upper bound.

Every reading of the mark is shown to every open watch, so a reset is noticed by whoever is
open, and overlapping nodes are each measured against their own beginning.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..types import Peak

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..ports import AllocatorCounter, Clock
    from ..types import Sample


def largest(*values: int | None) -> int | None:
    """The largest known value, None when none is known."""
    known = [value for value in values if value is not None]
    return max(known) if known else None


@dataclass(slots=True)
class TorchPeak:
    """The reasoning above for one device and one stretch of work. All figures in bytes."""

    first_mark_bytes: int | None = None
    last_mark_bytes: int | None = None
    known_bytes: int | None = None
    was_reset: bool = False

    def live(self, allocated_bytes: int | None) -> None:
        """Bytes in live tensors were seen at some moment of the stretch."""
        self.known_bytes = largest(self.known_bytes, allocated_bytes)

    def mark(self, peak_bytes: int | None) -> None:
        """The allocator's high-water mark was read at some moment of the stretch."""
        if peak_bytes is None:
            return
        if self.first_mark_bytes is None or self.last_mark_bytes is None:
            self.first_mark_bytes = self.last_mark_bytes = peak_bytes
            return
        self.was_reset = self.was_reset or peak_bytes < self.last_mark_bytes
        if self.was_reset or peak_bytes > self.first_mark_bytes:
            self.known_bytes = largest(self.known_bytes, peak_bytes)
        self.last_mark_bytes = peak_bytes

    def is_exact(self) -> bool | None:
        """Whether ``known_bytes`` is the whole truth; None when nothing is known."""
        if self.known_bytes is None:
            return None
        return not self.was_reset and self.known_bytes == self.last_mark_bytes

    def bound_bytes(self) -> int | None:
        """The upper bound where the peak is not exact and a bound is known.

        A live figure above the mark means that a reset went unseen: the mark bounds nothing.
        """
        mark_bytes = self.last_mark_bytes
        if self.was_reset or mark_bytes is None or self.is_exact():
            return None
        return mark_bytes if mark_bytes >= (self.known_bytes or 0) else None


@dataclass(slots=True)
class _DevicePeak:
    used_bytes: int | None = None
    process_bytes: int | None = None
    torch: TorchPeak = field(default_factory=TorchPeak)

    def record(self, device: str) -> Peak:
        return Peak(
            device=device,
            used_bytes=self.used_bytes,
            process_bytes=self.process_bytes,
            torch_bytes=self.torch.known_bytes,
            torch_exact=self.torch.is_exact(),
            torch_bound_bytes=self.torch.bound_bytes(),
        )


class PeakWatch:
    """One stretch of work being watched; made by :meth:`PeakBook.watch`."""

    def __init__(self, book: PeakBook, started_s: float) -> None:
        self._book = book
        self.started_s = started_s
        self.devices: dict[str, _DevicePeak] = {}

    def end(self) -> tuple[Peak, ...]:
        """Stop watching; the peaks of every device of which anything is known."""
        return self._book.close(self)


class PeakBook:
    """Keeps the open watches. Every method may be called on any thread.

    Args:
        devices: keys whose allocator is read when a watch opens and closes; devices that
            only show up in samples are added as they come.
    """

    def __init__(
        self, counter: AllocatorCounter, clock: Clock, devices: Sequence[str] = ()
    ) -> None:
        self._counter = counter
        self._clock = clock
        self._lock = threading.Lock()
        self._devices = dict.fromkeys(devices)
        self._open: set[PeakWatch] = set()

    @property
    def open_watches(self) -> int:
        """How many stretches of work are being watched."""
        return len(self._open)

    def watch(self) -> PeakWatch:
        """Begin to watch; end the watch to get its peaks."""
        with self._lock:
            watch = PeakWatch(self, self._clock.monotonic_s())
            self._open.add(watch)
            self._read_allocators(tuple(self._devices))
            return watch

    def observe(self, sample: Sample) -> None:
        """Count a sample in every watch that was open when it was taken."""
        key, reading = sample.device.key, sample.reading
        with self._lock:
            self._devices[key] = None
            if not self._open:
                return
            self._read_allocators((key,))
            for watch in self._open:
                if sample.monotonic_s < watch.started_s:
                    continue
                peak = watch.devices.setdefault(key, _DevicePeak())
                peak.used_bytes = largest(peak.used_bytes, reading.used_bytes)
                peak.process_bytes = largest(peak.process_bytes, reading.process_bytes)
                peak.torch.live(reading.torch_allocated_bytes)

    def close(self, watch: PeakWatch) -> tuple[Peak, ...]:
        """End a watch; what :meth:`PeakWatch.end` does. A second call gives the same peaks."""
        with self._lock:
            if watch in self._open:
                self._read_allocators(tuple(self._devices))
                self._open.discard(watch)
            peaks = [each.record(key) for key, each in watch.devices.items()]
        return tuple(peak for peak in peaks if peak != Peak(peak.device))

    def _read_allocators(self, devices: Sequence[str]) -> None:
        """Show the mark and the live bytes of some devices to every open watch."""
        for key in devices:
            mark_bytes = self._counter.peak_allocated_bytes(key)
            allocated_bytes = self._counter.allocated_bytes(key)
            for watch in self._open:
                torch = watch.devices.setdefault(key, _DevicePeak()).torch
                torch.mark(mark_bytes)
                torch.live(allocated_bytes)
