"""The autoencoder of Wan 2.2: blocks with a way around them, pixels two by two in the channels.

The first block of the way up is cut in two before it grows. Its way around needs what the block
was given, which therefore goes along in further channels.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..program import Program
from ._wan_layers import slots_of, steps_of
from ._wan_phases import (
    DOWN_FAST,
    UP_FAST,
    features_to_latents,
    features_to_pixels,
    groups_of,
    latents_to_features,
    pixels_to_features,
)
from ._wan_shape import DOWNSAMPLES, UPSAMPLES, has_children, is_resample, is_residual, is_wan

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ._wan_layers import Cache, Step

NAME: Final = "Wan 2.2"
PATCH: Final = 2
"""Pixels along one side that lie in the channels."""
PATCH_CHANNELS: Final = 3 * PATCH * PATCH


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, t, h, w]`` to ``[1, 3, 4 * t - 3, 16 * h, 16 * w]``."""
    if not _is_wan22(model):
        return None
    network: Any = model.decoder
    split, *rest = network.upsamples
    if not _mode_of(split):
        return None
    *inner, grow = split.upsamples
    steps = [partial(_grow, split, *steps_of([grow])), *steps_of(rest)]
    slots = slots_of([grow, *rest, network.head])
    scale = PATCH * 2 ** sum(bool(_mode_of(block)) for block in network.upsamples)
    up = features_to_pixels(steps, network.head, slots, scale, unpatched)
    return Program((latents_to_features(model, (), inner), up), fast_halo=UP_FAST)


def encoder(model: nn.Module) -> Program | None:
    """From ``[1, 3, t, h, w]`` to ``[1, C, (t + 3) // 4, h // 16, w // 16]``."""
    if not _is_wan22(model):
        return None
    network: Any = model.encoder
    blocks = list(network.downsamples)
    count = sum(bool(_mode_of(block)) for block in blocks)
    far, near = blocks[:count], blocks[count:]
    groups = groups_of([network.conv1, *far], _mode_of)
    if groups is None or not all(map(_mode_of, far)):
        return None
    down = pixels_to_features(groups, PATCH * 2**count, patched)
    return Program((down, features_to_latents(model, near)), fast_halo=DOWN_FAST)


def _grow(block: Any, grow: Step, x: Tensor, cache: Cache, *, first: bool) -> Tensor:
    """The end of a block, and its way around; ``x`` is as ``latents_to_features`` gives it."""
    around = block.avg_shortcut
    main, given = x[:, : -around.in_channels], x[:, -around.in_channels :]
    return grow(main, cache, first=first) + around(given, first)


def unpatched(x: Tensor) -> Tensor:
    """Channels ``(colour, column, row)`` of a patch to its pixels."""
    items, _, frames, height, width = x.shape
    x = x.reshape(items, -1, PATCH, PATCH, frames, height, width)
    x = x.permute(0, 1, 4, 5, 3, 6, 2)
    return x.reshape(items, -1, frames, height * PATCH, width * PATCH)


def patched(x: Tensor) -> Tensor:
    """The other way round."""
    items, colours, frames, height, width = x.shape
    x = x.reshape(items, colours, frames, height // PATCH, PATCH, width // PATCH, PATCH)
    x = x.permute(0, 1, 6, 4, 2, 3, 5)
    return x.reshape(items, -1, frames, height // PATCH, width // PATCH)


def _is_wan22(model: Any) -> bool:
    if not is_wan(model):
        return False
    ends = (model.encoder.conv1.in_channels, model.decoder.head[2].out_channels)
    return (
        ends == (PATCH_CHANNELS, PATCH_CHANNELS)
        and len(model.decoder.upsamples) > 0
        and all(map(_is_up_block, model.decoder.upsamples))
        and all(map(_is_down_block, model.encoder.downsamples))
    )


def _is_up_block(block: Any) -> bool:
    if has_children(block, "upsamples"):
        return all(map(is_residual, block.upsamples))
    if not has_children(block, "upsamples", "avg_shortcut") or not _mode_of(block):
        return False
    return _ends_with(block.upsamples, UPSAMPLES) and _fits(block)


def _is_down_block(block: Any) -> bool:
    if not has_children(block, "downsamples", "avg_shortcut"):
        return False
    if _mode_of(block):
        return _ends_with(block.downsamples, DOWNSAMPLES) and _fits(block)
    return all(map(is_residual, block.downsamples)) and _factors(block) == (1, 1)


def _ends_with(layers: Any, modes: tuple[str, ...]) -> bool:
    *inner, last = layers
    return all(map(is_residual, inner)) and is_resample(last, modes)


def _fits(block: Any) -> bool:
    """Whether the way around changes the size as the block does."""
    return _factors(block) == (2 if _mode_of(block).endswith("3d") else 1, 2)


def _factors(block: Any) -> tuple[Any, Any]:
    around = block.avg_shortcut
    return getattr(around, "factor_t", None), getattr(around, "factor_s", None)


def _mode_of(layer: Any) -> str:
    """How a layer or block changes the size; "" for not at all."""
    layers = getattr(layer, "upsamples", None) or getattr(layer, "downsamples", None) or [layer]
    return getattr(layers[-1], "mode", "")
