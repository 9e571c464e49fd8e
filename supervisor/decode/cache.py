"""The temporal feature cache that links one chunk of a causal decode to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor, nn

CACHED_FRAMES: Final = 2
"""A causal kernel of three frames looks back two."""


class FeatureCache:
    """The last frames that each causal layer saw: what links one chunk to the next.

    One cache belongs to one tile. A cache that saw a failure is void.
    """

    def __init__(self) -> None:
        self._frames: dict[int, Tensor] = {}

    def extend(self, layer: nn.Module, x: Tensor) -> Tensor:
        """``x`` with the two frames before it put in front, zeros before the first."""
        before = self._frames.pop(id(layer), None)
        if before is None:
            x = functional.pad(x, (0, 0, 0, 0, CACHED_FRAMES, 0))
        else:
            x = torch.cat((before, x), dim=2)
            del before
        self._frames[id(layer)] = x[:, :, -CACHED_FRAMES:].clone()
        return x
