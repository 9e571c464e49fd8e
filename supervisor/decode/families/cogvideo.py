"""CogVideoX: the latent goes along to condition every norm.

The network decodes all of time at low resolution, then four frames at a time; group norms see
what is decoded at once.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import torch

from ..program import Phase, Program, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from ..program import Carry, Place, Run

NAME: Final = "CogVideoX"
CHUNK: Final = 4
"""Frames that the network itself decodes at once where time has its full length."""
BLOCK_HALO: Final = 2
"""Two convolutions of three pixels."""
_NETWORK: Final = ("conv_in", "mid_block", "up_blocks", "norm_out", "conv_act", "conv_out")


def decoder(model: nn.Module) -> Program | None:
    """Of an autoencoder that rolls through time."""
    network: Any = getattr(model, "decoder", None)
    if any(not hasattr(network, part) for part in _NETWORK):
        return None
    if not hasattr(model, "_decode_rolling") or not hasattr(network.norm_out, "norm_layer"):
        return None
    split = _in_time(network.up_blocks)
    latent: list[Tensor] = []
    early = Phase((_input(network, latent), *_early(network, split, latent)))
    late = Phase((*_late(network, split, latent), _pixels(network, latent)), chunks_of_four)
    return Program((early, late))


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


def _in_time(blocks: Any) -> int:
    """Blocks that lengthen time; they come first."""
    return sum(
        1
        for block in blocks
        if block.upsamplers is not None and any(each.compress_time for each in block.upsamplers)
    )


def _input(network: Any, latent: list[Tensor]) -> Stage:
    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        latent[:] = [x]
        return network.conv_in(x)[0]

    return Stage("input", run, whole=True)


def _early(network: Any, split: int, latent: list[Tensor]) -> Iterator[Stage]:
    """All of time at once."""

    def conditioned(resnet: Any) -> Run:
        def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
            del carry
            frames = x.shape[2]
            return resnet(x, None, _condition(latent[0], place, frames, 0, frames))[0]

        return run

    for index, resnet in enumerate(network.mid_block.resnets):
        yield Stage(f"mid block {index}", conditioned(resnet), halo=BLOCK_HALO)
    for level in range(split):
        block = network.up_blocks[level]
        for index, resnet in enumerate(block.resnets):
            yield Stage(f"level {level} block {index}", conditioned(resnet), halo=BLOCK_HALO)
        yield from _upsamplings(level, block)


def _late(network: Any, split: int, latent: list[Tensor]) -> Iterator[Stage]:
    """A few frames at a time, after what each convolution saw last."""

    def carried(resnet: Any) -> Run:
        def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
            zq = _condition(latent[0], place, place.total_frames, place.first_frame, x.shape[2])
            x, carry.state = resnet(x, None, zq, conv_cache=carry.state)
            return x

        return run

    for level in range(split, len(network.up_blocks)):
        block = network.up_blocks[level]
        for index, resnet in enumerate(block.resnets):
            yield Stage(f"level {level} block {index}", carried(resnet), halo=BLOCK_HALO)
        yield from _upsamplings(level, block)


def _upsamplings(level: int, block: Any) -> Iterator[Stage]:
    def enlarged(layer: Any) -> Run:
        def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
            del carry, place
            return layer(x)

        return run

    for layer in block.upsamplers or ():
        yield Stage(f"level {level} upsampling", enlarged(layer), halo=1, scale=Fraction(2))


def _pixels(network: Any, latent: list[Tensor]) -> Stage:
    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        zq = _condition(latent[0], place, place.total_frames, place.first_frame, x.shape[2])
        before = carry.state or {}
        x, norm = network.norm_out(x, zq, conv_cache=before.get("norm"))
        x, last = network.conv_out(network.conv_act(x), conv_cache=before.get("last"))
        carry.state = {"norm": norm, "last": last}
        return x

    return Stage("pixels", run, halo=1)


def _condition(latent: Tensor, place: Place, total: int, first: int, frames: int) -> Tensor:
    """The latent at a part's resolution and frames, nearest neighbours, ``[1, C, t, h, w]``."""
    scale, context = place.height // latent.shape[-2], place.context
    device = latent.device
    times = frames_of_latent(latent.shape[2], total)[first : first + frames]
    rows = torch.arange(context.top, context.bottom, device=device) // scale
    columns = torch.arange(context.left, context.right, device=device) // scale
    found = latent[:, :, torch.tensor(times, device=device)]
    return found[..., rows, :][..., columns]
