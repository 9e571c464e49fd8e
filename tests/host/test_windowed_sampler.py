"""The windowed sampler in a real ComfyUI, with a tiny Wan: core's result, or core's windows."""

import json

import pytest
from support.host_workflows import latent, link, node

CORE, OURS = "SamplerCustomAdvanced", "IAMCCS_SamplerCustomAdvancedWindowed"
FRAMES = 13
"""Latent frames of the clip: 49 of the video."""
WIDGETS = {"windowing": "auto", "window_frames": 0, "window_overlap": 0, "cleanup_after": False}
TOO_MUCH = 1e9
"""Makes ComfyUI's formula say more than any machine has."""


def sampling(seed, *, frames=FRAMES, core=False, hunger=1.0, most=0, interrupt_at=0, **widgets):
    """A workflow that samples a random clip and shows what the model was given."""
    numbers = {"hunger": hunger, "most_frames": most, "interrupt_at": interrupt_at, "salt": seed}
    given = {
        "noise": link("noise"),
        "guider": link("guider"),
        "sampler": link("sampler"),
        "sigmas": link("sigmas"),
        "latent_image": link("latent"),
    }
    ours = node(OURS, **given, **WIDGETS | widgets)
    clip = latent(seed=seed, channels=16, frames=frames, height=8, width=8)
    prompt = {
        "model": node("HostTestVideoModel", **numbers),
        "latent": clip,
        "noise": node("RandomNoise", noise_seed=seed),
        "guider": node(
            "CFGGuider",
            model=link("model"),
            positive=link("model", 1),
            negative=link("model", 1),
            cfg=3.0,
        ),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("ManualSigmas", sigmas="1.0, 0.7, 0.0"),
        "ours": ours,
        "calls": node("HostTestModelCalls", after=link("ours"), text=link("ours", 2)),
    }
    if core:
        prompt["core"] = node(CORE, **given)
        for output, name in enumerate(("output", "denoised")):
            ends = {"a": link("ours", output), "b": link("core", output)}
            prompt[name] = node("HostTestCompareLatents", **ends)
    return prompt


def run(comfy, salt, **how):
    seen = comfy.succeed(sampling(salt, **how))
    return seen, json.loads(seen["calls"]["text"])


def frames_of(seen):
    return {shape[2] for shape in seen["calls"]["calls"]}


@pytest.mark.parametrize("windowing", ["auto", "off"])
def test_what_fits_is_cores_to_the_bit(comfy, salt, windowing):
    seen, report = run(comfy, salt, core=True, windowing=windowing)
    for name in ("output", "denoised"):
        assert seen[name]["difference"] == 0
        assert seen[name]["keys"][0] == seen[name]["keys"][1]
    assert report["applied"]["windowing"] == "off"
    assert report["warnings"] == []


def test_by_hand_the_model_sees_windows_only(comfy, salt):
    seen, report = run(comfy, salt, windowing="manual", window_frames=17)
    assert max(frames_of(seen)) in {5, 6}, "five latent frames, with the host's anchor six"
    windows = report["effective"]["windows"]
    assert (windows["frames"], windows["overlap_frames"]) == (17, 4)


def test_a_clip_in_windows_is_as_long_as_cores_and_another(comfy, salt):
    seen, _ = run(comfy, salt, core=True, windowing="manual", window_frames=17)
    for name in ("output", "denoised"):
        assert seen[name]["a"] == seen[name]["b"]
        assert seen[name]["difference"] > 0


def test_a_clip_no_longer_than_a_window_is_cores(comfy, salt):
    seen, report = run(comfy, salt, core=True, windowing="manual", window_frames=200)
    assert seen["output"]["difference"] == 0
    assert report["effective"]["windows"] is None


def test_a_clip_that_cannot_fit_is_cut_and_the_report_says_so(comfy, salt):
    seen, report = run(comfy, salt, hunger=TOO_MUCH)
    assert max(frames_of(seen)) in {5, 6}
    assert report["applied"]["windowing"] == "windows"
    assert any("shortest" in note for note in report["notes"])
    assert any("shortest windows" in warning for warning in report["warnings"])


def test_memory_that_runs_out_is_answered_with_shorter_windows(comfy, salt):
    """Memory is there by the formula, and yet it runs out: with 13 frames, and 12, and so on."""
    seen, report = run(comfy, salt, most=10)
    assert any("ran out of memory with the whole clip" in each for each in report["warnings"])
    assert report["effective"]["windows"]["latent_frames"] <= 10
    assert seen["calls"]["calls"][0][2] == FRAMES, "whole was tried first"


def test_by_hand_memory_that_runs_out_is_an_error_as_in_core(comfy, salt):
    _, entry = comfy.run(sampling(salt, most=3, windowing="manual", window_frames=17))
    assert entry["status"]["status_str"] == "error"
    assert "out of memory" in json.dumps(entry["status"]["messages"])


def test_an_interrupt_stays_one(comfy, salt):
    _, entry = comfy.run(sampling(salt, interrupt_at=2, windowing="manual", window_frames=17))
    assert "execution_interrupted" in dict(entry["status"]["messages"])


def test_a_picture_has_no_time_to_cut(comfy, salt):
    seen, report = run(comfy, salt, core=True, frames=1, windowing="manual", window_frames=17)
    assert seen["output"]["difference"] == 0
    assert any("no time" in warning for warning in report["warnings"])


def test_the_callers_model_keeps_its_own_options(comfy, salt):
    """Core samples with the same guider after our windows, and whole."""
    prompt = sampling(salt, windowing="manual", window_frames=17)
    prompt |= {
        "again": node(CORE, **{**prompt["ours"]["inputs"], "latent_image": link("ours")}),
        "calls": node("HostTestModelCalls", after=link("again")),
    }
    for name in WIDGETS:
        del prompt["again"]["inputs"][name]
    calls = comfy.succeed(prompt)["calls"]["calls"]
    assert calls[-1][2] == FRAMES


def test_room_is_made_afterwards_if_asked_for(comfy, salt):
    _, report = run(comfy, salt, cleanup_after=True)
    assert "eviction" in report["effective"]
