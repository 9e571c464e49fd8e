"""Which networks share the encoder and decoder of Stable Diffusion, in 2-D or carried in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ._residual_shape import CARRIED, FLAT, are_ends, has_parts, is_carried, is_flat, is_level

if TYPE_CHECKING:
    from ._residual_shape import Kind


def is_kl_decoder(network: Any, kind: Kind) -> bool:
    """Levels in the list ``up`` from the pixels to the latent; all but the first double."""
    if not are_ends(network, "up", kind) or not _is_as_carried(network, kind):
        return False
    first, *others = network.up
    return is_level(first, kind) and all(
        is_level(level, kind, "upsample") and _doubles(level.upsample, kind) for level in others
    )


def is_kl_encoder(network: Any, kind: Kind) -> bool:
    """Levels in the list ``down`` from the pixels to the latent; all but the last halve."""
    if not are_ends(network, "down", kind) or not _is_as_carried(network, kind):
        return False
    *others, last = network.down
    return is_level(last, kind) and all(
        is_level(level, kind, "downsample") and _halves(level.downsample, kind) for level in others
    )


def is_engine(model: Any, *further: str) -> bool:
    """Encoder and decoder, what makes a latent of what the encoder gives, and further parts."""
    return has_parts(model, ("encoder", "decoder", "regularization", *further))


def takes_mean(model: Any) -> bool:
    """Whether latents are the mean of what the encoder gives, not drawn at random."""
    return getattr(model.regularization, "sample", None) is False


def has_flat_ends(model: Any) -> bool:
    """2-D convolutions of one pixel between encoder, latent and decoder."""
    return is_flat(model.quant_conv, 1) and is_flat(model.post_quant_conv, 1)


def _is_as_carried(network: Any, kind: Kind) -> bool:
    """Whether time is run in chunks just where the layers are made for it."""
    return getattr(network, "carried", False) is (kind is CARRIED)


def _doubles(layer: Any, kind: Kind) -> bool:
    if not has_parts(layer, ("conv",)) or not kind.is_convolution(layer.conv, 3):
        return False
    factors = getattr(layer, "scale_factor", None)
    if kind is FLAT:
        return factors in (2.0, (2.0, 2.0))
    return factors in (2.0, (2.0, 2.0, 2.0), (1.0, 2.0, 2.0))


def _halves(layer: Any, kind: Kind) -> bool:
    if not has_parts(layer, ("conv",)):
        return False
    if kind is FLAT:
        return isinstance(layer.conv, nn.Conv2d) and _strides(layer.conv, (2, 2))
    return is_carried(layer.conv, 3, strides=True) and layer.conv.conv.stride[1:] == (2, 2)


def _strides(convolution: nn.Conv2d, stride: tuple[int, int]) -> bool:
    return (
        convolution.stride == stride
        and convolution.kernel_size == (3, 3)
        and convolution.padding == (0, 0)
    )
