"""Core's own decode nodes in a real ComfyUI, with the protection and without."""

import json
from pathlib import Path

import pytest
from support import host_process
from support.host_workflows import KL, WAN, latent, link, node, safe_decode, show, vae

VIDEO = {"channels": 16, "frames": 2, "height": 8, "width": 12}
CASES = {
    "an image": (KL, {}),
    "a batch of images with odd sizes": (KL, {"batch": 3, "height": 9, "width": 21}),
    "a video": (WAN, VIDEO),
    "two videos of one frame": (WAN, VIDEO | {"frames": 1, "batch": 2}),
    "a video with its audio, nested": (WAN, VIDEO | {"nested": True}),
}
TILES = {"tile_size": 128, "overlap": 16, "temporal_size": 64, "temporal_overlap": 8}


def decoded(vae_name, sizes, decode="VAEDecode", **inputs):
    """A core node beside core's whole decode, which another pack's node runs unprotected."""
    ends = {"samples": link("latent"), "vae": link("vae")}
    return {
        "vae": vae(vae_name),
        "latent": latent(**sizes),
        "core": node(decode, **ends, **inputs),
        "borrowed": node("HostTestBorrowedDecode", **ends),
        "compare": node("HostTestCompare", a=link("core"), b=link("borrowed")),
    }


def failing(how, largest=0, *, seed, decode="VAEDecode", **inputs):
    """An image that a decoder cannot do above so many latent pixels."""
    broken = {"how": how, "largest_latent_pixels": largest}
    return {
        "loaded": vae(KL),
        "vae": node("HostTestFailingVae", vae=link("loaded"), **broken),
        "latent": latent(height=24, width=24, seed=seed),
        "core": node(decode, samples=link("latent"), vae=link("vae"), **inputs),
        "whole": node("VAEDecode", samples=link("latent"), vae=link("loaded")),
        "compare": node("HostTestCompare", a=link("core"), b=link("whole")),
    }


def safe_decodes(server):
    """What the pack's log says of each, oldest first."""
    marker = "Protected decode: "
    lines = [line for line in server.log().splitlines() if marker in line]
    return [line.partition(marker)[2] for line in lines]


def error_of(entry):
    messages = dict(entry["status"]["messages"])
    return messages["execution_error"]["exception_message"]


@pytest.mark.parametrize("case", CASES)
def test_a_core_node_decodes_safely_and_equal_to_the_bit(protected_comfy, salt, case):
    vae_name, sizes = CASES[case]
    before = len(safe_decodes(protected_comfy))
    seen = protected_comfy.succeed(decoded(vae_name, sizes | {"seed": salt}))
    assert safe_decodes(protected_comfy)[before:] == ["whole: done"], "one of the two nodes"
    assert seen["compare"]["a"] == seen["compare"]["b"]
    assert seen["compare"]["difference"] == 0
    assert seen["compare"]["spread"] > 0.01


@pytest.mark.parametrize(
    ("vae_name", "sizes", "tile"), [(KL, {}, 128), (WAN, VIDEO, 64)], ids=["an image", "a video"]
)
def test_cores_tiled_node_does_what_the_safe_node_does_with_its_sizes(
    protected_comfy, salt, vae_name, sizes, tile
):
    tiles = TILES | {"tile_size": tile}
    before = len(safe_decodes(protected_comfy))
    prompt = decoded(vae_name, sizes | {"seed": salt}, "VAEDecodeTiled", **tiles)
    prompt["borrowed"] = safe_decode(tiling_mode="manual", **tiles)
    prompt["report"] = show("borrowed", 1)
    seen = protected_comfy.succeed(prompt)
    assert seen["compare"]["a"] == seen["compare"]["b"]
    assert seen["compare"]["difference"] == 0
    ladder = json.loads(seen["report"])["ladder"]
    (told,) = safe_decodes(protected_comfy)[before:]
    assert told.split("; ")[-1] == ladder[-1] != "whole: done"


def test_an_oom_that_core_dies_of_does_not_reach_the_user(comfy, protected_comfy, salt):
    prompt = failing("out of memory", 20 * 20, seed=salt)
    _, entry = comfy.run(prompt)
    assert "out of memory" in error_of(entry)
    before = len(safe_decodes(protected_comfy))
    seen = protected_comfy.succeed(prompt)["compare"]
    assert seen["a"] == seen["b"]
    told = next(told for told in safe_decodes(protected_comfy)[before:] if told != "whole: done")
    assert told.startswith("whole: ran out of memory")
    assert told.endswith("done")


@pytest.mark.parametrize(
    ("decode", "inputs"), [("VAEDecode", {}), ("VAEDecodeTiled", TILES)], ids=["whole", "tiled"]
)
def test_a_failed_decode_keeps_the_latent_as_the_safe_node_does(
    protected_comfy, salt, decode, inputs
):
    _, entry = protected_comfy.run(failing("broken", seed=salt, decode=decode, **inputs))
    assert "broken, said by the test" in error_of(entry)
    saved = next(word.rstrip(";.") for word in error_of(entry).split() if ".latent" in word)
    assert Path(saved).is_file()


def test_an_interrupt_stays_one(protected_comfy, salt):
    _, entry = protected_comfy.run(failing("interrupt", seed=salt))
    assert "execution_interrupted" in dict(entry["status"]["messages"])


def test_without_the_variable_the_functions_are_cores_own(comfy, protected_comfy, salt):
    """And core decodes by itself."""
    files = [
        set(server.get("/host_test/decode_functions")[1].values())
        for server in (comfy, protected_comfy)
    ]
    assert {Path(file).name for file in files[0]} == {"nodes.py"}
    assert {Path(file).name for file in files[1]} == {"protection.py"}
    before = len(comfy.log())
    assert comfy.succeed(decoded(KL, {"seed": salt}))["compare"]["difference"] == 0
    said = comfy.log()[before:]
    assert "prompt" in said.lower()
    assert "Protected decode: " not in said
    assert "Safe decode for" not in said
    assert "Safe decode for VAEDecode and VAEDecodeTiled is on." in protected_comfy.log()


def test_the_variable_can_say_no(own_server):
    with own_server(IAMCCS_PROTECT_VAE_DECODE="0") as server:
        files = server.get("/host_test/decode_functions")[1].values()
        assert {Path(file).name for file in files} == {"nodes.py"}


def test_nodes_of_the_newer_kind_are_protected_and_restored_too(tmp_path):
    told = host_process.answers("new_node_answers.py", cwd=tmp_path)
    assert told["gave"] == ["core [1, 32, 32, 3]", "safe [1, 4, 4, 4]", "core [1, 32, 32, 3]"]
    assert "VAEDecode" in told["protected"]
    assert told["restored"] is True
