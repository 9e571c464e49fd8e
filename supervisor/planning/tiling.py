"""Counting and balancing tiles along one axis. Pure integers, any unit."""

from __future__ import annotations


def tile_count(extent: int, tile: int, overlap: int) -> int:
    """How many tiles of size ``tile``, each sharing ``overlap`` with the next, cover ``extent``."""
    if tile >= extent:
        return 1
    stride = tile - overlap
    return -(-(extent - overlap) // stride)


def balanced_tile(extent: int, tile: int, overlap: int, step: int) -> int:
    """The smallest multiple of ``step`` that needs no more tiles than ``tile`` does.

    Even tiles waste less than full ones with a sliver at the end.
    """
    count = tile_count(extent, tile, overlap)
    stride = -(-(extent - overlap) // count)
    return min(tile, round_up(stride + overlap, step))


def even_tile(extent: int, count: int, overlap: int) -> int:
    """The smallest tile of which ``count``, each sharing ``overlap`` with the next, suffice."""
    return extent if count <= 1 else -(-(extent - overlap) // count) + overlap


def covered(extent: int, count: int, overlap: int) -> int:
    """What ``count`` tiles decode together: the extent, and each shared stretch once more."""
    return extent + (count - 1) * overlap


def round_up(value: int, step: int) -> int:
    """The next multiple of ``step`` at or above ``value``."""
    return -(-value // step) * step


def round_down(value: int, step: int) -> int:
    """The multiple of ``step`` at or below ``value``."""
    return value // step * step
