"""Torch's allocator as a read-only instrument."""

from __future__ import annotations

from .torch_memory import torch_figures


class TorchCounter:
    """Reads allocated bytes and the allocator's own peak. It never resets the peak: other
    packs read, and some reset, the same counter."""

    def allocated_bytes(self, device: str) -> int | None:
        """Bytes in live tensors now; 0 before torch uses the device, None for system RAM."""
        return torch_figures(device).allocated_bytes

    def peak_allocated_bytes(self, device: str) -> int | None:
        """The most bytes in live tensors since the start or since someone's last reset."""
        return torch_figures(device).peak_allocated_bytes
