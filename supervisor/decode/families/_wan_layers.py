"""Runs the layers of Wan autoencoders in pieces of time, with a cache of past frames.

Their layers are called as ``layer(x, cache, cursor)``. The cache is a list with a slot for each
causal convolution, which keeps the last two frames that the convolution was given; the cursor is
a list of one index, the slot whose turn it is. A clip of one frame needs no past and is run
without a cache.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from ..program import Carry

PAST: Final = 2
"""Frames that a causal convolution of three frames looks back."""
PIECE: Final = 2
"""Frames that run at once. Layers of some hosts remember the last piece only, so one that others
follow may not be shorter than ``PAST``, unless it is the clip's first frame."""


@dataclass(slots=True)
class Cache:
    """Past frames, and whose turn it is.

    Attributes:
        slots: filled and read by the layers themselves; None where there is no past.
        cursor: index of the next slot, in a list as the layers take it.
    """

    slots: list[Any] | None
    cursor: list[int]

    def again(self) -> Cache:
        """The same slots from here on, for the next piece of time."""
        return Cache(self.slots, self.cursor.copy())


class Step(Protocol):
    """A layer or a block of layers."""

    def __call__(self, x: Tensor, cache: Cache, *, first: bool) -> Tensor:
        """From ``[1, C, t, h, w]``; passes by the slots it takes. ``first``: time begins here."""
        ...


def open_cache(carry: Carry, slots: int, frames: int) -> Cache:
    """The cache of a stage at the beginning of a chunk.

    Args:
        carry: keeps the slots from chunk to chunk.
        slots: how many, see ``slots_of``.
        frames: of the whole clip.
    """
    if frames > 1 and carry.state is None:
        carry.state = [None] * slots
    return Cache(carry.state, [0])


def slots_of(layers: Iterable[nn.Module]) -> int:
    """At least as many as layers take: downsampling takes up to two for its convolution."""
    return sum(2 for layer in layers for part in layer.modules() if isinstance(part, nn.Conv3d))


def one_and_pairs(frames: int) -> tuple[int, ...]:
    """Time at the latent's resolution: the first frame alone, then two and two."""
    full, rest = divmod(frames - 1, PIECE)
    return (1, *[PIECE] * full, *([rest] if rest else []))


def one_and_whole(frames: int, length: int) -> tuple[int, ...]:
    """Time of pictures: the first frame alone, then ``length`` for each latent frame.

    What does not fill one is dropped, as by the host.
    """
    return (1, *[length] * ((frames - 1) // length))


def steps_of(layers: Iterable[Any]) -> list[Step]:
    """Layers as the host calls them."""
    return [_step_of(layer) for layer in layers]


def _step_of(layer: Any) -> Step:
    if isinstance(layer, nn.Conv3d):
        return partial(_causal_step, layer)
    if hasattr(layer, "to_qkv"):
        return partial(_plain_step, layer)
    if hasattr(layer, "upsamples"):
        return partial(_doubling_step, layer)
    halves = getattr(layer, "mode", None) == "downsample3d"
    if halves and "final" in inspect.signature(layer.forward).parameters:
        return partial(_halving_step, layer)
    return partial(_cached_step, layer)


def _causal_step(layer: Any, x: Tensor, cache: Cache, *, first: bool) -> Tensor:
    del first
    return causal(layer, x, cache)


def _plain_step(layer: Any, x: Tensor, cache: Cache, *, first: bool) -> Tensor:
    del cache, first
    return layer(x)


def _doubling_step(block: Any, x: Tensor, cache: Cache, *, first: bool) -> Tensor:
    """A block whose way around itself must know where time begins."""
    return block(x, cache.slots, cache.cursor, first)


def _halving_step(layer: Any, x: Tensor, cache: Cache, *, first: bool) -> Tensor:
    """A layer that keeps a single frame for its next call, unless it is told that none comes.

    Here it must not: what it makes is put together by ``run_down``.
    """
    del first
    return layer(x, cache.slots, cache.cursor, final=True)


def _cached_step(layer: Any, x: Tensor, cache: Cache, *, first: bool) -> Tensor:
    del first
    return layer(x, cache.slots, cache.cursor)


def causal(convolution: Any, x: Tensor, cache: Cache) -> Tensor:
    """One causal convolution, with the past where there is one."""
    if cache.slots is None:
        return convolution(x)
    slot = cache.cursor[0]
    cache.cursor[0] += 1
    before = cache.slots[slot]
    cache.slots[slot] = _past_of(x, before)
    return convolution(x, before)


def _past_of(x: Tensor, before: Tensor | None) -> Tensor:
    """The last frames, copied where a view would keep more alive."""
    if x.shape[2] < PAST and before is not None:
        return torch.cat([before[:, :, -1:], x], dim=2)
    return x if x.shape[2] <= PAST else x[:, :, -PAST:].clone()


def run_head(head: Any, x: Tensor, cache: Cache) -> Tensor:
    """Norm, SiLU and the convolution to the output's channels."""
    norm, activation, convolution = head
    return causal(convolution, activation(norm(x)), cache)


def run_all(steps: Iterable[Step], x: Tensor, cache: Cache, *, first: bool) -> Tensor:
    """One after the other on all frames."""
    for step in steps:
        x = step(x, cache, first=first)
    return x


def run_up(
    steps: Sequence[Step], head: Any, x: Tensor, cache: Cache, *, first: bool
) -> Iterator[Tensor]:
    """The way up, in pieces of time: where frames double, half of them go on at once.

    Args:
        steps: of the way up.
        head: what makes pixels.
        x: ``[1, C, t, h, w]`` of at most ``PIECE`` frames.
        cache: at the first step.
        first: whether time begins here.
    """
    for done, step in enumerate(steps, start=1):
        x = step(x, cache, first=first)
        if x.shape[2] > PIECE:
            for piece in x.split(PIECE, dim=2):
                yield from run_up(steps[done:], head, piece, cache.again(), first=False)
            return
    x = run_head(head, x, cache)
    yield x


def run_down(groups: Sequence[Sequence[Step]], x: Tensor, cache: Cache, *, first: bool) -> Tensor:
    """The way down: of all frames of ``x`` one comes out.

    Args:
        groups: steps up to each that halves time, with that one. A group runs on ``PIECE``
            frames at once, the next one on what came of all of them.
        x: ``[1, C, t, h, w]``: the clip's first frame, or as many as become one.
        cache: at the first step.
        first: whether time begins here.
    """
    for group in groups:
        made: list[Tensor] = []
        after = cache
        for piece in x.split(PIECE, dim=2):
            after = cache.again()
            made.append(run_all(group, piece, after, first=first))
        x, cache = torch.cat(made, dim=2) if len(made) > 1 else made[0], after
    return x
