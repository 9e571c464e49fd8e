"""Which of the machine's NVIDIA devices ``CUDA_VISIBLE_DEVICES`` leaves to this process. Pure.

Only used where CUDA itself cannot be asked: CUDA's own order may differ from NVML's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML lists it.

    Attributes:
        uuid: ``GPU-...``.
        instances: ``MIG-...`` of its instances; empty unless MIG is on.
        is_mig: whether the GPU can only be used through its instances.
    """

    uuid: str
    is_mig: bool = False
    instances: tuple[str, ...] = ()

    @property
    def usable(self) -> tuple[str, ...]:
        """What CUDA can be given of this GPU."""
        return self.instances if self.is_mig else (self.uuid,)


def visible_uuids(setting: str | None, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """UUIDs this process may use, in its order.

    ``setting`` is the variable's value, None where it is not set. Like CUDA, everything
    after the first entry that names no device is ignored, and so is a repeated entry's
    whole list.
    """
    if setting is None:
        return tuple(uuid for gpu in gpus for uuid in gpu.usable)
    chosen: list[str] = []
    for entry in setting.split(","):
        found = _entry_uuids(entry.strip(), gpus)
        if not found:
            break
        if any(uuid in chosen for uuid in found):
            return ()
        chosen.extend(found)
    return tuple(chosen)


def _entry_uuids(entry: str, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """What one entry names: an index, a UUID or the unambiguous beginning of one."""
    if entry.isdecimal():
        index = int(entry)
        return gpus[index].usable if index < len(gpus) else ()
    if entry.startswith("MIG-"):
        return _only([uuid for gpu in gpus for uuid in gpu.instances if uuid.startswith(entry)])
    if entry.startswith("GPU-"):
        matching = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
        return matching[0].usable if len(matching) == 1 else ()
    return ()


def _only(matching: list[str]) -> tuple[str, ...]:
    return tuple(matching) if len(matching) == 1 else ()


def nvml_uuid(cuda_uuid: str | None, setting: str | None, gpus: Sequence[Gpu]) -> str | None:
    """NVML's name for a device CUDA reports; None where CUDA does not tell a UUID.

    CUDA writes the UUID without a prefix. On a MIG instance some versions report the
    instance's UUID and others its GPU's: then the instance is the one the setting names,
    or the first one, which is what CUDA takes.
    """
    if cuda_uuid is None:
        return None
    bare = cuda_uuid.lower().removeprefix("gpu-").removeprefix("mig-")
    instance = f"MIG-{bare}"
    if any(instance in gpu.instances for gpu in gpus):
        return instance
    gpu = next((gpu for gpu in gpus if gpu.uuid.lower() == f"gpu-{bare}"), None)
    if gpu is None or not gpu.is_mig:
        return gpu.uuid if gpu is not None else f"GPU-{bare}"
    named = [uuid for uuid in visible_uuids(setting, gpus) if uuid in gpu.instances]
    return next(iter((*named, *gpu.instances)), gpu.uuid)
