"""How much of a device others hold, second by second, for as long as a reserve looks back.

Samples come up to ten times a second and their figures are read microseconds apart: a tensor
allocated between two readings would look like another program's for one sample. The median of
a second is free of that.
"""

from __future__ import annotations

import threading
from collections import deque
from statistics import median_low
from typing import Final

KEPT_SECONDS: Final = 4800
"""Seconds kept: a little more than the longest time a reserve looks back."""


class SecondsTrace:
    """Bytes over time, one figure a second. Every method may be called on any thread."""

    def __init__(self, kept: int = KEPT_SECONDS) -> None:
        self._lock = threading.Lock()
        self._points: deque[tuple[float, int]] = deque(maxlen=kept)
        self._second: int | None = None
        self._values: list[int] = []

    def add(self, monotonic_s: float, value_bytes: int) -> bool:
        """Take in one figure, in the order of time; True when a second was completed by it."""
        second = int(monotonic_s)
        with self._lock:
            completed = self._second is not None and second > self._second
            if completed:
                self._complete()
            if self._second is None or completed:
                self._second = second
            self._values.append(value_bytes)
            return completed

    def points(self, since_s: float | None = None) -> list[tuple[float, int]]:
        """Complete seconds and their medians, oldest first; seconds without samples are missing."""
        with self._lock:
            points = list(self._points)
        return points if since_s is None else [each for each in points if each[0] >= since_s]

    def now_bytes(self) -> int | None:
        """The newest figure: of the running second, so that growth shows at once.

        The lower median of its last three samples, one being perhaps a misreading.
        """
        with self._lock:
            if self._values:
                return median_low(self._values[-3:])
            return self._points[-1][1] if self._points else None

    def _complete(self) -> None:
        if self._second is not None and self._values:
            self._points.append((float(self._second), median_low(self._values)))
        self._values = []
