"""Finds the devices this process may use: what torch can compute on, else what NVML shows."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

import psutil

from ...types import DeviceInfo
from ..clock import SystemClock
from .cpu import CpuProbe
from .nvidia import cuda_probes, find_nvml, monitor_only_probes
from .sources import AcceleratorProbe, RuntimeMemory, SystemMemory

if TYPE_CHECKING:
    from types import ModuleType

    from ...ports import Clock, OutsideTorch, Probe
    from ...types import DeviceKind

_log = logging.getLogger(__name__)


def discover_probes(
    clock: Clock | None = None, outside_torch: OutsideTorch | None = None
) -> tuple[Probe, ...]:
    """One probe per device, accelerators first, then the CPU.

    Imports torch where it is installed. Neither torch's state of a device nor a context is
    made: both take memory, and when to do so is the host's choice.
    """
    clock = clock or SystemClock()
    torch = _import_torch()
    nvml = find_nvml(clock)
    found: list[Probe] = []
    if torch is not None and torch.version.hip:
        found += runtime_probes(torch, "cuda", "hip", outside_torch)
    elif torch is not None:
        found += cuda_probes(torch, nvml, outside_torch)
    if torch is not None:
        found += runtime_probes(torch, "xpu", "xpu", outside_torch)
        found += mps_probes(torch, outside_torch)
    return (*(found or monitor_only_probes(nvml)), CpuProbe(clock))


def runtime_probes(
    torch: ModuleType, backend: str, kind: DeviceKind, outside_torch: OutsideTorch | None
) -> list[Probe]:
    """Devices that only torch tells of: ROCm, which uses CUDA's names, and XPU."""
    module: ModuleType | None = getattr(torch, backend, None)
    if module is None or not module.is_available():
        return []
    return [
        AcceleratorProbe(
            _runtime_device(module, f"{backend}:{index}", kind, index),
            RuntimeMemory(backend, index),
            outside_torch,
        )
        for index in range(module.device_count())
    ]


def mps_probes(torch: ModuleType, outside_torch: OutsideTorch | None) -> list[Probe]:
    """Apple's GPU, which shares the system RAM."""
    backends = getattr(torch, "backends", None)
    if not hasattr(backends, "mps") or not torch.backends.mps.is_available():
        return []
    total_bytes = psutil.virtual_memory().total
    device = DeviceInfo("mps", "mps", name="Apple GPU", total_bytes=total_bytes, unified=True)
    return [AcceleratorProbe(device, SystemMemory(), outside_torch)]


def _runtime_device(module: ModuleType, key: str, kind: DeviceKind, index: int) -> DeviceInfo:
    """Name and size are only asked of a backend the host has initialised: asking would."""
    if not module.is_initialized():
        return DeviceInfo(key, kind)
    properties = module.get_device_properties(index)
    uuid = getattr(properties, "uuid", None)
    return DeviceInfo(
        key=key,
        kind=kind,
        name=str(properties.name),
        uuid=None if uuid is None else str(uuid),
        total_bytes=int(properties.total_memory),
        unified=bool(getattr(properties, "is_integrated", False)),
    )


def _import_torch() -> ModuleType | None:
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError) as error:
        # A torch whose libraries do not load raises OSError; the monitor goes on without.
        _log.info("Torch cannot be imported (%s): its figures are unknown.", error)
        return None
