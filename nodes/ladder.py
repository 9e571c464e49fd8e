"""Decoding with recovery: as planned, then with models evicted, then in ever smaller tiles.

Pure but for what the executor does. A rung that ran out of memory is noted and the next is
tried; any other error and the user's interrupt pass through at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ..supervisor.planning.planner import shrink
from ..supervisor.planning.types import Abilities, PlanTable, Room
from ..supervisor.units import format_bytes
from .choosing import choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..supervisor.planning.time_model import TimeModel
    from ..supervisor.planning.types import CostModel, DecodeShape, PlanRequest
    from ..supervisor.types import Plan

_ResultT_co = TypeVar("_ResultT_co", covariant=True)
_ResultT = TypeVar("_ResultT")


class RanOut(Exception):  # noqa: N818
    """An attempt ran out of memory; its tensors are already released."""


class LadderExhausted(Exception):  # noqa: N818
    """Every rung ran out of memory."""


class Executor(Protocol[_ResultT_co]):
    """Runs attempts on the device that decodes."""

    def budget_bytes(self) -> int:
        """What a decode may add to the device now."""
        ...

    def evictable_bytes(self) -> int:
        """What evicting other models would add to that."""
        ...

    def next_use_bytes(self) -> int:
        """How much of that is needed again by what runs or waits."""
        ...

    def host_free_bytes(self) -> int | None:
        """Free system memory, None where unknown."""
        ...

    def evict(self, needed_bytes: int) -> int:
        """Free until ``needed_bytes`` may be added; returns how much was freed."""
        ...

    def ran_out(self) -> None:
        """After ``RanOut``: give unused memory back to the driver, and learn from it."""
        ...

    def exact_plan(self, room: Room, request: PlanRequest, times: TimeModel | None) -> Plan | None:
        """The best plan in parts that equal the whole, None where there is none."""
        ...

    def exact_smaller(self, plan: Plan, room: Room, request: PlanRequest) -> Plan | None:
        """After such a plan ran out of memory for good: one that needs less, if any."""
        ...

    def on_cpu(self, plan: Plan) -> Plan | None:
        """What is left of such a plan, on the CPU; None where it is there already."""
        ...

    def is_exact(self, plan: Plan) -> bool:
        """Whether it is such a plan."""
        ...

    def check_interrupt(self) -> None:
        """Raise the host's interrupt if the user asked for one."""
        ...

    def run(self, plan: Plan) -> _ResultT_co:
        """Decode as planned.

        Raises:
            RanOut: the device ran out of memory.
        """
        ...


@dataclass(frozen=True)
class Question:
    """What is to be decoded, and what was wished for.

    Attributes:
        exact_need: asks closely what a plan needs; None: ``cost`` is as good as it gets.
        times: how long decodes take here, None where unknown.
        in_parts: parts are wanted even where the whole fits: they leave as they are done, and
            system memory never holds all of them.
    """

    shape: DecodeShape
    cost: CostModel
    request: PlanRequest
    temporal_tiling: bool
    exact_need: Callable[[Plan], int] | None = None
    times: TimeModel | None = None
    in_parts: bool = False

    @property
    def abilities(self) -> Abilities:
        """The host's own tiled decode."""
        return Abilities.of_host(
            video=self.shape.frames is not None, carves_time=self.temporal_tiling
        )


@dataclass
class Record:
    """What happened, for the report. Filled as the ladder is climbed, kept when it fails.

    Attributes:
        budget_bytes: what a decode could add when the last attempt began.
        free_bytes: what was free before anything was done.
        tried: one line for each thing done, in order.
        table: the ways that were weighed, the first choice among them.
        plan: the plan in hand; at the end, the one that worked.
    """

    budget_bytes: int | None = None
    free_bytes: int | None = None
    table: PlanTable | None = None
    plan: Plan | None = None
    tried: list[str] = field(default_factory=list)


@dataclass
class Ladder(Generic[_ResultT]):
    """One climb."""

    executor: Executor[_ResultT]
    question: Question
    record: Record
    _evicted_all: bool = False
    """Whether everything evictable was evicted after an OOM; a partial eviction does not count."""

    def climb(self) -> _ResultT:
        """Decode, whatever it takes.

        Raises:
            LadderExhausted: nothing smaller is left; ``record.tried`` says what was done.
        """
        if self.question.request.cleanup_before_decode:
            self._clean_up()
        self.record.budget_bytes = self.executor.budget_bytes()
        plan: Plan | None = self._first_plan(self.record.budget_bytes)
        while plan is not None:
            self.executor.check_interrupt()
            plan = self._made_room(plan)
            self.record.plan = plan
            self.record.budget_bytes = self.executor.budget_bytes()
            try:
                result = self.executor.run(plan)
            except RanOut:
                self.record.tried.append(f"{_name(plan)}: ran out of memory")
            else:
                self.record.tried.append(f"{_name(plan)}: done")
                return result
            self.executor.ran_out()
            plan = self._next(plan)
        raise LadderExhausted

    def _clean_up(self) -> None:
        """Only what is in the way: models the queue may need again stay if there is room."""
        shape = self.question.shape
        need = self.question.cost.need_bytes(shape.batch, shape.frames, shape.height, shape.width)
        freed = self.executor.evict(need)
        self.record.tried.append(f"cleaned up before the decode: {format_bytes(freed)} freed")

    def _first_plan(self, budget_bytes: int) -> Plan:
        asked = self.question
        room = self._room(budget_bytes)
        table = self.record.table = choose(
            asked.shape,
            asked.cost,
            room,
            asked.request,
            asked.abilities,
            exact_need=asked.exact_need,
            times=asked.times,
        )
        if table.best.kind in {"whole", "evict"} and not asked.in_parts:
            return table.best
        exact = self.executor.exact_plan(room, asked.request, asked.times)
        if exact is not None:
            table = self.record.table = PlanTable((*table.plans, exact), len(table.plans))
        if table.best.kind != "cpu":
            return table.best
        whole = next((plan for plan in table.plans if plan.kind == "whole"), table.best)
        return self._smallest(table.best, whole)

    def _room(self, budget_bytes: int) -> Room:
        return Room(
            budget_bytes,
            self.executor.evictable_bytes(),
            self.executor.next_use_bytes(),
            host_bytes=self.executor.host_free_bytes(),
        )

    def _smallest(self, hopeless: Plan, whole: Plan) -> Plan:
        """Predictions err: the smallest tiles are tried even where they should not fit."""
        plan, smaller = hopeless, self._shrunk(hopeless)
        while smaller is not None:
            plan, smaller = smaller, self._shrunk(smaller)
        if plan is hopeless:
            warning = "nothing is predicted to fit: the whole decode is tried all the same"
            reason = f"whole, since it cannot be cut up any smaller; {hopeless.reason}"
            return replace(whole, kind="whole", reason=reason, warnings=(warning,), fits=False)
        warning = "nothing is predicted to fit: the smallest tiles are tried all the same"
        reason = f"the smallest tiles, since nothing is predicted to fit; {hopeless.reason}"
        return replace(plan, fits=False, reason=reason, warnings=(*plan.warnings, warning))

    def _made_room(self, plan: Plan) -> Plan:
        """Evict before an attempt that needs more than is free; the plan then says so."""
        needed, free = plan.predicted_peak_bytes, self.executor.budget_bytes()
        if needed > free and self.executor.evictable_bytes() > 0:
            self._evict(needed)
            return replace(plan, kind="evict") if plan.kind == "whole" else plan
        return plan

    def _evict(self, needed_bytes: int) -> None:
        freed = self.executor.evict(needed_bytes)
        self.record.tried.append(f"evicted other models: {format_bytes(freed)} freed")

    def _next(self, failed: Plan) -> Plan | None:
        """After any plan ran out: evict everything and retry it once, then go smaller.

        The prediction was wrong, so it cannot tell how much room would have been enough.
        """
        evictable = self.executor.evictable_bytes()
        if evictable > 0 and not self._evicted_all and failed.kind != "cpu":
            self._evicted_all = True
            self._evict(self.executor.budget_bytes() + evictable)
            kind = "evict" if failed.kind == "whole" else failed.kind
            return replace(failed, kind=kind, reason=f"{failed.reason}; retried after evicting")
        if self.executor.is_exact(failed):
            return self._in_parts(failed) or self.executor.on_cpu(failed)
        return self._in_parts(failed) or self._shrunk(failed)

    def _in_parts(self, failed: Plan) -> Plan | None:
        """Smaller parts that equal the whole; the first ones where the whole has failed."""
        asked, executor = self.question, self.executor
        room = self._room(executor.budget_bytes())
        if failed.kind == "cpu":
            return None
        if executor.is_exact(failed):
            return executor.exact_smaller(failed, room, asked.request)
        if failed.kind in {"whole", "evict"}:
            return executor.exact_plan(room, asked.request, asked.times)
        return None

    def _shrunk(self, plan: Plan) -> Plan | None:
        """Asked twice before giving up: a decoder may turn out not to be dry-runnable half-way,
        and figures of two kinds do not compare. The second time all are of one kind."""
        asked = self.question
        for _ in range(2):
            smaller = shrink(plan, asked.shape, asked.cost, asked.request, asked.abilities)
            if smaller is not None:
                return smaller
        return None


def _name(plan: Plan) -> str:
    if plan.kind == "cpu":
        return "the remaining parts on the CPU"
    if plan.tile_size is None:
        return "whole, after evicting" if plan.kind == "evict" else "whole"
    if plan.temporal_size is None:
        return f"tiles of {plan.tile_size} px"
    return f"tiles of {plan.tile_size} px, {plan.temporal_size} frames at a time"
