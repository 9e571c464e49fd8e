"""Image KL autoencoders: SD, SDXL, SD 3, Flux and others that share their network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..program import Phase, Program
from ._kl_shape import has_flat_ends, is_engine, is_kl_decoder, is_kl_encoder, takes_mean
from ._kl_stages import down_stages, latent_stages, moments_to_latents, up_stages
from ._residual_shape import FLAT
from ._residual_stages import first_stage, head, middle_stages, plain

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..program import Carry

NAME: Final = "image KL"


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, h, w]`` to ``[1, 3, 8 * h, 8 * w]``, or as the number of levels says."""
    if not _is_kl(model) or not is_kl_decoder(model.decoder, FLAT):
        return None
    network: Any = model.decoder
    first = first_stage("latents", partial(_enter, model), network.mid.block_1, plain)
    up = up_stages(network, plain, plain)
    return Program((Phase((first, *middle_stages(network.mid), *up)),))


def encoder(model: nn.Module) -> Program | None:
    """The other way round; gives the mean."""
    if not _is_kl(model) or not takes_mean(model) or not is_kl_encoder(model.encoder, FLAT):
        return None
    network: Any = model.encoder
    down = down_stages(network, plain, plain)
    return Program((Phase((*down, *latent_stages(network, partial(_leave, model)))),))


def _is_kl(model: Any) -> bool:
    """Newer ones have no convolutions between the latent and the network."""
    if is_engine(model):
        return True
    return is_engine(model, "quant_conv", "post_quant_conv") and has_flat_ends(model)


def _enter(model: Any, x: Tensor, carry: Carry) -> Tensor:
    del carry
    if hasattr(model, "post_quant_conv"):
        x = model.post_quant_conv(x)
    return model.decoder.conv_in(x)


def _leave(model: Any, x: Tensor, carry: Carry) -> Tensor:
    return moments_to_latents(model, head(model.encoder, x, carry, call=plain))
