"""Programs run on fake tensors, stage by stage, to see what each makes live."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from ..planning.trace import Step
from .norms import COSTLY, NORMS, Observed, PooledNorms, Statistics
from .program import Carry, Place, pieces_of
from .store import frames_of
from .tiles import Rect

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..planning.dry_run import Tracer
    from ..planning.workspace import Workspace
    from .program import Phase, Program, Stage


@dataclass(slots=True)
class Seen:
    """The most that a stage needed for any chunk of one size."""

    area: int
    need_bytes: int
    in_bytes: int
    out_bytes: int
    carry_bytes: int
    norms: int
    ahead_bytes: int = 0
    frames: int = 0
    """Of the results of all chunks."""
    inputs: list[tuple[int, ...]] = field(default_factory=list["tuple[int, ...]"])
    """Shapes of its input, chunk by chunk."""


class Ruler:
    """Measures what one call makes live, workspace included."""

    def __init__(self, tracer: Tracer, workspace: Workspace) -> None:
        self._tracer, self._workspace = tracer, workspace

    def measure(
        self, stage: Stage, x: Tensor, carry: Carry, place: Place, *, keep: bool
    ) -> tuple[list[Tensor], Seen]:
        """Run a stage; what it made (the last piece only, unless ``keep``) and what it took."""
        tracer = self._tracer
        given = _bytes_of(x) + sum(
            _bytes_of(each) for each in tree_leaves(carry.state) if _is(each)
        )
        before = tracer.live_bytes
        tracer.peak_bytes = before
        tracer.steps.clear()
        made: list[Tensor] = []
        out_bytes = frames = 0
        with _NormCount() as norms:
            for piece in pieces_of(stage.run(x, carry, place)):
                out_bytes = max(out_bytes, _bytes_of(piece))
                frames += frames_of(piece)
                made = [*made, piece] if keep else [piece]
                del piece
        if keep:
            out_bytes = sum(_bytes_of(each) for each in made)
        steps = [Step(tracer.peak_bytes), *tracer.steps]
        need = max(self._workspace.step_bytes(step) for step in steps) - before + given
        carried = sum(_bytes_of(each) for each in tree_leaves(carry.state) if _is(each))
        area = x.shape[-1] * x.shape[-2]
        seen = Seen(area, need, _bytes_of(x), out_bytes, carried, norms.passes, frames=frames)
        return made, seen

    def glance(self, following: Stage, x: Tensor, place: Place) -> int:
        """What looking at a stage's first norms makes live, its input included."""
        if following.whole:
            return _bytes_of(x)
        tracer = self._tracer
        before = tracer.live_bytes
        tracer.peak_bytes = before
        height, width = x.shape[-2:]
        norms = PooledNorms(Statistics(), Rect(0, height, 0, width), height, width, peek=True)
        try:
            with norms:
                for _ in pieces_of(following.run(x, Carry(), place)):
                    pass
        except Observed:
            pass
        return tracer.peak_bytes - before + _bytes_of(x)


class Rehearsal:
    """All phases of a program on one small input, every part being the whole."""

    def __init__(
        self, program: Program, ruler: Ruler, shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        self._program, self._ruler = program, ruler
        self.shape = shape
        self._source = torch.empty(shape, dtype=dtype)
        self.seen: list[list[Seen]] = []
        self.clips: list[tuple[int, int, int]] = []
        """Bytes, height and width of each phase's input."""
        self.made = (0, 0, 0, 0)
        """Channels, frames, height and width of what comes of it."""

    def run(self) -> Rehearsal:
        """All of it."""
        clip = [self._source]
        for index, phase in enumerate(self._program.phases):
            last = index == len(self._program.phases) - 1
            self.clips.append((sum(map(_bytes_of, clip)), clip[0].shape[-2], clip[0].shape[-1]))
            clip = self._phase(phase, clip, keep=not last)
        return self

    def _phase(self, phase: Phase, clip: list[Tensor], *, keep: bool) -> list[Tensor]:
        source = clip[0] if len(clip) == 1 else torch.cat(clip, dim=2)
        total = frames_of(source)
        carries = [Carry() for _ in phase.stages]
        best: list[Seen | None] = [None] * len(phase.stages)
        results: list[Tensor] = []
        first = 0
        for length in phase.chunks(total):
            x = source if source.ndim == PICTURE_DIMS else source[:, :, first : first + length]
            x = x.contiguous()
            made: list[Tensor] = []
            for number, stage in enumerate(phase.stages):
                place = everything(x, first, length, total)
                final = number == len(phase.stages) - 1
                made, seen = self._ruler.measure(
                    stage, x, carries[number], place, keep=keep or not final
                )
                given = tuple(x.shape)
                if not made:  # it gives its results with later chunks
                    best[number] = _larger(best[number], seen, given)
                    break
                x = made[0] if len(made) == 1 else torch.cat(made, dim=2)
                if not final:
                    place = everything(x, first, length, total)
                    seen.ahead_bytes = self._ruler.glance(phase.stages[number + 1], x, place)
                best[number] = _larger(best[number], seen, given)
            if keep and made:
                results.append(x)
            if made:
                self._note(x, best[-1])
            first += length
        self.seen.append([each for each in best if each is not None])
        return results

    def _note(self, x: Tensor, seen: Seen | None) -> None:
        """What the latest stage has made so far."""
        frames = 0 if seen is None else seen.frames
        self.made = (int(x.shape[1]), frames, int(x.shape[-2]), int(x.shape[-1]))


def _larger(one: Seen | None, other: Seen, shape: tuple[int, ...]) -> Seen:
    if one is None:
        other.inputs.append(shape)
        return other
    one.inputs.append(shape)
    return Seen(
        one.area,
        max(one.need_bytes, other.need_bytes),
        max(one.in_bytes, other.in_bytes),
        max(one.out_bytes, other.out_bytes),
        max(one.carry_bytes, other.carry_bytes),
        max(one.norms, other.norms),
        max(one.ahead_bytes, other.ahead_bytes),
        one.frames + other.frames,
        one.inputs,
    )


def everything(x: Tensor, first: int, frames: int, total: int) -> Place:
    """All of space, and some of time."""
    height, width = x.shape[-2:]
    return Place(Rect(0, height, 0, width), height, width, first, frames, total)


class _NormCount(TorchFunctionMode):
    """Counts how often a stage meets norms that a pass over all parts must precede."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        self._pending = False
        self._begun = False

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in NORMS:
            if self._begun and not self._pending:
                self.passes += 1
            self._pending = True
        elif func in COSTLY:
            # What comes before the first costly operation is seen while the input is made.
            self._pending, self._begun = False, True
        return func(*args, **(kwargs or {}))


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _is(value: object) -> bool:
    return isinstance(value, torch.Tensor)


PICTURE_DIMS: Final = 4
