"""What decoders draw at random, the same each time a decode goes on.

Some decoders mix noise into the latent. A decode that is taken up again, after running out of
memory or after a crash, must draw what it drew before, or its parts do not fit together.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Generator


class Drawn:
    """Has each item of a batch draw the same in every attempt, whichever items it begins with.

    The first item draws as it would without this; the others from seeds of their own, for what
    finished items drew is not drawn again.

    Args:
        device: where the decoder draws.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start: list[torch.Tensor] | None = None

    @contextmanager
    def again(self, item: int) -> Generator[None]:
        """While one item is decoded."""
        generators = _generators(self._device)
        now = [generator.get_state() for generator in generators]
        if self._start is None:
            self._start = now
        if item == 0:
            _set(generators, self._start)
            yield
            return
        try:
            for generator, state in zip(generators, self._start, strict=True):
                generator.manual_seed(_seed(bytes(state.cpu().tolist()) + str(item).encode()))
            yield
        finally:
            _set(generators, now)


@contextmanager
def drawn_from(identity: str, device: torch.device) -> Generator[None]:
    """Draw what belongs to a job, in whichever process; the caller's generators stay as they
    are."""
    seed = _seed(identity.encode())
    generators = _generators(device)
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        _set(generators, before)


def _seed(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def _set(generators: list[Any], states: list[torch.Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


def _generators(device: torch.device) -> list[Any]:
    """Torch's own for the CPU and for a device; devices without one draw on the CPU."""
    generators: list[Any] = [torch.default_generator]
    of_type: Any = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(of_type, "default_generators"):
        of_type.init()
        # A device without an index is the current one, which is a fact torch's types leave out.
        with of_type.device(device):
            generators.append(of_type.default_generators[of_type.current_device()])
    return generators
