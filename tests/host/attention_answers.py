"""Samples a tiny Wan with a SageAttention kernel for CPUs on its model, and calls ComfyUI's own
attention functions in every way; says as JSON what came of it. Run by ComfyUI's Python.

    python attention_answers.py <ComfyUI folder>
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import torch
from _host_vaes import enter_host

enter_host(sys.argv[1], "--cpu", "--use-pytorch-cross-attention")

import comfy.model_base  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.supported_models  # noqa: E402
from comfy.ldm.modules import attention  # noqa: E402
from support.toy_sage import ON_CPU, FakePackages, sageattn  # noqa: E402

from vram_supervisor.nodes.attention.applying import World, apply_attention  # noqa: E402
from vram_supervisor.nodes.attention.choosing import AUTOMATIC, DISABLED  # noqa: E402
from vram_supervisor.nodes.attention.kernels import KERNELS  # noqa: E402
from vram_supervisor.nodes.faces.common import SAGE_MODES  # noqa: E402
from vram_supervisor.nodes.host.model_hooks import bind  # noqa: E402
from vram_supervisor.nodes.host.settings import SettingsScope  # noqa: E402
from vram_supervisor.nodes.host.wishes import Machine  # noqa: E402
from vram_supervisor.nodes.report import Report  # noqa: E402

CPU = torch.device("cpu")
TRITON = ON_CPU.mode
LAYERS, STEPS, CONDITIONS = 2, 2, 2
FUNCTIONS = ("pytorch", "sub_quad", "split")


def wan():
    """Two layers, two heads of 64, random weights."""
    config = comfy.supported_models.WAN21_T2V(
        {
            "image_model": "wan2.1", "model_type": "t2v", "dim": 128, "ffn_dim": 256,
            "num_heads": 2, "num_layers": LAYERS, "text_dim": 64, "freq_dim": 64,
            "in_dim": 16, "out_dim": 16,
        }
    )  # fmt: skip
    config.set_inference_dtype(torch.float32, None)
    torch.manual_seed(2)
    model = config.get_model({}, device=CPU)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def sampled(model):
    random = torch.Generator().manual_seed(5)
    latent = torch.zeros(1, 16, 2, 16, 16)
    noise = torch.randn(latent.shape, generator=random)
    texts = [[[torch.randn(1, 64, 64, generator=random), {}]] for _ in range(CONDITIONS)]
    return comfy.sample.sample(
        model, noise, STEPS, 5.0, "euler", "simple", *texts, latent, disable_pbar=True, seed=1
    )


def applied(model, world, mode=TRITON, **widgets):
    report = Report()
    machine = Machine("cpu", None, frozenset())
    return apply_attention(model, {"sage_attention": mode, **widgets}, machine, report, world)


def world(function=sageattn):
    return World(FakePackages(sageattention={"sageattn": function}), (ON_CPU,), "Linux")


def relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def samples():
    """Runs of the same model: without, with a kernel, with others, without again."""
    model = wan()
    plain = sampled(model)
    around = world()
    bound = applied(model, around)
    answers = {"with": relative(sampled(bound), plain), "run": around.recent.newest().as_dict()}
    lora = bind(bound, SettingsScope({}), {}).clone()
    answers["clone"] = relative(sampled(lora), plain)
    answers["clone_run"] = around.recent.newest().as_dict()
    answers["plain again"] = relative(sampled(model), plain)
    answers["disabled"] = relative(sampled(applied(bound, around, "disabled")), plain)
    zeros = world(lambda q, k, v, **_options: torch.zeros_like(q))
    answers["wrong kernel"] = relative(sampled(applied(model, zeros)), plain)
    answers["wrong_run"] = zeros.recent.newest().as_dict()
    return answers


def tensors(split, size=64, keys=2):
    random = torch.Generator().manual_seed(3)

    def tensor(heads, tokens):
        found = torch.randn(2, heads, tokens, size, generator=random)
        return found if split else found.transpose(1, 2).flatten(2)

    return tensor(2, 96), tensor(keys, 192), tensor(keys, 192)


def calls():
    """Each of the host's functions with and without the override, in every layout."""
    around = world()
    override = applied(wan(), around).model_options["transformer_options"]
    found = {}
    for name in FUNCTIONS:
        function = attention.get_attention_function(name)
        for split in (False, True):
            for keeps in (False, True):
                how = {"skip_reshape": split, "skip_output_reshape": keeps}
                for what, more in (
                    ("plain", {}),
                    ("mask", {"mask": torch.zeros(96, 192)}),
                    ("scale", {"scale": 0.2}),
                    ("grouped", {"enable_gqa": True}),
                    ("precision", {"low_precision_attention": False}),
                ):
                    given = tensors(split, keys=1 if what == "grouped" else 2)
                    theirs = function(*given, 2, **how, **more)
                    ours = function(*given, 2, transformer_options=override, **how, **more)
                    same = theirs.shape == ours.shape
                    key = f"{name} {what} split={split} keeps={keeps}"
                    found[key] = relative(ours, theirs) if same else None
    return found


def containers():
    """The single-owner inputs that some models give: None where this host has none."""
    kind = getattr(attention, "AttentionTensorContainer", None)
    if kind is None:
        return None
    override = applied(wan(), world()).model_options["transformer_options"]
    given = [kind(each) for each in tensors(split=True)]
    out = attention.attention_pytorch(*given, 2, skip_reshape=True, transformer_options=override)
    theirs = attention.attention_pytorch(*tensors(split=True), 2, skip_reshape=True)
    return {"error": relative(out, theirs), "taken": all(each.tensor is None for each in given)}


def main():
    with torch.inference_mode():
        answers = {"samples": samples(), "calls": calls(), "containers": containers()}
    known = {AUTOMATIC, DISABLED, *(kernel.mode for kernel in KERNELS)}
    answers["modes"] = [sorted(SAGE_MODES), sorted(known)]
    print(json.dumps(answers))


main()
