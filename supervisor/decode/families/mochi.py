"""The autoencoder of Mochi: residual blocks of causal convolutions, group norms of each frame.

All of time is decoded at once, as the network does; space is cut into bands.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from torch import nn
from torch.nn import functional

from ..program import Phase, Program
from ._residual_shape import has_parts, is_group_norm
from ._residual_stages import BLOCK_HALO, block_stage, plain, stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..program import Carry, Stage

NAME: Final = "Mochi"
_STACK: Final = 6
"""Norm, SiLU and convolution, twice."""
_FEWEST: Final = 3
"""A group of blocks in front, at least one that grows, and a group at the end."""


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, t, h, w]`` to ``[1, 3, 6 * t - 5, 8 * h, 8 * w]``."""
    if not has_parts(model, ("decoder",), ("encoder",)) or not _is_mochi(model.decoder):
        return None
    return Program((Phase(tuple(_stages(model.decoder))),))


def _stages(network: Any) -> Iterator[Stage]:
    (convolution, *near), *ups, last = network.blocks
    yield stage("latents", partial(plain, convolution), 0)
    yield from _blocks("latent", near)
    for level, up in enumerate(ups):
        yield from _blocks(f"level {level}", up.blocks)
        scale = Fraction(up.d2st.spatial_expansion)
        yield stage(f"level {level} upsampling", partial(_grow, up), 0, scale)
    *blocks, final = last
    yield from _blocks("last", blocks)
    # Together, so that what is largest of all never waits.
    yield stage("last block and pixels", partial(_pixels, network, final), BLOCK_HALO)


def _blocks(name: str, blocks: Any) -> Iterator[Stage]:
    for index, block in enumerate(blocks):
        yield block_stage(f"{name} block {index}", block, plain)


def _grow(up: Any, x: Tensor, carry: Carry) -> Tensor:
    """A projection whose channels become pixels and frames."""
    del carry
    return up.d2st(up.proj(x))


def _pixels(network: Any, block: Any, x: Tensor, carry: Carry) -> Tensor:
    del carry
    # A block gives a tensor of its own, which may be changed.
    return network.output_proj(functional.silu(block(x), inplace=True)).contiguous()


def _is_mochi(network: Any) -> bool:
    if not has_parts(network, ("blocks", "output_proj")) or len(network.blocks) < _FEWEST:
        return False
    first, *ups, last = network.blocks
    return (
        getattr(network, "output_nonlinearity", None) == "silu"
        and _are_first(first)
        and all(_is_growing(up) for up in ups)
        and _are_blocks(last)
        and len(last) > 0
        and isinstance(network.output_proj, nn.Linear)
    )


def _are_first(layers: Any) -> bool:
    if not isinstance(layers, nn.Sequential) or len(layers) == 0:
        return False
    first = layers[0]
    return (
        isinstance(first, nn.Conv3d)
        and set(first.kernel_size) == {1}
        and set(first.stride) == {1}
        and set(first.padding) == {0}
        and _are_blocks(layers[1:])
    )


def _is_growing(up: Any) -> bool:
    """Blocks, a projection, and channels becoming pixels."""
    if not has_parts(up, ("blocks", "proj", "d2st")) or not has_parts(up.d2st, ()):
        return False
    factors = [getattr(up.d2st, f"{axis}_expansion", None) for axis in ("temporal", "spatial")]
    return (
        all(isinstance(factor, int) and factor > 0 for factor in factors)
        and isinstance(up.proj, nn.Linear)
        and _are_blocks(up.blocks)
    )


def _are_blocks(layers: Any) -> bool:
    return isinstance(layers, nn.Sequential) and all(_is_block(layer) for layer in layers)


def _is_block(block: Any) -> bool:
    """Norm, SiLU and convolution, twice, and a way around them; without attention."""
    if not has_parts(block, ("stack", "attn_block")) or len(block.stack) != _STACK:
        return False
    stack = block.stack
    return (
        isinstance(block.attn_block, nn.Identity)
        and all(is_group_norm(norm) for norm in (stack[0], stack[3]))
        and all(isinstance(activation, nn.SiLU) for activation in (stack[1], stack[4]))
        and all(_is_causal(convolution) for convolution in (stack[2], stack[5]))
    )


def _is_causal(convolution: Any) -> bool:
    """Of three pixels and frames, which puts frames in front itself and repeats the border."""
    return (
        isinstance(convolution, nn.Conv3d)
        and getattr(convolution, "causal", None) is True
        and convolution.kernel_size == (3, 3, 3)
        and convolution.padding == (0, 1, 1)
        and convolution.padding_mode == "replicate"
        and set(convolution.stride) == {1}
        and set(convolution.dilation) == {1}
    )
