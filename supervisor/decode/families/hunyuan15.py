"""The autoencoder of HunyuanVideo 1.5: norms over the channels of single pixels, time carried on.

Its middle sees all of space and time. What else is at the latent's resolution is run whole too,
which is cheap and makes the halo smaller; from there to the pixels it goes in tiles.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..program import Carry, Phase, Program, Stage
from ._hunyuan_shape import is_clip_upsample, is_decoder
from ._kl_shape import is_engine
from ._residual_shape import CARRIED_LOCAL
from ._residual_stages import carried, carried_convolution, head
from .hunyuan import two_by_two
from .hunyuan_image import enter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from ..program import Place
    from ._residual_stages import Layer

NAME: Final = "HunyuanVideo 1.5"
PIECE: Final = 2
"""Frames that go on at once where time has doubled; the rest waits."""
HALO: Final = 5
"""Latents; convolutions see 8. Relative L2 in float32 with random weights, parts of 10 in 20
columns: 2 latents 0.0096, 3 latents 7e-4, 4 latents 3e-5, 5 latents 8e-7, 6 latents 2e-7."""
FAST: Final = Fraction(3, 5)


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, t, h, w]`` to ``[1, 3, 4 * t - 3, 16 * h, 16 * w]``."""
    if not is_engine(model) or not _is_refined(model.decoder):
        return None
    network: Any = model.decoder
    near, far = network.up[0].block, _after_blocks(network)
    doubled = sum(hasattr(level, "upsample") for level in network.up)
    latents = Stage("latent blocks", partial(_latents, network, near), whole=True)
    up = Stage("up path", partial(_pixels, far), HALO, Fraction(2**doubled))
    return Program((Phase((latents,)), Phase((up,), two_by_two)), fast_halo=FAST)


def _is_refined(network: Any) -> bool:
    if getattr(network, "refiner_vae", None) is not True:
        return False
    is_upsample = partial(is_clip_upsample, kind=CARRIED_LOCAL, refiner=True)
    return is_decoder(network, CARRIED_LOCAL, is_upsample)


def _after_blocks(network: Any) -> list[Layer]:
    """Everything after the blocks at the latent's resolution."""
    first, *others = network.up
    layers: list[Layer] = [partial(carried, first.upsample)]
    for level in others:
        layers += [partial(carried, block) for block in level.block]
        if hasattr(level, "upsample"):
            layers.append(partial(carried, level.upsample))
    return [*layers, partial(head, network, call=carried_convolution)]


def _latents(
    network: Any, near: Sequence[Any], x: Tensor, carry: Carry, place: Place
) -> Iterator[Tensor]:
    """All frames at once up to the attention's end, then as few as the rest needs."""
    del place
    x = enter(network, carried_convolution, x, carry)
    middle = network.mid
    x = middle.block_2(middle.attn_1(middle.block_1(x)))
    layers: list[Layer] = [partial(carried, block) for block in near]
    carries = [Carry() for _ in layers]
    for piece in x.split(PIECE, dim=2):
        yield from run_in_pieces(layers, carries, piece)


def _pixels(layers: Sequence[Layer], x: Tensor, carry: Carry, place: Place) -> Iterator[Tensor]:
    del place
    carries = [Carry(each) for each in carry.state or [None] * len(layers)]
    yield from run_in_pieces(layers, carries, x)
    carry.state = [each.state for each in carries]


def run_in_pieces(layers: Sequence[Layer], carries: Sequence[Carry], x: Tensor) -> Iterator[Tensor]:
    """The layers one after the other; where frames have become more, ``PIECE`` go on at once.

    Convolutions look back only, and norms see single pixels, so that pieces are as good as one.
    """
    for index, (layer, carry) in enumerate(zip(layers, carries, strict=True)):
        x = layer(x, carry)
        if x.shape[2] > PIECE:
            for piece in x.split(PIECE, dim=2):
                yield from run_in_pieces(layers[index + 1 :], carries[index + 1 :], piece)
            return
    yield x
