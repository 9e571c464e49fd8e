"""Tells when a driver moves device memory to system memory instead of failing. Pure.

On Windows, and in WSL on its drivers, an allocation beyond dedicated memory succeeds: its pages
go to shared system memory, and every step that touches them crawls over the bus. No error says
so. What does, each only while dedicated memory is as good as full:

- torch's memory and streamed weights come to more than the device has in use: the rest is not
  on the device;
- the driver's counter of shared memory grows, where it can be read;
- steps take several times as long as the same node's steps did, or twice as long while other
  programs' or this process's memory outside torch has just grown.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from ..units import GiB, MiB, format_bytes

if TYPE_CHECKING:
    from ..types import Reading

SPILLING_SYSTEMS: Final = frozenset({"Windows", "WSL"})
FULL_SHARE: Final = 0.02
FULL_BYTES: Final = 256 * MiB
"""Dedicated memory is as good as full with less free than this, or than that share."""
GROWN_BYTES: Final = 256 * MiB
RECENT_S: Final = 30.0
SLOW: Final = 3.0
SLOW_WITH_GROWTH: Final = 2.0
LEAST_STEPS: Final = 4
"""So many steps tell how long one takes."""
REMEMBERED_STEPS: Final = 32
SILENT_S: Final = 60.0
"""A spill that goes on is told again after so long."""
MARGIN_SHARE: Final = 0.02
LEAST_MARGIN_BYTES: Final = 256 * MiB
MOST_MARGIN_BYTES: Final = GiB


@dataclass(frozen=True, slots=True)
class SpillSample:
    """What is looked at, at one moment. Bytes; None where unknown.

    Attributes:
        monotonic_s: when.
        own_bytes: torch's reserved memory and streamed weights of this process.
        outside_bytes: other programs' memory and this process's outside torch.
        shared_bytes: shared system memory that the driver says it uses for the device.
        running_s: how long the step that runs now has run; None between steps.
    """

    monotonic_s: float
    total_bytes: int | None = None
    used_bytes: int | None = None
    own_bytes: int | None = None
    outside_bytes: int | None = None
    shared_bytes: int | None = None
    running_s: float | None = None


@dataclass(frozen=True, slots=True)
class SpillWarning:
    """Memory has moved to the system. ``slower`` is against the same steps before."""

    monotonic_s: float
    spilled_bytes: int | None = None
    slower: float | None = None

    @property
    def text(self) -> str:
        """For a report, a panel and the log."""
        how = []
        if self.spilled_bytes is not None:
            how.append(f"{format_bytes(self.spilled_bytes)} lie in shared system memory")
        if self.slower is not None:
            how.append(f"a step takes {self.slower:.1f} times as long as before")
        return (
            f"GPU memory is full and the driver moves it to system memory ({', '.join(how)}). The "
            "job goes on, slowly. Close other programs, raise the reserve, or lower resolution, "
            "frames or batch; in NVIDIA's settings 'Prefer No Sysmem Fallback' makes it fail "
            "instead."
        )


@dataclass(slots=True)
class StepClock:
    """Seconds per step, from a counter that is looked at now and then."""

    _node: str | None = None
    _step: int = 0
    _since_s: float = 0.0
    _seconds: deque[float] = field(default_factory=lambda: deque[float](maxlen=REMEMBERED_STEPS))

    def look(self, monotonic_s: float, node_id: str | None, step: int) -> float | None:
        """Take in that a node is at a step; how long it has been there, None if it only came."""
        if node_id != self._node or step < self._step:
            self._node, self._step, self._since_s = node_id, step, monotonic_s
            self._seconds.clear()
            return None
        if node_id is None:
            return None
        if step > self._step:
            if self._step > 0:  # the first step loads models and tries out kernels
                passed_s = (monotonic_s - self._since_s) / (step - self._step)
                self._seconds.append(passed_s)
            self._step, self._since_s = step, monotonic_s
        return monotonic_s - self._since_s

    def usual_s(self) -> float | None:
        """The median of the latest steps of this node, None before enough of them."""
        return median(self._seconds) if len(self._seconds) >= LEAST_STEPS else None

    def last_s(self) -> float | None:
        """How long the latest complete step took."""
        return self._seconds[-1] if self._seconds else None


@dataclass(slots=True)
class SpillDetector:
    """Looks at one device's samples in the order of time."""

    steps: StepClock = field(default_factory=StepClock)
    _outside: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _shared: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _warned_s: float | None = None

    def observe(self, sample: SpillSample) -> SpillWarning | None:
        """A warning where this sample shows a spill that was not told of lately."""
        grown = _grown(self._outside, sample.monotonic_s, sample.outside_bytes)
        shared = _grown(self._shared, sample.monotonic_s, sample.shared_bytes)
        if not _is_full(sample):
            return None
        spilled = _spilled_bytes(sample, shared)
        slower = self._slower(sample, grown)
        if spilled is None and slower is None:
            return None
        if self._warned_s is not None and sample.monotonic_s - self._warned_s < SILENT_S:
            return None
        self._warned_s = sample.monotonic_s
        return SpillWarning(sample.monotonic_s, spilled, slower)

    def _slower(self, sample: SpillSample, grown_bytes: int) -> float | None:
        """How many times as long as usual the running step, or the last, takes; None: not so."""
        usual_s = self.steps.usual_s()
        if usual_s is None or usual_s <= 0:
            return None
        longest_s = max(self.steps.last_s() or 0.0, sample.running_s or 0.0)
        limit = SLOW_WITH_GROWTH if grown_bytes >= GROWN_BYTES else SLOW
        return longest_s / usual_s if longest_s >= limit * usual_s else None


def can_spill(system: str) -> bool:
    """Whether the drivers of "Windows", "WSL", "Linux" and others move memory without asking."""
    return system in SPILLING_SYSTEMS


def plan_margin_bytes(total_bytes: int | None, system: str, *, warned: bool = False) -> int:
    """What plans leave free so that the driver never gets to it; twice that after a spill.

    0 where memory that is too much fails at once: plans may then use all there is.
    """
    if not can_spill(system):
        return 0
    share = int((total_bytes or 0) * MARGIN_SHARE)
    margin = min(MOST_MARGIN_BYTES, max(LEAST_MARGIN_BYTES, share))
    return margin * 2 if warned else margin


def sample_of(
    reading: Reading, monotonic_s: float, streamed_bytes: int | None, running_s: float | None
) -> SpillSample:
    """From a reading. No driver interface in use here reads shared memory."""
    torch_bytes = reading.torch_reserved_bytes
    own = None if torch_bytes is None else torch_bytes + (streamed_bytes or 0)
    used = reading.used_bytes
    return SpillSample(
        monotonic_s,
        total_bytes=reading.total_bytes,
        used_bytes=used,
        own_bytes=own,
        outside_bytes=None if used is None or own is None else max(0, used - own),
        running_s=running_s,
    )


def _is_full(sample: SpillSample) -> bool:
    if sample.total_bytes is None or sample.used_bytes is None:
        return False
    least_free = max(FULL_BYTES, int(sample.total_bytes * FULL_SHARE))
    return sample.total_bytes - sample.used_bytes <= least_free


def _spilled_bytes(sample: SpillSample, shared_growth_bytes: int) -> int | None:
    """Bytes known to lie elsewhere, None where none are known to."""
    over = (sample.own_bytes or 0) - (sample.used_bytes or 0)
    known = max(over if over >= GROWN_BYTES else 0, shared_growth_bytes)
    return known if known >= GROWN_BYTES else None


def _grown(lately: deque[tuple[float, int]], now_s: float, value: int | None) -> int:
    """How far a figure has risen within the last seconds; keeps them."""
    if value is None:
        return 0
    while lately and lately[0][0] < now_s - RECENT_S:
        lately.popleft()
    lately.append((now_s, value))
    return value - min(each for _, each in lately)
