"""Settings for every workflow in a real ComfyUI: what a page changes holds at once and is kept."""

import json

import pytest
from support.host_workflows import KL, latent, link, node, vae

SETTINGS = "/iamccs/supervisor/settings"


def core(seed):
    return {
        "vae": vae(KL),
        "latent": latent(height=9, width=21, seed=seed),
        "core": node("VAEDecode", samples=link("latent"), vae=link("vae")),
        "show": node("PreviewImage", images=link("core")),
    }


@pytest.fixture(autouse=True)
def standard_again(comfy):
    yield
    standard = {name: field["default"] for name, field in ask(comfy)["fields"].items()}
    change(comfy, standard)


def ask(comfy):
    status, told = comfy.get(SETTINGS)
    assert status == 200
    return told


def change(comfy, settings):
    status, told = comfy.post(SETTINGS, settings)
    assert status == 200, told
    return told["settings"]


def safe_decodes(comfy):
    return [line for line in comfy.log().splitlines() if "Protected decode: " in line]


def test_cores_nodes_are_protected_from_the_next_job_on_and_no_longer(comfy, salt):
    before = len(safe_decodes(comfy))
    for turn, (protect, more) in enumerate(((False, 0), (True, 1), (False, 1))):
        change(comfy, {"protect_vae_decode": protect})
        comfy.succeed(core(salt + turn))
        assert len(safe_decodes(comfy)) - before == more


def test_the_rate_is_the_monitors(comfy):
    change(comfy, {"sampling_rate_hz": 4})
    _, report = comfy.get("/iamccs/hw_probe")
    assert report["health"]["rate_hz"] in {1.0, 4.0}
    assert ask(comfy)["settings"]["sampling_rate_hz"] == 4


def test_what_was_changed_is_in_the_user_folder(comfy):
    change(comfy, {"default_quality": "balanced"})
    kept = next(comfy.base.rglob("vram_supervisor/settings.json"))
    assert json.loads(kept.read_text())["default_quality"] == "balanced"


def test_what_cannot_be_is_refused_by_name(comfy):
    status, told = comfy.post(SETTINGS, {"history_days": -1})
    assert (status, told["error"]["field"]) == (400, "history_days")


def test_the_probe_tells_the_reserve_that_holds(comfy):
    _, report = comfy.get("/iamccs/hw_probe")
    assert report["state"]["reserve_words"] == "ComfyUI's own"
    assert report["state"]["reserve_bytes"] is not None
    assert report["decode"] is None
