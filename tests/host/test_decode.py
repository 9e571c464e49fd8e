"""The safe decode against core's own nodes, with small random-weight VAEs."""

import json
from pathlib import Path

import pytest
from support.host_workflows import KL, WAN, latent, link, node, safe_decode, show, vae

GiB = 1 << 30
TINY_FLUX_2 = "taef2"
EXACT = 1e-4
"""Largest difference of a pixel in 0..1 that float32 rounding explains."""

CASES = {
    "an image": (KL, {}),
    "a batch of images with odd sizes": (KL, {"batch": 3, "height": 9, "width": 21}),
    "a video": (WAN, {"channels": 16, "frames": 3, "height": 8, "width": 12}),
    "a single frame": (WAN, {"channels": 16, "frames": 1, "height": 8, "width": 8}),
    "two videos": (WAN, {"channels": 16, "frames": 2, "height": 6, "width": 8, "batch": 2}),
    "a video with its audio, nested": (
        WAN,
        {"channels": 16, "frames": 2, "height": 8, "width": 8, "nested": True},
    ),
    "a 5-D latent for an image VAE": (KL, {"frames": 2, "height": 8, "width": 8}),
}


def compared(vae_name, latent_inputs, *, reference=None, **decode):
    """Our decode beside core's, as a prompt."""
    core = reference or node("VAEDecode", samples=link("latent"), vae=link("vae"))
    return {
        "vae": vae(vae_name),
        "latent": latent(**latent_inputs),
        "safe": safe_decode(**decode),
        "core": core,
        "compare": node("HostTestCompare", a=link("safe"), b=link("core")),
        "report": show("safe", 1),
    }


@pytest.mark.parametrize("case", CASES)
def test_untiled_the_decode_equals_cores_in_shape_and_value(comfy, case):
    vae_name, sizes = CASES[case]
    seen = comfy.succeed(compared(vae_name, sizes))
    assert seen["compare"]["a"] == seen["compare"]["b"]
    assert seen["compare"]["difference"] == 0
    assert seen["compare"]["spread"] > 0.01
    report = json.loads(seen["report"])
    assert report["plan"]["kind"] == "whole"
    assert report["plan"]["tiles"] == 1
    assert report["ladder"] == ["whole: done"]
    assert report["measured_peak_bytes"] is None, "torch does not count system memory"


def test_manual_tiles_have_the_size_asked_for_and_equal_the_whole(comfy):
    prompt = compared(KL, {"height": 24, "width": 16}, tiling_mode="manual", tile_size=96)
    seen = comfy.succeed(prompt)
    assert seen["compare"]["difference"] < EXACT
    plan = json.loads(seen["report"])["plan"]
    assert plan["kind"] == "tiled"
    assert plan["tiles"] > 10
    assert min(plan["tile_height"], plan["tile_width"]) <= 96


def test_a_budget_below_the_need_tiles_a_video_that_equals_the_whole(comfy):
    sizes = {"channels": 16, "frames": 2, "height": 12, "width": 48}
    whole = json.loads(comfy.succeed(compared(WAN, sizes))["report"])["prediction"]
    budget = 0.7 * whole["predicted_peak_bytes"]
    seen = comfy.succeed(compared(WAN, sizes, vram_budget_gb=budget / GiB))
    assert seen["compare"]["a"] == seen["compare"]["b"] == [5, 96, 384, 3]
    assert seen["compare"]["difference"] < EXACT
    report = json.loads(seen["report"])
    assert report["plan"]["kind"] == "streamed"
    assert report["plan"]["tiles"] > 1
    assert report["plan"]["predicted_peak_bytes"] <= report["budget_bytes"] <= budget
    assert any(plan["kind"] == "whole" and not plan["fits"] for plan in report["plans"])
    assert report["plan"]["temporal_size"] is None, "Wan does not grow with time"


def test_packed_latents_make_pictures_of_the_networks_size_not_of_the_hosts_idea(comfy):
    if not any((comfy.base / "models" / "vae_approx").iterdir()):
        pytest.skip("this ComfyUI does not know it")
    sizes = {"channels": 128, "height": 13, "width": 24}
    whole = json.loads(comfy.succeed(compared(TINY_FLUX_2, sizes))["report"])["prediction"]
    budget = 0.6 * whole["predicted_peak_bytes"]
    seen = comfy.succeed(compared(TINY_FLUX_2, sizes, vram_budget_gb=budget / GiB))
    assert seen["compare"]["a"] == seen["compare"]["b"] == [1, 16 * 13, 16 * 24, 3]
    assert seen["compare"]["difference"] < EXACT
    assert json.loads(seen["report"])["plan"]["tiles"] > 1


def test_tile_off_is_a_wish_that_yields_to_the_budget_with_a_warning(comfy):
    sizes = {"height": 32, "width": 32}
    whole = json.loads(comfy.succeed(compared(KL, sizes))["report"])["prediction"]
    budget = 0.6 * whole["predicted_peak_bytes"]
    prompt = compared(KL, sizes, tile=False, vram_budget_gb=budget / GiB)
    report = json.loads(comfy.succeed(prompt)["report"])
    assert report["plan"]["kind"] == "tiled"
    assert any("tile is off" in warning for warning in report["warnings"])


def test_the_report_has_every_documented_key(comfy):
    report = json.loads(comfy.succeed(compared(KL, {}))["report"])
    assert report.keys() >= {
        "profile", "requested", "applied", "effective", "warnings", "notes", "recommendations",
        "hardware_probe", "vae_tiling_suggestion", "hardware", "platform", "timing_ms", "plan",
        "measured_peak_bytes", "budget_bytes", "free_bytes", "ladder", "prediction", "plans",
        "chosen", "why", "measured_seconds",
    }  # fmt: skip
    assert report["prediction"].keys() == {
        "predicted_peak_bytes", "base_bytes", "source", "reason", "dry_run", "seconds",
    }  # fmt: skip
    assert report["plan"].keys() >= {
        "kind", "tiles", "tile_size", "overlap", "temporal_size", "temporal_overlap", "quality",
        "reason", "predicted_peak_bytes",
    }  # fmt: skip


def test_the_report_says_what_was_predicted_and_advises_what_was_planned(comfy):
    sizes = {"height": 24, "width": 40}
    report = json.loads(comfy.succeed(compared(KL, sizes))["report"])
    prediction = report["prediction"]
    assert prediction["dry_run"] in {"run", "memory", "disk"}
    assert 0 < prediction["base_bytes"] <= prediction["predicted_peak_bytes"]
    assert report["plan"]["predicted_peak_bytes"] == prediction["predicted_peak_bytes"]
    assert report["plans"][report["chosen"]]["kind"] == "whole"
    assert "whole: needs" in report["why"]
    assert report["vae_tiling_suggestion"]["for"] == "320 x 192 px"
    assert report["vae_tiling_suggestion"]["tile"] is False
    assert report["recommendations"]["tile"] is False
    assert report["recommendations"]["profile"]


def test_the_second_decode_of_a_shape_needs_no_dry_run(comfy, salt):
    sizes = {"channels": 16, "frames": 2, "height": 10, "width": 14}
    told = [
        json.loads(comfy.succeed(compared(WAN, sizes | {"seed": salt + n}))["report"])
        for n in range(2)
    ]
    assert [each["prediction"]["dry_run"] for each in told] == ["run", "memory"]
    bases = {each["prediction"]["base_bytes"] for each in told}
    assert len(bases) == 1


def test_a_decoder_that_cannot_be_dry_run_is_decoded_all_the_same(comfy, salt):
    prompt = failing("looks at values", seed=salt)
    prompt["core"] = node("VAEDecode", samples=link("latent"), vae=link("loaded"))
    prompt["compare"] = node("HostTestCompare", a=link("safe"), b=link("core"))
    seen = comfy.succeed(prompt)
    report = json.loads(seen["report"])
    assert seen["compare"]["difference"] == 0
    assert report["prediction"]["dry_run"] == "formula"
    assert any("cannot be dry-run" in note for note in report["notes"])


def test_last_frame_fix_keeps_the_frame_count(comfy):
    sizes = {"channels": 16, "frames": 3, "height": 8, "width": 8}
    seen = comfy.succeed(compared(WAN, sizes, last_frame_fix=True))
    assert seen["compare"]["a"] == seen["compare"]["b"] == [9, 64, 64, 3]


def test_an_api_prompt_without_the_new_inputs_still_runs(comfy):
    prompt = compared(KL, {})
    assert "quality" not in prompt["safe"]["inputs"]
    assert json.loads(comfy.succeed(prompt)["report"])["requested"]["quality"] == "exact"


def failing(how, largest=0, *, model=KL, sizes=None, **decode):
    sizes = sizes or {"height": 24, "width": 24}
    return {
        "loaded": vae(model),
        "vae": node(
            "HostTestFailingVae", vae=link("loaded"), how=how, largest_latent_pixels=largest
        ),
        "latent": latent(seed=decode.pop("seed"), **sizes),
        "safe": safe_decode(**decode),
        "image": show("safe", 0),
        "report": show("safe", 1),
    }


def test_a_whole_decode_that_runs_out_is_told_and_retried_in_tiles(comfy, salt):
    seen = comfy.succeed(failing("out of memory", 16 * 16, seed=salt))
    report = json.loads(seen["report"])
    assert report["ladder"][0] == "whole: ran out of memory"
    assert report["ladder"][-1].endswith("done")
    assert report["plan"]["kind"] == "tiled"
    assert "retrying with tiled VAE decoding" in comfy.log()


def test_system_memory_that_runs_out_while_the_cpu_decodes_is_retried_in_tiles(comfy, salt):
    report = json.loads(
        comfy.succeed(failing("out of system memory", 16 * 16, seed=salt))["report"]
    )
    assert report["ladder"][0] == "whole: ran out of memory"
    assert report["ladder"][-1].endswith("done")


def error_of(entry):
    messages = dict(entry["status"]["messages"])
    return messages["execution_error"]["exception_message"]


@pytest.mark.parametrize("how", ["out of memory", "broken"])
def test_a_failed_decode_keeps_the_latent_and_names_the_file(comfy, salt, how):
    _, entry = comfy.run(failing(how, seed=salt))
    message = error_of(entry)
    saved = next(word.rstrip(";.") for word in message.split() if ".latent" in word)
    assert Path(saved).is_file()
    assert comfy.base / "output" in Path(saved).parents
    assert "said by the test" in message or "ran out of memory" in message


def test_the_kept_latent_can_be_loaded_and_decoded(comfy, salt):
    _, entry = comfy.run(failing("broken", seed=salt))
    saved = next(word.rstrip(";.") for word in error_of(entry).split() if ".latent" in word)
    (comfy.base / "input" / "kept.latent").write_bytes(Path(saved).read_bytes())
    seen = comfy.succeed(
        {
            "vae": vae(KL),
            "kept": node("LoadLatent", latent="kept.latent"),
            "latent": latent(height=24, width=24, seed=salt),
            "a": node("VAEDecode", samples=link("kept"), vae=link("vae")),
            "b": node("VAEDecode", samples=link("latent"), vae=link("vae")),
            "compare": node("HostTestCompare", a=link("a"), b=link("b")),
        }
    )
    assert seen["compare"]["difference"] == 0


def test_without_the_wish_nothing_is_written(comfy, salt):
    folder = comfy.base / "output" / "latents"
    before = set(folder.glob("*"))
    _, entry = comfy.run(failing("broken", seed=salt, keep_latent_on_failure=False))
    assert "The latent was not saved" in error_of(entry)
    assert set(folder.glob("*")) == before


def test_an_interrupted_decode_stays_an_interrupt_and_keeps_the_latent(comfy, salt):
    folder = comfy.base / "output" / "latents"
    before = set(folder.glob("*"))
    _, entry = comfy.run(failing("interrupt", seed=salt))
    assert "execution_interrupted" in dict(entry["status"]["messages"])
    (kept,) = set(folder.glob("*")) - before
    assert str(kept) in comfy.log()


def test_a_tiled_video_decode_ends_before_the_next_tile_when_the_user_interrupts(comfy, salt):
    """Core's own would decode every tile first: the node would end well, keeping nothing."""
    folder = comfy.base / "output" / "latents"
    before = set(folder.glob("*"))
    sizes = {"channels": 16, "frames": 2, "height": 16, "width": 16}
    tiles = {"tiling_mode": "manual", "tile_size": 64, "overlap": 32}
    prompt = failing("ask", model=WAN, sizes=sizes, seed=salt, **tiles)
    _, entry = comfy.run(prompt)
    assert "execution_interrupted" in dict(entry["status"]["messages"])
    assert len(set(folder.glob("*")) - before) == 1


def test_the_jobs_record_tells_the_decode_with_its_prediction(comfy, salt):
    prompt = {
        "vae": vae(KL),
        "latent": latent(seed=salt, height=24, width=16),
        "decode": safe_decode(),
        "show": node("PreviewImage", images=link("decode")),
    }
    prompt_id, _ = comfy.run(prompt)
    (decode,) = comfy.record(prompt_id)["decodes"]
    assert (decode["what"], decode["outcome"], decode["node_id"]) == ("decode", "done", "decode")
    assert (decode["width"], decode["height"], decode["frames"]) == (128, 192, 1)
    assert (decode["family"], decode["kind"], decode["device"]) == (
        "AutoencoderKL",
        "whole",
        "cpu",
    )
    assert decode["predicted_bytes"] > 0
    assert decode["retries"][-1] == "whole: done"
