"""What CogVideoX's decoder looks like, so that no other network is taken for it."""

from __future__ import annotations

from typing import Any, Final

from torch import nn

from ._residual_shape import has_parts, is_deep, is_flat, is_group_norm

_ENDS: Final = ("conv_in", "mid_block", "up_blocks", "norm_out", "conv_act", "conv_out")
_BLOCK: Final = ("nonlinearity", "norm1", "conv1", "norm2", "conv2")


def is_cogvideo(model: Any) -> bool:
    """Whether it decodes low resolutions in one go and the others rolling through time."""
    if not has_parts(model, ("encoder", "decoder")) or not hasattr(model, "_decode_rolling"):
        return False
    network: Any = model.decoder
    return (
        has_parts(network, _ENDS)
        and _is_causal(network.conv_in, 3)
        and _has_blocks(network.mid_block)
        and _are_levels(network.up_blocks, getattr(model, "temporal_compression_ratio", 0))
        and _is_conditioned(network.norm_out)
        and isinstance(network.conv_act, nn.SiLU)
        and _is_causal(network.conv_out, 3)
    )


def levels_in_time(levels: Any) -> int:
    """How many levels double time."""
    return sum(_doubles_time(level) for level in levels)


def _are_levels(levels: Any, ratio: int) -> bool:
    """The first ones double time and space, then some space only, the last one nothing. The
    network rolls from where ``ratio`` says, which must be where time has its full length."""
    if not all(_has_blocks(level, "upsamplers") for level in levels):
        return False
    *others, last = levels
    in_time = levels_in_time(levels)
    return (
        getattr(last, "upsamplers", None) is None
        and all(map(_doubles_space, others))
        and all(map(_doubles_time, levels[:in_time]))
        and ratio == 2**in_time
    )


def _doubles_space(level: Any) -> bool:
    upsamplers: Any = getattr(level, "upsamplers", None) or ()
    return len(upsamplers) == 1 and all(
        has_parts(each, ("conv",)) and hasattr(each, "compress_time") and is_flat(each.conv, 3)
        for each in upsamplers
    )


def _doubles_time(level: Any) -> bool:
    upsamplers: Any = getattr(level, "upsamplers", None) or ()
    return any(each.compress_time for each in upsamplers)


def _has_blocks(level: Any, *allowed: str) -> bool:
    return has_parts(level, ("resnets",), allowed) and all(map(_is_block, level.resnets))


def _is_block(block: Any) -> bool:
    if not has_parts(block, _BLOCK, ("conv_shortcut",)):
        return False
    shortcut: Any = block.conv_shortcut
    return (
        isinstance(block.nonlinearity, nn.SiLU)
        and all(map(_is_conditioned, (block.norm1, block.norm2)))
        and all(_is_causal(each, 3) for each in (block.conv1, block.conv2))
        and (shortcut is None or is_deep(shortcut, 1))
    )


def _is_conditioned(norm: Any) -> bool:
    """A group norm whose result is scaled and shifted by what is made of the latent."""
    return (
        has_parts(norm, ("norm_layer", "conv_y", "conv_b"))
        and is_group_norm(norm.norm_layer)
        and _is_causal(norm.conv_y, 1)
        and _is_causal(norm.conv_b, 1)
    )


def _is_causal(module: Any, kernel: int) -> bool:
    """A convolution with zeros around in space, and the past or the first frame in front."""
    modes = ("first",) if kernel > 1 else ("first", "constant")
    if not has_parts(module, ("conv",)) or getattr(module, "pad_mode", None) not in modes:
        return False
    inner: Any = module.conv
    return (
        isinstance(inner, nn.Conv3d)
        and inner.kernel_size == (kernel,) * 3
        and inner.padding == (0, kernel // 2, kernel // 2)
        and set(inner.stride) == {1}
        and set(inner.dilation) == {1}
        and inner.padding_mode == "zeros"
        and getattr(module, "time_kernel_size", None) == kernel
    )
