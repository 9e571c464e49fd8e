"""A phase of several stages: for each chunk of time, every part of a stage before the next.

Statistics over the whole picture must be complete before a stage's result can be made: passes
that observe come first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_map_only

from ..errors import PartDoesNotFitError
from .norms import Observed, PooledNorms, Statistics
from .parking import Held
from .parts import halved, owned_of, part_of, scaled, size_text
from .program import Carry, Place, pieces_of
from .store import Bands, frames_of
from .tiles import Rect

if TYPE_CHECKING:
    from torch import Tensor

    from .parking import Parking
    from .parts import Axis, Part
    from .program import Phase, Stage
    from .running import Output, Running
    from .store import Clip


class Stagewise:
    """A phase of several stages: for each chunk of time, stage by stage over all parts."""

    def __init__(
        self, running: Running, index: int, phase: Phase, clip: Clip, output: Output
    ) -> None:
        self._running, self._index, self._stages = running, index, phase.stages
        self._clip, self._output = clip, output
        self._lengths = phase.chunks(clip.frames)
        self._axis: Axis = "rows" if clip.height >= clip.width else "columns"
        self._carries: dict[tuple[int, Rect], Carry] = {}
        self._parts: dict[int, list[Part]] = {}
        self._frames = 0

    def run(self) -> None:
        """All of it."""
        first = 0
        try:
            for length in self._lengths:
                self._chunk(first, length)
                first += length
        finally:
            for carry in self._carries.values():
                self._running.parking.drop_all(carry.state)

    def _chunk(self, first: int, length: int) -> None:
        clip = self._clip
        everything = Rect(0, clip.height, 0, clip.width)
        bands = Bands(self._running.parking, self._axis, clip.height, clip.width)
        self._running.attempt_or_fail(
            f"input of {self._stages[0].name}",
            lambda: bands.put(0, clip.read(first, length, everything)),
        )
        if first + length >= clip.frames:
            # The bands have it now.
            clip.close()
        seen, frames = Statistics(), self._frames
        for number, stage in enumerate(self._stages):
            run = _StageRun(self, number, stage, bands, first=first, length=length, seen=seen)
            bands, seen = run.run()
            frames = run.frames_end
        bands.close()
        self._frames = frames

    # What a stage run needs of the phase.

    @property
    def running(self) -> Running:
        """What phases share."""
        return self._running

    @property
    def index(self) -> int:
        """Of the phase."""
        return self._index

    @property
    def axis(self) -> Axis:
        """Along which the picture is cut."""
        return self._axis

    @property
    def output(self) -> Output:
        """Takes what the last stage makes."""
        return self._output

    @property
    def frames(self) -> int:
        """Frames of output that earlier chunks made."""
        return self._frames

    @property
    def total_frames(self) -> int:
        """Of the phase's input."""
        return self._clip.frames

    @property
    def goes_on(self) -> bool:
        """Whether time is cut, so that carries are needed and parts must stay as they are."""
        return len(self._lengths) > 1

    def next_of(self, number: int) -> Stage | None:
        """The stage after this one."""
        return self._stages[number + 1] if number + 1 < len(self._stages) else None

    def parts(self, number: int, stage: Stage, height: int, width: int) -> list[Part]:
        """The parts of a stage: the same for all chunks, for carries belong to parts."""
        if number not in self._parts or not self.goes_on:
            bands = self._running.bands(self._index, number, stage, height, width, axis=self._axis)
            self._parts[number] = bands
        return self._parts[number]

    def carry(self, number: int, rect: Rect) -> Carry:
        """A copy of what is remembered there, on the device."""
        kept = self._carries.get((number, rect))
        if kept is None:
            return Carry()
        return Carry(_copied(self._running.parking, kept.state))

    def kept(self, carry: Carry) -> Carry:
        """What a part carries on, put aside until its result is in place."""
        return Carry(self._running.parking.keep_all(carry.state) if self.goes_on else None)

    def drop(self, kept: Carry) -> None:
        """Forget what was put aside, for the part failed."""
        self._running.parking.drop_all(kept.state)

    def prefetch(self, number: int, rect: Rect) -> None:
        """Begin to bring back what is remembered there."""
        kept = self._carries.get((number, rect))
        if kept is not None:
            self._running.parking.prefetch_all(kept.state)

    def remember(self, number: int, rect: Rect, kept: Carry) -> None:
        """From now on this is what the part carries on; cannot fail."""
        old = self._carries.get((number, rect))
        self._carries[number, rect] = kept
        if old is not None:
            self.drop(old)


class _StageRun:
    """One stage over all parts of one chunk: passes that observe, then the one that makes."""

    def __init__(
        self,
        phase: Stagewise,
        number: int,
        stage: Stage,
        bands: Bands,
        *,
        first: int,
        length: int,
        seen: Statistics,
    ) -> None:
        self._phase, self._number, self._stage, self._bands = phase, number, stage, bands
        self._first, self._length, self._seen = first, length, seen
        self._running = phase.running
        self._next = phase.next_of(number)
        self._ahead = Statistics()
        scale = stage.scale
        self._made = Bands(
            self._running.parking, phase.axis, int(bands.height * scale), int(bands.width * scale)
        )
        self.frames_end = phase.frames

    def run(self) -> tuple[Bands, Statistics]:
        """The result in bands, and what was seen of the next stage's first norms."""
        bands, stage = self._bands, self._stage
        parts = list(self._phase.parts(self._number, stage, bands.height, bands.width))
        self._seen.settle()
        if self._next is None:
            self._running.gather()
        while not self._pass(parts):
            self._seen.settle()
            bands.rewind()
        bands.close()
        self._ahead.settle()
        return self._made, self._ahead

    def _pass(self, parts: list[Part]) -> bool:
        """One pass over all parts; whether it made the result. Halves take a part's place."""
        makes = True
        waiting = list(reversed(parts))
        while waiting:
            part = waiting.pop()
            self._running.check()
            made = self._try(part, waiting[-1] if waiting else None, whole=len(parts) == 1)
            if made is None:
                halves = self._halves(part)
                where = parts.index(part)
                parts[where : where + 1] = halves
                waiting.extend(reversed(halves))
                continue
            makes = made
            self._running.done(self._phase.index, self._number, part.owned, committed=makes)
            if waiting:
                start = waiting[-1].context
                along = start.top if self._phase.axis == "rows" else start.left
                self._bands.move_on(along, release=makes)
        return makes

    def _try(self, part: Part, upcoming: Part | None, *, whole: bool) -> bool | None:
        """One part; None when it ran out of memory for good."""
        ahead, seen = self._ahead, self._seen
        outcome: list[bool] = []

        def work() -> None:
            # A failed attempt may have observed half of what it should.
            self._ahead, self._seen = ahead.copy(), seen.copy()
            outcome.append(self._one(part, upcoming, whole=whole))

        name = f"{self._stage.name}, {size_text(part.owned)}"
        if self._running.attempt(name, work, self._bands.rewind):
            return outcome[-1]
        self._ahead, self._seen = ahead, seen
        return None

    def _halves(self, part: Part) -> list[Part]:
        """What takes a part's place; where time goes on, its carry belongs to all of it."""
        axis = self._phase.axis
        cannot = self._phase.goes_on or self._stage.whole
        halves = None if cannot else halved(part.owned, self._stage.align, axis)
        if halves is None:
            raise PartDoesNotFitError(f"{self._stage.name}, {size_text(part.owned)}")
        bands = self._bands
        return [part_of(self._stage, half, bands.height, bands.width) for half in halves]

    def _one(self, part: Part, upcoming: Part | None, *, whole: bool) -> bool:
        """One part; whether it made its result (else it was observed)."""
        phase, stage, bands = self._phase, self._stage, self._bands
        x = bands.read(part.context)
        if upcoming is not None:
            bands.prefetch(upcoming.context)
            phase.prefetch(self._number, upcoming.owned)
        carry = phase.carry(self._number, part.owned)
        place = Place(
            part.context, bands.height, bands.width, self._first, self._length, phase.total_frames
        )
        if whole:
            pieces = list(pieces_of(stage.run(x, carry, place)))
        else:
            norms = PooledNorms(
                self._seen,
                part.owned.relative_to(part.context),
                part.context.height,
                part.context.width,
            )
            observed = False
            pieces: list[Tensor] = []
            try:
                with norms:
                    pieces = list(pieces_of(stage.run(x, carry, place)))
            except Observed:
                observed = True
            if observed or norms.observed:
                return False
        del x
        kept = phase.kept(carry)
        try:
            self._keep(part, pieces)
        except BaseException:
            phase.drop(kept)
            raise
        phase.remember(self._number, part.owned, kept)
        return True

    def _keep(self, part: Part, pieces: list[Tensor]) -> None:
        rect = scaled(part.owned, self._stage)
        if self._next is None:
            first = frames = self._phase.frames
            final = self._phase.output.has(rect)
            while pieces:
                made = pieces.pop(0)
                if not final:
                    self._phase.output.write(frames, rect, owned_of(made, part, self._stage))
                frames += frames_of(made)
            if not final:
                self._phase.output.commit(first, frames - first, rect)
            self.frames_end = frames
            return
        made = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
        pieces.clear()
        owned = owned_of(made, part, self._stage).contiguous()
        del made
        self._look_ahead(self._next, owned, rect)
        start = rect.top if self._phase.axis == "rows" else rect.left
        self._made.truncate(start)
        self._made.put(start, owned)

    def _look_ahead(self, following: Stage, made: Tensor, rect: Rect) -> None:
        """Observe what the next stage normalises first, while it is at hand."""
        if following.whole:
            return
        height, width = made.shape[-2:]
        norms = PooledNorms(self._ahead, Rect(0, height, 0, width), height, width, peek=True)
        place = Place(
            rect,
            self._made.height,
            self._made.width,
            self._first,
            self._length,
            self._phase.total_frames,
        )
        try:
            with norms:
                for _ in pieces_of(following.run(made, Carry(), place)):
                    pass
        except Observed:
            return


def _copied(parking: Parking, state: object) -> Any:  # noqa: ANN401 - what keep_all gave
    """The same containers anew, for a stage may change them; parked tensors come back."""
    return tree_map_only(Held, parking.get, state)
