"""The ways to decode one latent, planned by dry run: in one piece, else in parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Final

import torch

from ..decode.layout import lay_out, least_bytes
from ..decode.parts import cut_along, part_of, scaled
from ..decode.survey import survey
from ..decode.tiles import Rect
from ..errors import NothingFitsError
from ..planning.workspace import NO_WORKSPACE
from ..types import Plan
from ..units import format_bytes
from .job_state import decoded_size, pictures_bytes
from .program import streamed, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..decode.layout import Layout
    from ..decode.parts import Part
    from ..decode.program import Program, Stage
    from .decoder import CausalVideoDecoder
    from .job_state import Shape

WORKSPACE_RATIO: Final = {"cpu": 1.0, "cuda": 1.15}
"""Measured over dry-run peak: 1.00 to 1.04 on an H200 in fp32, and room for fragmentation.
On the CPU the measurement does not see kernel workspace."""
_ANY_BUDGET: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Way:
    """How one latent is decoded within one budget; the engine's ``Sizer``.

    Attributes:
        tiles: what each part of the picture owns, in pixels.
    """

    plan: Plan
    program: Program
    tiles: tuple[Rect, ...]
    layout: Layout

    def part(self, phase: int, stage: int, height: int, width: int) -> tuple[int, int]:
        """As laid out."""
        return self.layout.parts.get((phase, stage), (height, width))

    def resident_bytes(self) -> int:
        """As laid out."""
        return self.layout.resident_bytes

    def carried_bytes(self) -> int:
        """As laid out."""
        return self.layout.carried_bytes


class Ways:
    """All of them for one latent on one device.

    Args:
        decoder: where it lies does not matter.
        shape: of the latent, ``[1, C, T, H, W]``.
        device: where it is decoded.
        host_bytes: system memory that results may wait in.
    """

    def __init__(
        self,
        decoder: CausalVideoDecoder,
        shape: Shape,
        device: str,
        host_bytes: int,
    ) -> None:
        kind = device.partition(":")[0]
        self._decoder, self._shape = decoder, shape
        self._ratio = WORKSPACE_RATIO.get(kind, 1.0)
        # On the CPU pictures lie where they are made, and waiting elsewhere frees nothing.
        on_cpu = kind == "cpu"
        self._pictures_bytes = pictures_bytes(shape) if on_cpu else 0
        self._host_bytes = 0 if on_cpu else host_bytes

    @property
    def whole_bytes(self) -> int:
        """What decoding it in one piece needs."""
        return self._peak_bytes(self._at_once)

    def within(self, budget_bytes: int) -> Iterator[Way]:
        """Those that fit, the best first: the next is for when memory runs out all the same.

        Raises:
            NothingFitsError: none does.
        """
        fits_whole = self.whole_bytes <= budget_bytes
        if fits_whole:
            yield self._whole(budget_bytes)
        try:
            in_parts = self._streamed(budget_bytes)
        except NothingFitsError:
            if not fits_whole:
                raise
            # Of so small a latent parts need more than the whole.
            return
        yield in_parts

    @cached_property
    def _at_once(self) -> Layout:
        return self._laid_out(whole, _ANY_BUDGET)

    def _whole(self, budget_bytes: int) -> Way:
        peak = self._peak_bytes(self._at_once)
        reason = f"whole: needs {format_bytes(peak)} of {format_bytes(budget_bytes)}"
        plan = Plan("whole", 1, reason, peak, fits=True)
        _, height, width = decoded_size(self._shape)
        return Way(plan, whole(self._decoder), (Rect(0, height, 0, width),), self._at_once)

    def _streamed(self, budget_bytes: int) -> Way:
        layout, program = self._laid_out(streamed, budget_bytes), streamed(self._decoder)
        (stage,) = program.phases[-1].stages
        parts = _parts_of(stage, layout, *self._shape[-2:])
        contexts = [scaled(part.context, stage) for part in parts]
        height, width = max(c.height for c in contexts), max(c.width for c in contexts)
        tiles = "1 tile" if len(parts) == 1 else f"{len(parts)} tiles of {width} x {height} px"
        peak = self._peak_bytes(layout)
        plan = Plan(
            "streamed",
            len(parts),
            f"{tiles} streamed through time: {format_bytes(peak)}; whole needs "
            f"{format_bytes(self.whole_bytes)} of {format_bytes(budget_bytes)}",
            peak,
            fits=True,
            tile_size=max(height, width),
            overlap=int(2 * stage.halo * stage.scale),
            tile_height=height,
            tile_width=width,
        )
        return Way(plan, program, tuple(scaled(part.owned, stage) for part in parts), layout)

    def _laid_out(
        self, build: Callable[[CausalVideoDecoder], Program], budget_bytes: int
    ) -> Layout:
        found = survey(self._decoder, build, self._shape, torch.float32, NO_WORKSPACE)
        room_bytes = int((budget_bytes - self._pictures_bytes) / self._ratio)
        layout = lay_out(found, room_bytes, self._host_bytes)
        if layout is None:
            least = ceil(least_bytes(found) * self._ratio) + self._pictures_bytes
            raise NothingFitsError(budget_bytes, least)
        return layout

    def _peak_bytes(self, layout: Layout) -> int:
        return ceil(layout.peak_bytes * self._ratio) + self._pictures_bytes


def _parts_of(stage: Stage, layout: Layout, height: int, width: int) -> list[Part]:
    """How the engine cuts a latent into tiles, as long as all of them fit."""
    rows, columns = layout.largest
    return [
        part_of(stage, Rect(top, bottom, left, right), height, width)
        for top, bottom in cut_along(height, rows, stage.align)
        for left, right in cut_along(width, columns, stage.align)
    ]
