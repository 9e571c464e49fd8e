"""Cleanup, flush, purge and the probe node in a real job."""

import json

import pytest
from support.host_workflows import latent, link, node, safe_decode, show, vae

CLEANUP = {"unload_all_models": True, "soft_empty_cache": True}
PURGE = {
    "unload_all_models": True,
    "soft_empty_cache": True,
    "ipc_collect": True,
    "trim_working_set": True,
    "gc_passes": 2,
    "console_log": False,
}


def ran(comfy, prompt):
    """Which nodes ran, by our own record of the job."""
    if not comfy.reports_jobs:
        pytest.skip("a host without cache providers hides jobs of a few milliseconds")
    prompt_id, entry = comfy.run(prompt)
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    return {each["node_id"] for each in comfy.record(prompt_id)["nodes"]}


def cleanup_between(salt):
    return {
        "vae": vae("image_kl.safetensors"),
        "latent": latent(seed=salt, height=8, width=8),
        "cleanup": node("IAMCCS_VRAMCleanup", passthrough=link("latent"), **CLEANUP),
        "safe": safe_decode("latent"),
        "after": safe_decode("cleanup"),
        "compare": node("HostTestCompare", a=link("safe"), b=link("after")),
        "report": show("cleanup", 4),
        "model": show("cleanup", 0),
    }


def test_cleanup_passes_the_latent_on_and_says_what_came_free(comfy, salt):
    prompt = cleanup_between(salt)
    prompt["after"]["inputs"]["samples"] = link("cleanup", 3)
    seen = comfy.succeed(prompt)
    assert seen["compare"]["difference"] == 0
    report = json.loads(seen["report"])
    assert report["effective"]["freed_bytes"] >= 0
    assert report["effective"]["models_unloaded"] >= 0
    assert seen["model"] == "None", "nothing was connected"


def test_a_cached_latent_is_not_sampled_again_for_a_cleanups_sake(comfy, salt):
    prompt = cleanup_between(salt)
    prompt["after"]["inputs"]["samples"] = link("cleanup", 3)
    assert "cleanup" in ran(comfy, prompt)
    assert not {"latent", "cleanup", "after"} & ran(comfy, prompt)


def test_two_cleanups_with_the_same_widgets_both_run(comfy, salt):
    prompt = {
        "latent": latent(seed=salt, height=4, width=4),
        "one": node("IAMCCS_VRAMCleanup", passthrough=link("latent"), **CLEANUP),
        "two": node("IAMCCS_VRAMCleanup", passthrough=link("latent"), **CLEANUP),
        "show_one": show("one", 4),
        "show_two": show("two", 4),
    }
    assert {"one", "two"} <= ran(comfy, prompt)


def test_purge_runs_at_every_queue_and_reports_each_step(comfy):
    prompt = {"purge": node("IAMCCS_HardMemoryPurge", **PURGE), "report": show("purge", 0)}
    assert "purge" in ran(comfy, prompt)
    prompt_id, entry = comfy.run(prompt)
    assert "purge" in {each["node_id"] for each in comfy.record(prompt_id)["nodes"]}
    report = json.loads(entry["outputs"]["report"]["seen"][0])
    assert report["applied"]["unload_all_models"] is True
    assert report["applied"]["ipc_collect"] is False, "there is no CUDA here"
    assert report["effective"]["rss_after_bytes"] > 0


@pytest.mark.parametrize("output", [1, 2])
def test_purge_gives_the_process_size_in_gib(comfy, output):
    prompt = {"purge": node("IAMCCS_HardMemoryPurge", **PURGE), "size": show("purge", output)}
    assert 0.05 < comfy.succeed(prompt)["size"] < 1024


def test_flush_passes_the_latent_on(comfy, salt):
    prompt = {
        "vae": vae("image_kl.safetensors"),
        "latent": latent(seed=salt, height=8, width=8),
        "flush": node("IAMCCS_VRAMFlushLatent", latent=link("latent")),
        "a": node("VAEDecode", samples=link("latent"), vae=link("vae")),
        "b": node("VAEDecode", samples=link("flush"), vae=link("vae")),
        "compare": node("HostTestCompare", a=link("a"), b=link("b")),
    }
    assert comfy.succeed(prompt)["compare"]["difference"] == 0


def test_the_probe_node_gives_what_the_endpoint_recommends(comfy):
    probe = {"width": 1280, "height": 720, "frames": 81, "fps": 16.0, "pretty": False}
    prompt = {"probe": node("IAMCCS_HWProbeRecommendations", **probe)}
    prompt |= {f"out{index}": show("probe", index) for index in range(7)}
    seen = comfy.succeed(prompt)
    report = json.loads(seen["out0"])
    _, answer = comfy.get("/api/iamccs/hw_probe?width=1280&height=720&frames=81&fps=16")
    assert report.keys() <= answer.keys()
    assert seen["out1"] == answer["recommendations"]["hw_supporter"]["profile"]
    decode = report["recommendations"]["vae_decode"]
    assert [seen[f"out{index}"] for index in (3, 4, 5, 6)] == [
        decode[name] for name in ("tile_size", "overlap", "temporal_size", "temporal_overlap")
    ]
    assert "\n" not in seen["out0"]
