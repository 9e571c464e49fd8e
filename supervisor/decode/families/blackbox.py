"""Decoders nobody took apart: tiles with wide context, each position written by one tile.

Not exact where attention or norms see the whole picture; the report says so.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from ..program import Phase, Program, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..program import Carry, Place

NAME: Final = "black box"
CONTEXT: Final = 16
"""Latents around a tile; convolutions of decoders in use look 10 to 20 far."""


def decoder(decode: Callable[[Any], Tensor], scale: int) -> Program:
    """All of the network as one stage.

    Args:
        decode: from a latent ``[1, C, (t,) h, w]`` to its picture.
        scale: pixels per latent.
    """

    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        return decode(x)

    return Program((Phase((Stage("decoder", run, halo=CONTEXT, scale=Fraction(scale)),)),))
