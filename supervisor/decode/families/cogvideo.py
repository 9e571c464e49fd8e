"""CogVideoX: the latent goes along to condition every norm.

The network decodes all of time at low resolution, then four frames at a time, convolutions
carrying the past on; group norms take in what is decoded at once.

With random weights in fp32, parts of one to three latents differ from ``model.decode`` by a
relative L2 of 6e-7 to 1.3e-6, for one to five latent frames.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional

from ..program import Carry, Phase, Program, Stage
from ._cogvideo_shape import is_cogvideo, levels_in_time
from ._residual_stages import BLOCK_HALO, plain, upsample_stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from ..program import Place, Run

NAME: Final = "CogVideoX"
CHUNK: Final = 4
"""Frames that the network itself decodes at once where time has its full length."""


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, t, h, w]`` to ``[1, 3, 4 * t, 8 * h, 8 * w]``, three frames less where ``t``
    is odd."""
    if not is_cogvideo(model):
        return None
    network: Any = model.decoder
    in_time = levels_in_time(network.up_blocks)
    latent: list[Tensor] = []
    early = [_input(network, latent), *_blocks("middle", network.mid_block, latent)]
    late: list[Stage] = []
    for index, level in enumerate(network.up_blocks):
        stages = early if index < in_time else late
        stages.extend(_level(f"level {index}", level, latent))
    late.append(_pixels(network, latent))
    phases = (Phase(tuple(early)), Phase(tuple(late), chunks_of_four))
    return Program(phases, frames=pixel_frames)


def pixel_frames(latent_frames: int) -> int:
    """Frames that come of so many of the latent; ComfyUI tells three too few of an even number."""
    return 4 * latent_frames - 3 * (latent_frames % 2)


def chunks_of_four(frames: int) -> Sequence[int]:
    """Lengths of the network's own chunks."""
    full, rest = divmod(frames, CHUNK)
    return [CHUNK] * full + [rest] * (rest > 0)


def frames_of_latent(latent_frames: int, frames: int) -> list[int]:
    """Which latent frame conditions each frame: the first has one of its own where frames are
    odd in number, the others are spread evenly."""
    if frames > 1 and frames % 2 == 1:
        rest = latent_frames - 1
        return [0, *(1 + index * rest // (frames - 1) for index in range(frames - 1))]
    return [index * latent_frames // frames for index in range(frames)]


def _input(network: Any, latent: list[Tensor]) -> Stage:
    """Whole, so that the latent is kept for the norms of all others."""

    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        latent[:] = [x]
        return network.conv_in(x)[0]

    return Stage("latents", run, whole=True)


def _level(name: str, level: Any, latent: list[Tensor]) -> Iterator[Stage]:
    yield from _blocks(name, level, latent)
    for layer in level.upsamplers or ():
        yield upsample_stage(f"{name} upsampling", layer, plain)


def _blocks(name: str, level: Any, latent: list[Tensor]) -> Iterator[Stage]:
    for index, block in enumerate(level.resnets):
        run = _conditioned(partial(_block, block), latent)
        yield Stage(f"{name} block {index}", run, BLOCK_HALO)


def _pixels(network: Any, latent: list[Tensor]) -> Stage:
    def head(x: Tensor, zq: Tensor, carry: Carry) -> Tensor:
        return _convolved(network.norm_out, network.conv_out, x, zq, carry)

    return Stage("pixels", _conditioned(head, latent), 1)


def _conditioned(layer: Any, latent: list[Tensor]) -> Run:
    """Layers with the latent beside them, which the input has left in the list."""

    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        return layer(x, _condition(latent[0], place, x.shape[2]), carry)

    return run


def _condition(latent: Tensor, place: Place, frames: int) -> Tensor:
    """The latent at a part's pixels and frames, nearest neighbours, ``[1, C, t, h, w]``."""
    # Time grows while all of it is run at once, so that only there a part's frames are all.
    total = frames if place.is_first and place.is_last else place.total_frames
    times = frames_of_latent(latent.shape[2], total)[place.first_frame :][:frames]
    scale, context, device = place.height // latent.shape[-2], place.context, latent.device
    rows = torch.arange(context.top, context.bottom, device=device) // scale
    columns = torch.arange(context.left, context.right, device=device) // scale
    found = latent[:, :, torch.tensor(times, device=device)]
    return found[..., rows, :][..., columns]


def _block(block: Any, x: Tensor, zq: Tensor, carry: Carry) -> Tensor:
    """As the block itself, but each norm's statistics before what is made of the latent: what
    would be thrown away while they are not known is not made. Carries a list of two pasts."""
    one, two = map(Carry, carry.state or (None, None))
    made = _convolved(block.norm1, block.conv1, x, zq, one)
    made = _convolved(block.norm2, block.conv2, made, zq, two)
    carry.state = [one.state, two.state]
    return made.add_(x if block.conv_shortcut is None else block.conv_shortcut(x))


def _convolved(norm: Any, convolution: Any, x: Tensor, zq: Tensor, carry: Carry) -> Tensor:
    """Norm, SiLU and a convolution after the frames it saw last."""
    x = functional.silu(_normed(norm, x, zq), inplace=True)
    x, carry.state = convolution(x, conv_cache=carry.state)
    return x


def _normed(norm: Any, x: Tensor, zq: Tensor) -> Tensor:
    made: Tensor = norm.norm_layer(x)
    return made.mul_(norm.conv_y(zq)[0]).add_(norm.conv_b(zq)[0])
