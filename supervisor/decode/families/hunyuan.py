"""The autoencoder of Hunyuan video: that of image KL with causal 3-D convolutions.

Its middle sees all of space and time. The way up goes by two latent frames at a time, the way
down by one frame and then eight, convolutions carrying the past on. Group norms take in all of
such a chunk, so that chunks must be just those.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..program import Carry, Phase, Program
from ._kl_shape import is_engine, is_kl_decoder, is_kl_encoder, takes_mean
from ._kl_stages import down_stages, latent_stages, moments_to_latents, up_stages
from ._residual_shape import CARRIED, is_deep
from ._residual_stages import (
    carried,
    carried_convolution,
    first_stage,
    head,
    middle_stages,
    plain,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME: Final = "Hunyuan video"
LATENT_FRAMES: Final = 2
"""That go up at once."""


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, t, h, w]`` to ``[1, 3, 4 * t - 3, 8 * h, 8 * w]``."""
    if not _is_hunyuan(model) or not is_kl_decoder(model.decoder, CARRIED):
        return None
    network: Any = model.decoder
    first = first_stage("latents", partial(_enter, model), network.mid.block_1, plain)
    up = up_stages(network, carried, carried_convolution)
    middle = Phase((first, *middle_stages(network.mid)))
    return Program((middle, Phase(tuple(up), two_by_two)))


def encoder(model: nn.Module) -> Program | None:
    """From ``[1, 3, t, H, W]`` to ``[1, C, (t + 3) // 4, H / 8, W / 8]``; gives the mean."""
    if not _is_hunyuan(model) or not takes_mean(model):
        return None
    network: Any = model.encoder
    if not is_kl_encoder(network, CARRIED):
        return None
    down = down_stages(network, carried, carried_convolution)
    latents = latent_stages(network, partial(_leave, model))
    chunks = partial(one_and_chunks, length=network.time_compress)
    return Program((Phase(tuple(down), chunks), Phase(tuple(latents))))


def _is_hunyuan(model: Any) -> bool:
    return (
        is_engine(model, "quant_conv", "post_quant_conv")
        and is_deep(model.quant_conv, 1)
        and is_deep(model.post_quant_conv, 1)
    )


def two_by_two(frames: int) -> tuple[int, ...]:
    """Time at the latent's resolution."""
    full, rest = divmod(frames, LATENT_FRAMES)
    return (*[LATENT_FRAMES] * full, *([rest] if rest else []))


def one_and_chunks(frames: int, length: int) -> tuple[int, ...]:
    """Time of pictures: the first alone, then what becomes two latent frames.

    Args:
        frames: those that fill no latent frame are dropped, as by the host.
        length: of a latent frame.
    """
    return (1, *(length * each for each in two_by_two((frames - 1) // length)))


def _enter(model: Any, x: Tensor, carry: Carry) -> Tensor:
    return carried_convolution(model.decoder.conv_in, model.post_quant_conv(x), carry)


def _leave(model: Any, x: Tensor, carry: Carry) -> Tensor:
    """All of time at once: what the convolution would carry on is of no use."""
    return moments_to_latents(model, head(model.encoder, x, carry, call=carried_convolution))
