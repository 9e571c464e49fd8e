"""Chooses how to decode: whole, after evicting, in tiles, streamed, or not on this device.

Pure: everything it knows is passed in, so that a table of sentences can test it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .candidates import Candidate, Search, balanced, chunks, grows_with_time
from .objective import COMFORTABLE_TILE_PX, NOMINAL
from .plans import Planning
from .question import (
    Cut,
    KnownCosts,
    Question,
    check_shape,
    checked_room,
)
from .tiling import round_down
from .types import Abilities, CostModel, DecodeShape, PlanRequest, PlanTable, Room

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import Plan
    from .time_model import TimeModel

__all__ = ["grows_with_time", "plan_decode", "plan_table", "shrink", "smallest_need_bytes"]

_ABLE: Final = Abilities()


def plan_decode(
    shape: DecodeShape,
    cost: CostModel,
    room: Room,
    request: PlanRequest,
    abilities: Abilities = _ABLE,
    *,
    times: TimeModel | None = None,
    streamed_cost: CostModel | None = None,
) -> Plan:
    """Choose the best decode that fits.

    Args:
        shape: the latent.
        cost: predicts peaks for any part of it.
        room: the memory it may use; negative figures count as nothing.
        request: the user's wishes.
        abilities: what the executor can do.
        times: what was learned about this device's speed; None: plans are ranked by nominal
            speeds and predict no time.
        streamed_cost: predicts peaks of parts decoded through a feature cache; None: a few
            frames of ``cost`` stand for them.

    Returns:
        Whole if it fits; else what takes least time, eviction and visible joins; else
        ``kind="cpu"``, which fits only where the system is known to have that much memory.
        Sizes as given for a manual request, with ``fits`` False where they do not.

    Raises:
        LatentNotDecodableError: the latent is empty or absurdly large.
        MemoryFigureUnusableError: a figure of the room is NaN or infinite.
    """
    asked = _ask(shape, cost, request, abilities, streamed_cost)
    return Planning(asked, checked_room(room), times).best()


def plan_table(
    shape: DecodeShape,
    cost: CostModel,
    room: Room,
    request: PlanRequest,
    abilities: Abilities = _ABLE,
    *,
    times: TimeModel | None = None,
    streamed_cost: CostModel | None = None,
) -> PlanTable:
    """The best plan of each kind, what ``plan_decode`` chooses first; see there."""
    asked = _ask(shape, cost, request, abilities, streamed_cost)
    return PlanTable(Planning(asked, checked_room(room), times).ranked())


def shrink(
    plan: Plan,
    shape: DecodeShape,
    cost: CostModel,
    request: PlanRequest | None = None,
    abilities: Abilities = _ABLE,
    *,
    times: TimeModel | None = None,
    streamed_cost: CostModel | None = None,
) -> Plan | None:
    """The next smaller plan after ``plan`` ran out of memory; None when nothing is smaller.

    The prediction was wrong, so the budget is not asked again: fewer items at once, then tiles
    that halve until they are uncomfortably small, then chunks of time where time costs
    memory, then tiles to the end.
    """
    asked = _ask(shape, cost, request or PlanRequest(), abilities, streamed_cost)
    before = asked.need(_cut_of(plan, asked))
    planning = Planning(asked, Room(0), times)
    for cut in _smaller_cuts(plan, asked):
        need = asked.need(cut)
        if need < before:
            smaller = planning.plan(Candidate(cut, need), "the larger decode ran out of memory")
            return replace(smaller, fits=True)
    return None


def smallest_need_bytes(
    shape: DecodeShape,
    cost: CostModel,
    request: PlanRequest | None = None,
    abilities: Abilities = _ABLE,
) -> int:
    """What the smallest decode still needs, for saying why nothing fits."""
    asked = _ask(shape, cost, request or PlanRequest(), abilities, None)
    return Search(asked, Room(0), NOMINAL).smallest().need_bytes


def _ask(
    shape: DecodeShape,
    cost: CostModel,
    request: PlanRequest,
    abilities: Abilities,
    streamed_cost: CostModel | None,
) -> Question:
    check_shape(shape)
    costs = KnownCosts(cost, streamed_cost or cost)
    whole_clips = streamed_cost is not None
    return Question(shape, costs, request, abilities, streams_whole_clips=whole_clips)


def _smaller_cuts(plan: Plan, asked: Question) -> Iterator[Cut]:
    """Candidates below ``plan``, in the order in which they should be tried."""
    now = _cut_of(plan, asked)
    if now.batch > asked.items:
        yield asked.whole(-(-now.batch // 2))
        now = replace(now, batch=asked.items)
    half = _halved(now, asked)
    shorter = [c for c in chunks(asked) if now.chunk is None or c < now.chunk]
    if min(half.rows, half.columns) * asked.shape.spatial_scale >= COMFORTABLE_TILE_PX:
        yield half
    for chunk in () if now.streamed else shorter:
        fewer = asked.square(max(now.rows, now.columns), chunk)
        yield replace(fewer, rows=now.rows, columns=now.columns)
    yield half


def _halved(now: Cut, asked: Question) -> Cut:
    """Half the tile: of a square both edges, of a rectangle the longer one."""
    long = max(now.rows, now.columns)
    edge = max(asked.smallest, round_down(long // 2, asked.step))
    half = asked.square(edge, now.chunk, streamed=now.streamed)
    if now.rows == now.columns:
        return balanced(asked, half)
    rows, columns = (min(size, edge) if size == long else size for size in (now.rows, now.columns))
    return replace(half, rows=rows, columns=columns)


def _cut_of(plan: Plan, asked: Question) -> Cut:
    """The cut a plan stands for; a whole decode is one tile as long as the picture."""
    if plan.tile_size is None and plan.kind != "streamed":
        return asked.whole(plan.batch)
    scale = asked.shape.spatial_scale
    size = asked.longest if plan.tile_size is None else min(plan.tile_size // scale, asked.longest)
    chunk = None
    if plan.temporal_size is not None:
        chunk = plan.temporal_size // asked.shape.temporal_scale
    cut = asked.square(size, chunk, streamed=plan.kind == "streamed")
    if plan.tile_height is None or plan.tile_width is None:
        return cut
    return replace(cut, rows=plan.tile_height // scale, columns=plan.tile_width // scale)
