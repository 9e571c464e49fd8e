"""What the probes are put together from: a device, its driver's figures and torch's."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import psutil

from ..torch_memory import torch_figures
from .figures import DeviceFigures, combine

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...ports import OutsideTorch
    from ...types import DeviceInfo, Reading

MEMORY: Final = "memory"


class DriverSource(Protocol):
    """Where a device's own figures come from. May block; never raises."""

    def figures(self, reserved_bytes: int | None, outside_bytes: int | None) -> DeviceFigures:
        """Read now. The arguments are what torch reserves and what the process is known to
        hold outside torch at this moment; both may be unknown."""
        ...

    def close(self) -> None:
        """Let go of the driver."""
        ...


class AcceleratorProbe:
    """One GPU: torch's figures and the driver's."""

    def __init__(
        self, device: DeviceInfo, source: DriverSource, outside_torch: OutsideTorch | None = None
    ) -> None:
        self._device = device
        self._source = source
        self._outside_torch = outside_torch

    @property
    def device(self) -> DeviceInfo:
        """The device this probe reads."""
        return self._device

    def read(self) -> Reading:
        """Take one reading."""
        key = self._device.key
        torch = torch_figures(key)
        outside_bytes = None if self._outside_torch is None else self._outside_torch(key)
        driver = self._source.figures(torch.reserved_bytes, outside_bytes)
        if driver.total_bytes is None:
            driver = replace(driver, total_bytes=self._device.total_bytes)
        return combine(driver, torch, outside_bytes)

    def close(self) -> None:
        """Let go of the driver."""
        self._source.close()


class RuntimeMemory:
    """Total and free memory as the compute runtime tells it, through torch.

    Asking creates a context, which costs hundreds of MiB on the device, so it is only asked
    where there is one already.

    Args:
        backend: ``"cuda"`` (also ROCm) or ``"xpu"``.
        has_context: tells whether this process has a context on the device; None believes
            that memory held by torch is the only sign of one.
    """

    def __init__(
        self, backend: str, index: int, has_context: Callable[[], bool | None] | None = None
    ) -> None:
        self._backend = backend
        self._index = index
        self._has_context = has_context

    def figures(self, reserved_bytes: int | None, outside_bytes: int | None) -> DeviceFigures:
        """Total, used and free; unknown before the process uses the device."""
        del outside_bytes
        module = getattr(sys.modules.get("torch"), self._backend, None)
        if module is None or not module.is_initialized() or not self._in_use(reserved_bytes):
            return DeviceFigures(errors={MEMORY: "unknown until this process uses the device"})
        try:
            free_bytes, total_bytes = module.mem_get_info(self._index)
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            # The device is lost, or the torch build or the driver has no such figure.
            return DeviceFigures(errors={MEMORY: str(error).partition("\n")[0]})
        return DeviceFigures(
            total_bytes=int(total_bytes),
            used_bytes=int(total_bytes - free_bytes),
            free_bytes=int(free_bytes),
        )

    def close(self) -> None:
        """Nothing is held."""

    def _in_use(self, reserved_bytes: int | None) -> bool:
        known = None if self._has_context is None else self._has_context()
        return bool(reserved_bytes) if known is None else known


class SystemMemory:
    """A GPU that lives in system RAM and whose driver counts nothing (Apple)."""

    def figures(self, reserved_bytes: int | None, outside_bytes: int | None) -> DeviceFigures:
        """System RAM."""
        del reserved_bytes, outside_bytes
        try:
            memory = psutil.virtual_memory()
        except (psutil.Error, OSError) as error:
            return DeviceFigures(errors={MEMORY: str(error)})
        return DeviceFigures(
            total_bytes=memory.total,
            used_bytes=memory.total - memory.available,
            free_bytes=memory.available,
        )

    def close(self) -> None:
        """Nothing is held."""


class MemoryFromElsewhere:
    """A first source whose memory figures, where it has none, come from a second one.

    NVML has no memory figures on unified-memory parts such as GB10, and none at all where it
    is not installed; the CUDA runtime has them.
    """

    def __init__(self, first: DriverSource, second: DriverSource) -> None:
        self._first = first
        self._second = second

    def figures(self, reserved_bytes: int | None, outside_bytes: int | None) -> DeviceFigures:
        """The first source's figures with the gap filled."""
        first = self._first.figures(reserved_bytes, outside_bytes)
        if first.used_bytes is not None:
            return first
        second = self._second.figures(reserved_bytes, outside_bytes)
        if second.used_bytes is None:
            return first
        return replace(
            first,
            total_bytes=second.total_bytes,
            used_bytes=second.used_bytes,
            free_bytes=second.free_bytes,
            errors={name: why for name, why in first.errors.items() if name != MEMORY},
        )

    def close(self) -> None:
        """Let go of both."""
        self._first.close()
        self._second.close()


class NoSource:
    """A device whose driver cannot be asked, with the reason."""

    def __init__(self, name: str, reason: str) -> None:
        self._errors = {name: reason}

    def figures(self, reserved_bytes: int | None, outside_bytes: int | None) -> DeviceFigures:
        """Nothing, and why."""
        del reserved_bytes, outside_bytes
        return DeviceFigures(errors=self._errors)

    def close(self) -> None:
        """Nothing is held."""
