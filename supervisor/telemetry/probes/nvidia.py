"""NVIDIA devices, with CUDA's order and NVML's figures."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from ...errors import ProbeUnavailableError
from ...types import DeviceInfo
from .cuda_driver import CudaDevice, CudaDriver
from .sources import AcceleratorProbe, MemoryFromElsewhere, NoSource, RuntimeMemory
from .visible import nvml_uuid, visible_uuids

if TYPE_CHECKING:
    from types import ModuleType

    from ...ports import Clock, OutsideTorch, Probe
    from .nvml import NvmlSession
    from .sources import DriverSource
    from .visible import Gpu

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Nvml:
    """NVML on this machine: a session, or the reason why there is none."""

    clock: Clock
    session: NvmlSession | None
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    driver: str | None = None

    def source(self, uuid: str | None) -> DriverSource:
        """The figures of a device; a source without any where it cannot be asked."""
        if self.session is None:
            return NoSource("NVML", self.problem)
        if uuid is None:
            return NoSource("NVML", "CUDA does not tell the device's UUID")
        from .nvml import NvmlDevice  # noqa: PLC0415 - the binding may be missing

        return NvmlDevice(self.session, uuid, self.clock)


def find_nvml(clock: Clock) -> Nvml:
    """Load the library and list the GPUs."""
    try:
        from .nvml import NvmlSession, driver_version, list_gpus  # noqa: PLC0415 - the binding may be missing
    except ImportError:
        return Nvml(clock, None, problem="nvidia-ml-py is not installed")
    session = NvmlSession()
    try:
        gpus = list_gpus(session)
        return Nvml(clock, session, gpus, driver=driver_version(session))
    except ProbeUnavailableError as error:
        # The session is kept: a driver that is being reset may answer later.
        return Nvml(clock, session, problem=error.reason)


def cuda_probes(torch: ModuleType, nvml: Nvml, outside_torch: OutsideTorch | None) -> list[Probe]:
    """One probe per CUDA device of this process, keyed as torch names them."""
    if not torch.cuda.is_available():
        return []
    driver = _cuda_driver()
    return [
        _cuda_probe(device, driver, nvml, outside_torch) for device in cuda_devices(torch, driver)
    ]


def cuda_devices(torch: ModuleType, driver: CudaDriver | None) -> tuple[CudaDevice, ...]:
    """What CUDA knows of its devices, without initialising torch's CUDA for it."""
    if driver is not None:
        try:
            return driver.devices()
        except ProbeUnavailableError as error:
            _log.warning("%s", error)
    indexes = range(torch.cuda.device_count())
    if torch.cuda.is_initialized():
        return tuple(_from_properties(index, torch) for index in indexes)
    return tuple(CudaDevice(index) for index in indexes)


def monitor_only_probes(nvml: Nvml) -> list[Probe]:
    """Devices torch cannot compute on, such as under a CPU build of torch."""
    if nvml.session is None:
        return []
    from .nvml import describe  # noqa: PLC0415 - the binding is there: it gave the session

    probes: list[Probe] = []
    for number, uuid in enumerate(visible_uuids(os.environ.get(VISIBLE), nvml.gpus)):
        info = describe(nvml.session, uuid)
        device = DeviceInfo(
            f"nvml:{number}",
            "cuda",
            info.name,
            uuid,
            info.total_bytes,
            info.capability,
            driver=nvml.driver,
        )
        probes.append(AcceleratorProbe(device, nvml.source(uuid)))
    return probes


def _cuda_driver() -> CudaDriver | None:
    try:
        return CudaDriver()
    except ProbeUnavailableError as error:
        _log.info("%s", error)
        return None


def _cuda_probe(
    device: CudaDevice, driver: CudaDriver | None, nvml: Nvml, outside_torch: OutsideTorch | None
) -> Probe:
    uuid = nvml_uuid(device.uuid, os.environ.get(VISIBLE), nvml.gpus)
    info = DeviceInfo(
        key=f"cuda:{device.index}",
        kind="cuda",
        name=device.name,
        uuid=uuid,
        total_bytes=device.total_bytes,
        capability=device.capability,
        unified=device.integrated,
        driver=nvml.driver,
    )
    has_context = None if driver is None else partial(driver.has_context, device.index)
    runtime = RuntimeMemory("cuda", device.index, has_context)
    return AcceleratorProbe(info, MemoryFromElsewhere(nvml.source(uuid), runtime), outside_torch)


def _from_properties(index: int, torch: ModuleType) -> CudaDevice:
    """What torch tells; older versions have no UUID."""
    properties = torch.cuda.get_device_properties(index)
    uuid = getattr(properties, "uuid", None)
    return CudaDevice(
        index=index,
        uuid=None if uuid is None else str(uuid),
        name=str(properties.name),
        total_bytes=int(properties.total_memory),
        capability=f"{properties.major}.{properties.minor}",
        integrated=bool(getattr(properties, "is_integrated", False)),
    )
