"""The safe encode against core's own node, with small random-weight VAEs."""

import json

import pytest
from support.host_workflows import KL_ENTIRE, WAN, link, node, pictures, safe_encode, show, vae

GiB = 1 << 30
EXACT = 1e-5
"""Relative L2 that float32 rounding explains."""

CASES = {
    "an image": (KL_ENTIRE, {}),
    "a batch of images with odd sizes": (KL_ENTIRE, {"count": 2, "height": 75, "width": 101}),
    "an image with transparency": (KL_ENTIRE, {"height": 64, "width": 64, "channels": 4}),
    "a video": (WAN, {"count": 9, "height": 64, "width": 96}),
    "a video with odd sizes and two frames too many": (
        WAN,
        {"count": 7, "height": 70, "width": 57},
    ),
    "a single frame": (WAN, {"height": 64, "width": 64}),
}


def compared(vae_name, sizes, **encode):
    """Our encode beside core's, as a prompt."""
    return {
        "vae": vae(vae_name),
        "pictures": pictures(**sizes),
        "safe": safe_encode(**encode),
        "core": node("VAEEncode", pixels=link("pictures"), vae=link("vae")),
        "compare": node("HostTestCompareLatents", a=link("safe"), b=link("core")),
        "report": show("safe", 1),
    }


@pytest.mark.parametrize("case", CASES)
def test_whole_the_encode_is_cores_to_the_bit(comfy, case):
    vae_name, sizes = CASES[case]
    seen = comfy.succeed(compared(vae_name, sizes))
    assert seen["compare"]["a"] == seen["compare"]["b"]
    assert seen["compare"]["difference"] == 0
    assert seen["compare"]["spread"] > 0.01
    assert seen["compare"]["keys"][0] == seen["compare"]["keys"][1]
    assert seen["compare"]["types"][0] == seen["compare"]["types"][1]
    report = json.loads(seen["report"])
    assert report["plan"]["kind"] == "whole"
    assert report["ladder"] == ["whole: done"]


def need_of(comfy, vae_name, sizes):
    """What the encoder needs for the whole: asked with no room for the formula's margin."""
    seen = comfy.succeed(compared(vae_name, sizes, vram_budget_gb=0.0001))
    report = json.loads(seen["report"])
    return next(plan for plan in report["plans"] if plan["kind"] == "whole"), seen


PARTS = {
    "an image": (KL_ENTIRE, {"height": 256, "width": 160}, 0.6),
    "two images of odd sizes": (KL_ENTIRE, {"count": 2, "height": 165, "width": 203}, 0.4),
    "a video": (WAN, {"count": 9, "height": 96, "width": 320}, 0.7),
    "a video of odd sizes": (WAN, {"count": 6, "height": 101, "width": 331}, 0.7),
    "a single frame": (WAN, {"height": 96, "width": 320}, 0.7),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_budget_below_the_need_encodes_in_parts_that_equal_the_whole(comfy, case):
    vae_name, sizes, share = PARTS[case]
    whole, _ = need_of(comfy, vae_name, sizes)
    budget = share * whole["predicted_peak_bytes"]
    seen = comfy.succeed(compared(vae_name, sizes, vram_budget_gb=budget / GiB))
    assert seen["compare"]["a"] == seen["compare"]["b"]
    assert seen["compare"]["error"] < EXACT
    assert seen["compare"]["types"][0] == seen["compare"]["types"][1]
    report = json.loads(seen["report"])
    assert report["plan"]["kind"] in {"tiled", "streamed"}
    assert report["plan"]["tiles"] > 1
    assert report["plan"]["predicted_peak_bytes"] <= report["budget_bytes"] <= budget
    assert any("exact encode" in note for note in report["notes"])


def test_a_budget_nothing_fits_is_tried_with_the_smallest_parts(comfy):
    _, seen = need_of(comfy, WAN, {"count": 5, "height": 64, "width": 96, "seed": 11})
    assert seen["compare"]["error"] < EXACT
    report = json.loads(seen["report"])
    assert any("nothing is predicted to fit" in warning for warning in report["warnings"])
    assert report["ladder"][-1].endswith("done")


def test_the_report_has_the_documented_keys(comfy):
    report = json.loads(comfy.succeed(compared(KL_ENTIRE, {"height": 64}))["report"])
    assert report.keys() >= {
        "requested", "applied", "warnings", "notes", "hardware", "platform", "timing_ms", "plan",
        "plans", "chosen", "why", "prediction", "measured_peak_bytes", "measured_seconds",
        "budget_bytes", "free_bytes", "ladder",
    }  # fmt: skip
    assert report["requested"] == {"quality": "exact", "vram_budget_gb": 0}
    assert report["applied"] == {"kind": "whole", "tiles": 1}
    assert report["prediction"].keys() == {
        "predicted_peak_bytes", "base_bytes", "source", "reason", "dry_run", "seconds",
    }  # fmt: skip


def failing(how, seed, *, largest=0, model=KL_ENTIRE, sizes=None, **encode):
    return {
        "loaded": vae(model),
        "vae": node(
            "HostTestFailingVae", vae=link("loaded"), how=how, largest_latent_pixels=largest
        ),
        "pictures": pictures(seed=seed, **(sizes or {"height": 192, "width": 192})),
        "safe": safe_encode(**encode),
        "core": node("VAEEncode", pixels=link("pictures"), vae=link("loaded")),
        "compare": node("HostTestCompareLatents", a=link("safe"), b=link("core")),
        "report": show("safe", 1),
    }


def test_a_whole_encode_that_runs_out_is_told_and_done_in_parts(comfy, salt):
    seen = comfy.succeed(failing("whole encodes", salt, largest=128 * 128))
    report = json.loads(seen["report"])
    assert report["ladder"][0] == "whole: ran out of memory"
    assert report["ladder"][-1].endswith("done")
    assert any("exact encode" in note for note in report["notes"])
    assert seen["compare"]["error"] < EXACT


def test_an_encoder_nobody_knows_that_runs_out_is_retried_in_cores_tiles(comfy, salt):
    seen = comfy.succeed(failing("out of memory", salt, largest=128 * 128))
    report = json.loads(seen["report"])
    assert report["ladder"][0] == "whole: ran out of memory"
    assert report["ladder"][-1].endswith("done")
    assert report["plan"]["kind"] == "tiled"
    assert seen["compare"]["a"] == seen["compare"]["b"]


def test_an_encoder_that_cannot_be_dry_run_is_encoded_in_cores_tiles(comfy, salt):
    prompt = failing("looks at values", salt, vram_budget_gb=0.05)
    seen = comfy.succeed(prompt)
    report = json.loads(seen["report"])
    assert seen["compare"]["a"] == seen["compare"]["b"]
    assert report["plan"]["kind"] == "tiled"
    assert any("of no family that is known" in note for note in report["notes"])
    assert any("cannot be dry-run" in note for note in report["notes"])


def error_of(entry):
    messages = dict(entry["status"]["messages"])
    return messages["execution_error"]["exception_message"]


def test_a_failed_encode_says_what_was_tried(comfy, salt):
    _, entry = comfy.run(failing("broken", salt))
    message = error_of(entry)
    assert "The encode failed after 1 attempt(s)" in message
    assert "broken, said by the test" in message


def test_an_interrupt_passes_through(comfy, salt):
    _, entry = comfy.run(failing("interrupt", salt))
    messages = dict(entry["status"]["messages"])
    assert "execution_interrupted" in messages


def test_pictures_smaller_than_a_latent_are_refused(comfy, salt):
    prompt = failing("broken", salt, sizes={"height": 4, "width": 64})
    del prompt["core"], prompt["compare"]
    _, entry = comfy.run(prompt)
    assert "needs 8 x 8 pixels at least" in error_of(entry)
