"""The noise that decoders of LTX-Video 0.9.1 add between layers, the same for every tile.

Such a layer draws a picture of noise each time it is called and adds it to all frames at hand.
How often it is called depends on the pieces of time that the host cuts its clips into, and these
on the size of the picture and of the card. To give the host's picture for the host's seed, its
calls are gone through by number first, and everything is drawn in their order, for the whole
picture. Parts then get their rectangle of it, piece by piece of time as the host would have cut.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.overrides import TorchFunctionMode
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from fractions import Fraction

    from torch import Tensor

    from ..tiles import Rect

TURNS: Final = 2
"""A layer draws after each of its two convolutions."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One picture of noise.

    Attributes:
        step: which layer.
        call: which of the host's calls of it.
        turn: which of the draws in that call.
        scale: pixels per pixel of the latent, along one side.
    """

    step: int
    call: int
    turn: int
    scale: Fraction


@dataclass(frozen=True, slots=True)
class Block:
    """What the host calls at once.

    Attributes:
        steps: numbers of its layers, in order.
        draws: those that draw.
        owes: frames that each of its layers keeps back until time ends.
        doubles: it makes two frames of one, but one of the first.
        channels: of its result.
        scale: pixels of its input per pixel of the latent, along one side.
        grows: how many times higher and wider its result is.
    """

    steps: tuple[int, ...]
    draws: frozenset[int]
    owes: int
    doubles: bool
    channels: int
    scale: Fraction
    grows: int

    def frames(self, given: int, *, ended: bool) -> int:
        """What it has made of so many frames."""
        made = given if ended else max(0, given - self.owes * len(self.steps))
        return max(0, 2 * made - 1) if self.doubles else made


@dataclass(frozen=True, slots=True)
class Size:
    """Of a latent, and of what the host runs at once.

    Attributes:
        item_bytes: of one number.
        most_bytes: what one call may be given; None: anything.
    """

    frames: int
    height: int
    width: int
    item_bytes: int
    most_bytes: int | None


class _Calls:
    """Goes through the host's calls."""

    def __init__(self, blocks: Sequence[Block], size: Size) -> None:
        self._blocks, self._size = blocks, size
        self._given = [0] * len(blocks)
        self._made = [0] * len(blocks)
        self._count = [0] * len(blocks)
        self.draws: list[Draw] = []
        self.cuts: dict[int, list[int]] = {}

    def go(self, index: int, frames: int, *, ended: bool) -> None:
        """One call, and those that follow from it."""
        if index == len(self._blocks):
            return
        block = self._blocks[index]
        self._given[index] += frames
        self._note(block, self._count[index], self._given[index])
        self._count[index] += 1
        before = self._made[index]
        self._made[index] = block.frames(self._given[index], ended=ended)
        left = self._made[index] - before
        length = self._at_once(block, left)
        while left:
            piece = min(length, left)
            left -= piece
            self.go(index + 1, piece, ended=ended and not left)

    def _note(self, block: Block, call: int, given: int) -> None:
        for position, step in enumerate(block.steps):
            if step in block.draws:
                passed = max(0, given - block.owes * position)
                self.cuts.setdefault(step, []).append(passed)
                self.draws.extend(Draw(step, call, turn, block.scale) for turn in range(TURNS))

    def _at_once(self, block: Block, frames: int) -> int:
        """As ``torch.chunk`` cuts what a block made."""
        size = self._size
        if size.most_bytes is None or not frames:
            return max(1, frames)
        area = size.height * size.width * int(block.scale * block.grows) ** 2
        made_bytes = frames * block.channels * area * size.item_bytes
        return ceil(frames / ceil(made_bytes / size.most_bytes))


def calls_of(blocks: Sequence[Block], size: Size) -> tuple[list[Draw], dict[int, list[int]]]:
    """What the host draws, in its order, and after how many input frames each layer that draws
    has been called once, twice and so on."""
    calls = _Calls(blocks, size)
    calls.go(0, size.frames, ended=True)
    return calls.draws, calls.cuts


class Noise:
    """All noise of one decode.

    Args:
        blocks: of the decoder; none for networks that draw nothing.
        most_bytes: what the host runs at once on a device; None: anything.
    """

    def __init__(
        self,
        blocks: Sequence[Block] = (),
        most_bytes: Callable[[torch.device], int] | None = None,
    ) -> None:
        self._blocks, self._most_bytes = blocks, most_bytes
        self._drawn: dict[tuple[int, int, int], Tensor] = {}
        self._cuts: dict[int, list[int]] = {}

    def draw(self, latent: Tensor, frames: int) -> None:
        """Draw everything, unless that was done.

        Args:
            latent: ``[1, C, t, h, w]``, some of the frames and all of space.
            frames: that there are.
        """
        if not any(block.draws for block in self._blocks):
            return
        height, width = latent.shape[-2:]
        most = None if self._most_bytes is None else self._most_bytes(latent.device)
        size = Size(frames, height, width, latent.element_size(), most)
        draws, self._cuts = calls_of(self._blocks, size)
        for each in draws:
            key = (each.step, each.call, each.turn)
            if key not in self._drawn:
                shape = (int(height * each.scale), int(width * each.scale))
                made = torch.randn(shape, dtype=latent.dtype, device=latent.device)
                # All of it together may be large; parts take little of it at a time.
                self._drawn[key] = made.cpu()

    def room(self, step: int, position: int) -> int | None:
        """Frames from ``position`` on that belong to the same call; None: all."""
        cuts = self._cuts.get(step, [])
        index = bisect_right(cuts, position)
        # What comes after the last cut but one is the last call's.
        return cuts[index] - position if index < len(cuts) - 1 else None

    def cut(self, step: int, position: int, rect: Rect) -> TorchFunctionMode:
        """Within it, what a layer draws for frames at ``position`` is a rectangle of its noise."""
        cuts = self._cuts.get(step, [])
        call = min(bisect_right(cuts, position), len(cuts) - 1)
        return _Cut([self._drawn[step, call, turn] for turn in range(TURNS)], rect)


class _Cut(TorchFunctionMode):
    """Gives a layer its part of noise in place of what it would draw."""

    def __init__(self, noise: Sequence[Tensor], rect: Rect) -> None:
        super().__init__()
        self._noise, self._rect = iter(noise), rect

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not torch.randn:
            return func(*args, **(kwargs or {}))
        rect = self._rect
        part = next(self._noise)[rect.top : rect.bottom, rect.left : rect.right]
        return part.contiguous().to(**(kwargs or {}))


def host_limit(network: Any) -> Callable[[torch.device], int] | None:
    """How many bytes the host gives a layer at once, as the network's own module says."""
    return getattr(sys.modules.get(type(network).__module__), "get_max_chunk_size", None)
