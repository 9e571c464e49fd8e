"""Runs the layers of LTX autoencoders in pieces of time.

Their convolutions look one frame ahead as well as back (in encoders back only), and do so by
giving their results late: each keeps its last two frames, gives nothing at first, and what it
still owes once it is told that time has ended. What layers keep lies in the modules, by thread.
Here it is put there before each call and taken away after it, so that nothing remains when a
call fails or is never followed by another.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils._pytree import tree_map_only

from ._ltx_shape import is_remembering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from ..program import Carry, Place
    from ._ltx_noise import Noise

PIECE: Final = 8
"""Frames that run at once, two more at the end of time. What layers keep is some 30 frames at
each resolution, so that shorter pieces would save little."""


class Timing:
    """The time step that a decoder may be told, embedded once for each block in a chunk.

    Args:
        network: the decoder; of those that are not told, nothing is asked.
        step: the time step.
    """

    def __init__(self, network: Any, step: float = 0.0) -> None:
        self._network, self._step = network, step
        self._made: dict[int, Tensor] = {}

    def embedded(self, embedder: Any, x: Tensor) -> Tensor:
        """``[1, C, 1, 1, 1]`` in the type and on the device of ``x``."""
        found = self._made.get(id(embedder))
        if found is None:
            found = self._made[id(embedder)] = self._embed(embedder, x)
        return found

    def shift_and_scale(self, x: Tensor) -> tuple[Tensor, ...]:
        """For the last layer, ``[1, C, 1, 1, 1]`` each."""
        network = self._network
        table: Tensor = network.last_scale_shift_table[None, ..., None, None, None]
        told = self.embedded(network.last_time_embedder, x)
        told = told.view(told.shape[0], 2, -1, 1, 1, 1)
        return (table.to(device=x.device, dtype=x.dtype) + told).unbind(dim=1)

    def _embed(self, embedder: Any, x: Tensor) -> Tensor:
        factor: Tensor = self._network.timestep_scale_multiplier.to(dtype=x.dtype, device=x.device)
        made: Tensor = embedder(
            timestep=(self._step * factor).flatten(),
            resolution=None,
            aspect_ratio=None,
            batch_size=x.shape[0],
            hidden_dtype=x.dtype,
        )
        return made.view(x.shape[0], -1, 1, 1, 1)


@dataclass(frozen=True, slots=True)
class Step:
    """A layer, or a few that belong together.

    Attributes:
        number: among all steps of the network.
        call: from ``[1, C, t, h, w]``; may give None or no frames.
        module: what it calls.
        scale: pixels of its input per pixel of the network's input, along one side.
        reach: pixels of its input around each that its result depends on.
        draws: it adds noise of its own.
    """

    number: int
    call: Callable[[Tensor, Timing], Tensor | None]
    module: nn.Module
    scale: Fraction = Fraction(1)
    reach: int = 1
    draws: bool = False


class Stream:
    """A stage on one chunk of one part.

    Args:
        steps: of the stage.
        timing: see ``Timing``.
        noise: shared by all parts.
        carry: keeps what layers keep, by number of the step.
        place: of the chunk.
    """

    def __init__(
        self, steps: Sequence[Step], timing: Timing, noise: Noise, carry: Carry, place: Place
    ) -> None:
        if carry.state is None:
            carry.state = {}
        self._past: dict[int, tuple[int, list[Any]]] = carry.state
        self._steps, self._timing, self._noise, self._place = steps, timing, noise, place

    def run(
        self, x: Tensor, *, ended: bool, piece: int | None = PIECE, first: int = 0
    ) -> Iterator[Tensor]:
        """What comes of ``x``, piece by piece.

        Args:
            x: ``[1, C, t, h, w]``, what follows in time.
            ended: nothing follows.
            piece: frames that may run at once; None: as many as there are.
            first: the step to begin with.
        """
        for index in range(first, len(self._steps)):
            step = self._steps[index]
            length = self._at_once(step, piece)
            while length is not None and x.shape[2] > length:
                yield from self.run(x[:, :, :length], ended=False, piece=piece, first=index)
                x = x[:, :, length:]
                length = self._at_once(step, piece)
            made = self._call(step, x, ended=ended)
            if made is None or made.shape[2] == 0:
                return
            x = made
        yield x

    def _at_once(self, step: Step, piece: int | None) -> int | None:
        if not step.draws:
            return piece
        room = self._noise.room(step.number, self._position(step))
        return piece if room is None else min(room, piece or room)

    def _position(self, step: Step) -> int:
        """Frames that a step was given so far."""
        return self._past[step.number][0] if step.number in self._past else 0

    def _call(self, step: Step, x: Tensor, *, ended: bool) -> Tensor | None:
        parts = [part for part in step.module.modules() if is_remembering(part)]
        position, kept = self._past.pop(step.number, (0, [None] * len(parts)))
        try:
            for part, state in zip(parts, kept, strict=True):
                _give(part, state, ended=ended)
            with self._drawing(step, position):
                made = step.call(x, self._timing)
            if not ended:
                taken = [_taken(part) for part in parts]
                self._past[step.number] = (position + x.shape[2], taken)
        finally:
            for part in parts:
                _memory_of(part).pop(get_ident(), None)
        return made

    def _drawing(self, step: Step, position: int) -> AbstractContextManager[object]:
        if not step.draws:
            return nullcontext()
        scale = int(step.scale / self._steps[0].scale)
        return self._noise.cut(step.number, position, self._place.context.scaled(scale))


def _memory_of(part: Any) -> dict[int, Any]:
    """What a module keeps, by thread."""
    return part.temporal_cache_state


def _give(part: Any, state: Any, *, ended: bool) -> None:
    """Put into a module what it kept; convolutions are told when time ends."""
    memory = _memory_of(part)
    memory.pop(get_ident(), None)
    if ended and hasattr(part, "time_kernel_size"):
        state = (None if state is None else state[0], True)
    if state is not None:
        memory[get_ident()] = state


def _taken(part: Any) -> Any:
    """What a module keeps; the rest of the tensors that it is cut from is let go."""
    return tree_map_only(torch.Tensor, _dense, _memory_of(part).get(get_ident()))


def _dense(tensor: Tensor) -> Tensor:
    held = tensor.untyped_storage().nbytes()
    return tensor.clone() if held > tensor.numel() * tensor.element_size() else tensor


def reach_of(steps: Sequence[Step]) -> Fraction:
    """Pixels of the network's input around a part that its result depends on."""
    return sum((step.reach / step.scale for step in steps), Fraction(0))
