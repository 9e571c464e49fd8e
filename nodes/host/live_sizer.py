"""Sizes of parts that follow the free memory while a run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...supervisor.decode.layout import Layout
    from ...supervisor.decode.parking import Parking

LESS_ROOM: Final = 0.9
"""Of what was planned for: with less than that left, parts are laid out anew."""


class LiveSizer:
    """Sizes as laid out, until the room has changed much since: then as laid out anew.

    Attributes:
        parking: what the run keeps on the device, which counts as room.
    """

    def __init__(
        self,
        layout: Layout,
        ratio: float,
        live: Callable[[], int],
        again: Callable[[int], Layout | None],
    ) -> None:
        self._layout, self._ratio, self._live, self._again = layout, ratio, live, again
        self._planned_for = int(layout.peak_bytes * ratio)
        self.parking: Parking | None = None

    def part(self, phase: int, stage: int, height: int, width: int) -> tuple[int, int]:
        """Rows and columns, for what is free now."""
        self._look()
        return self._layout.parts.get((phase, stage), (height, width))

    def resident_bytes(self) -> int:
        """What may wait on the device."""
        return self._layout.resident_bytes

    def carried_bytes(self) -> int:
        """What of that may wait for the next chunk of time."""
        return self._layout.carried_bytes

    def _look(self) -> None:
        if self.parking is None:
            return
        room = self._live() + self.parking.resident_bytes
        if room >= self._planned_for * LESS_ROOM:
            return
        layout = self._again(room)
        if layout is not None:
            self._layout, self._planned_for = layout, room
            self.parking.limit_bytes = layout.resident_bytes
            self.parking.limit_carried_bytes = layout.carried_bytes
