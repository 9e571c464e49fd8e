"""What the layers look like that image KL and Hunyuan autoencoders are made of, so that no other
network is taken for one: residual blocks, attention over a whole picture, changes of size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TIME_AND_SPACE: Final = 3
"""Dimensions of a 3-D convolution."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Which convolutions and norms a network is made of.

    Attributes:
        is_convolution: of so many pixels along each side, size kept.
        is_point: of one pixel, in the attention.
        is_norm: in front of convolutions and attention.
    """

    is_convolution: Callable[[Any, int], bool]
    is_point: Callable[[Any], bool]
    is_norm: Callable[[Any], bool]


def has_parts(module: Any, needed: Iterable[str], allowed: Iterable[str] = ()) -> bool:
    """Whether it is a module with these parts and none but the ones allowed beside them."""
    if not isinstance(module, nn.Module):
        return False
    parts = {name for name, _ in module.named_children()}
    needed = set(needed)
    return needed <= parts <= needed | set(allowed)


def is_flat(module: Any, kernel: int) -> bool:
    """A 2-D convolution that keeps the size."""
    return isinstance(module, nn.Conv2d) and _keeps_size(module, kernel, 2)


def is_deep(module: Any, kernel: int) -> bool:
    """A 3-D convolution that keeps the size, with zeros around in space and time."""
    return isinstance(module, nn.Conv3d) and _keeps_size(module, kernel, TIME_AND_SPACE)


def is_carried(module: Any, kernel: int, *, strides: bool = False) -> bool:
    """A 3-D convolution that pads nothing itself; who calls it repeats the border in space and
    puts the past in front. Its own attributes say nothing of padding, those of one that always
    pads do."""
    if not has_parts(module, ("conv",)) or hasattr(module, "padding_mode"):
        return False
    inner: Any = module.conv
    return (
        isinstance(inner, nn.Conv3d)
        and set(inner.kernel_size) == {kernel}
        and set(inner.padding) == {0}
        and (strides or set(inner.stride) == {1})
        and set(inner.dilation) == {1}
    )


def _keeps_size(module: Any, kernel: int, dimensions: int) -> bool:
    return (
        module.kernel_size == (kernel,) * dimensions
        and module.padding == (kernel // 2,) * dimensions
        and set(module.stride) == {1}
        and set(module.dilation) == {1}
        and module.padding_mode == "zeros"
    )


def is_group_norm(module: Any) -> bool:
    """Over groups of channels, and all of space and time."""
    return isinstance(module, nn.GroupNorm)


def is_pixel_norm(module: Any) -> bool:
    """Over the channels of each pixel."""
    return has_parts(module, ()) and hasattr(module, "gamma") and hasattr(module, "scale")


FLAT: Final = Kind(is_flat, lambda module: is_flat(module, 1), is_group_norm)
DEEP: Final = Kind(is_deep, lambda module: is_deep(module, 1), is_group_norm)
CARRIED: Final = Kind(is_carried, lambda module: is_deep(module, 1), is_group_norm)
CARRIED_LOCAL: Final = Kind(is_carried, lambda module: is_deep(module, 1), is_pixel_norm)


def is_block(block: Any, kind: Kind) -> bool:
    """Two convolutions with their norms, and a way around them. A projection of time steps may
    be there: it is not used where there are none."""
    needed = ("swish", "norm1", "conv1", "norm2", "dropout", "conv2")
    if not has_parts(block, needed, ("nin_shortcut", "conv_shortcut", "temb_proj")):
        return False
    around = [
        kind.is_convolution(getattr(block, name), kernel)
        for name, kernel in (("nin_shortcut", 1), ("conv_shortcut", 3))
        if hasattr(block, name)
    ]
    return (
        all(around)
        and kind.is_convolution(block.conv1, 3)
        and kind.is_convolution(block.conv2, 3)
        and kind.is_norm(block.norm1)
        and kind.is_norm(block.norm2)
    )


def is_attention(module: Any, kind: Kind) -> bool:
    """Over all pixels of all frames, single-headed."""
    points = ("q", "k", "v", "proj_out")
    return (
        has_parts(module, ("norm", *points))
        and kind.is_norm(module.norm)
        and all(kind.is_point(getattr(module, name)) for name in points)
    )


def are_ends(network: Any, way: str, kind: Kind) -> bool:
    """Everything but the levels of one half: first convolution, middle and head."""
    return (
        has_parts(network, ("conv_in", "mid", "norm_out", "conv_out", way))
        and kind.is_convolution(network.conv_in, 3)
        and kind.is_convolution(network.conv_out, 3)
        and kind.is_norm(network.norm_out)
        and has_parts(network.mid, ("block_1", "attn_1", "block_2"))
        and is_block(network.mid.block_1, kind)
        and is_attention(network.mid.attn_1, kind)
        and is_block(network.mid.block_2, kind)
    )


def is_level(level: Any, kind: Kind, change: str = "") -> bool:
    """Blocks of one resolution, each with attention after it or all without, and what changes
    the size at their end."""
    if not has_parts(level, ("block", "attn", *([change] if change else []))):
        return False
    return (
        len(level.attn) in (0, len(level.block))
        and all(is_block(block, kind) for block in level.block)
        and all(is_attention(each, kind) for each in level.attn)
    )
