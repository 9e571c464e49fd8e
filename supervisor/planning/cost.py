"""Cost models that need no model loaded: a family's table of dry runs, and scaled formulas."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal, TypeAlias

from .calibration import DEFAULT_POLICY
from .types import DecodeShape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..types import DecodeContext
    from .time_model import TimeModel

Growth: TypeAlias = Literal["none", "flat", "linear"]
"""With time: only the output grows; the need is flat after a few frames; it is linear."""


@dataclass(frozen=True, slots=True)
class FamilyCost:
    """What one VAE family needs, as a CostModel over latent sizes.

    Between the dry runs of the table the need is interpolated, which for the largest of
    several steps that grow in proportion errs upwards. Decoders that choose chunks by the size
    bend that rule: ``table_ratio`` covers what was found between the points. Beyond its ends
    the need goes on in proportion or, through time where only the output grows, straight.

    Attributes:
        areas: latent height times width of the table's columns, growing.
        frames: latent frames of its rows, growing; one row, (1,), for images.
        base_bytes: tensors and workspace by dry run, one row for each of ``frames``; neither
            falls along a row nor along a column.
        table_ratio: the largest dry run over the interpolated value at sizes between.
        ratio: the largest measured over base, with a margin.
        small_bytes: always added, for the allocator's granularity.
        time: how long decodes take; measured on one kind of GPU, so a first guess elsewhere.
        measured: whether a measured decode stands behind ``ratio``.
        source: where the figures come from, for the notes.
        architectures: hashes of the decoders this is for.
        tiles_itself: it cuts space and time by itself, whatever sizes it is asked for.
        other_versions: further decoders of the family; the hungriest at a size counts.
    """

    family: str
    title: str
    channels: int
    spatial_scale: int
    temporal_scale: int
    growth: Growth
    video: bool
    areas: tuple[int, ...]
    frames: tuple[int, ...]
    base_bytes: tuple[tuple[int, ...], ...]
    ratio: float
    measured: bool
    source: str
    time: TimeModel
    architectures: tuple[str, ...] = ()
    small_bytes: int = DEFAULT_POLICY.small_bytes
    other_versions: tuple[FamilyCost, ...] = ()
    table_ratio: float = 1.0
    tiles_itself: bool = False

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Predicted peak of decoding this latent at once, in bytes."""
        return ceil(self.base_at(batch, frames, height, width) * self.ratio) + self.small_bytes

    def base_at(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """What a dry run would say: tensors and workspace, in bytes."""
        area = height * width
        rows = [_on_line(self.areas, row, area, in_proportion=True) for row in self.base_bytes]
        grows = self.growth == "linear"
        one = _on_line(self.frames, rows, frames or 1, in_proportion=grows)
        own = ceil(batch * one * self.table_ratio)
        others = (each.base_at(batch, frames, height, width) for each in self.other_versions)
        return max(own, *others) if self.other_versions else own

    def shape_for(self, context: DecodeContext) -> DecodeShape | None:
        """The latent that decodes to the context's size; None while the size is unknown."""
        if not context.width or not context.height:
            return None
        scale = self.spatial_scale
        height, width = -(-context.height // scale), -(-context.width // scale)
        if not self.video:
            return DecodeShape(1, self.channels, None, height, width, scale, 1)
        frames = 1 + -(-((context.frames or 1) - 1) // self.temporal_scale)
        return DecodeShape(1, self.channels, frames, height, width, scale, self.temporal_scale)


def _on_line(
    places: Sequence[int], values: Sequence[float], place: int, *, in_proportion: bool
) -> float:
    """The value at ``place``: straight between its neighbours; before the first one, the first,
    for the need never grows with less to decode; beyond the last one, straight on or in
    proportion to the place."""
    if place <= places[0] or len(places) == 1:
        return values[0]
    if place > places[-1] and in_proportion:
        return values[-1] * place / places[-1]
    right = min(bisect_left(places, place), len(places) - 1)
    low, high = places[right - 1], places[right]
    slope = (values[right] - values[right - 1]) / (high - low)
    return values[right - 1] + slope * (place - low)


@dataclass(frozen=True, slots=True)
class ScaledCost:
    """A formula that gives bytes, times a factor that covers its known errors.

    Attributes:
        formula: peak bytes for (batch, frames or None, height, width) in latent units.
        factor: what the formula is multiplied by.
    """

    formula: Callable[[int, int | None, int, int], float]
    factor: float = 1.0

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Peak bytes after the factor."""
        return int(self.formula(batch, frames, height, width) * self.factor)
