"""The autoencoder of Flux 2: image KL, whose latents are standardised and packed two by two.

Packing is undone with the first layers, so that the program is that of image KL otherwise.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn import functional

from ..program import Phase, Program
from ._kl_shape import has_flat_ends, is_engine, is_kl_decoder, is_kl_encoder, takes_mean
from ._kl_stages import down_stages, latent_stages, moments_to_latents, up_stages
from ._residual_shape import FLAT
from ._residual_stages import first_stage, head, middle_stages, plain

if TYPE_CHECKING:
    from torch import Tensor

    from ..program import Carry

NAME: Final = "Flux 2"
PACKED: Final = 2
"""Pixels along one side that one of the latent stands for."""


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, h, w]`` to ``[1, 3, 16 * h, 16 * w]``."""
    if not _is_flux2(model) or not is_kl_decoder(model.decoder, FLAT):
        return None
    network: Any = model.decoder
    enter = partial(_enter, model)
    first = first_stage("latents", enter, network.mid.block_1, plain, scale=Fraction(PACKED))
    up = up_stages(network, plain, plain)
    return Program((Phase((first, *middle_stages(network.mid), *up)),))


def encoder(model: nn.Module) -> Program | None:
    """The other way round; gives the mean."""
    if not _is_flux2(model) or not takes_mean(model) or not is_kl_encoder(model.encoder, FLAT):
        return None
    network: Any = model.encoder
    packs = {"scale": Fraction(1, PACKED), "align": PACKED}
    latents = latent_stages(network, partial(_leave, model), **packs)
    return Program((Phase((*down_stages(network, plain, plain), *latents)),))


def _is_flux2(model: Any) -> bool:
    if not is_engine(model, "quant_conv", "post_quant_conv", "bn") or not has_flat_ends(model):
        return False
    norm = model.bn
    return (
        isinstance(norm, nn.BatchNorm2d)
        and not norm.affine
        and list(getattr(model, "ps", ())) == [PACKED, PACKED]
        and norm.num_features == PACKED * PACKED * model.post_quant_conv.in_channels
    )


def _enter(model: Any, x: Tensor, carry: Carry) -> Tensor:
    del carry
    mean, variance = _statistics(model, x)
    x = x * torch.sqrt(variance.view(1, -1, 1, 1) + model.bn_eps) + mean.view(1, -1, 1, 1)
    x = functional.pixel_shuffle(x, PACKED)
    return model.decoder.conv_in(model.post_quant_conv(x))


def _leave(model: Any, x: Tensor, carry: Carry) -> Tensor:
    x = moments_to_latents(model, head(model.encoder, x, carry, call=plain))
    x = functional.pixel_unshuffle(x, PACKED)
    mean, variance = _statistics(model, x)
    return functional.batch_norm(x, mean, variance, eps=model.bn_eps)


def _statistics(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of latents; buffers, which stay where the model was made."""
    norm = model.bn
    return norm.running_mean.to(x), norm.running_var.to(x)
