"""Parts of a stage: what each owns, what it looks at, and how they are cut. Pure geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from .tiles import Rect

if TYPE_CHECKING:
    from torch import Tensor

    from .program import Stage

Axis: TypeAlias = Literal["rows", "columns"]


@dataclass(slots=True)
class Part:
    """One part of a stage: what it owns, and what it looks at."""

    owned: Rect
    context: Rect


def part_of(stage: Stage, owned: Rect, height: int, width: int) -> Part:
    """A part of an input of this size, with its halo, at the steps the stage wants."""
    if stage.whole:
        return Part(owned, owned)
    grown = owned.grown(stage.halo, height, width)
    step = stage.align
    context = Rect(
        grown.top // step * step,
        min(height, -(-grown.bottom // step) * step),
        grown.left // step * step,
        min(width, -(-grown.right // step) * step),
    )
    return Part(owned, context)


def scaled(rect: Rect, stage: Stage) -> Rect:
    """A rectangle of the input as one of the output."""
    scale = stage.scale
    return Rect(
        int(rect.top * scale),
        int(rect.bottom * scale),
        int(rect.left * scale),
        int(rect.right * scale),
    )


def owned_of(made: Tensor, part: Part, stage: Stage) -> Tensor:
    """The owned rectangle of a part's result."""
    inside = scaled(part.owned, stage).relative_to(scaled(part.context, stage))
    return made[..., inside.top : inside.bottom, inside.left : inside.right]


def cut_along(extent: int, size: int, step: int) -> list[tuple[int, int]]:
    """Stretches of ``size`` beginning at multiples of ``step``; a rest smaller than a step, of
    which no whole pixel would become, goes with the last of them."""
    size = max(step, size // step * step)
    starts = list(range(0, extent, size))
    if len(starts) > 1 and extent - starts[-1] < step:
        starts.pop()
    return list(zip(starts, [*starts[1:], extent], strict=True))


def halved(rect: Rect, step: int, axis: Axis | None = None) -> tuple[Rect, Rect] | None:
    """Two halves, across the longer side where no axis is given; None for the smallest."""
    rows = rect.height >= rect.width if axis is None else axis == "rows"
    half = (rect.height if rows else rect.width) // 2 // step * step
    if half == 0:
        return None
    if rows:
        middle = rect.top + half
        return replace(rect, bottom=middle), replace(rect, top=middle)
    middle = rect.left + half
    return replace(rect, right=middle), replace(rect, left=middle)


def size_text(rect: Rect) -> str:
    """For reports and errors."""
    return f"{rect.width}x{rect.height} at ({rect.left}, {rect.top})"
