"""The layers of LTX autoencoders, one after the other, called as the host calls them.

Blocks of residual layers are taken apart: at the end of time each layer gives two frames more
than it was given, and pieces that were short would grow with every one.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from ._ltx_layers import Step
from ._ltx_noise import Block
from ._ltx_shape import is_down, is_middle, is_strided, is_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ._ltx_layers import Timing


def up_steps(network: Any) -> tuple[list[Step], list[Block]]:
    """Of a decoder, from latents to pixels; and how the host groups them between its ends."""
    numbers = count()
    conv_in = partial(_convolved, network.conv_in, network.causal)
    steps = [Step(next(numbers), conv_in, network.conv_in)]
    blocks: list[Block] = []
    scale = Fraction(1)
    for block in network.up_blocks:
        if is_up(block):
            call = partial(_convolved, block, network.causal)
            made = [Step(next(numbers), call, block, scale)]
        else:
            made = _residuals(block, network.causal, scale, numbers)
        steps.extend(made)
        blocks.append(_block(block, made, network.causal))
        scale *= growth_of(block)
    steps.append(Step(next(numbers), partial(_pixels, network), network.conv_out, scale))
    return steps, blocks


def _block(block: Any, steps: list[Step], causal: bool) -> Block:  # noqa: FBT001
    last = block.res_blocks[-1] if is_middle(block) else block
    frames, rows, columns = _stride_of(block)
    return Block(
        tuple(step.number for step in steps),
        frozenset(step.number for step in steps if step.draws),
        0 if causal else steps[0].reach,
        frames > 1,
        last.out_channels // (frames * rows * columns),
        steps[0].scale,
        rows,
    )


def down_steps(network: Any) -> list[Step]:
    """Of an encoder, from patches of pixels to the mean of the latent."""
    numbers = count()
    scale = Fraction(1, network.patch_size)
    conv_in = partial(_convolved, network.conv_in, True)
    steps = [Step(next(numbers), conv_in, network.conv_in, scale)]
    for block in network.down_blocks:
        if is_down(block) or is_strided(block):
            call = partial(_convolved, block, True)
            steps.append(Step(next(numbers), call, block, scale, reach=2))
        else:
            steps.extend(_residuals(block, True, scale, numbers))
        scale /= growth_of(block)
    steps.append(Step(next(numbers), partial(_mean, network), network.conv_out, scale))
    return steps


def growth_of(block: Any) -> int:
    """How many times higher and wider pictures get; for encoders, smaller."""
    return _stride_of(block)[1]


def frames_of_latent(blocks: Any) -> int:
    """But for the first, which stands for one."""
    frames = 1
    for block in blocks:
        frames *= _stride_of(block)[0]
    return frames


def _stride_of(block: Any) -> tuple[int, ...]:
    stride = block.conv.stride if is_strided(block) else getattr(block, "stride", (1, 1, 1))
    return tuple(stride)


def _residuals(block: Any, causal: bool, scale: Fraction, numbers: Iterator[int]) -> list[Step]:  # noqa: FBT001
    """One step for each residual layer, which reaches as far as its two convolutions."""
    embedder = getattr(block, "time_embedder", None)
    layers = block.res_blocks if is_middle(block) else [block]
    return [
        Step(
            next(numbers),
            partial(_residual, layer, causal, embedder),
            layer,
            scale,
            reach=2,
            draws=bool(layer.inject_noise),
        )
        for layer in layers
    ]


def _convolved(layer: Any, causal: bool, x: Tensor, timing: Timing) -> Tensor | None:  # noqa: FBT001
    del timing
    return layer(x, causal=causal)


def _residual(layer: Any, causal: bool, embedder: Any, x: Tensor, timing: Timing) -> Tensor:  # noqa: FBT001
    step = None if embedder is None else timing.embedded(embedder, x)
    return layer(x, causal=causal, timestep=step)


def _pixels(network: Any, x: Tensor, timing: Timing) -> Tensor:
    """The end of a decoder."""
    x = network.conv_norm_out(x)
    if network.timestep_conditioning:
        shift, scale = timing.shift_and_scale(x)
        x = x * (1 + scale) + shift
    x = network.conv_out(network.conv_act(x), causal=network.causal)
    return unpatched(x, network.patch_size)


def _mean(network: Any, x: Tensor, timing: Timing) -> Tensor:
    """The end of an encoder; what it says of the variance is left out."""
    del timing
    x = network.conv_out(network.conv_act(network.conv_norm_out(x)))
    return x[:, : network.latent_channels]


def unpatched(x: Tensor, patch: int) -> Tensor:
    """Channels ``(colour, column, row)`` of a patch to its pixels."""
    items, channels, frames, height, width = x.shape
    colours = channels // patch**2
    x = x.reshape(items, colours, patch, patch, frames, height, width)
    x = x.permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(items, colours, frames, height * patch, width * patch)


def patched(x: Tensor, size: int) -> Tensor:
    """The other way round."""
    items, colours, frames, height, width = x.shape
    x = x.reshape(items, colours, frames, height // size, size, width // size, size)
    x = x.permute(0, 1, 6, 4, 2, 3, 5)
    return x.reshape(items, colours * size**2, frames, height // size, width // size)
