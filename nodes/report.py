"""``report_json``: what was asked, what was done, and what the machine made of it."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..supervisor.http.wire import plan_json
from ..supervisor.units import to_gib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..supervisor.types import DeviceInfo
    from .decoding import Decoded
    from .encoding import Encoded


@dataclass
class Report:
    """One node's report. Every key is always there; unknown is null.

    Attributes:
        requested: the widgets.
        applied: what was set or done.
        effective: what the hardware makes of it.
        hardware_probe: the probe's answer, on request.
        vae_tiling_suggestion: decode sizes for the connected VAE.
    """

    profile: str | None = None
    requested: dict[str, Any] = field(default_factory=dict)
    applied: dict[str, Any] = field(default_factory=dict)
    effective: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    recommendations: Mapping[str, Any] | None = None
    hardware_probe: Mapping[str, Any] | None = None
    vae_tiling_suggestion: Mapping[str, Any] | None = None
    hardware: Mapping[str, Any] = field(default_factory=dict)
    decode: dict[str, Any] = field(default_factory=dict)
    _started: float = field(default_factory=time.perf_counter)

    def as_dict(self) -> dict[str, Any]:
        """The report as a JSON-ready object; ``timing_ms`` runs from the report's making."""
        return {
            "profile": self.profile,
            "requested": self.requested,
            "applied": self.applied,
            "effective": self.effective,
            "warnings": self.warnings,
            "notes": self.notes,
            "recommendations": self.recommendations,
            "hardware_probe": self.hardware_probe,
            "vae_tiling_suggestion": self.vae_tiling_suggestion,
            "hardware": dict(self.hardware),
            "platform": platform_facts(),
            "timing_ms": round((time.perf_counter() - self._started) * 1000, 3),
            **self.decode,
        }

    def as_json(self, *, pretty: bool = True) -> str:
        """The report as text; NaN is refused, for it is not JSON."""
        return to_json(self.as_dict(), pretty=pretty)


def to_json(answer: Mapping[str, Any], *, pretty: bool) -> str:
    """JSON as the nodes put it out."""
    return json.dumps(answer, indent=2 if pretty else None, allow_nan=False, ensure_ascii=False)


def platform_facts() -> dict[str, str]:
    """Operating system, Python, torch and what its allocator was told before it started."""
    import torch

    from .host.device_facts import allocator_settings

    return {
        "os": platform.system(),
        "os_release": platform.release(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytorch_cuda_alloc_conf": allocator_settings() or "not set",
    }


def hardware_facts(devices: Iterable[DeviceInfo], primary: DeviceInfo | None) -> dict[str, Any]:
    """The device jobs compute on, and system memory."""
    ram = next((device.total_bytes for device in devices if device.key == "cpu"), None)
    return {
        "device": None if primary is None else primary.key,
        "device_name": None if primary is None else primary.name,
        "device_total_gb": None if primary is None else to_gib(primary.total_bytes),
        "cuda_capability": None if primary is None else primary.capability,
        "system_ram_gb": to_gib(ram),
    }


def decode_facts(decoded: Decoded | Encoded) -> dict[str, Any]:
    """The own keys of a decode or encode. The measured peak is None unless it is exact; the range
    [least, most] is what is known of it otherwise, each end None where unknown."""
    record, measured = decoded.record, decoded.measured
    table = record.table
    return {
        "plan": None if record.plan is None else plan_json(record.plan),
        "plans": [] if table is None else [plan_json(plan) for plan in table.plans],
        "chosen": None if table is None else table.chosen,
        "why": _why(decoded),
        "prediction": _prediction_facts(decoded),
        "measured_peak_bytes": measured.peak_bytes,
        "measured_peak_range_bytes": [measured.least_bytes, measured.most_bytes],
        "measured_seconds": None if decoded.seconds is None else round(decoded.seconds, 3),
        "budget_bytes": record.budget_bytes,
        "free_bytes": record.free_bytes,
        "ladder": list(record.tried),
    }


def _prediction_facts(decoded: Decoded | Encoded) -> dict[str, Any] | None:
    """What the largest piece was expected to need. ``dry_run`` says where the base comes from:
    a dry run ("memory", "disk", "run"), the family's "table" or the host's "formula"."""
    prediction, plan = decoded.prediction, decoded.record.plan
    if prediction is None:
        return None
    return {
        "predicted_peak_bytes": prediction.peak_bytes,
        "base_bytes": prediction.base_bytes,
        "source": prediction.source,
        "reason": prediction.reason,
        "dry_run": prediction.dry_run,
        "seconds": None if plan is None else plan.predicted_seconds,
    }


def _why(decoded: Decoded | Encoded) -> str | None:
    """The plan's reason and where its figure comes from, in one line."""
    plan, prediction = decoded.record.plan, decoded.prediction
    if plan is None:
        return None
    return plan.reason if prediction is None else f"{plan.reason} ({prediction.reason})"
