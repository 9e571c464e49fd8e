"""The phases of Wan autoencoders: the latent's resolution whole, the rest in tiles through time.

Norms are over the channels of a single pixel, so tiles are exact but for what convolutions see
beyond the halo. Attention over space is in the middle block alone. It runs whole together with
everything else at the latent's resolution: that is cheap, and makes the halo smaller.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

import torch

from ..program import Phase, Stage
from ._wan_layers import (
    one_and_pairs,
    one_and_whole,
    open_cache,
    run_all,
    run_down,
    run_head,
    run_up,
    slots_of,
    steps_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from ..program import Carry, Place
    from ._wan_layers import Step

UP_HALO: Final = 5
"""Latents. Parts of 8 latents in a picture of 24 x 23, random weights, float32: a halo of 2, 3, 4,
5, 6 gives relative L2 9e-3, 8e-4, 3e-5, 4e-7, 5e-8, one of 7 is all that the way up sees. Wan 2.2
in parts of 6: 5e-3, 3e-4, 6e-6, 3e-7."""
UP_FAST: Final = Fraction(3, 5)
DOWN_HALO: Final = 5
"""Latents; all that the way down sees. A halo of 2, 3, 4 gives 2e-2, 2e-3, 4e-5."""
DOWN_FAST: Final = Fraction(3, 5)
FRAMES_OF_LATENT: Final = 4
"""But for the first, which stands for one."""


def unchanged(x: Tensor) -> Tensor:
    """Nothing to be done before or after."""
    return x


def latents_to_features(model: Any, near: Sequence[Any], inner: Sequence[Any] = ()) -> Phase:
    """Of a decoder: all up to where it begins to grow.

    Args:
        model: the autoencoder.
        near: layers between the middle block and there.
        inner: layers of a block that is cut there; what the block was given then goes along
            behind their result, in further channels.
    """
    network = model.decoder
    layers = [network.conv1, *network.middle, *near]
    steps, inside = steps_of(layers), steps_of(inner)
    slots = slots_of([*layers, *inner])

    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        cache = open_cache(carry, slots, place.total_frames)
        x = run_all(steps, model.conv2(x), cache, first=place.is_first)
        if not inside:
            return x
        return torch.cat([run_all(inside, x, cache, first=place.is_first), x], dim=1)

    return Phase((Stage("latent blocks", run, whole=True),), one_and_pairs)


def features_to_pixels(
    steps: Sequence[Step],
    head: Any,
    slots: int,
    scale: int,
    finish: Callable[[Tensor], Tensor] = unchanged,
) -> Phase:
    """Of a decoder: the way up, in tiles.

    Args:
        steps: of the way up.
        head: what makes pixels.
        slots: of the cache that both take.
        scale: pixels for a latent along one side.
        finish: what is done to what the head made.
    """

    def run(x: Tensor, carry: Carry, place: Place) -> Iterator[Tensor]:
        cache = open_cache(carry, slots, place.total_frames)
        return map(finish, run_up(steps, head, x, cache, first=place.is_first))

    stage = Stage("up path", run, halo=UP_HALO, scale=Fraction(scale))
    return Phase((stage,), one_and_pairs)


def pixels_to_features(
    groups: Sequence[Sequence[Any]],
    scale: int,
    prepare: Callable[[Tensor], Tensor] = unchanged,
) -> Phase:
    """Of an encoder: the way down, in tiles.

    Args:
        groups: see ``groups_of``.
        scale: pixels for a latent along one side.
        prepare: what is done to pixels first.
    """
    steps = [steps_of(group) for group in groups]
    slots = sum(slots_of(group) for group in groups)

    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        latents = 1 + (place.total_frames - 1) // FRAMES_OF_LATENT
        cache = open_cache(carry, slots, latents)
        return run_down(steps, prepare(x), cache, first=place.is_first)

    halo = DOWN_HALO * scale
    stage = Stage("down path", run, halo=halo, scale=Fraction(1, scale), align=scale)
    return Phase((stage,), lambda frames: one_and_whole(frames, FRAMES_OF_LATENT))


def features_to_latents(model: Any, near: Sequence[Any]) -> Phase:
    """Of an encoder: all that is at the latent's resolution.

    Args:
        model: the autoencoder.
        near: layers between the last that shrinks and the middle block.
    """
    network = model.encoder
    layers = [*near, *network.middle]
    steps, slots = steps_of(layers), slots_of([*layers, network.head])

    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        cache = open_cache(carry, slots, place.total_frames)
        x = run_all(steps, x, cache, first=place.is_first)
        mean, _ = model.conv1(run_head(network.head, x, cache)).chunk(2, dim=1)
        return mean

    return Phase((Stage("latent blocks", run, whole=True),), one_and_pairs)


def groups_of(layers: Sequence[Any], mode_of: Callable[[Any], str]) -> list[list[Any]] | None:
    """Layers of a way down, cut after each that halves time.

    None where time is not cut to a quarter, or goes on after that: a single frame is too little
    for layers that remember the last piece only.
    """
    groups: list[list[Any]] = [[]]
    for layer in layers:
        groups[-1].append(layer)
        if mode_of(layer) == "downsample3d":
            groups.append([])
    rest = groups.pop()
    return groups if not rest and 2 ** len(groups) == FRAMES_OF_LATENT else None
