"""Giving memory back: Python's garbage, torch's cache, and pages the allocator hoards."""

from __future__ import annotations

import ctypes
import gc
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from .memory import HostMemory


@dataclass(frozen=True, slots=True)
class Freed:
    """Memory before and after. Bytes; ``device_*`` as the driver sees the whole device."""

    device: str
    device_free_before_bytes: int
    device_free_after_bytes: int
    rss_before_bytes: int
    rss_after_bytes: int
    models_before: int
    models_after: int

    def as_dict(self) -> dict[str, Any]:
        """For a report; ``freed_bytes`` is the device's free memory after less before, never
        negative: what other processes took or freed meanwhile is in it."""
        return {
            "device": self.device,
            "freed_bytes": max(0, self.device_free_after_bytes - self.device_free_before_bytes),
            "device_free_before_bytes": self.device_free_before_bytes,
            "device_free_after_bytes": self.device_free_after_bytes,
            "rss_before_bytes": self.rss_before_bytes,
            "rss_after_bytes": self.rss_after_bytes,
            "models_unloaded": max(0, self.models_before - self.models_after),
        }


def measure(memory: HostMemory, work: Callable[[], None]) -> Freed:
    """Do ``work`` and say what it freed on ComfyUI's main device and in this process."""
    device = memory.main_device()
    models, free, rss = memory.loaded_models(), memory.driver_free_bytes(device), rss_bytes()
    work()
    return Freed(
        str(device),
        free,
        memory.driver_free_bytes(device),
        rss,
        rss_bytes(),
        models,
        memory.loaded_models(),
    )


def clean(memory: HostMemory, *, unload_all: bool, empty_cache: bool) -> None:
    """Unload models if asked; collect garbage so that what they held is really dropped."""
    if unload_all:
        memory.unload_all()
    gc.collect()
    if empty_cache:
        memory.empty_cache()


def rss_bytes() -> int:
    """What this process holds of system memory."""
    return int(psutil.Process().memory_info().rss)


def collect(passes: int) -> int:
    """Run the garbage collector; returns how many objects it found unreachable."""
    return sum(gc.collect() for _ in range(passes))


def collect_ipc() -> bool:
    """Release CUDA memory shared with processes that ended; False where there is no CUDA."""
    import torch

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return False
    torch.cuda.ipc_collect()
    return True


def trim_working_set() -> tuple[bool, str]:
    """Ask the system to take back pages this process does not use.

    Returns:
        Whether it was done, and with which call or why not.
    """
    if sys.platform == "win32":
        return _empty_working_set()
    if sys.platform.startswith("linux"):
        return _malloc_trim()
    return False, f"there is no such call on {sys.platform}"


def _malloc_trim() -> tuple[bool, str]:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False, "this C library has no malloc_trim"
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    released = trim(0) == 1
    return True, "malloc_trim released memory" if released else "malloc_trim had nothing to release"


def _empty_working_set() -> tuple[bool, str]:
    windll: Any = getattr(ctypes, "windll", None)
    try:
        process = windll.kernel32.GetCurrentProcess
        process.restype = ctypes.c_void_p
        empty = windll.psapi.EmptyWorkingSet
    except (OSError, AttributeError):
        return False, "EmptyWorkingSet is not available"
    empty.argtypes, empty.restype = [ctypes.c_void_p], ctypes.c_int
    done = bool(empty(process()))
    return done, "EmptyWorkingSet" if done else "EmptyWorkingSet refused"
