"""torch.compile in a real ComfyUI on a CPU: the same picture, also with a LoRA and a second job."""

import json

import pytest
from support.host_workflows import latent, link, node, supporter

from vram_supervisor.nodes.host.compile_support import has_cpp_compiler

pytestmark = pytest.mark.skipif(not has_cpp_compiler(), reason="no C++ compiler")

NUMBERS = {"hunger": 1.0, "most_frames": 0, "interrupt_at": 0}


def sampled(name, model):
    """Nodes that sample a clip with a model."""
    given = {each: link(each) for each in ("noise", "sampler", "sigmas")}
    guider = node("BasicGuider", model=link(*model), conditioning=link("model", 1))
    ends = {"guider": link(f"{name} guider"), "latent_image": link("latent")}
    return {f"{name} guider": guider, name: node("SamplerCustomAdvanced", **given, **ends)}


def workflow(salt, mode, *, patched=None):
    """A clip sampled as it is and compiled, with a LoRA before or after the supporter."""
    plain, ours = ("model", 0), ("supporter", 0)
    prompt = {
        "model": node("HostTestVideoModel", **NUMBERS, salt=salt),
        "latent": latent(seed=salt, channels=16, frames=3, height=8, width=8),
        "noise": node("RandomNoise", noise_seed=salt),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("ManualSigmas", sigmas="1.0, 0.6, 0.0"),
        "supporter": supporter("model", torch_compile_mode=mode, sage_attention="disabled"),
        "report": node("HostTestModelCalls", after=link("ours"), text=link("supporter", 3)),
    }
    if patched is not None:
        prompt["lora"] = node("HostTestPatched", model=link(*plain), strength=1.0)
        plain = ("lora", 0)
    if patched == "before":
        prompt["supporter"]["inputs"]["model"] = link("lora")
    if patched == "after":
        prompt["lora of ours"] = node("HostTestPatched", model=link(*ours), strength=1.0)
        ours = ("lora of ours", 0)
    prompt |= sampled("plain", plain) | sampled("ours", ours)
    prompt["compare"] = node("HostTestCompareLatents", a=link("ours"), b=link("plain"))
    return prompt


@pytest.mark.parametrize("patched", [None, "before", "after"])
def test_a_compiled_model_makes_the_same_clip(comfy, salt, patched):
    seen = comfy.succeed(workflow(salt, "default", patched=patched))
    assert seen["compare"]["error"] < 1e-5
    assert seen["report"]["graphs"] > 0
    report = json.loads(seen["report"]["text"])
    assert report["effective"]["torch_compile_mode"] == "default"
    assert any("takes minutes" in note for note in report["notes"])


def test_auto_tries_the_conservative_mode(comfy, salt):
    seen = comfy.succeed(workflow(salt, "auto"))
    assert seen["compare"]["error"] < 1e-5
    assert json.loads(seen["report"]["text"])["applied"]["torch_compile_mode"] == "reduce-overhead"


def test_off_the_clip_is_the_same_to_the_bit(comfy, salt):
    seen = comfy.succeed(workflow(salt, "off"))
    assert seen["compare"]["difference"] == 0
