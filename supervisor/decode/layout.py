"""How large the parts of each stage are, and what waits where, for a given budget. Pure.

The budget is shared by what runs (a part with its halo) and by what waits (results between two
stages, causal state). Large parts recompute less at their borders; more waiting on the device
moves less to the host and back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Final

from .layout_bands import banded
from .layout_common import PhaseLayout, Question, weight_of
from .layout_tiles import tiled

if TYPE_CHECKING:
    from .survey import Survey

WAITING_SHARES: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.45, 0.3, 0.15, 0.0)
"""Parts of the budget tried as the limit for what waits on the device."""
MOVED_WEIGHT: Final = 0.35
"""Moving a byte to the host and back, against making it: transfers run beside the kernels."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to run a program. Bytes.

    Attributes:
        parts: rows and columns that a part owns, by phase and stage, in pixels of its input.
        resident_bytes: what may wait on the device.
        carried_bytes: what of that may wait for the next chunk of time.
        peak_bytes: predicted for the device; what was held before is not in it.
        moved_bytes: to the host and back.
        host_bytes: most that waits in the host's memory.
        overhead: work of all parts and passes over work of the whole.
        pieces: parts that are run, passes and chunks counted.
    """

    parts: dict[tuple[int, int], tuple[int, int]]
    resident_bytes: int
    peak_bytes: int
    moved_bytes: int = 0
    host_bytes: int = 0
    overhead: float = 1.0
    pieces: int = 1
    carried_bytes: int = 1 << 60

    @property
    def largest(self) -> tuple[int, int]:
        """Rows and columns of the last stage's parts: what the report shows."""
        return self.parts[max(self.parts)]


def lay_out(
    survey: Survey, budget_bytes: int, host_bytes: int | None = None, *, fixed: int | None = None
) -> Layout | None:
    """The best way within a budget; None where not even the smallest parts fit.

    Args:
        survey: what the stages need.
        budget_bytes: what may be added to the device.
        host_bytes: system memory that results may wait in; None: any.
        fixed: edge that parts own where the user asked for one, in pixels of the program's
            input; parts are smaller where that does not fit.
    """
    whole = sum(weight_of(survey, stage) for phase in survey.phases for stage in phase.stages)
    best: tuple[float, Layout] | None = None
    for share in WAITING_SHARES:
        resident = int(budget_bytes * share)
        layout = _laid_out(Question(survey, budget_bytes, resident, fixed), whole)
        if layout is None or (host_bytes is not None and layout.host_bytes > host_bytes):
            continue
        cost = layout.overhead * whole + layout.moved_bytes * MOVED_WEIGHT
        if best is None or cost < best[0]:
            best = (cost, layout)
    return None if best is None else best[1]


def _laid_out(question: Question, whole: float) -> Layout | None:
    """The layout with one limit for what waits on the device."""
    found: list[PhaseLayout] = []
    for number, phase in enumerate(question.survey.phases):
        laid = (tiled if phase.single else banded)(question, number)
        if laid is None:
            return None
        found.append(laid)
    return Layout(
        {
            (number, index): size
            for number, each in enumerate(found)
            for index, size in enumerate(each.parts)
        },
        question.resident_bytes,
        ceil(max(each.peak_bytes for each in found)),
        int(sum(each.moved_bytes for each in found)),
        ceil(max(each.host_bytes for each in found)),
        sum(each.work for each in found) / whole,
        sum(each.pieces for each in found),
        int(min(each.carried_bytes for each in found)),
    )


def least_bytes(survey: Survey) -> int:
    """A budget that suffices, for advice; within 3 %."""
    low, high = 1, 1 << 44
    while high > low * 1.03 + 1:
        middle = int((low * high) ** 0.5)
        low, high = (low, middle) if lay_out(survey, middle) else (middle, high)
    return high


def with_halo(survey: Survey, share: float) -> Survey:
    """The same with halos of tiles cut to a share of themselves."""
    return replace(
        survey,
        phases=tuple(
            replace(
                phase,
                stages=tuple(replace(s, halo=ceil(s.halo * share)) for s in phase.stages),
            )
            if phase.single
            else phase
            for phase in survey.phases
        ),
    )
