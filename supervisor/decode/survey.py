"""What the stages of a program need, by dry run: nothing is loaded, nothing allocated.

Stages that see all of the picture are run at its real size. Stages that run part by part are run
at two small sizes; between tensors that grow with the area and weights that do not, what they
need is a straight line.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..planning.dry_run import Tracer
from ..planning.fake_module import fake_copy
from .program import Carry
from .rehearsal import PICTURE_DIMS, Rehearsal, Ruler, Seen, everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from ..planning.workspace import Workspace
    from .program import Phase, Program, Stage

SMALL_EDGES: Final = (16, 24)
"""Edges of the two small inputs of a decoder, in its latents."""
STEADY_CHUNKS: Final = 4
"""From the third chunk of time on every one needs the same."""


@dataclass(frozen=True, slots=True)
class StageNeeds:
    """One stage. Bytes; "area" counts pixels of the stage's input, in space only.

    Attributes:
        scale_in: pixels of the stage's input per pixel of the program's input.
        scale: of its output per pixel of its input.
        fixed_bytes: what running it needs whatever the area.
        bytes_per_area: what it needs for each pixel of a part with its halo, its input and its
            result among it. For stages that see everything, of all.
        in_bytes_per_area: its input alone.
        out_bytes_per_area: its result alone, for each pixel of its input.
        carry_bytes_per_area: what it remembers from chunk to chunk.
        norms: how many passes it takes beside the one that makes the result.
        ahead_bytes_per_area: its result, and what a glance at the next stage's norms makes of
            it, for each pixel of its input.
    """

    name: str
    whole: bool
    halo: int
    align: int
    scale_in: Fraction
    scale: Fraction
    fixed_bytes: float
    bytes_per_area: float
    in_bytes_per_area: float
    out_bytes_per_area: float
    carry_bytes_per_area: float
    norms: int
    ahead_bytes_per_area: float

    def work_bytes(self, area: int) -> int:
        """What running it on a part of ``area`` (with its halo) needs."""
        return int(self.fixed_bytes + self.bytes_per_area * area)


@dataclass(frozen=True, slots=True)
class PhaseNeeds:
    """One phase.

    Attributes:
        single: it runs tile by tile through all of time.
        chunks: how many chunks of time it has.
        in_bytes_per_area: of its whole input, all of time, by pixel of it.
        scale_in: pixels of its input per pixel of the program's.
    """

    stages: tuple[StageNeeds, ...]
    single: bool
    chunks: int
    in_bytes_per_area: float
    scale_in: Fraction


@dataclass(frozen=True, slots=True)
class Survey:
    """What a program needs for one input.

    Attributes:
        height: rows of the input.
        width: its columns.
        channels: of the result.
        frames: of the result; None where the rehearsals were shorter than the input.
    """

    phases: tuple[PhaseNeeds, ...]
    height: int
    width: int
    channels: int
    frames: int | None = None
    operations: int = 0

    def to_json(self) -> str:
        """As text, for a cache."""
        return json.dumps(asdict(self), default=str)


def survey_from_json(text: str) -> Survey | None:
    """What ``to_json`` wrote; None for any other text."""
    try:
        read = json.loads(text)
        phases = tuple(_phase_from(each) for each in read["phases"])
        found = Survey(
            phases,
            int(read["height"]),
            int(read["width"]),
            int(read["channels"]),
            None if read["frames"] is None else int(read["frames"]),
            int(read["operations"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return found if _is_sane(found) else None


def _is_sane(found: Survey) -> bool:
    """Whether it can be of a program; a damaged text must not predict too little."""
    stages = [stage for phase in found.phases for stage in phase.stages]
    if not stages or not all(phase.stages for phase in found.phases) or found.channels < 1:
        return False
    figures = [figure for stage in stages for figure in _figures(stage)]
    figures += [phase.in_bytes_per_area for phase in found.phases]
    return all(isfinite(figure) and figure >= 0 for figure in figures) and all(
        stage.bytes_per_area > 0 and stage.align > 0 and stage.scale > 0 for stage in stages
    )


def _figures(stage: StageNeeds) -> tuple[float, ...]:
    return (
        stage.fixed_bytes,
        stage.bytes_per_area,
        stage.in_bytes_per_area,
        stage.out_bytes_per_area,
        stage.carry_bytes_per_area,
        stage.ahead_bytes_per_area,
        stage.halo,
        stage.norms,
    )


def survey(
    module: nn.Module,
    build: Callable[[Any], Program],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    workspace: Workspace,
    *,
    edges: tuple[int, int] = SMALL_EDGES,
    fused_attention: bool = False,
    check: Callable[[], None] | None = None,
) -> Survey:
    """Dry-run a program stage by stage.

    Args:
        module: the live module; a copy with fake parameters stands in for it.
        build: makes the program of that copy; called more than once.
        shape: of the input, ``[1, C, (t,) h, w]``.
        dtype: of the input.
        workspace: what kernels take beside their tensors.
        edges: of the small inputs, in pixels of the program's input.
        fused_attention: see ``Tracer``.
        check: called now and then; may raise to stop.
    """
    fake = FakeTensorMode()
    stand_in = fake_copy(module, fake)
    with fake, torch.inference_mode():
        held = [*stand_in.parameters(), *stand_in.buffers()]
        with Tracer(held, fused_attention=fused_attention, check=check) as tracer:
            ruler = Ruler(tracer, workspace)
            frames = _enough_frames(build(stand_in), shape)
            small, larger = (
                Rehearsal(build(stand_in), ruler, _resized(shape, frames, edge, edge), dtype).run()
                for edge in edges
            )
            scene = _Scene(shape, dtype, ruler, small, larger)
            program = build(stand_in)
            phases = tuple(scene.phase(index, each) for index, each in enumerate(program.phases))
    channels, made, *_ = small.made
    all_frames = made if len(shape) == PICTURE_DIMS or frames == shape[2] else None
    _check_scale(program, small)
    return Survey(phases, shape[-2], shape[-1], channels, all_frames, tracer.operations)


def _check_scale(program: Program, small: Rehearsal) -> None:
    """That the program makes as many pixels as it says."""
    told = tuple(int(edge * program.scale) for edge in small.shape[-2:])
    if small.made[2:] != told:
        message = f"it makes {small.made[2:]} pixels of {small.shape[-2:]}, not {told}"
        raise ValueError(message)


def _resized(shape: tuple[int, ...], frames: int, height: int, width: int) -> tuple[int, ...]:
    lead = shape[:2] if len(shape) == PICTURE_DIMS else (*shape[:2], frames)
    return (*lead, height, width)


def _enough_frames(program: Program, shape: tuple[int, ...]) -> int:
    """Frames from which on every chunk needs the same, or all there are."""
    if len(shape) == PICTURE_DIMS:
        return 1
    total = shape[2]
    for frames in range(1, total):
        if any(len(phase.chunks(frames)) >= STEADY_CHUNKS for phase in program.phases):
            return frames
    return total


@dataclass(frozen=True, slots=True)
class _Scene:
    """The real input, and what two rehearsals on small ones saw."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    ruler: Ruler
    small: Rehearsal
    larger: Rehearsal

    @property
    def total(self) -> int:
        """Frames of the real input."""
        return 1 if len(self.shape) == PICTURE_DIMS else self.shape[2]

    @property
    def stretch(self) -> float:
        """How many times longer it is than those of the rehearsals."""
        return 1.0 if len(self.shape) == PICTURE_DIMS else self.total / self.small.shape[2]

    def phase(self, index: int, phase: Phase) -> PhaseNeeds:
        """What both rehearsals say, and whole stages at their real size."""
        size, height, width = self.small.clips[index]
        scale_in = scale = Fraction(height, self.small.shape[-2])
        # Of a later phase the input has at least as many frames as the program's.
        chunks = len(phase.chunks(self.total))
        # A phase that takes time as it comes has all of it at once.
        at_once = self.stretch if chunks == 1 else 1.0
        stages: list[StageNeeds] = []
        for number, stage in enumerate(phase.stages):
            one, two = self.small.seen[index][number], self.larger.seen[index][number]
            if stage.whole:
                fixed, slope = 0.0, self._real_need(stage, one, scale, at_once)
            else:
                fixed, slope = _line(one, two)
                slope *= at_once
            stages.append(_needs(stage, scale, (fixed, slope), one, at_once))
            scale *= stage.scale
        single = len(phase.stages) == 1 and not phase.stages[0].whole
        per_area = size * self.stretch / (height * width)
        return PhaseNeeds(tuple(stages), single, chunks, per_area, scale_in)

    def _real_need(self, stage: Stage, seen: Seen, scale: Fraction, at_once: float) -> float:
        """Bytes for each pixel of a stage that sees everything, at the size it will see."""
        height, width = int(self.shape[-2] * scale), int(self.shape[-1] * scale)
        lengths = [
            round(each[2] * at_once) if len(each) > PICTURE_DIMS else 1 for each in seen.inputs
        ]
        carry, most, first = Carry(), 0, 0
        for each, frames in list(zip(seen.inputs, lengths, strict=True))[:STEADY_CHUNKS]:
            x = torch.empty(_resized(each, frames, height, width), dtype=self.dtype)
            place = everything(x, first, frames, sum(lengths))
            measured = self.ruler.measure(stage, x, carry, place, keep=False)[1]
            most = max(most, measured.need_bytes)
            first += frames
        return most / (height * width)


def _line(one: Seen, two: Seen) -> tuple[float, float]:
    """What a stage needs whatever the area, and for each pixel more; its input at least."""
    slope = (two.need_bytes - one.need_bytes) / (two.area - one.area)
    slope = max(slope, one.in_bytes / one.area)
    return max(0.0, one.need_bytes - slope * one.area), slope


def _needs(
    stage: Stage, scale: Fraction, line: tuple[float, float], seen: Seen, at_once: float
) -> StageNeeds:
    return StageNeeds(
        stage.name,
        stage.whole,
        stage.halo,
        stage.align,
        scale,
        stage.scale,
        *line,
        seen.in_bytes * at_once / seen.area,
        seen.out_bytes * at_once / seen.area,
        seen.carry_bytes / seen.area,
        seen.norms,
        seen.ahead_bytes * at_once / seen.area,
    )


def _stage_from(read: dict[str, Any]) -> StageNeeds:
    exact: dict[str, Any] = {key: Fraction(read[key]) for key in ("scale_in", "scale")}
    return StageNeeds(**{**read, **exact})


def _phase_from(read: dict[str, Any]) -> PhaseNeeds:
    stages = tuple(_stage_from(each) for each in read["stages"])
    return PhaseNeeds(
        stages,
        bool(read["single"]),
        int(read["chunks"]),
        float(read["in_bytes_per_area"]),
        Fraction(read["scale_in"]),
    )
