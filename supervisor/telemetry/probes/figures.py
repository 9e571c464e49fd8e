"""Puts together what torch, the driver and the host say of one device. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...types import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...types import ProcessUse
    from ..torch_memory import TorchFigures


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """What the driver says of one device. Bytes; None where it does not say.

    Attributes:
        process_bytes: what it counts for this process, already checked to be ours.
        errors: which figures are missing and why, one short line each.
    """

    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    process_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    processes: tuple[ProcessUse, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict[str, str])


def combine(driver: DeviceFigures, torch: TorchFigures, outside_bytes: int | None) -> Reading:
    """One reading out of all sources.

    ``outside_bytes`` is what this process is known to hold outside torch; it only counts
    where the driver does not tell what the process holds.
    """
    process_bytes = driver.process_bytes
    return Reading(
        total_bytes=driver.total_bytes,
        used_bytes=driver.used_bytes,
        free_bytes=driver.free_bytes,
        process_bytes=process_bytes,
        torch_allocated_bytes=torch.allocated_bytes,
        torch_reserved_bytes=torch.reserved_bytes,
        outside_torch_bytes=_at_least_zero(process_bytes, torch.reserved_bytes),
        external_bytes=_at_least_zero(
            driver.used_bytes, held_bytes(process_bytes, torch.reserved_bytes, outside_bytes)
        ),
        utilization_percent=driver.utilization_percent,
        temperature_c=driver.temperature_c,
        power_w=driver.power_w,
        processes=driver.processes,
        error="; ".join(f"{name}: {why}" for name, why in driver.errors.items()) or None,
    )


def held_bytes(
    process_bytes: int | None, reserved_bytes: int | None, outside_bytes: int | None
) -> int | None:
    """What this process is known to hold on the device, None where nothing is known."""
    if process_bytes is not None:
        return process_bytes
    if reserved_bytes is None:
        return outside_bytes
    return reserved_bytes + (outside_bytes or 0)


def _at_least_zero(whole_bytes: int | None, part_bytes: int | None) -> int | None:
    """The difference, None where a side is unknown. The sides are read microseconds apart,
    so it may come out a little below nothing."""
    if whole_bytes is None or part_bytes is None:
        return None
    return max(0, whole_bytes - part_bytes)


def own_process_bytes(
    processes: tuple[ProcessUse, ...], own_pid: int, reserved_bytes: int | None
) -> int | None:
    """What the driver counts for this process, None where it does not tell.

    Inside a container the driver may answer with the host's process ids, where ours belongs
    to somebody else: a figure below what torch alone holds cannot be ours.
    """
    own = next((use.used_bytes for use in processes if use.pid == own_pid), None)
    return own if own is not None and own >= (reserved_bytes or 0) else None


def pids_are_ours(
    processes: tuple[ProcessUse, ...], own_pid: int, reserved_bytes: int | None
) -> bool:
    """Whether the driver's process ids mean the same here, so that names may be looked up.

    A process that holds memory must be on the list; if it is not, the ids are another
    namespace's. One that holds none proves nothing either way and the ids are believed.
    """
    return not reserved_bytes or any(use.pid == own_pid for use in processes)
