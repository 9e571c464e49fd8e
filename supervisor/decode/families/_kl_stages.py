"""The way up and the way down of Stable Diffusion's autoencoder and of those that share it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ._residual_stages import (
    block_stage,
    downsample_stage,
    first_stage,
    head,
    level_stages,
    middle_stages,
    plain,
    stage,
    upsample_stage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..program import Carry, Stage
    from ._residual_stages import Call, Layer


def up_stages(network: Any, call: Call, convolve: Call) -> Iterator[Stage]:
    """From the middle to pixels.

    Args:
        network: a decoder.
        call: for blocks.
        convolve: for single convolutions.
    """
    for level in reversed(range(len(network.up))):
        up = network.up[level]
        yield from level_stages(f"level {level}", up, call)
        if level:
            yield upsample_stage(f"level {level} upsampling", up.upsample, call)
    yield stage("pixels", partial(_to_pixels, network, convolve), 1)


def _to_pixels(network: Any, convolve: Call, x: Tensor, carry: Carry) -> Tensor:
    x = head(network, x, carry, call=convolve)
    return torch.tanh(x) if network.tanh_out else x


def down_stages(network: Any, call: Call, convolve: Call) -> Iterator[Stage]:
    """From pixels to before the middle.

    Args:
        network: an encoder.
        call: for blocks.
        convolve: for single convolutions.
    """
    last = len(network.down) - 1
    for level, down in enumerate(network.down):
        name = f"level {level}"
        if level == 0:
            convolution = partial(convolve, network.conv_in)
            yield first_stage("pixels", convolution, down.block[0], call)
        yield from level_stages(name, down, call, first=1 if level == 0 else 0)
        if level < last:
            yield downsample_stage(f"{name} downsampling", down.downsample, call)


def latent_stages(network: Any, finish: Layer, **how: Any) -> Iterator[Stage]:
    """The middle of an encoder, and its head followed by ``finish``, of one pixel each."""
    yield block_stage("middle block 1", network.mid.block_1, plain)
    yield from middle_stages(network.mid)
    yield stage("latents", finish, 1, **how)


def moments_to_latents(model: Any, x: Tensor) -> Tensor:
    """The mean of what an encoder gives."""
    if hasattr(model, "quant_conv"):
        x = model.quant_conv(x)
    latents, _ = model.regularization(x)
    return latents
