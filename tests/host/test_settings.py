"""Settings hold for the job, from its start, and are back to what they were after it."""

import json

import pytest
from support.host_workflows import latent, link, node, show, supporter, supporter_any

GiB = 1 << 30
LATENT = {"height": 4, "width": 4}
OUTCOME = {"succeed": "success", "fail": "error", "wait": "interrupted"}


@pytest.fixture
def before(comfy):
    """The settings between jobs; the test ends with the same."""
    found = comfy.settings()
    yield found
    if not comfy.reports_jobs:
        comfy.until(lambda: comfy.settings() == found)
    assert comfy.settings() == found


def any_job(salt, how="succeed", **changes):
    """An Any node whose settings are looked at while the job goes on, and then acted upon."""
    return {
        "latent": latent(**LATENT),
        "any": supporter_any(link("latent"), **changes),
        "look": node("HostTestSettingsNow", after=link("any"), salt=salt),
        "act": node("HostTestAct", value=link("any"), how=how, salt=salt),
    }


def finish(comfy, prompt, how):
    """Run a job to the end the test asks for."""
    prompt_id = comfy.queue(prompt)
    if how == "wait":
        comfy.until(lambda: comfy.get("/host_test/waiting")[1])
        assert comfy.settings()["reserve_bytes"] == int(2.5 * GiB)
        comfy.post("/interrupt", {})
    entry = comfy.finished(prompt_id)
    assert comfy.record(prompt_id)["status"] == OUTCOME[how]
    return entry


@pytest.mark.parametrize("how", OUTCOME)
def test_the_job_ends_and_every_setting_is_back(comfy, before, salt, how):
    finish(comfy, any_job(salt, how), how)


def test_while_the_job_runs_the_settings_hold(comfy, before, salt):
    seen = comfy.succeed(any_job(salt))["look"]
    assert seen["reserve_bytes"] == int(2.5 * GiB) != before["reserve_bytes"]
    assert seen["fp16_accumulation"] is True
    assert seen["tf32_matmul"] is True
    assert seen["tf32_cudnn"] is True


def test_off_is_a_setting_too(comfy, before, salt):
    off = {"fp16_accumulation": "off", "tf32": "off", "apply_reserved_vram": False}
    seen = comfy.succeed(any_job(salt, **off))["look"]
    assert seen["tf32_cudnn"] is False
    assert seen["reserve_bytes"] == before["reserve_bytes"]


def test_on_a_second_queue_the_cached_node_still_holds_its_settings(comfy, before, salt):
    comfy.succeed(any_job(salt))
    prompt_id, entry = comfy.run(any_job(salt + 1))
    cached = dict(entry["status"]["messages"])["execution_cached"]["nodes"]
    assert "any" in cached, "the node itself must not have run"
    assert entry["outputs"]["look"]["seen"][0]["reserve_bytes"] == int(2.5 * GiB)
    assert entry["outputs"]["look"]["seen"][0]["tf32_matmul"] is True
    ran = {each["node_type"] for each in comfy.record(prompt_id)["nodes"]}
    assert "IAMCCS_HwSupporterAny" not in ran


def test_of_two_nodes_the_larger_reserve_holds(comfy, before, salt):
    prompt = any_job(salt)
    prompt["second"] = supporter_any(link("any"), reserved_vram_gb=4.0, tf32="off")
    prompt["look"]["inputs"]["after"] = link("second")
    seen = comfy.succeed(prompt)["look"]
    assert seen["reserve_bytes"] == 4 * GiB


def test_a_reserve_fed_by_a_link_holds_from_its_node_on(comfy, before, salt):
    prompt = any_job(salt, reserved_vram_gb=link("number"))
    prompt["number"] = node("PrimitiveFloat", value=3.5)
    assert comfy.succeed(prompt)["look"]["reserve_bytes"] == int(3.5 * GiB)


def model_job(salt, how="succeed", **changes):
    return {
        "model": node("HostTestModel"),
        "support": supporter(**changes),
        "sample": node("HostTestSample", model=link("support"), how=how, salt=salt),
        "report": show("support", 3),
    }


def test_the_models_switches_hold_while_it_samples_and_only_then(comfy, before, salt):
    seen = comfy.succeed(model_job(salt))["sample"]
    for moment, tf32 in (("before", before["tf32_matmul"]), ("during", True)):
        assert seen[moment]["tf32_matmul"] is tf32
    assert seen["during"]["fp16_accumulation"] is True
    assert seen["after"] == seen["before"]
    assert seen["before"]["reserve_bytes"] == int(2.5 * GiB), "the reserve holds for the job"


@pytest.mark.parametrize("how", ["fail", "wait"])
def test_the_models_switches_are_back_when_sampling_does_not_end_well(comfy, before, salt, how):
    finish(comfy, model_job(salt, how), how)


def test_on_a_second_queue_the_cached_models_switches_hold_again(comfy, before, salt):
    comfy.succeed(model_job(salt))
    _, entry = comfy.run(model_job(salt + 1))
    cached = dict(entry["status"]["messages"])["execution_cached"]["nodes"]
    assert "support" in cached
    during = entry["outputs"]["sample"]["seen"][0]["during"]
    assert during["tf32_matmul"] is True
    assert during["reserve_bytes"] == int(2.5 * GiB)


def test_two_supporters_in_a_row_the_later_one_wins(comfy, before, salt):
    prompt = model_job(salt, tf32="on", fp16_accumulation="on")
    prompt["second"] = supporter("support", tf32="off", fp16_accumulation="auto")
    prompt["sample"]["inputs"]["model"] = link("second")
    during = comfy.succeed(prompt)["sample"]["during"]
    assert during["tf32_matmul"] is False
    assert during["fp16_accumulation"] is True


@pytest.mark.parametrize("shared", [False, True], ids=["two models", "one model twice"])
def test_two_models_in_one_job_each_sample_with_their_own(comfy, before, salt, shared):
    prompt = model_job(salt, tf32="on", fp16_accumulation="on")
    other = "model" if shared else "other model"
    prompt["other model"] = node("HostTestModel")
    prompt["other support"] = supporter(other, tf32="off", fp16_accumulation="off")
    sample = {"model": link("other support"), "how": "succeed", "salt": salt}
    prompt["other sample"] = node("HostTestSample", **sample)
    seen = comfy.succeed(prompt)
    for name, wanted in (("sample", True), ("other sample", False)):
        during = seen[name]["during"]
        assert (during["tf32_matmul"], during["fp16_accumulation"]) == (wanted, wanted), name
        assert seen[name]["after"]["tf32_matmul"] is before["tf32_matmul"]


def test_the_report_tells_wish_deed_and_effect(comfy, before, salt):
    report = json.loads(comfy.succeed(model_job(salt, sage_attention="sageattn3"))["report"])
    assert report["requested"]["tf32"] == "on"
    assert report["applied"]["tf32"] is True
    assert report["effective"]["tf32"] is False, "a CPU does not compute in TF32"
    assert report["applied"]["reserved_vram_gb"] == 2.5
    assert report["effective"]["reserved_vram_gb"] == 2.5
    assert report["applied"]["sage_attention"] is None
    assert any("sageattn3" in warning for warning in report["warnings"])
    assert any("tf32 is set but has no effect" in warning for warning in report["warnings"])


def test_the_vae_brings_a_tiling_suggestion_and_the_switch_the_hardware_report(comfy, before, salt):
    prompt = model_job(salt, vae=link("loaded"), include_hardware_report=True)
    prompt["loaded"] = node("VAELoader", vae_name="wan_2_1.safetensors")
    report = json.loads(comfy.succeed(prompt)["report"])
    assert report["vae_tiling_suggestion"]["tile_size"] >= 64
    assert "81 frames" in report["vae_tiling_suggestion"]["for"]
    assert report["hardware_probe"]["recommendations"]["vae_decode"]["tile_size"] >= 64


def test_a_reserve_of_zero_takes_the_profiles(comfy, before, salt):
    report = json.loads(
        comfy.succeed(model_job(salt, reserved_vram_gb=0.0, profile="low_vram"))["report"]
    )
    assert report["applied"]["reserved_vram_gb"] == 1.5
