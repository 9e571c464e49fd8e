"""Cosmos: factorised causal convolutions, norms of each frame, wavelets at the end.

All of time is decoded at once, as the network does; space is cut into bands.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from torch.nn import functional

from ..program import Phase, Program, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from ..program import Carry, Place

NAME: Final = "Cosmos"
BLOCK_HALO: Final = 2
"""Two convolutions of three pixels."""
_MODEL: Final = ("post_quant_conv", "latent_mean", "latent_std", "sigma_data")
_NETWORK: Final = ("conv_in", "mid", "up", "norm_out", "conv_out", "unpatcher3d")


def decoder(model: nn.Module) -> Program | None:
    """Of a continuous video tokenizer."""
    network: Any = getattr(model, "decoder", None)
    if any(not hasattr(model, part) for part in _MODEL):
        return None
    if any(not hasattr(network, part) for part in _NETWORK) or not _norms_by_frame(network):
        return None
    return Program((Phase((_head(model, network), *_levels(network), _pixels(network))),))


def _norms_by_frame(network: Any) -> bool:
    """One group of all channels, which is how frames are told to be normalised one by one."""
    blocks = [block for up in network.up for block in up.block]
    norms = [network.norm_out, *(block.norm1 for block in blocks), *(b.norm2 for b in blocks)]
    return all(getattr(norm, "num_groups", None) == 1 for norm in norms)


def _head(model: Any, network: Any) -> Stage:
    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        std, mean = _by_frame(model.latent_std, x), _by_frame(model.latent_mean, x)
        x = x / model.sigma_data
        x = network.conv_in(model.post_quant_conv(x * std + mean))
        return network.mid.block_2(network.mid.attn_1(network.mid.block_1(x)))

    return Stage("mid block", run, whole=True)


def _by_frame(table: Tensor, x: Tensor) -> Tensor:
    """A table ``[C * n]`` for the frames of ``[1, C, t, h, w]``, again from its start after n."""
    channels, frames = x.shape[1:3]
    values = table.view(channels, -1)
    values = values.repeat(1, ceil(frames / values.shape[-1]))[:, :frames]
    return values.reshape(1, channels, frames, 1, 1).to(dtype=x.dtype, device=x.device)


def _levels(network: Any) -> Iterator[Stage]:
    for level in reversed(range(len(network.up))):
        up = network.up[level]
        for index, block in enumerate(up.block):
            yield Stage(f"level {level} block {index}", _plain(block), halo=BLOCK_HALO)
            if len(up.attn):
                yield Stage(f"level {level} attention {index}", _plain(up.attn[index]), whole=True)
        if level:
            doubles = bool(up.upsample.spatial_up)
            scale = Fraction(2 if doubles else 1)
            yield Stage(
                f"level {level} upsampling", _plain(up.upsample), halo=int(doubles), scale=scale
            )


def _plain(layer: Any) -> Callable[[Tensor, Carry, Place], Tensor]:
    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        return layer(x)

    return run


def _pixels(network: Any) -> Stage:
    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        return network.unpatcher3d(network.conv_out(functional.silu(network.norm_out(x))))

    return Stage("pixels", run, halo=1, scale=Fraction(int(network.unpatcher3d.patch_size)))
