"""What a Cosmos tokenizer's decoder looks like, so that no other network is taken for one."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from ._residual_shape import has_parts, is_group_norm

if TYPE_CHECKING:
    from collections.abc import Iterable

SPACE: Final = (1, 3, 3)
TIME: Final = (3, 1, 1)
POINT: Final = (1, 1, 1)
_MODEL: Final = ("encoder", "decoder", "quant_conv", "post_quant_conv", "distribution")
_NETWORK: Final = ("conv_in", "mid", "up", "norm_out", "conv_out", "unpatcher3d")
_BLOCK: Final = ("norm1", "conv1", "norm2", "dropout", "conv2", "nin_shortcut")
_ATTENTION: Final = ("norm", "q", "k", "v", "proj_out")


def is_tokenizer(model: Any) -> bool:
    """A continuous one, with tables of latent means and deviations."""
    return (
        has_parts(model, _MODEL)
        and all(hasattr(model, each) for each in ("latent_mean", "latent_std", "sigma_data"))
        and is_convolution(model.post_quant_conv, POINT)
        and is_decoder(model.decoder)
    )


def is_decoder(network: Any) -> bool:
    """Factorised convolutions, norms of each frame, a middle with attention."""
    if not has_parts(network, _NETWORK):
        return False
    middle, patches = network.mid, network.unpatcher3d
    return (
        _are_factors(network.conv_in)
        and has_parts(middle, ("block_1", "attn_1", "block_2"))
        and is_block(middle.block_1)
        and is_attention(middle.attn_1)
        and is_block(middle.block_2)
        and all(is_level(level, last=index == 0) for index, level in enumerate(network.up))
        and is_frame_norm(network.norm_out)
        and _are_factors(network.conv_out)
        and has_parts(patches, ())
        and isinstance(getattr(patches, "patch_size", None), int)
        and getattr(patches, "patch_method", None) in {"haar", "rearrange"}
    )


def is_level(level: Any, *, last: bool) -> bool:
    """Blocks, each with attention after it or all without; but for the last, what grows."""
    if not has_parts(level, ("block", "attn", *(() if last else ("upsample",)))):
        return False
    return (
        len(level.attn) in {0, len(level.block)}
        and all(is_block(block) for block in level.block)
        and all(is_attention(each) for each in level.attn)
        and (last or is_upsample(level.upsample))
    )


def is_upsample(upsample: Any) -> bool:
    """Twice the frames, twice the size, both or neither."""
    grows = [getattr(upsample, name, None) for name in ("spatial_up", "temporal_up")]
    if not all(isinstance(each, (bool, int)) for each in grows):
        return False
    if not any(grows):
        return has_parts(upsample, ())
    return has_parts(upsample, ("conv1", "conv2", "conv3")) and _all_are(
        (upsample.conv1, upsample.conv2, upsample.conv3), (TIME, SPACE, POINT)
    )


def is_block(block: Any) -> bool:
    """Two factorised convolutions with their norms, and a way around them."""
    if not has_parts(block, _BLOCK):
        return False
    around = block.nin_shortcut
    return (
        is_frame_norm(block.norm1)
        and is_frame_norm(block.norm2)
        and _are_factors(block.conv1)
        and _are_factors(block.conv2)
        and (isinstance(around, nn.Identity) or is_convolution(around, POINT))
    )


def is_attention(layers: Any) -> bool:
    """First over the pixels of each frame, then over the frames of each pixel."""
    return (
        isinstance(layers, nn.Sequential)
        and len(layers) == 2  # noqa: PLR2004 - space and time
        and all(has_parts(each, _ATTENTION) and is_frame_norm(each.norm) for each in layers)
        and hasattr(layers[0], "optimized_attention")
        and not hasattr(layers[1], "optimized_attention")
    )


def is_frame_norm(norm: Any) -> bool:
    """One group of all channels, which is how frames are told to be normalised one by one."""
    return (
        has_parts(norm, ("norm",))
        and getattr(norm, "num_groups", None) == 1
        and is_group_norm(norm.norm)
    )


def is_convolution(layer: Any, kernel: tuple[int, ...]) -> bool:
    """Causal, zeros around it in space, the first frame repeated in front of it."""
    if not has_parts(layer, ("conv3d",)) or getattr(layer, "pad_mode", None) != "constant":
        return False
    inner: Any = layer.conv3d
    around = (kernel[-1] // 2,) * 4
    return (
        isinstance(inner, nn.Conv3d)
        and inner.kernel_size == kernel
        and prod(inner.stride) == prod(inner.dilation) == 1
        and set(inner.padding) == {0}
        and tuple(layer.spatial_pad) == around
        and layer.time_pad == kernel[0] - 1
    )


def _are_factors(layers: Any) -> bool:
    """A convolution in space and then one in time."""
    return isinstance(layers, nn.Sequential) and _all_are(layers, (SPACE, TIME))


def _all_are(layers: Iterable[Any], kernels: tuple[tuple[int, ...], ...]) -> bool:
    found = list(layers)
    return len(found) == len(kernels) and all(
        is_convolution(layer, kernel) for layer, kernel in zip(found, kernels, strict=True)
    )
