"""How much of a device's free memory live tensors can really fill, by allocator.

Torch's native allocator splits the blocks it got from the driver and cannot move what lies in
them, so some of what it holds stays unused; even under pressure, when it gives whole blocks
back and asks again. Allocators that map pages into one range lose next to nothing.
"""

from __future__ import annotations

from typing import Final

CAPACITY_RATIO: Final = {"native": 1.2, "expandable": 1.0, "cudaMallocAsync": 1.4, "cpu": 1.0}
"""Capacity over peak with which a decode succeeds at its full speed. Native, by limiting torch's
share of an H200: 0.97 to 1.19. The driver's pool, left alone, grows to 1.36 to 1.48 times what is
live in it (Wan 2.1 and image KL, whole and in parts); with less a decode succeeds (0.97), but
slowly: refused its workspace, cuDNN takes kernels up to four times slower and keeps them for the
process. Wan 2.1 in parts on a card of 6 GiB: 17.7 s with 1.15, 4.4 s with 1.4, whole 4.0 s."""

TIGHT_RATIO: Final = {**CAPACITY_RATIO, "cudaMallocAsync": 1.15}
"""The same where speed is not all: a whole decode that may be slow is better than tiles that do
not equal it."""

UNKNOWN_RATIO: Final = max(CAPACITY_RATIO.values())


def capacity_ratio(allocator: str | None, *, tight: bool = False) -> float:
    """Capacity over peak that a decode gets; unknown allocators are taken for the worst.

    Args:
        allocator: its name.
        tight: as little as it succeeds with, though it may be slow.
    """
    return (TIGHT_RATIO if tight else CAPACITY_RATIO).get(allocator or "", UNKNOWN_RATIO)


def usable_bytes(free_bytes: int, allocator: str | None, *, tight: bool = False) -> int:
    """What of ``free_bytes`` a decode may plan to fill; 0 for figures below that."""
    return max(0, int(free_bytes / capacity_ratio(allocator, tight=tight)))
