"""Mochi: residual blocks with causal convolutions, and group norms of each frame.

All of time is decoded at once, as the network does; space is cut into bands.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from torch.nn import functional

from ..program import Phase, Program, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from ..program import Carry, Place

NAME: Final = "Mochi"
BLOCK_HALO: Final = 2
"""Two convolutions of three pixels."""


def decoder(model: nn.Module) -> Program | None:
    """Of a decoder whose upsampling rearranges channels, without attention."""
    network: Any = getattr(model, "decoder", None)
    if not _is_mochi(network):
        return None
    return Program((Phase((*_stages(network.blocks), _pixels(network))),))


def _is_mochi(network: Any) -> bool:
    blocks = getattr(network, "blocks", None)
    if blocks is None or not hasattr(network, "output_proj"):
        return False
    if getattr(network, "output_nonlinearity", None) != "silu":
        return False
    first, *ups, last = blocks
    if not ups or not all(_is_upsampling(up) for up in ups):
        return False
    residual = [*first[1:], *last, *(block for up in ups for block in up.blocks)]
    return all(_is_block(block) for block in residual)


def _is_upsampling(up: Any) -> bool:
    return all(hasattr(up, part) for part in ("blocks", "proj", "d2st", "spatial_expansion"))


def _is_block(block: Any) -> bool:
    """Norm, activation and a 3 x 3 x 3 convolution, twice, and nothing that mixes more."""
    stack = getattr(block, "stack", ())
    if len(stack) != _LAYERS or any(True for _ in block.attn_block.children()):
        return False
    norms, convolutions = (stack[0], stack[3]), (stack[2], stack[5])
    return all(hasattr(norm, "num_groups") for norm in norms) and all(
        tuple(each.kernel_size) == (3, 3, 3) and each.causal for each in convolutions
    )


_LAYERS: Final = 6


def _stages(blocks: Any) -> Iterator[Stage]:
    first, *ups, last = blocks
    yield Stage("input", _plain(first[0]))
    for index, block in enumerate(first[1:]):
        yield Stage(f"latent block {index}", _plain(block), halo=BLOCK_HALO)
    for level, up in enumerate(ups):
        for index, block in enumerate(up.blocks):
            yield Stage(f"level {level} block {index}", _plain(block), halo=BLOCK_HALO)
        scale = Fraction(up.spatial_expansion)
        yield Stage(f"level {level} upsampling", _enlarged(up), scale=scale)
    for index, block in enumerate(last):
        yield Stage(f"last block {index}", _plain(block), halo=BLOCK_HALO)


def _plain(layer: Any) -> Callable[[Tensor, Carry, Place], Tensor]:
    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        return layer(x)

    return run


def _enlarged(up: Any) -> Callable[[Tensor, Carry, Place], Tensor]:
    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        return up.d2st(up.proj(x))

    return run


def _pixels(network: Any) -> Stage:
    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        return network.output_proj(functional.silu(x)).contiguous()

    return Stage("pixels", run)
