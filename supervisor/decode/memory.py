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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error means that an allocation failed, on whatever device.

    Accelerators have a class of their own; the CPU allocator and driver errors that surface
    late raise a plain RuntimeError and can be told by their words only.
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _MESSAGES)


def empty_cache() -> None:
    """Break reference cycles and hand cached blocks back to the devices."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
