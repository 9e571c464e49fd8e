"""How high the bands of a phase of several stages are, and what waits between them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final

from .layout_common import PhaseLayout, extent_of, reach, weight_of
from .parking import LEAVING_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .layout_common import Question
    from .survey import PhaseNeeds, StageNeeds, Survey

PASS_WEIGHT: Final = 0.4
"""A pass that only observes does about so much of a stage."""


CUTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 1 << 20)
"""Into how many bands the picture is cut at least, tried in turn."""


ROUNDS: Final = 4
"""In which sizes and the state that is kept for them are made to agree."""


@dataclass(frozen=True, slots=True)
class _Cost:
    """One stage in bands of one size. Bytes."""

    peak: float
    parked: float
    parts: int


@dataclass(frozen=True, slots=True)
class _Step:
    """One stage between the ones before and after it.

    Attributes:
        extent: of its input along the axis that is cut.
        cross: along the other one.
        before: extent of the bands its input lies in.
        held: bytes of the phase's input, where it waits whatever is done.
        carries: bytes of causal state.
        carried: how much of that may stay on the device.
        collected: bytes that the phase made for the next one, which are on the device.
        source: bytes of the program's input, which are there all the time.
        shares: its input is that very tensor.
        last: nothing of the phase comes after it.
    """

    stage: StageNeeds
    extent: int
    cross: int
    before: int
    held: float
    carries: float
    carried: float
    collected: float
    source: float
    shares: bool
    last: bool

    @property
    def in_bytes(self) -> float:
        """Its input, all of it."""
        return self.stage.in_bytes_per_area * self.extent * self.cross

    @property
    def out_bytes(self) -> float:
        """What of its result waits for the next stage."""
        return 0.0 if self.last else self.stage.out_bytes_per_area * self.extent * self.cross

    @property
    def always(self) -> float:
        """What waits whatever is done, and may be parked."""
        return self.held + self.carries

    @property
    def one_band(self) -> bool:
        """Whether its input lies in one piece, which can only be let go at the end."""
        return self.before >= self.extent

    def cost(self, size: int, resident: int) -> _Cost:
        """In bands of ``size``."""
        parts, largest = _cut(self.extent, size, self.stage.align)
        own = self._own_carry(size)
        waits = self._waits(size, parts)
        # Its own state counts as what runs.
        stays = waits - max(0.0, self.carries - self.carried) - min(own, self.carries, self.carried)
        # A piece read as it lies counts as what runs, but as what may be parked too.
        lies = self.in_bytes if parts == 1 and self.one_band else 0.0
        parked = max(0.0, waits + lies - resident, self.carries - self.carried)
        near = self._near(size) if waits + lies > resident and not lies else 0.0
        # State that is fetched for the next part while this one runs.
        near += own if parked > 0 else 0.0
        near += LEAVING_BYTES if parked > 0 else 0.0
        running = self._running(largest, parts)
        aside = self._collected(size) + self._source(parked, resident)
        return _Cost(aside + min(resident, stays) + near + running, parked, parts)

    def _own_carry(self, size: int) -> float:
        """State of the largest part, which is kept with its halo."""
        rows = min(self.extent, size + 2 * reach(self.stage))
        return self.stage.carry_bytes_per_area * rows * self.cross if self.carries else 0.0

    def _source(self, parked: float, resident: int) -> float:
        """The program's input beside what runs and waits."""
        # It is counted twice before it is known that the input of the stage is the very same.
        there = self.shares and parked <= 0 and 2 * self.in_bytes <= resident
        return 0.0 if there else self.source

    def moved_bytes(self, cost: _Cost, passes: int) -> float:
        """To the host and back in one chunk of time. What time carries on is parked first, and
        moves where its own stage runs only."""
        aside = min(cost.parked, max(0.0, self.carries - self.carried))
        own = self.stage.carry_bytes_per_area * self.extent * self.cross
        state = own * aside / self.carries if self.carries else 0.0
        return (cost.parked - aside + state) * (2 + passes)

    def _collected(self, size: int) -> float:
        """What was made before the part at hand, whose result is among what runs."""
        own = self.stage.out_bytes_per_area * size * self.cross if self.last else 0.0
        return max(0.0, self.collected - own)

    def _waits(self, size: int, parts: int) -> float:
        if parts == 1:
            return self.always + (0.0 if self.one_band else self.in_bytes)
        if self.one_band:
            return self.always + self.in_bytes + self.out_bytes
        # Bands that are done with are let go of one by one, bands that are made come in.
        rows = min(self.extent, self.before + size + reach(self.stage))
        slack = rows * self.cross * self.stage.in_bytes_per_area
        return self.always + min(max(self.in_bytes, self.out_bytes) + slack, self._both())

    def _both(self) -> float:
        return self.in_bytes + self.out_bytes

    def _near(self, size: int) -> float:
        """Parked bands brought back: what is read now, and what is fetched for the next part."""
        rows = 2 * (size + self.before + reach(self.stage))
        return min(self.extent, rows) * self.cross * self.stage.in_bytes_per_area

    def _running(self, size: int, parts: int) -> float:
        """Of the largest part: its work, its result put together, a glance at the next stage."""
        stage = self.stage
        context = min(self.extent, size + 2 * reach(stage)) * self.cross
        work = stage.work_bytes(context)
        joined = 2 * stage.out_bytes_per_area * context
        ahead = 0.0 if self.last else stage.ahead_bytes_per_area * size * self.cross
        # At hand still while the result is looked at: all of an input in one piece, and state,
        # where time goes on what was remembered before too.
        held = self.in_bytes if parts == 1 and self.one_band else 0.0
        held += (2 if self.carries else 1) * stage.carry_bytes_per_area * context
        return max(work, joined + held, ahead + held)


def banded(question: Question, number: int) -> PhaseLayout | None:
    """Bands as high as fit, stage by stage.

    High bands of one stage are what the next must bring back: where it could not, all are cut
    to shares of the picture.
    """
    for cut in CUTS:
        carries = _carries(question, number, None)
        for _ in range(ROUNDS):
            sizes = _sizes(question, number, cut, carries)
            if sizes is None:
                break
            # State is kept with its halo, so it is the larger the smaller the bands are.
            carries = _carries(question, number, sizes)
            found = _costed(question, number, sizes, carries)
            if found.peak_bytes <= question.budget_bytes:
                return found
    return None


def _sizes(question: Question, number: int, cut: int, carries: float) -> list[int] | None:
    """Of each stage's bands; None where one does not fit."""
    sizes: list[int] = []
    for step in _steps(question, number, sizes, carries):
        size = _size(step, question, cut)
        if size is None:
            return None
        sizes.append(size)
    return sizes


def _costed(question: Question, number: int, sizes: Sequence[int], carries: float) -> PhaseLayout:
    survey, phase = question.survey, question.survey.phases[number]
    resident = question.resident_bytes
    parts: list[tuple[int, int]] = []
    peak = moved = host = work = 0.0
    pieces, joins = 0, False
    for step, size in zip(_steps(question, number, sizes, carries), sizes, strict=True):
        stage, cost = step.stage, step.cost(size, resident)
        passes = stage.norms if cost.parts > 1 else 0
        context = min(step.extent, size + 2 * reach(stage)) / min(step.extent, size)
        stretch = 1.0 if cost.parts == 1 else context
        work += weight_of(survey, stage) * stretch * (1 + PASS_WEIGHT * passes)
        moved += step.moved_bytes(cost, passes) * phase.chunks
        host, peak = max(host, cost.parked), max(peak, cost.peak)
        pieces += cost.parts * (1 + passes) * phase.chunks
        parts.append((size, step.cross) if _is_taller(survey) else (step.cross, size))
        joins = cost.parts > 1
    peak = max(peak, _joined(question, number) if joins else 0.0)
    carried = _carried(question, number, phase)
    return PhaseLayout(tuple(parts), peak, moved, host, work, pieces, carried)


def _joined(question: Question, number: int) -> float:
    """What a phase made, in parts and put together."""
    result = question.result_bytes(number)
    return question.held_bytes(number) + 2 * result if result else 0.0


def _is_taller(survey: Survey) -> bool:
    """Bands lie across the longer side."""
    return survey.height >= survey.width


def _along(survey: Survey, stage: StageNeeds) -> tuple[int, int]:
    """Extents of a stage's input along the axis that is cut, and along the other."""
    height, width = extent_of(survey, stage)
    return (height, width) if _is_taller(survey) else (width, height)


def _steps(
    question: Question, number: int, sizes: Sequence[int], carries: float
) -> Iterator[_Step]:
    """Stage by stage; what a stage follows is looked up in ``sizes`` when it is asked for."""
    stages = question.survey.phases[number].stages
    for index in range(len(stages)):
        before = ceil(sizes[index - 1] * stages[index - 1].scale) if index else None
        yield _step(question, number, index, before, carries)


def _step(question: Question, number: int, index: int, before: int | None, carries: float) -> _Step:
    survey = question.survey
    phase = survey.phases[number]
    stage = phase.stages[index]
    extent, cross = _along(survey, stage)
    last = index == len(phase.stages) - 1
    collects = last or phase.chunks > 1
    collected = question.result_bytes(number) if collects else 0.0
    before = extent if before is None else before
    return _Step(
        stage,
        extent,
        cross,
        before,
        held=_held(question, number, phase),
        carries=carries,
        carried=_carried(question, number, phase),
        collected=collected,
        # Whoever began the run holds its input.
        source=question.source_bytes(0),
        shares=number == 0 and index == 0 and phase.chunks == 1,
        last=last,
    )


def _cut(extent: int, size: int, step: int) -> tuple[int, int]:
    """How many parts ``cut_along`` makes, and the largest of them."""
    if size >= extent:
        return 1, extent
    parts, rest = divmod(extent, size)
    # A rest smaller than a step goes with the last part.
    return (parts + 1, size) if rest >= step else (parts, size + rest)


def carried_limit(resident: float, held: float, waiting: float) -> float:
    """How much causal state may stay on the device beside what is needed sooner."""
    return max(0.0, resident - held - waiting)


def _held(question: Question, number: int, phase: PhaseNeeds) -> float:
    """The phase's input, which waits all through it where time is cut."""
    return question.source_bytes(number) if phase.chunks > 1 and number > 0 else 0.0


def _carries(question: Question, number: int, sizes: Sequence[int] | None) -> float:
    """Causal state, where time is cut, of bands of these sizes; None: of uncut stages."""
    phase = question.survey.phases[number]
    if phase.chunks == 1:
        return 0.0
    held = 0.0
    for index, stage in enumerate(phase.stages):
        extent, cross = _along(question.survey, stage)
        parts = 1 if sizes is None else _cut(extent, sizes[index], stage.align)[0]
        rows = extent + 2 * reach(stage) * (parts - 1)
        held += stage.carry_bytes_per_area * rows * cross
    return held


def _carried(question: Question, number: int, phase: PhaseNeeds) -> float:
    """The limit for causal state that leaves room for the largest result between stages."""
    waiting = 0.0
    for stage in phase.stages:
        rows, columns = extent_of(question.survey, stage)
        per_area = max(stage.in_bytes_per_area, stage.out_bytes_per_area)
        waiting = max(waiting, per_area * rows * columns)
    return carried_limit(question.resident_bytes, _held(question, number, phase), waiting)


def _size(step: _Step, question: Question, cut: int) -> int | None:
    """The largest that fits, at most what the user asked for and a share of the picture."""
    stage, extent = step.stage, step.extent
    most = extent if stage.whole else _asked(step, question.fixed)
    if cut > 1 and not stage.whole:
        most = min(most, max(stage.align, extent // cut))

    def fits(size: int) -> bool:
        return step.cost(size, question.resident_bytes).peak <= question.budget_bytes

    if most >= extent and fits(extent):
        return extent
    if stage.whole:
        return None
    low, high = 0, min(most, extent - 1) // stage.align
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * stage.align) else (low, middle - 1)
    return low * stage.align or None


def _asked(step: _Step, fixed: int | None) -> int:
    """What a band owns when ``fixed`` was asked for."""
    stage = step.stage
    if fixed is None or int(fixed * stage.scale_in) >= step.extent:
        return step.extent
    return max(stage.align, int(fixed * stage.scale_in) // stage.align * stage.align)
