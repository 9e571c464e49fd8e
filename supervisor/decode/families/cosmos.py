"""The tokenizer of Cosmos: factorised causal convolutions, norms of each frame, wavelets.

All of time is decoded at once, as the network does; space is cut into bands.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from ..program import Phase, Program, Stage
from ._cosmos_shape import is_tokenizer
from ._residual_stages import block_stage, first_stage, head, plain, stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from ..program import Carry, Place

NAME: Final = "Cosmos"


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, t, h, w]`` to ``[1, 3, 8 * t - 7, 8 * h, 8 * w]``, or as its patches say."""
    if not is_tokenizer(model):
        return None
    network: Any = model.decoder
    middle = network.mid
    return Program(
        (
            Phase(
                (
                    first_stage("latents", partial(_enter, model), middle.block_1, plain),
                    *_attention("middle attention", middle.attn_1),
                    block_stage("middle block 2", middle.block_2, plain),
                    *_levels(network),
                    _pixels(network),
                )
            ),
        )
    )


def _enter(model: Any, x: Tensor, carry: Carry) -> Tensor:
    del carry
    deviation, mean = (_by_frame(each, x) for each in (model.latent_std, model.latent_mean))
    x = x / model.sigma_data
    return model.decoder.conv_in(model.post_quant_conv(x * deviation + mean))


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
            yield block_stage(f"level {level} block {index}", block, plain)
            if len(up.attn):
                yield from _attention(f"level {level} attention {index}", up.attn[index])
        if level and (up.upsample.spatial_up or up.upsample.temporal_up):
            yield _upsampling(f"level {level} upsampling", up.upsample)


def _upsampling(name: str, upsample: Any) -> Stage:
    halo, scale = (1, 2) if upsample.spatial_up else (0, 1)
    return stage(name, partial(plain, upsample), halo, Fraction(scale))


def _attention(name: str, attention: Any) -> Iterator[Stage]:
    """Over space, then over time."""
    space, time = attention
    yield Stage(name, partial(_frame_by_frame, space), whole=True)
    yield stage(f"{name} in time", partial(plain, time), 0)


def _frame_by_frame(attention: Any, x: Tensor, carry: Carry, place: Place) -> Iterator[Tensor]:
    """Frames do not see each other here: one at a time takes least memory."""
    del carry, place
    for frame in x.split(1, dim=2):
        yield attention(frame)


def _pixels(network: Any) -> Stage:
    def run(x: Tensor, carry: Carry) -> Tensor:
        return network.unpatcher3d(head(network, x, carry, call=plain))

    return stage("pixels", run, 1, Fraction(network.unpatcher3d.patch_size))
