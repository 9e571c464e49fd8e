"""What became of a model's attention calls: counts, and what its kernel lost the right to."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

_log = logging.getLogger(__name__)

CHECKED_CALLS: Final = 64
"""Calls of one shape that are checked: the blocks of a model differ, and so many are about one
pass through all of them. A check costs a few per cent of a call."""
REMEMBERED_SHAPES: Final = 256
REMEMBERED_RUNS: Final = 16
KERNEL_ERROR: Final = "kernel error"
OUT_OF_MEMORY: Final = "out of memory"
SLOWER: Final = "slower"
TURNED_OFF: Final = "turned off"
NOT_FINITE: Final = "not finite"
"""Neither the kernel's answer nor the host's."""


@dataclass(frozen=True, slots=True)
class Run:
    """One sampling run's attention calls.

    Attributes:
        kernel: the widget's word.
        calls: all of them.
        fallbacks: how many the host computed, by reason.
        turned_off: why the kernel was turned off for the model, None while it is on.
        largest_error: relative L2 of what was checked, None where nothing was.
    """

    kernel: str
    calls: int
    fallbacks: Mapping[str, int]
    turned_off: str | None
    largest_error: float | None

    def sentence(self) -> str:
        """For the log and the report's notes."""
        left = sum(self.fallbacks.values())
        text = f"{self.kernel} computed {self.calls - left} of {self.calls} attention calls"
        if left:
            reasons = ", ".join(f"{why} {count}" for why, count in sorted(self.fallbacks.items()))
            text += f", the host's attention {left} ({reasons})"
        if self.largest_error is not None:
            text += f"; largest error measured {self.largest_error:.2g}"
        return text if self.turned_off is None else f"{text}; turned off: {self.turned_off}"

    def as_dict(self) -> dict[str, Any]:
        """The same as a JSON-ready object."""
        return {
            "kernel": self.kernel,
            "calls": self.calls,
            "fallbacks": dict(self.fallbacks),
            "turned_off": self.turned_off,
            "largest_error": self.largest_error,
        }


class RecentRuns:
    """Finished runs of this process, for the next report. Thread-safe."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque(maxlen=REMEMBERED_RUNS)

    def add(self, run: Run) -> None:
        """A run has ended."""
        self._runs.append(run)

    def newest(self) -> Run | None:
        """None before the first."""
        try:
            return self._runs[-1]
        except IndexError:
            return None


@dataclass
class Usage:
    """One model's kernel: counts of the current run, and what was found of the kernel so far.

    Thread-safe; the lock is never held while anything computes. Counts begin anew with each
    run, findings stay with the model.
    """

    kernel: str
    turned_off: str | None = None
    _calls: int = 0
    _fallbacks: Counter[str] = field(default_factory=Counter[str])
    _largest_error: float | None = None
    _checked: dict[Hashable, int] = field(default_factory=dict["Hashable", int])
    _refused: dict[Hashable, str] = field(default_factory=dict["Hashable", str])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """A sampling run starts."""
        with self._lock:
            self._calls = 0
            self._fallbacks.clear()

    def end(self) -> Run | None:
        """The run's counts, which then begin anew; None where it made no calls."""
        with self._lock:
            calls, fallbacks = self._calls, dict(self._fallbacks)
            self._calls = 0
            self._fallbacks.clear()
        if calls == 0:
            return None
        return Run(self.kernel, calls, fallbacks, self.turned_off, self._largest_error)

    def taken(self) -> None:
        """The kernel computed a call."""
        with self._lock:
            self._calls += 1

    def left(self, reason: str) -> None:
        """The host computed a call."""
        with self._lock:
            self._calls += 1
            self._fallbacks[reason] += 1

    def turn_off(self, why: str) -> None:
        """Leave all further calls of the model to the host; said once."""
        with self._lock:
            first = self.turned_off is None
            self.turned_off = self.turned_off or why
        if first:
            _log.warning(
                "%s is turned off for this model, the host's attention computes: %s",
                self.kernel,
                why,
            )

    def refuse(self, shape: Hashable, reason: str) -> None:
        """Leave all further calls of one shape to the host."""
        with self._lock:
            self._refused[shape] = reason

    def refused(self, shape: Hashable) -> str | None:
        """Why calls of this shape go to the host, None where they do not."""
        return self._refused.get(shape)

    def next_check(self, shape: Hashable) -> int | None:
        """The number of the check that a call of this shape is due, 0 first; None for none."""
        with self._lock:
            done = self._checked.get(shape, 0)
            if done >= CHECKED_CALLS:
                return None
            if len(self._checked) >= REMEMBERED_SHAPES and shape not in self._checked:
                self._checked.clear()
            self._checked[shape] = done + 1
            return done

    def measured(self, error: float | None) -> None:
        """A check found this error."""
        with self._lock:
            if error is not None and error > (self._largest_error or -1.0):
                self._largest_error = error
