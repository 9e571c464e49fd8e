"""Owned rectangles with a halo: pure geometry in latent units.

Each position belongs to exactly one tile (``owned``); a tile is decoded with its surroundings
(``context``), which are thrown away afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..planning.tiling import tile_count

if TYPE_CHECKING:
    from ..types import Plan


@dataclass(frozen=True, slots=True)
class Rect:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def scaled(self, factor: int) -> Rect:
        """The same rectangle in finer units, such as pixels."""
        return Rect(
            self.top * factor, self.bottom * factor, self.left * factor, self.right * factor
        )

    def relative_to(self, other: Rect) -> Rect:
        """This rectangle seen from the corner of ``other``."""
        return Rect(
            self.top - other.top,
            self.bottom - other.top,
            self.left - other.left,
            self.right - other.left,
        )

    def grown(self, halo: int, height: int, width: int) -> Rect:
        """Grown by ``halo`` on all sides, but not beyond a picture of this size."""
        return Rect(
            max(0, self.top - halo),
            min(height, self.bottom + halo),
            max(0, self.left - halo),
            min(width, self.right + halo),
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """What one tile writes and what it looks at."""

    owned: Rect
    context: Rect


def cover(
    height: int, width: int, tile: int | None, halo: int, *, across: int | None = None
) -> tuple[Tile, ...]:
    """Cut a picture into tiles, row by row.

    Args:
        height: rows of the picture.
        width: its columns.
        tile: edge of the largest context; None for one tile.
        halo: surroundings each tile looks at, where there are any.
        across: width of the largest context, where it is not ``tile``.
    """
    rows = _intervals(height, tile, halo)
    columns = _intervals(width, tile if across is None else across, halo)
    owned = [Rect(top, bottom, left, right) for top, bottom in rows for left, right in columns]
    return tuple(Tile(rect, rect.grown(halo, height, width)) for rect in owned)


def tiles_of(plan: Plan, height: int, width: int, scale: int) -> tuple[Tile, ...]:
    """The tiles a plan stands for; ``height`` and ``width`` in latents, ``scale`` to pixels."""
    if plan.tile_size is None:
        return cover(height, width, None, 0)
    down, across = plan.tile_height or plan.tile_size, plan.tile_width or plan.tile_size
    halo = (plan.overlap or 0) // (2 * scale)
    return cover(height, width, down // scale, halo, across=across // scale)


def split(tile: Tile, height: int, width: int, halo: int) -> tuple[Tile, Tile] | None:
    """Halve a tile across its longer side; None when it owns a single position."""
    owned = tile.owned
    if owned.height >= owned.width:
        middle = owned.top + owned.height // 2
        parts = (
            Rect(owned.top, middle, owned.left, owned.right),
            Rect(middle, owned.bottom, owned.left, owned.right),
        )
    else:
        middle = owned.left + owned.width // 2
        parts = (
            Rect(owned.top, owned.bottom, owned.left, middle),
            Rect(owned.top, owned.bottom, middle, owned.right),
        )
    if parts[0].height == 0 or parts[0].width == 0:
        return None
    first, second = parts
    return (
        Tile(first, first.grown(halo, height, width)),
        Tile(second, second.grown(halo, height, width)),
    )


def _intervals(extent: int, tile: int | None, halo: int) -> list[tuple[int, int]]:
    """Owned stretches along one axis, as even as their number allows."""
    if tile is None or tile >= extent:
        return [(0, extent)]
    count = tile_count(extent, tile, 2 * halo)
    # Inner tiles look both ways, so they own less than the two at the ends.
    stride = -(-(extent - 2 * halo) // count)
    inner = [index * stride + halo for index in range(1, count)]
    return list(zip([0, *inner], [*inner, extent], strict=True))
