"""How large the tiles of a phase of one stage are. Pure."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Final

from .layout_common import PhaseLayout, extent_of, multiple, reach, weight_of
from .parts import cut_along

if TYPE_CHECKING:
    from .layout_common import Question
    from .survey import StageNeeds

MANY_TILES: Final = 64
"""Tiles along one axis beyond which no finer cut is tried."""


def tiled(question: Question, number: int) -> PhaseLayout | None:
    """Tiles as large as fit beside what the phase reads and what it makes for the next one.

    A tile is read out of the whole input, which therefore is on the device, now and then at
    least: letting it wait elsewhere saves nothing.
    """
    phase = question.survey.phases[number]
    (stage,) = phase.stages
    height, width = extent_of(question.survey, stage)
    source, result = question.source_bytes(number), question.result_bytes(number)
    held = question.held_bytes(number)
    area = _area(stage, question.budget_bytes - held - result)
    size = _tile(stage, height, width, area)
    if size is None:
        return None
    if question.fixed is not None:
        size = _asked(stage, question.fixed, height, width, size)
    contexts = _contexts(stage, height, width, *size)
    joins = held + 2 * result if result and len(contexts) > 1 else 0.0
    if joins > question.budget_bytes:
        return None
    parked = source if source > question.resident_bytes else 0.0
    return PhaseLayout(
        (size,),
        max(held + result + stage.work_bytes(max(contexts)), joins),
        parked * (1 + len(contexts)),
        parked,
        weight_of(question.survey, stage) * sum(contexts) / (height * width),
        len(contexts) * phase.chunks,
    )


def _area(stage: StageNeeds, budget: float) -> int:
    """Of the largest tile with its halo."""
    left = budget - stage.fixed_bytes
    return 0 if left <= 0 else int(left / stage.bytes_per_area)


@lru_cache(maxsize=64)
def _tile(stage: StageNeeds, height: int, width: int, area: int) -> tuple[int, int] | None:
    """Own rows and columns of tiles whose contexts are at most ``area``, with the least work.

    Tiles are as large as the budget allows, not as even as possible: what is left over makes
    the last ones smaller.
    """
    best: tuple[int, tuple[int, int]] | None = None
    for across in range(1, MANY_TILES + 1):
        columns = multiple(ceil(width / across), stage.align)
        rows = _longest(stage, area // _most(stage, width, columns), height)
        if rows is None:
            continue
        columns = max(columns, _longest(stage, area // _most(stage, height, rows), width) or 0)
        work = sum(_contexts(stage, height, width, rows, columns))
        if best is None or work < best[0]:
            best = (work, (rows, columns))
        if columns <= stage.align:
            break
    return None if best is None else best[1]


def _longest(stage: StageNeeds, most: int, extent: int) -> int | None:
    """What a tile may own along an axis to look at no more than ``most``; None for nothing."""
    if most >= extent:
        return multiple(extent, stage.align)
    size = (most - 2 * reach(stage)) // stage.align * stage.align
    # The last tile of an axis may be longer, by less than a step.
    while size > 0 and _most(stage, extent, size) > most:
        size -= stage.align
    return size if size > 0 else None


def _most(stage: StageNeeds, extent: int, size: int) -> int:
    """The most that any tile looks at along an axis."""
    return max(_looks(stage, extent, size))


def _looks(stage: StageNeeds, extent: int, size: int) -> list[int]:
    """How far each tile along an axis looks, halo and steps included."""
    step, halo = stage.align, stage.halo
    return [
        min(extent, multiple(min(extent, stop + halo), step)) - max(0, start - halo) // step * step
        for start, stop in cut_along(extent, size, step)
    ]


def _contexts(stage: StageNeeds, height: int, width: int, rows: int, columns: int) -> list[int]:
    """Area of each tile with its halo."""
    sides = _looks(stage, width, columns)
    return [down * side for down in _looks(stage, height, rows) for side in sides]


def _asked(
    stage: StageNeeds, edge: int, height: int, width: int, fits: tuple[int, int]
) -> tuple[int, int]:
    """What a tile owns when ``edge`` was asked for, or what fits where that is less."""
    seen = int(edge * stage.scale_in)
    inner = max(stage.align, seen // stage.align * stage.align)
    rows = multiple(height, stage.align) if seen >= height else inner
    columns = multiple(width, stage.align) if seen >= width else inner
    return min(rows, fits[0]), min(columns, fits[1])
