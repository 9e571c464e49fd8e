"""What both HwSupporter nodes do: hold the reserve and the switches, and report it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ..supervisor.http.probe_report import build_report
from ..supervisor.types import DecodeContext
from ..supervisor.units import to_gib
from .cleaning import clean_gpu_before
from .host.runtime import Runtime, job_owner, versions
from .host.torch_settings import RESERVE
from .host.wishes import SWITCHES, Switch, reserve_bytes, resolve_switch
from .report import Report, hardware_facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOTES: Final = (
    "Settings hold for this job and are put back when it ends, fails or is interrupted.",
    "PYTORCH_CUDA_ALLOC_CONF must be set before ComfyUI starts; this node does not change it.",
)
DYNAMIC_WARNING: Final = (
    "DynamicVRAM is active: ComfyUI's reserve does not reach the weights it streams. "
    "Start ComfyUI with --reserve-vram or --disable-dynamic-vram if the reserve must hold."
)


def new_report(runtime: Runtime, widgets: Mapping[str, Any]) -> Report:
    """A report with the widgets, the machine and the advice filled in."""
    return Report(
        profile=str(widgets["profile"]),
        requested=dict(widgets),
        notes=list(NOTES),
        recommendations=advice_facts(runtime),
        hardware=hardware_facts(runtime.supervisor.devices, runtime.primary()),
        hardware_probe=probe(runtime) if widgets["include_hardware_report"] else None,
    )


def advice_facts(runtime: Runtime) -> dict[str, Any]:
    """The recommendation as a JSON object, without the plan for a size nobody named."""
    advice = asdict(runtime.advice())
    del advice["plan"]
    return {name: list(v) if isinstance(v, tuple) else v for name, v in advice.items()}


def decode_advice(suggestion: Mapping[str, Any] | None) -> dict[str, Any]:
    """What of a suggestion a recommendation names too, where there is something to say."""
    names = ("tile", "tile_size", "overlap", "temporal_size", "temporal_overlap")
    found = {} if suggestion is None else suggestion
    known = {name: found.get(name) for name in (*names, "cleanup_before_decode")}
    return {name: value for name, value in known.items() if value is not None}


def probe(runtime: Runtime, context: DecodeContext | None = None) -> dict[str, Any]:
    """The probe endpoint's answer."""
    return build_report(context or DecodeContext(), runtime.supervisor, versions=versions())


def clean_if_asked(
    runtime: Runtime, report: Report, *, asked: bool, values: Sequence[object] = ()
) -> None:
    """Make room before anything else, for the models in ``values`` or what the queue runs next."""
    clean_gpu_before(runtime.memory, report, asked=asked, values=values)


def hold_reserve(runtime: Runtime, widgets: Mapping[str, Any], report: Report) -> dict[str, object]:
    """Note the reserve in the report and return it as a wish to hold for the job."""
    wanted_bytes = reserve_bytes(widgets, runtime.profile_gb)
    report.applied["reserved_vram_gb"] = to_gib(wanted_bytes)
    if wanted_bytes is None:
        report.effective["reserved_vram_gb"] = to_gib(runtime.memory.reserve_bytes())
        return {}
    mode = widgets["reserved_vram_mode"]
    if mode != "manual":
        used = "reserved_vram_gb" if float(widgets["reserved_vram_gb"]) > 0 else "the profile"
        report.notes.append(
            f"reserved_vram_mode={mode} does not follow other programs yet: {to_gib(wanted_bytes)}"
            f" GiB from {used} is reserved."
        )
    if runtime.memory.dynamic():
        report.warnings.append(DYNAMIC_WARNING)
    return {RESERVE: wanted_bytes}


def resolve_switches(
    runtime: Runtime, widgets: Mapping[str, Any], report: Report
) -> dict[str, object]:
    """The torch flags to set; what comes to nothing here is said in the report."""
    machine = runtime.machine()
    wishes: dict[str, object] = {}
    for name in SWITCHES:
        switch: Switch = resolve_switch(name, str(widgets[name]), machine)
        report.applied[name] = switch.value
        report.effective[name] = switch.effective
        if switch.warning:
            report.warnings.append(switch.warning)
        if switch.value is not None:
            wishes[name] = switch.value
    return wishes


def hold_for_job(
    runtime: Runtime, node_id: str, wishes: Mapping[str, object], report: Report
) -> None:
    """Hold settings until the job ends; the prompt's start may have done so already."""
    failures = runtime.scope.hold(job_owner(node_id), wishes)
    for name, why in failures.items():
        report.warnings.append(f"{name} could not be set: {why}")
        key = "reserved_vram_gb" if name == RESERVE else name
        report.applied[key] = report.effective[key] = None
    if RESERVE in wishes and RESERVE not in failures:
        # What is in force: of several nodes' reserves the largest. DynamicVRAM heeds none.
        in_force = None if runtime.memory.dynamic() else runtime.memory.reserve_bytes()
        report.effective["reserved_vram_gb"] = to_gib(in_force)
