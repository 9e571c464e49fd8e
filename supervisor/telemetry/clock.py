"""The machine's own clock."""

from __future__ import annotations

import time


class SystemClock:
    """Time as the operating system tells it."""

    def time_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds that never go back, for intervals."""
        return time.monotonic()
