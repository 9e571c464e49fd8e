"""What TAESD's encoder and decoder look like: chains of blocks and changes of size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torch import nn

from ._residual_shape import has_parts, is_flat, is_group_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

STEP: Final = 2
"""How many times larger or smaller a change of size makes the picture."""
PACKED_CHANNELS: Final = 32
"""Of the one kind whose latents are packed two by two."""


def is_decoder(network: Any) -> bool:
    """Clamp, convolution, ReLU and blocks; changes of size with blocks; a last convolution."""
    if not isinstance(network, nn.Sequential) or not _is_known_forward(network):
        return False
    clamp, first, activation, *inner, last = network
    return (
        _is_bare(clamp)
        and is_flat(first, 3)
        and isinstance(activation, nn.ReLU)
        and is_flat(last, 3)
        and _is_way(inner)
    )


def is_encoder(network: Any) -> bool:
    """A convolution and blocks; changes of size with blocks; a last convolution."""
    if not isinstance(network, nn.Sequential) or not _is_known_forward(network):
        return False
    first, *inner, last = network
    return is_flat(first, 3) and is_flat(last, 3) and _is_way(inner)


def packs(network: Any) -> bool:
    """Whether its latents are packed: it then does more than run its layers."""
    return type(network).forward is not nn.Sequential.forward


def changes_of(layers: Sequence[Any]) -> list[int]:
    """Indices of layers that change the size."""
    return [index for index, layer in enumerate(layers) if grows(layer) or shrinks(layer)]


def grows(layer: Any) -> bool:
    """Each pixel becomes four."""
    return isinstance(layer, nn.Upsample) and (layer.scale_factor, layer.mode) == (STEP, "nearest")


def shrinks(layer: Any) -> bool:
    """A convolution at every second pixel."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.padding) == ((3, 3), (1, 1))
        and (layer.stride, layer.dilation) == ((STEP, STEP), (1, 1))
        and layer.padding_mode == "zeros"
    )


def is_block(layer: Any) -> bool:
    """Three convolutions and a way around them, with or without a group norm before."""
    if not has_parts(layer, ("conv", "skip", "fuse"), ("pool",)):
        return False
    return (
        _is_convolutions(layer.conv)
        and (isinstance(layer.skip, nn.Identity) or is_flat(layer.skip, 1))
        and isinstance(layer.fuse, nn.ReLU)
        and (not is_pooled(layer) or _is_pool(layer.pool))
    )


def is_pooled(layer: Any) -> bool:
    """Whether a block has a norm over the whole picture."""
    return getattr(layer, "pool", None) is not None


def _is_way(layers: Sequence[Any]) -> bool:
    """Blocks, convolutions and at least two changes of size."""
    known = all(
        is_block(each) or is_flat(each, 3) or grows(each) or shrinks(each) for each in layers
    )
    return known and len(changes_of(layers)) > 1


def _is_known_forward(network: nn.Sequential) -> bool:
    if not packs(network):
        return True
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    latent_channels = {convolutions[0].in_channels, convolutions[-1].out_channels}
    return PACKED_CHANNELS in latent_channels and any(map(is_pooled, network))


def _is_convolutions(chain: Any) -> bool:
    if not isinstance(chain, nn.Sequential) or len(chain) != 5:  # noqa: PLR2004
        return False
    layers = list(chain)
    return all(is_flat(each, 3) for each in layers[::2]) and all(
        isinstance(each, nn.ReLU) for each in layers[1::2]
    )


def _is_pool(chain: Any) -> bool:
    if not isinstance(chain, nn.Sequential) or len(chain) != 4:  # noqa: PLR2004
        return False
    widen, norm, activation, narrow = chain
    return (
        is_flat(widen, 1)
        and is_group_norm(norm)
        and isinstance(activation, nn.ReLU)
        and is_flat(narrow, 1)
    )


def _is_bare(layer: Any) -> bool:
    """Without weights, and no layer of torch's own."""
    return not list(layer.parameters()) and not list(layer.children())
