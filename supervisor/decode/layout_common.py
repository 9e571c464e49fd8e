"""What layouts of tiles and of bands share: the question, the answer, and geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .survey import StageNeeds, Survey


@dataclass(frozen=True, slots=True)
class Question:
    """One limit for what waits, to be answered phase by phase. Bytes.

    Attributes:
        budget_bytes: what may be added to the device.
        resident_bytes: how much of it may wait there.
        fixed: edge that parts own where the user asked for one, in pixels of the program's
            input.
    """

    survey: Survey
    budget_bytes: int
    resident_bytes: int
    fixed: int | None = None

    def source_bytes(self, number: int) -> float:
        """What a phase reads, all of it."""
        phase = self.survey.phases[number]
        height, width = extent_of(self.survey, phase.stages[0])
        return phase.in_bytes_per_area * height * width

    def held_bytes(self, number: int) -> float:
        """That, and the program's own input, which whoever began the run holds."""
        return self.source_bytes(number) + (self.source_bytes(0) if number else 0.0)

    def result_bytes(self, number: int) -> float:
        """What a phase collects on the device for the next one."""
        last = number == len(self.survey.phases) - 1
        return 0.0 if last else self.source_bytes(number + 1)


@dataclass(frozen=True, slots=True)
class PhaseLayout:
    """One phase. See ``Layout``; ``work`` is that of all parts, in the survey's weights."""

    parts: tuple[tuple[int, int], ...]
    peak_bytes: float
    moved_bytes: float
    host_bytes: float
    work: float
    pieces: int
    carried_bytes: float = float(1 << 60)


def extent_of(survey: Survey, stage: StageNeeds) -> tuple[int, int]:
    """Rows and columns of a stage's input."""
    # In whole numbers: layouts ask this many thousand times, and fractions are slow.
    up, down = stage.scale_in.numerator, stage.scale_in.denominator
    return survey.height * up // down, survey.width * up // down


def weight_of(survey: Survey, stage: StageNeeds) -> float:
    """How much of the work a stage is: bytes it makes and reads."""
    height, width = extent_of(survey, stage)
    return stage.bytes_per_area * height * width


def reach(stage: StageNeeds) -> int:
    """How far a part looks on each side: its halo, at the steps it wants."""
    return multiple(stage.halo, stage.align)


def multiple(value: int, step: int) -> int:
    """Rounded up."""
    return -(-value // step) * step
