"""Stages of networks made of residual blocks: each block and each change of size is one.

Group norms take in the whole picture, so that these stages run one after the other over all of
it. Attention does too: it is a stage of its own, for blocks need more memory than it.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch
from torch.nn import functional

from ..program import Carry, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..program import Place

BLOCK_HALO: Final = 2
"""Two convolutions of three pixels."""
PAST: Final = 2
"""Frames that a causal convolution of three frames looks back."""

Layer: TypeAlias = Callable[["Tensor", Carry], "Tensor"]
"""Layers on a part of the picture and a chunk of time."""
Call: TypeAlias = Callable[[Any, "Tensor", Carry], "Tensor"]
"""How the host's layers are called."""


def plain(layer: Any, x: Tensor, carry: Carry) -> Tensor:
    """On pictures, or on all frames at once."""
    del carry
    return layer(x)


def carried(layer: Any, x: Tensor, carry: Carry) -> Tensor:
    """On a chunk of time, the carry being a list of what each convolution keeps of the past.

    The host's layers take from the front of one list and add to another; None means that time
    begins here.
    """
    before = None if carry.state is None else list(carry.state)
    after: list[Tensor] = []
    x = layer(x, conv_carry_in=before, conv_carry_out=after)
    carry.state = after
    return x


def carried_convolution(convolution: Any, x: Tensor, carry: Carry) -> Tensor:
    """A convolution of three pixels and frames: borders repeated, the past or the first frame
    in front."""
    is_first = carry.state is None
    x = functional.pad(x, (1, 1, 1, 1, PAST if is_first else 0, 0), mode="replicate")
    if not is_first:
        x = torch.cat([carry.state[0], x], dim=2)
    carry.state = [x[:, :, -PAST:].clone()]
    return convolution(x)


def chained(first: Layer, second: Layer) -> Layer:
    """One after the other, each with a carry of its own."""

    def run(x: Tensor, carry: Carry) -> Tensor:
        one, two = map(Carry, carry.state or (None, None))
        x = second(first(x, one), two)
        carry.state = (one.state, two.state)
        return x

    return run


def stage(
    name: str,
    layer: Layer,
    halo: int,
    scale: Fraction = Fraction(1),
    align: int = 1,
    *,
    whole: bool = False,
) -> Stage:
    """A stage that needs not know its place."""

    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del place
        return layer(x, carry)

    return Stage(name, run, halo, scale, whole, align)


def block_stage(name: str, block: Any, call: Call) -> Stage:
    """One residual block."""
    return stage(name, partial(call, block), BLOCK_HALO)


def attention_stage(name: str, attention: Any) -> Stage:
    """Attention over everything."""
    return stage(name, partial(plain, attention), 0, whole=True)


def first_stage(name: str, convolution: Layer, block: Any, call: Call, **how: Any) -> Stage:
    """The first convolution of a network together with the block after it."""
    return stage(name, chained(convolution, partial(call, block)), 1 + BLOCK_HALO, **how)


def middle_stages(middle: Any) -> Iterator[Stage]:
    """What follows the first block of the middle, which runs with what comes before it."""
    yield attention_stage("middle attention", middle.attn_1)
    yield block_stage("middle block 2", middle.block_2, plain)


def level_stages(name: str, level: Any, call: Call, *, first: int = 0) -> Iterator[Stage]:
    """The blocks of one resolution, from the ``first`` on, each with its attention."""
    attention = getattr(level, "attn", ())
    for index, block in enumerate(level.block):
        if index >= first:
            yield block_stage(f"{name} block {index}", block, call)
        if len(attention):
            yield attention_stage(f"{name} attention {index}", attention[index])


def upsample_stage(name: str, upsample: Any, call: Call) -> Stage:
    """Twice as large, then a convolution; or a convolution whose channels become pixels."""
    return stage(name, partial(call, upsample), 1, Fraction(2))


def downsample_stage(name: str, downsample: Any, call: Call) -> Stage:
    """A convolution at every second pixel."""
    return stage(name, partial(call, downsample), 1, Fraction(1, 2), align=2)


def head(network: Any, x: Tensor, carry: Carry, *, call: Call) -> Tensor:
    """Norm, SiLU and the last convolution."""
    return call(network.conv_out, functional.silu(network.norm_out(x)), carry)
