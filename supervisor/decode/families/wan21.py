"""The autoencoder of Wan 2.1, which Qwen-Image uses too."""

from __future__ import annotations

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
from ._wan_shape import DOWNSAMPLES, UPSAMPLES, are, is_wan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

NAME: Final = "Wan 2.1"


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, t, h, w]`` to ``[1, 3, 4 * t - 3, 8 * h, 8 * w]``."""
    if not is_wan(model):
        return None
    network: Any = model.decoder
    layers = list(network.upsamples)
    changes = _changes(layers)
    if not changes:
        return None
    near, far = layers[: changes[0]], layers[changes[0] :]
    if not are(near, (), local=False) or not are(far, UPSAMPLES, local=True):
        return None
    slots = slots_of([*far, network.head])
    up = features_to_pixels(steps_of(far), network.head, slots, 2 ** len(changes))
    return Program((latents_to_features(model, near), up), fast_halo=UP_FAST)


def encoder(model: nn.Module) -> Program | None:
    """From ``[1, 3, t, h, w]`` to ``[1, C, (t + 3) // 4, h // 8, w // 8]``."""
    if not is_wan(model):
        return None
    network: Any = model.encoder
    layers = list(network.downsamples)
    changes = _changes(layers)
    if not changes:
        return None
    far, near = layers[: changes[-1] + 1], layers[changes[-1] + 1 :]
    if not are(near, (), local=False) or not are(far, DOWNSAMPLES, local=True):
        return None
    groups = groups_of([network.conv1, *far], _mode_of)
    if groups is None:
        return None
    down = pixels_to_features(groups, 2 ** len(changes))
    return Program((down, features_to_latents(model, near)), fast_halo=DOWN_FAST)


def _changes(layers: Sequence[Any]) -> list[int]:
    """Where the size changes."""
    return [index for index, layer in enumerate(layers) if _mode_of(layer)]


def _mode_of(layer: Any) -> str:
    return getattr(layer, "mode", "")
