"""A phase of one stage: tile by tile, each through all of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import PartDoesNotFitError
from .parts import halved, owned_of, part_of, scaled, size_text
from .program import Carry, Place, pieces_of
from .store import frames_of

if TYPE_CHECKING:
    from .parts import Axis, Part
    from .program import Phase
    from .running import Output, Running
    from .store import Clip


class Tilewise:
    """A phase of one stage: tile by tile, each through all of time."""

    def __init__(
        self, running: Running, index: int, phase: Phase, clip: Clip, output: Output
    ) -> None:
        self._running, self._index, self._clip, self._output = running, index, clip, output
        (self._stage,) = phase.stages
        self._lengths = phase.chunks(clip.frames)

    def run(self) -> None:
        """All of it."""
        clip, stage = self._clip, self._stage
        waiting = self._running.tiles(self._index, 0, stage, clip.height, clip.width)
        waiting.reverse()
        while waiting:
            part = waiting.pop()
            self._running.check()
            smaller = self._smaller(part)
            if smaller is not None:
                waiting.extend(reversed(smaller))
                continue
            name = f"{stage.name}, {size_text(part.owned)}"
            rect = scaled(part.owned, stage)
            if self._output.has(rect) or self._running.attempt(
                name,
                lambda part=part: self._decode(part),
                lambda rect=rect: self._output.forget(rect),
            ):
                self._running.done(self._index, 0, part.owned, committed=True)
                continue
            halves = halved(part.owned, stage.align)
            if halves is None:
                raise PartDoesNotFitError(name)
            waiting.extend(
                part_of(stage, half, clip.height, clip.width) for half in reversed(halves)
            )

    def _smaller(self, part: Part) -> list[Part] | None:
        """What takes a part's place when there is less room than there was."""
        clip, stage = self._clip, self._stage
        rows, columns = self._running.part_size(self._index, 0, stage, clip.height, clip.width)
        if part.owned.height <= rows and part.owned.width <= columns:
            return None
        axis: Axis = "rows" if part.owned.height > rows else "columns"
        halves = halved(part.owned, stage.align, axis)
        if halves is None:
            return None
        return [part_of(stage, half, clip.height, clip.width) for half in halves]

    def _decode(self, part: Part) -> None:
        frames, carry, first = 0, Carry(), 0
        rect = scaled(part.owned, self._stage)
        for length in self._lengths:
            self._running.check()
            place = self._place(part, first, length)
            x = self._clip.read(first, length, part.context)
            for made in pieces_of(self._stage.run(x, carry, place)):
                self._output.write(frames, rect, owned_of(made, part, self._stage))
                frames += frames_of(made)
                # Not beside what is made next.
                del made
            del x
            first += length
        self._output.commit(0, frames, rect)

    def _place(self, part: Part, first: int, length: int) -> Place:
        clip = self._clip
        return Place(part.context, clip.height, clip.width, first, length, clip.frames)
