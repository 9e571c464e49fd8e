"""What the HW Supporter nodes do about memory for others: hold a reserve, follow it, report it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..supervisor.units import to_gib
from .host.headroom import HEADROOM
from .host.reserves import ask_of
from .host.runtime import Runtime, job_owner
from .host.torch_settings import RESERVE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .report import Report

_GB: Final = {RESERVE: "reserved_vram_gb", HEADROOM: "dynamic_vram_headroom_gb"}
"""The report's names for the settings."""
FROM_THE_NEXT_LOAD: Final = (
    "reserve: without DynamicVRAM ComfyUI heeds a change when it loads a model next; a model that "
    "is loaded stays as it is."
)
UNREACHED: Final = (
    "DynamicVRAM is active and its headroom cannot be changed while ComfyUI runs ({why}): the "
    "reserve does not reach the weights it streams. Start ComfyUI with --reserve-vram or "
    "--disable-dynamic-vram if the reserve must hold."
)


def hold_reserve(runtime: Runtime, widgets: Mapping[str, Any], report: Report) -> dict[str, object]:
    """Note the reserve in the report and return it as wishes to hold for the job."""
    ask = ask_of(widgets, runtime.profile_gb)
    if ask is None:
        report.applied["reserved_vram_gb"] = None
        report.effective["reserved_vram_gb"] = to_gib(runtime.memory.reserve_bytes())
        return {}
    decision, wishes = runtime.reserves.wishes(ask)
    report.applied["reserved_vram_gb"] = to_gib(decision.reserve_bytes)
    report.notes.extend(f"reserve: {line}" for line in decision.why)
    report.warnings.extend(runtime.spill.warnings()[-1:])
    why = runtime.reserves.no_headroom
    if not runtime.memory.dynamic():
        report.notes.append(FROM_THE_NEXT_LOAD)
    elif why is not None:
        report.warnings.append(UNREACHED.format(why=why))
    return wishes


def hold_for_job(
    runtime: Runtime, node_id: str, wishes: Mapping[str, object], report: Report
) -> None:
    """Hold settings until the job ends; the prompt's start may have done so already. The reserve
    follows what other programs hold until then."""
    owner = job_owner(node_id)
    failures = runtime.scope.hold(owner, wishes)
    ask = ask_of(report.requested, runtime.profile_gb)
    if ask is not None:
        reserve = {name: value for name, value in wishes.items() if name in _GB}
        runtime.reserves.follow(owner, ask, reserve)
    for name, why in failures.items():
        report.warnings.append(f"{name} could not be set: {why}")
        key = _GB.get(name, name)
        report.applied[key] = report.effective[key] = None
    # What is in force: of several nodes' reserves the largest.
    in_force = runtime.scope.held()
    for name, key in _GB.items():
        if name in wishes and name not in failures:
            report.effective[key] = to_gib(_int(in_force.get(name)))
    if HEADROOM in wishes and HEADROOM not in failures:
        report.applied[_GB[HEADROOM]] = to_gib(_int(wishes[HEADROOM]))
    elif runtime.memory.dynamic() and RESERVE in wishes:
        report.effective[_GB[RESERVE]] = None


def _int(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) else None
