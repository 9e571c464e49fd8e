"""Chooses a plan and asks closely whether it fits before it is followed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..supervisor.planning.planner import plan_decode, plan_table
from ..supervisor.planning.types import PlanTable
from ..supervisor.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..supervisor.planning.time_model import TimeModel
    from ..supervisor.planning.types import Abilities, CostModel, DecodeShape, PlanRequest, Room
    from ..supervisor.types import Plan

ATTEMPTS: Final = 4
"""Once, and at most three times again after a plan proved to need more than it seemed."""


def choose(
    shape: DecodeShape,
    cost: CostModel,
    room: Room,
    request: PlanRequest,
    abilities: Abilities,
    *,
    exact_need: Callable[[Plan], int] | None = None,
    times: TimeModel | None = None,
) -> PlanTable:
    """The ways to decode with the one to follow first.

    Where the whole decode fits, or sizes are given by hand, no others are weighed: each would
    cost dry runs that nobody needs.

    Args:
        exact_need: what a plan needs, asked more closely than ``cost`` was; what it finds out
            is expected to show in ``cost`` afterwards.
    """
    table = _weighed(shape, cost, room, request, abilities, times)
    for attempt in range(ATTEMPTS):
        if exact_need is None or table.best.kind == "cpu":
            return table
        need = exact_need(table.best)
        fits = need <= max(table.best.predicted_peak_bytes, room.most_bytes)
        if fits or request.manual or attempt == ATTEMPTS - 1:
            return _with_need(table, need, room)
        table = _weighed(shape, cost, room, request, abilities, times)
    return table


def _weighed(
    shape: DecodeShape,
    cost: CostModel,
    room: Room,
    request: PlanRequest,
    abilities: Abilities,
    times: TimeModel | None,
) -> PlanTable:
    best = plan_decode(shape, cost, room, request, abilities, times=times)
    if best.kind == "whole" or request.manual:
        return PlanTable((best,))
    return plan_table(shape, cost, room, request, abilities, times=times)


def _with_need(table: PlanTable, need_bytes: int, room: Room) -> PlanTable:
    """The plan to follow with the need that was asked closely, and what that means."""
    best, plans = table.best, list(table.plans)
    if need_bytes == best.predicted_peak_bytes:
        return table
    evict_bytes = room.evict_bytes(need_bytes) if room.evictable_bytes > 0 else 0
    whole = "evict" if evict_bytes else "whole"
    told = f"asked closely it needs {format_bytes(need_bytes)}"
    plans[table.chosen] = replace(
        best,
        kind=whole if best.kind in {"whole", "evict"} else best.kind,
        predicted_peak_bytes=need_bytes,
        fits=need_bytes <= room.most_bytes,
        evict_bytes=min(evict_bytes, room.evictable_bytes),
        reason=f"{best.reason}; {told}",
    )
    return PlanTable(tuple(plans), table.chosen)
