"""The probe's JSON answer, built from the latest samples without touching a device.

Names and nesting of ``timestamp`` to ``notes`` are those of the public IAMCCS pack, so that
its clients read this answer unchanged; ``presets`` and all from ``telemetry`` on are ours.
"""

from __future__ import annotations

import platform
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ..planning.presets import preset_widgets
from ..planning.recommend import recommend
from ..types import Reading
from ..units import MiB, to_gib
from .wire import (
    LIVE_NODES,
    decode_json,
    device_json,
    plan_json,
    reading_json,
    record_json,
    sample_json,
    state_json,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..planning.recommend import Recommendation
    from ..service import Supervisor
    from ..types import DecodeContext, DeviceInfo
    from .wire import JsonObject

RECENT_JOBS: Final = 10
_NO_POSITION: Final = {"job_id": None, "node_id": None, "node_type": None}


def build_report(
    context: DecodeContext,
    supervisor: Supervisor,
    *,
    versions: Mapping[str, str | None] | None = None,
    now_s: float | None = None,
) -> JsonObject:
    """The answer for a decode of ``context`` on the primary device, as a JSON-ready dict.

    ``now_s`` is the moment to stamp it with, seconds since the epoch; None reads the clock.
    """
    system = dict(_platform())
    samples = supervisor.latest()
    devices = supervisor.devices
    key = supervisor.primary_device()
    device = next((device for device in devices if device.key == key), None)
    sample = samples.get(key)
    reading = None if sample is None else sample.reading
    host = samples.get("cpu")
    host_bytes = None if host is None else host.reading.free_bytes
    recommendation = recommend(
        context,
        device,
        reading,
        os_name=system["os"],
        host_bytes=host_bytes,
        times=supervisor.times.get(context.family or ""),
    )
    return {
        "timestamp": int(time.time() if now_s is None else now_s),
        "platform": {**system},
        "hardware": _hardware(devices, device),
        "recommendations": _recommendations(context, recommendation, device),
        "presets": preset_widgets(system["os"]),
        "notes": list(recommendation.notes),
        "telemetry": {
            device.key: {
                "info": device_json(device),
                **(
                    sample_json(samples[device.key])
                    if device.key in samples
                    else _unread_json(device)
                ),
            }
            for device in devices
        },
        "jobs": _jobs(supervisor),
        "decode": _decode(supervisor),
        "state": state_json(supervisor.state),
        "plan": None if recommendation.plan is None else plan_json(recommendation.plan),
        "health": supervisor.health(),
        "versions": dict(versions or {}),
    }


@lru_cache(maxsize=1)
def _platform() -> tuple[tuple[str, str], ...]:
    """Cached, for Windows answers these from slow system calls."""
    return (
        ("os", platform.system()),
        ("os_release", platform.release()),
        ("python", platform.python_version()),
    )


def _unread_json(device: DeviceInfo) -> JsonObject:
    """A device before its first sample: every figure null."""
    return {
        "device": device.key,
        "time_s": None,
        **_NO_POSITION,
        "reading": reading_json(Reading()),
    }


def _hardware(devices: tuple[DeviceInfo, ...], primary: DeviceInfo | None) -> JsonObject:
    cuda = primary if primary is not None and primary.key.startswith("cuda:") else None
    ram = next((device.total_bytes for device in devices if device.key == "cpu"), None)
    return {
        "cuda_available": cuda is not None,
        "cuda_device": None if cuda is None else int(cuda.key.partition(":")[2]),
        "cuda_device_name": None if cuda is None else cuda.name,
        "cuda_total_vram_gb": None if cuda is None else to_gib(cuda.total_bytes),
        "cuda_capability": None if cuda is None else _capability(cuda.capability),
        "system_ram_gb": to_gib(ram),
    }


def _capability(text: str | None) -> list[int] | None:
    """``"9.0"`` as ``[9, 0]``, the form the public pack answers."""
    if text is None:
        return None
    parts = text.split(".")
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else None


def _recommendations(
    context: DecodeContext, recommendation: Recommendation, device: DeviceInfo | None
) -> JsonObject:
    return {
        "hw_supporter": {
            "profile": recommendation.profile,
            "apply_reserved_vram": True,
            "reserved_vram_mode": recommendation.reserved_vram_mode,
            "reserved_vram_auto_headroom_gb": 1.0,
            "reserved_vram_auto_max_gb": 0.0,
            "reserved_vram_gb": round(recommendation.reserved_vram_gb, 2),
            "reserved_vram_effective_gb": round(recommendation.reserved_vram_effective_gb, 2),
            "reserved_vram_probe_warnings": list(recommendation.warnings),
            "sage_attention": recommendation.sage_attention,
            "allow_sageattention_torch_compile": recommendation.allow_sageattention_torch_compile,
            "torch_compile_mode": recommendation.torch_compile_mode,
            "fp16_accumulation": recommendation.fp16_accumulation,
            "tf32": recommendation.tf32,
            "clean_gpu_before": recommendation.clean_gpu_before,
            "include_hardware_report": True,
        },
        "vae_decode": {
            "tile": recommendation.tile,
            "tiling_mode": recommendation.tiling_mode,
            "tile_size": recommendation.tile_size,
            "overlap": recommendation.overlap,
            "temporal_size": recommendation.temporal_size,
            "temporal_overlap": recommendation.temporal_overlap,
            "cleanup_before_decode": recommendation.cleanup_before_decode,
            "context": _context(context),
        },
        "sampler_windowed": {
            "windowing": recommendation.windowing,
            "window_frames": recommendation.window_frames,
            "window_overlap": recommendation.window_overlap,
        },
        "gguf_accelerator": _gguf_accelerator(device),
        "sampler": {
            # Progress is what the job records are read from, and costs next to nothing.
            "disable_progress": False,
            "cleanup": recommendation.cleanup_before_decode,
        },
    }


def _context(context: DecodeContext) -> JsonObject:
    frames, fps, width, height = context.frames, context.fps, context.width, context.height
    return {
        "width": width,
        "height": height,
        "frames": frames,
        "fps": fps,
        "duration_s": round(frames / fps, 3) if frames and fps else None,
        "megapixels": round(width * height / 1e6, 3) if width and height else None,
    }


def _gguf_accelerator(device: DeviceInfo | None) -> JsonObject:
    """Settings of the public pack's GGUF node, kept within a tenth of the card."""
    total_bytes = None if device is None or device.key == "cpu" else device.total_bytes
    tenth_mb = 1024 if total_bytes is None else total_bytes // 10 // MiB
    reserve_mb = min(2048, max(1024, tenth_mb))
    return {
        "mode": "auto_oom_safe",
        "patch_on_device": total_bytes is not None,
        "move_patches_now": total_bytes is not None,
        "move_policy": "partial_small_first",
        "leave_free_vram_mb": reserve_mb,
        "min_free_vram_mb": reserve_mb,
        "oom_fallback": True,
    }


def _jobs(supervisor: Supervisor) -> JsonObject:
    current = supervisor.jobs.current()
    return {
        "current": None if current is None else record_json(current, LIVE_NODES),
        "recent": [
            record_json(record, LIVE_NODES) for record in supervisor.jobs.recent(RECENT_JOBS)
        ],
    }


def _decode(supervisor: Supervisor) -> JsonObject | None:
    """The decode that runs now, with all that is final of it."""
    current = supervisor.decodes.current()
    return None if current is None else decode_json(current)
