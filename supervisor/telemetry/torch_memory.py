"""What torch's allocators hold, read without importing torch or waking a device.

A process that never imported torch, or whose device torch never initialised, holds nothing:
those figures are 0, not unknown. Only a backend that keeps no such figure answers None.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True, slots=True)
class TorchFigures:
    """Bytes in torch's allocator of one device; None where the backend does not count."""

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    peak_allocated_bytes: int | None = None


NOTHING_HELD: Final = TorchFigures(0, 0, 0)
NOT_COUNTED: Final = TorchFigures()


def torch_figures(device: str) -> TorchFigures:
    """Figures for a torch device key such as ``"cuda:0"``; system RAM is not counted."""
    backend, _, index = device.partition(":")
    torch = sys.modules.get("torch")
    if backend == "mps":
        return NOTHING_HELD if torch is None else _mps_figures(torch)
    if backend not in {"cuda", "xpu"}:
        return NOT_COUNTED
    module: ModuleType | None = getattr(torch, backend, None)
    # Another thread may be half-way through importing torch.
    is_initialized = getattr(module, "is_initialized", None)
    if module is None or is_initialized is None or not is_initialized():
        return NOTHING_HELD
    return _caching_allocator_figures(module, int(index or 0))


def _caching_allocator_figures(module: ModuleType, index: int) -> TorchFigures:
    """Read the nested statistics: ``memory_stats`` flattens the same dict at ten times the cost."""
    stats: dict[str, Any] = module.memory.memory_stats_as_nested_dict(index)
    if not stats:
        return NOTHING_HELD
    allocated, reserved = stats["allocated_bytes"]["all"], stats["reserved_bytes"]["all"]
    return TorchFigures(
        allocated_bytes=int(allocated["current"]),
        reserved_bytes=int(reserved["current"]),
        peak_allocated_bytes=int(allocated["peak"]),
    )


def _mps_figures(torch: ModuleType) -> TorchFigures:
    """Metal's allocator has no high-water mark."""
    return TorchFigures(
        allocated_bytes=int(torch.mps.current_allocated_memory()),
        reserved_bytes=int(torch.mps.driver_allocated_memory()),
    )
