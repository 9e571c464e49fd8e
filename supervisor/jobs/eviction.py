"""Which models leave the device when room is needed, and how much of each. Pure.

The model whose next use lies farthest ahead leaves first (Belady's rule). Weights leave and come
back in parts, each byte at the same price, so with the order of uses known no other order brings
fewer bytes back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEVER: Final = math.inf
"""The next use of what nothing that runs or waits needs again."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A model's weights on a device.

    Attributes:
        name: for people.
        loaded_bytes: what of it is there, and would leave.
        next_use: node runs until it is needed; ``NEVER``, or None where that is not known.
        divisible: it can leave in parts.
    """

    name: str
    loaded_bytes: int
    next_use: float | None = None
    divisible: bool = True

    def leaving_bytes(self, wanted_bytes: int) -> int:
        """What leaves when so much is wanted of it."""
        return min(wanted_bytes, self.loaded_bytes) if self.divisible else self.loaded_bytes


@dataclass(frozen=True, slots=True)
class Victim:
    """A resident that leaves, by its index among those asked about, and how much of it."""

    index: int
    leaving_bytes: int


def victims(residents: Sequence[Resident], missing_bytes: int) -> tuple[Victim, ...]:
    """Who leaves so that ``missing_bytes`` come free, the first to leave first.

    Residents come the most recently loaded first. Fewer bytes where all of them are not enough.
    """
    chosen: list[Victim] = []
    waiting = {i: each for i, each in enumerate(residents) if each.loaded_bytes > 0}
    while missing_bytes > 0 and waiting:
        index = min(waiting, key=lambda i: (*_rank(waiting[i], missing_bytes), -i))
        leaving = waiting.pop(index).leaving_bytes(missing_bytes)
        chosen.append(Victim(index, leaving))
        missing_bytes -= leaving
    return tuple(chosen)


def leaving_order(residents: Sequence[Resident]) -> tuple[int, ...]:
    """Indices of the residents, the first to leave first, where how much will be wanted is not
    known yet.

    Residents come the most recently loaded first. Of those needed at the same time, or not again,
    the one loaded longest ago leaves first: people run a workflow again.
    """
    indices = range(len(residents))
    return tuple(sorted(indices, key=lambda i: (_nearness(residents[i].next_use), -i)))


def needed_again_bytes(residents: Iterable[Resident]) -> int:
    """How much of them is loaded again after they left; what is not known counts as needed."""
    return sum(each.loaded_bytes for each in residents if each.next_use != NEVER)


def _rank(resident: Resident, missing_bytes: int) -> tuple[float, ...]:
    """Lower leaves first: by next use; then who suffices alone, for the fewest bytes to load
    again; else the larger."""
    leaving = resident.leaving_bytes(missing_bytes)
    suffices = leaving >= missing_bytes
    size = leaving if suffices else -leaving
    return (*_nearness(resident.next_use), not suffices, size)


def _nearness(next_use: float | None) -> tuple[int, float]:
    """Never; then unknown, which is taken for far away; then the farthest known use."""
    if next_use is None:
        return 1, 0.0
    return (0, 0.0) if next_use == NEVER else (2, -next_use)
