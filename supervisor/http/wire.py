"""Records as JSON objects: the one place that decides the names clients see.

Bytes stay whole bytes under ``*_bytes``; unknown is null; NaN and infinities become null.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from ..types import DecodeProgress, JobChange, Sample

if TYPE_CHECKING:
    from ..types import (
        DecodeSummary,
        DeviceInfo,
        JobPosition,
        JobRecord,
        NodeRecord,
        Peak,
        Plan,
        Reading,
        State,
    )

JsonObject: TypeAlias = "dict[str, object]"

LIVE_NODES: Final = 128
"""Nodes of a job that live answers carry; the history has them all."""


def dump_json(value: object) -> str:
    """Compact JSON on one line; a number JSON cannot write becomes null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(value), separators=(",", ":"), allow_nan=False)


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {key: _without_nan(inner) for key, inner in items}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in cast("list[object]", value)]
    return value


def device_json(device: DeviceInfo) -> JsonObject:
    """What a device is; does not change while the process lives."""
    return {
        "key": device.key,
        "kind": device.kind,
        "name": device.name,
        "uuid": device.uuid,
        "total_bytes": device.total_bytes,
        "capability": device.capability,
        "unified": device.unified,
        "driver": device.driver,
    }


def reading_json(reading: Reading) -> JsonObject:
    """The figures of one moment."""
    return {
        "total_bytes": reading.total_bytes,
        "used_bytes": reading.used_bytes,
        "free_bytes": reading.free_bytes,
        "process_bytes": reading.process_bytes,
        "torch_allocated_bytes": reading.torch_allocated_bytes,
        "torch_reserved_bytes": reading.torch_reserved_bytes,
        "outside_torch_bytes": reading.outside_torch_bytes,
        "external_bytes": reading.external_bytes,
        "utilization_percent": reading.utilization_percent,
        "temperature_c": reading.temperature_c,
        "power_w": reading.power_w,
        "processes": [
            {"pid": use.pid, "name": use.name, "used_bytes": use.used_bytes}
            for use in reading.processes
        ],
        "error": reading.error,
    }


def position_json(position: JobPosition) -> JsonObject:
    """Which job and node run; all null between jobs."""
    return {
        "job_id": position.job_id,
        "node_id": position.node_id,
        "node_type": position.node_type,
    }


def sample_json(sample: Sample) -> JsonObject:
    """One sample: device key, seconds since the epoch, figures, job and node."""
    return {
        "device": sample.device.key,
        "time_s": sample.time_s,
        **position_json(sample.position),
        "reading": reading_json(sample.reading),
    }


def peak_json(peak: Peak) -> JsonObject:
    """The most one node or job held on one device."""
    return {
        "device": peak.device,
        "used_bytes": peak.used_bytes,
        "process_bytes": peak.process_bytes,
        "torch_bytes": peak.torch_bytes,
        "torch_exact": peak.torch_exact,
        "torch_bound_bytes": peak.torch_bound_bytes,
    }


def node_json(node: NodeRecord) -> JsonObject:
    """One run of one node with its peaks."""
    return {
        "node_id": node.node_id,
        "node_type": node.node_type,
        "started_s": node.started_s,
        "ended_s": node.ended_s,
        "peaks": [peak_json(peak) for peak in node.peaks],
    }


def record_json(record: JobRecord, node_limit: int | None = None) -> JsonObject:
    """One job with its nodes and peaks: all of them, or the newest ``node_limit``.

    ``node_count`` is how many the job has.
    """
    nodes = record.nodes if node_limit is None else record.nodes[-node_limit:]
    return {
        "job_id": record.job_id,
        "status": record.status,
        "started_s": record.started_s,
        "ended_s": record.ended_s,
        "peaks": [peak_json(peak) for peak in record.peaks],
        "node_count": len(record.nodes),
        "nodes": [node_json(node) for node in nodes],
        "decodes": [summary_json(decode) for decode in record.decodes],
    }


def summary_json(summary: DecodeSummary) -> JsonObject:
    """What a decode or encode was expected to take and what it took."""
    return {
        "what": summary.what,
        "device": summary.device,
        "node_id": summary.node_id,
        "started_s": summary.started_s,
        "ended_s": summary.ended_s,
        "outcome": summary.outcome,
        "family": summary.family,
        "width": summary.width,
        "height": summary.height,
        "frames": summary.frames,
        "held_bytes": summary.held_bytes,
        "kind": summary.kind,
        "plan": summary.plan,
        "predicted_bytes": summary.predicted_bytes,
        "predicted_seconds": summary.predicted_seconds,
        "measured_bytes": summary.measured_bytes,
        "seconds": summary.seconds,
        "retries": list(summary.retries),
    }


def decode_json(progress: DecodeProgress) -> JsonObject:
    """How far a decode is; ``finished`` lists what became final since the last event, each as
    ``[first frame, frames, left, top, right, bottom]``, in a snapshot all of it."""
    return {
        "number": progress.number,
        "time_s": progress.time_s,
        "job_id": progress.job_id,
        **summary_json(progress.summary),
        "steps": progress.steps,
        "done": progress.done,
        "finished": [list(each) for each in progress.finished],
    }


def state_json(state: State) -> JsonObject:
    """What holds for the whole process."""
    return {
        "time_s": state.time_s,
        "reserve_bytes": state.reserve_bytes,
        "reserve_words": state.reserve_words,
        "warnings": list(state.warnings),
    }


def change_json(change: JobChange) -> JsonObject:
    """A job's start, node change or end; ``record`` comes with the end only, its newest nodes
    only where there are many: this is encoded on the host's event loop."""
    return {
        "phase": change.phase,
        "time_s": change.time_s,
        **position_json(change.position),
        "record": (None if change.record is None else record_json(change.record, LIVE_NODES)),
    }


def plan_json(plan: Plan) -> JsonObject:
    """How a decode would be done."""
    return {
        "kind": plan.kind,
        "tiles": plan.tiles,
        "tile_size": plan.tile_size,
        "overlap": plan.overlap,
        "temporal_size": plan.temporal_size,
        "temporal_overlap": plan.temporal_overlap,
        "quality": plan.quality,
        "reason": plan.reason,
        "predicted_peak_bytes": plan.predicted_peak_bytes,
        "fits": plan.fits,
        "warnings": list(plan.warnings),
        "predicted_seconds": plan.predicted_seconds,
        "tile_width": plan.tile_width,
        "tile_height": plan.tile_height,
        "batch": plan.batch,
        "evict_bytes": plan.evict_bytes,
    }


def event_json(payload: Sample | JobChange | DecodeProgress | State) -> JsonObject:
    """What an event carries."""
    if isinstance(payload, Sample):
        return sample_json(payload)
    if isinstance(payload, JobChange):
        return change_json(payload)
    return decode_json(payload) if isinstance(payload, DecodeProgress) else state_json(payload)
