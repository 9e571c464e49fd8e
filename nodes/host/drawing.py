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
    """Remembers with which generators each item began.

    Args:
        device: where the decoder draws.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._states: dict[int, list[torch.Tensor]] = {}

    @contextmanager
    def again(self, item: int) -> Generator[None]:
        """Draw as in the first attempt at this item."""
        if item in self._states:
            for generator, state in zip(_generators(self._device), self._states[item], strict=True):
                generator.set_state(state)
        else:
            generators = _generators(self._device)
            self._states[item] = [generator.get_state() for generator in generators]
        yield


@contextmanager
def drawn_from(identity: str, device: torch.device) -> Generator[None]:
    """Draw what belongs to a job, in whichever process; the caller's generators stay as they
    are."""
    seed = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") >> 1
    generators = _generators(device)
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
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
