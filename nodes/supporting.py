"""What both HwSupporter nodes do: hold the reserve and the switches, and report it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ..supervisor.http.probe_report import build_report
from ..supervisor.types import DecodeContext
from .host.runtime import Runtime, versions
from .host.wishes import SWITCHES, Switch, resolve_switch
from .report import Report, hardware_facts

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTES: Final = (
    "Settings hold for this job and are put back when it ends, fails or is interrupted.",
    "PYTORCH_CUDA_ALLOC_CONF must be set before ComfyUI starts; this node does not change it.",
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
