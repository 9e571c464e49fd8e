"""The embedded decoder as programs for the engine: in one piece, and in parts."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from ..decode.program import Phase, Program, Stage
from .decoder import SPATIAL_SCALE

if TYPE_CHECKING:
    from torch import Tensor

    from ..decode.program import Carry, Place
    from .decoder import Cache, CausalVideoDecoder


def whole(decoder: CausalVideoDecoder) -> Program:
    """All of the network on everything at once."""

    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        return decoder(x)

    stage = Stage("whole", run, scale=Fraction(SPATIAL_SCALE), whole=True)
    return Program((Phase((stage,)),))


def streamed(decoder: CausalVideoDecoder) -> Program:
    """The latent's resolution whole, then the way up tile by tile, both frame by frame."""

    def mid(x: Tensor, carry: Carry, place: Place) -> Tensor:
        return decoder.mid(x, _cache_of(carry, place))

    def up(x: Tensor, carry: Carry, place: Place) -> Tensor:
        return decoder.up(x, _cache_of(carry, place), first=place.is_first)

    # Attention, in the middle, sees whole frames.
    latents = Stage("latent blocks", mid, whole=True)
    pixels = Stage("up path", up, halo=decoder.halo, scale=Fraction(SPATIAL_SCALE))
    return Program((Phase((latents,), one_by_one), Phase((pixels,), one_by_one)))


def one_by_one(frames: int) -> tuple[int, ...]:
    """Time in chunks of one latent frame."""
    return (1,) * frames


def _cache_of(carry: Carry, place: Place) -> Cache | None:
    """None for a single frame: nothing comes that would look back."""
    if carry.state is None and place.total_frames > 1:
        carry.state = {}
    return carry.state
