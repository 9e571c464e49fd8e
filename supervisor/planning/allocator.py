"""How much of a device's free memory live tensors can really fill, by allocator.

Torch's native allocator splits the blocks it got from the driver and cannot move what lies in
them, so some of what it holds stays unused; even under pressure, when it gives whole blocks
back and asks again. Allocators that map pages into one range lose next to nothing.
"""

from __future__ import annotations

from typing import Final

CAPACITY_RATIO: Final = {"native": 1.2, "expandable": 1.0, "cudaMallocAsync": 1.15, "cpu": 1.0}
"""Least capacity over peak with which a decode succeeds. Measured by limiting torch's share of
an H200: native 0.97 to 1.19, the others below 0.97. On the driver's pool a decode succeeds with
less than it wants, but slowly: refused its workspace, cuDNN takes kernels up to four times slower
and keeps them for the process. Wan 2.1 was slow with 1.06 times its need; what parts of many sizes
come and go in needs more still."""

UNKNOWN_RATIO: Final = max(CAPACITY_RATIO.values())


def usable_bytes(free_bytes: int, allocator: str | None) -> int:
    """What of ``free_bytes`` a decode may plan to fill; 0 for figures below that."""
    ratio = CAPACITY_RATIO.get(allocator or "", UNKNOWN_RATIO)
    return max(0, int(free_bytes / ratio))
