"""The fewest bytes that a known sequence of phases can load again on a card. Pure.

Each phase needs one model whole on the card, and room beside it for its work. Weights leave and
come back in any portions. Then letting go of what is needed last is the best there is: moving a
byte costs the same whichever model it is of, and a byte that is kept serves the sooner, the sooner
its model is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Phase:
    """A model runs.

    Attributes:
        model: which.
        room_bytes: what its work needs beside its weights.
    """

    model: str
    room_bytes: int = 0


def least_reloaded_bytes(
    phases: Sequence[Phase], sizes: Mapping[str, int], card_bytes: int, margin: float = 1.0
) -> int | None:
    """Bytes loaded beyond each model's first time.

    Args:
        phases: what runs, in order.
        sizes: of the models' weights.
        card_bytes: what weights and work share.
        margin: so many times its missing weights must be free before a model is loaded; ComfyUI
            insists on 1.1.

    Returns:
        None where a phase does not fit at all.
    """
    resident = dict.fromkeys(sizes, 0)
    met: set[str] = set()
    reloaded = 0
    for place, phase in enumerate(phases):
        if sizes[phase.model] + phase.room_bytes > card_bytes:
            return None
        missing = sizes[phase.model] - resident[phase.model]
        reloaded += missing if phase.model in met else 0
        met.add(phase.model)
        free = card_bytes - sum(resident.values())
        short = math.ceil(missing * margin) + phase.room_bytes - free
        for model in _farthest_first(phases[place + 1 :], phase.model, resident):
            leaving = max(0, min(short, resident[model]))
            resident[model] -= leaving
            short -= leaving
        resident[phase.model] = sizes[phase.model]
    return reloaded


def _farthest_first(
    coming: Sequence[Phase], running: str, resident: Mapping[str, int]
) -> list[str]:
    def next_use(model: str) -> int:
        return next((i for i, phase in enumerate(coming) if phase.model == model), len(coming))

    return sorted((each for each in resident if each != running), key=next_use, reverse=True)
