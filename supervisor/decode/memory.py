"""Recognising that memory ran out, and giving back what torch keeps for later."""

from __future__ import annotations

import gc
from typing import Final

import torch

_MESSAGES: Final = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",
    "allocation_failed",
    "unable to find an engine",
)
"""In lower case. The last is cuDNN's, where every kernel it knows was refused its workspace."""

LOOSE_RATIO: Final = 1.5
"""Of what a pool holds to what is used of it. Stages of one decoder leave up to 7 on an H200."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error means that an allocation failed, on whatever device.

    Accelerators have a class of their own; the CPU allocator and driver errors that surface
    late raise a plain RuntimeError and can be told by their words only.
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _MESSAGES)


def pool_is_loose(device: torch.device) -> bool:
    """Whether the driver's pool (cudaMallocAsync) holds much that nobody uses: then a block of
    a new size can fail although as much is free, in pieces. torch's own allocator gives its
    unused blocks back by itself before it fails."""
    if device.type != "cuda" or torch.cuda.get_allocator_backend() != "cudaMallocAsync":
        return False
    live_bytes = torch.cuda.memory_allocated(device)
    return torch.cuda.memory_reserved(device) > LOOSE_RATIO * live_bytes


def empty_cache() -> None:
    """Break reference cycles and hand cached blocks back to the devices."""
    gc.collect()
    give_back_cache()


def give_back_cache() -> None:
    """Hand cached blocks back to the devices."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
