from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from support.http_world import CPU, GPU, sample_at

from vram_supervisor.supervisor.http.probe_report import build_report
from vram_supervisor.supervisor.http.wire import dump_json
from vram_supervisor.supervisor.planning.families import BY_FAMILY
from vram_supervisor.supervisor.planning.recommend import recommend
from vram_supervisor.supervisor.service import Supervisor
from vram_supervisor.supervisor.types import DecodeContext, DeviceInfo
from vram_supervisor.supervisor.units import GiB

Make = Callable[..., Supervisor]

# The public pack's answer: what its clients read.
PUBLIC_FIELDS = {
    "timestamp": None,
    "platform": {"os", "os_release", "python"},
    "hardware": {
        "cuda_available",
        "cuda_device",
        "cuda_device_name",
        "cuda_total_vram_gb",
        "cuda_capability",
        "system_ram_gb",
    },
    "recommendations": {
        "hw_supporter",
        "vae_decode",
        "sampler_windowed",
        "gguf_accelerator",
        "sampler",
    },
    "notes": None,
}
PUBLIC_RECOMMENDATIONS = {
    "hw_supporter": {
        "profile",
        "apply_reserved_vram",
        "reserved_vram_mode",
        "reserved_vram_auto_headroom_gb",
        "reserved_vram_auto_max_gb",
        "reserved_vram_gb",
        "reserved_vram_effective_gb",
        "reserved_vram_probe_warnings",
        "sage_attention",
        "allow_sageattention_torch_compile",
        "torch_compile_mode",
        "fp16_accumulation",
        "tf32",
        "clean_gpu_before",
        "include_hardware_report",
    },
    "vae_decode": {
        "tile",
        "tiling_mode",
        "tile_size",
        "overlap",
        "temporal_size",
        "temporal_overlap",
        "cleanup_before_decode",
        "context",
    },
    "sampler_windowed": {"windowing", "window_frames", "window_overlap"},
    "sampler": {"disable_progress", "cleanup"},
}


def test_the_answer_is_a_superset_of_the_public_packs(make_supervisor: Make) -> None:
    report = build_report(DecodeContext(1280, 720, 81, 16.0, "wan2.1"), make_supervisor())
    for name, fields in PUBLIC_FIELDS.items():
        assert name in report
        assert fields is None or fields <= set(report[name])
    for name, fields in PUBLIC_RECOMMENDATIONS.items():
        assert fields <= set(report["recommendations"][name])
    assert {"telemetry", "jobs", "plan", "versions"} <= set(report)
    assert report["recommendations"]["vae_decode"]["context"] == {
        "width": 1280,
        "height": 720,
        "frames": 81,
        "fps": 16.0,
        "duration_s": 5.062,
        "megapixels": 0.922,
    }


def test_the_first_accelerator_is_the_hardware(make_supervisor: Make) -> None:
    report = build_report(DecodeContext(), make_supervisor(), now_s=1234.9)
    assert report["timestamp"] == 1234
    assert report["hardware"] == {
        "cuda_available": True,
        "cuda_device": 0,
        "cuda_device_name": "Test GPU",
        "cuda_total_vram_gb": 24.0,
        "cuda_capability": [8, 9],
        "system_ram_gb": 64.0,
    }


def test_without_a_gpu_its_fields_are_null_not_zero(make_supervisor: Make) -> None:
    report = build_report(DecodeContext(), make_supervisor(devices=(CPU,)))
    assert report["hardware"] == {
        "cuda_available": False,
        "cuda_device": None,
        "cuda_device_name": None,
        "cuda_total_vram_gb": None,
        "cuda_capability": None,
        "system_ram_gb": 64.0,
    }


def test_a_gpu_that_only_nvml_sees_is_not_cuda_for_torch(make_supervisor: Make) -> None:
    watched = DeviceInfo("nvml:0", "cuda", "Watched", "GPU-2", 8 * GiB)
    report = build_report(DecodeContext(), make_supervisor(devices=(watched, CPU)))
    assert report["hardware"]["cuda_available"] is False
    assert set(report["telemetry"]) == {"nvml:0", "cpu"}


def test_unknown_context_stays_null(make_supervisor: Make) -> None:
    report = build_report(DecodeContext(frames=81), make_supervisor())
    context = report["recommendations"]["vae_decode"]["context"]
    assert context["frames"] == 81
    assert [context[name] for name in ("width", "fps", "duration_s", "megapixels")] == [None] * 4
    assert report["plan"] is None


def test_a_device_before_its_first_sample_is_listed_with_nulls(make_supervisor: Make) -> None:
    telemetry = build_report(DecodeContext(), make_supervisor())["telemetry"]
    assert telemetry["cuda:0"]["info"]["name"] == "Test GPU"
    assert telemetry["cuda:0"]["time_s"] is None
    assert telemetry["cuda:0"]["reading"]["used_bytes"] is None


def test_the_advice_is_the_planners_for_the_live_figures(
    make_supervisor: Make, monkeypatch: object
) -> None:
    supervisor = make_supervisor()
    sample = sample_at(5.0)
    monkeypatch.setattr(supervisor, "latest", lambda: {GPU.key: sample})
    context = DecodeContext(1280, 720, 81, None, "hunyuan")
    report = build_report(context, supervisor, versions={"torch": None})
    expected = recommend(context, GPU, sample.reading)
    decode = report["recommendations"]["vae_decode"]
    assert (decode["tile_size"], decode["overlap"]) == (expected.tile_size, expected.overlap)
    assert report["recommendations"]["hw_supporter"]["profile"] == expected.profile
    assert report["plan"]["predicted_peak_bytes"] == expected.plan.predicted_peak_bytes
    assert report["telemetry"]["cuda:0"]["reading"]["external_bytes"] == 3 * GiB
    assert report["versions"] == {"torch": None}


def test_the_answer_can_be_written_as_json(make_supervisor: Make) -> None:
    assert dump_json(build_report(DecodeContext(512, 512), make_supervisor()))


def test_the_plans_time_is_this_machines_once_it_was_learned(make_supervisor):
    context = DecodeContext(1280, 720, 81, 16.0, "wan2.1")
    supervisor = make_supervisor()
    before = build_report(context, supervisor)["plan"]["predicted_seconds"]
    wan = BY_FAMILY["wan2.1"].time
    supervisor.times = {"wan2.1": replace(wan, per_pixel_s=10 * wan.per_pixel_s)}
    after = build_report(context, supervisor)["plan"]["predicted_seconds"]
    assert after > 5 * before
