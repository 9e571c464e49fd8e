"""Leaves out events for clients that look once a second: a badge, a node's summary line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..types import DecodeProgress, Sample

if TYPE_CHECKING:
    from ..types import Event

SLOW_S: Final = 1.0
SOON_S: Final = 0.05
"""Samples lie on a grid, give or take so much."""


class Thinner:
    """Decides for one client. What happens once, such as the end of a job or a decode, is kept;
    of what only goes on, one a second of each kind and device."""

    def __init__(self) -> None:
        self._sent_s: dict[object, float] = {}

    def keeps(self, event: Event) -> bool:
        """Whether the client gets it."""
        payload = event.payload
        if isinstance(payload, Sample):
            return self._is_due(payload.device.key, payload.time_s)
        if isinstance(payload, DecodeProgress):
            return self._keeps_decode(payload)
        return True

    def _keeps_decode(self, progress: DecodeProgress) -> bool:
        """Its end always; the plan comes before any part is done."""
        if progress.summary.outcome != "running":
            self._sent_s.pop(progress.number, None)
            return True
        return progress.done == 0 or self._is_due(progress.number, progress.time_s)

    def _is_due(self, key: object, time_s: float) -> bool:
        last_s = self._sent_s.get(key)
        # A clock that was set back begins anew.
        if last_s is not None and 0 <= time_s - last_s < SLOW_S - SOON_S:
            return False
        self._sent_s[key] = time_s
        return True
