"""A cost model from a few dry runs: exact where one was made, interpolated in between."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    Piece: TypeAlias = tuple[int, int | None, int, int]
    """Batch, frames (None for images), height and width of a latent decoded at once."""

BENDS: Final = 1.01
SMALL_EDGE: Final = 16
"""Latent edge of the second dry run that interpolation rests on."""


class TracedCost:
    """CostModel over dry runs of pieces of one latent.

    For a number of frames the need is, between two areas, at most what the straight line
    between them says: it is the largest of several steps that each grow in proportion to the
    area. Decoders that choose their chunks by the area bend that rule, so the piece that will
    be decoded is to be asked for with ``exact_bytes`` before it is relied upon.

    Args:
        dry_run: base bytes (tensors and workspace) of one piece; may take a second.
        bound: from base bytes and their piece to what the device will need at most.
    """

    def __init__(
        self,
        dry_run: Callable[[int, int | None, int, int], int],
        bound: Callable[[int, Piece], int],
    ) -> None:
        self._dry_run = dry_run
        self._bound = bound
        self._exact: dict[Piece, int] = {}
        self._steps = False
        """Whether a piece needed more than the straight line said: the line is not trusted."""
        self._lines: dict[tuple[int, int | None], dict[int, int]] = {}
        """Base bytes by area, for each batch and number of frames."""

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Predicted peak of decoding such a piece at once, in bytes."""
        piece = (batch, frames, height, width)
        return self._bound(self.base_bytes(*piece), piece)

    def exact_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """The same after a dry run of this very piece."""
        piece = (batch, frames, height, width)
        return self._bound(self._run(piece), piece)

    def base_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Tensors and workspace of a piece, without what calibration adds."""
        piece = (batch, frames, height, width)
        if piece in self._exact:
            return self._exact[piece]
        line = self._lines.get((batch, frames), {})
        area = height * width
        if not line or area > max(line):
            return self._run(piece)
        if area < min(line):
            edge = min(SMALL_EDGE, height, width)
            self._run((batch, frames, edge, edge))
        return _between(self._lines[batch, frames], area, self._steps)

    def is_exact(self, batch: int, frames: int | None, height: int, width: int) -> bool:
        """Whether this piece was dry-run."""
        return (batch, frames, height, width) in self._exact

    def _run(self, piece: Piece) -> int:
        known = self._exact.get(piece)
        if known is not None:
            return known
        batch, frames, height, width = piece
        base_bytes = self._exact[piece] = self._dry_run(batch, frames, height, width)
        line = self._lines.setdefault((batch, frames), {})
        if len(line) > 1 and min(line) < height * width < max(line):
            expected = _between(line, height * width, self._steps)
            self._steps = self._steps or base_bytes > expected * BENDS
        # Of two pieces of one area (48 x 32, 32 x 48) the hungrier one speaks for both.
        line[height * width] = max(base_bytes, line.get(height * width, 0))
        return base_bytes


def _between(line: dict[int, int], area: int, steps: bool) -> int:  # noqa: FBT001
    """On the straight line between the neighbours of ``area``; below the first, the first. Of
    a decoder that is known to step, what the larger neighbour needs."""
    areas = sorted(line)
    right = bisect_left(areas, area)
    high = areas[right]
    if right == 0 or high == area or steps:
        return line[high]
    low = areas[right - 1]
    share = (area - low) / (high - low)
    return ceil(line[low] + share * (line[high] - line[low]))
