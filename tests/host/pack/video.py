"""A tiny real video model, so that sampling can be tested on a CPU: Wan, one block wide 32."""

import comfy.model_management as management
import comfy.model_patcher
import comfy.supported_models
import torch
import torch._dynamo.utils

CALLS = []
"""Shapes the model was given since it was last asked about."""
SIZES = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 32,
    "ffn_dim": 64,
    "num_heads": 2,
    "num_layers": 1,
    "text_dim": 16,
    "freq_dim": 16,
    "in_dim": 16,
    "out_dim": 16,
}


class Node:
    CATEGORY = "host_test"
    FUNCTION = "run"


class VideoModel(Node):
    """``hunger`` multiplies what ComfyUI's formula says sampling needs; a call with more than
    ``most_frames`` latent frames runs out of memory; the call of that number is interrupted."""

    @classmethod
    def INPUT_TYPES(cls):
        number = ("INT", {"default": 0, "max": 1 << 30})
        return {
            "required": {
                "hunger": ("FLOAT", {"default": 1.0, "max": 1e12}),
                "most_frames": number,
                "interrupt_at": number,
                "salt": number,
            }
        }

    RETURN_TYPES = ("MODEL", "CONDITIONING")

    def run(self, hunger, most_frames, interrupt_at, salt):
        config = comfy.supported_models.WAN21_T2V(dict(SIZES))
        config.set_inference_dtype(torch.float32, None)
        model = config.get_model({}, "", device=torch.device("cpu"))
        model.memory_usage_factor *= hunger
        random = torch.Generator().manual_seed(5)
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=random) * 0.05
        CALLS.clear()
        model.diffusion_model.register_forward_pre_hook(look(most_frames, interrupt_at))
        cpu = torch.device("cpu")
        patcher = comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
        text = torch.randn((1, 8, 16), generator=random)
        return (patcher, [[text, {}]])


def look(most_frames, interrupt_at):
    calls = []

    def hook(_module, inputs):
        shape = list(inputs[0].shape)
        calls.append(shape)
        CALLS.append(shape)
        if most_frames and shape[2] > most_frames:
            raise torch.OutOfMemoryError("out of memory, said by the test")
        if interrupt_at and len(calls) >= interrupt_at:
            raise management.InterruptProcessingException

    return hook


class Patched(Node):
    """A model with a patch on its weights, as a LoRA makes."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "strength": ("FLOAT", {"default": 1.0})}}

    RETURN_TYPES = ("MODEL",)

    def run(self, model, strength):
        name = "diffusion_model.blocks.0.ffn.0.weight"
        weight = model.model.diffusion_model.blocks[0].ffn[0].weight
        change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(9)) * 0.5
        patched = model.clone()
        assert patched.add_patches({name: (change,)}, strength) == [name]
        return (patched,)


class ModelCalls(Node):
    """Shapes of the model's calls since it was made or since the last look, once ``after`` is
    there, and how many graphs torch has compiled so far."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"after": ("*",)}, "optional": {"text": ("STRING", {"default": ""})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def run(self, after, text=""):
        seen = list(CALLS)
        CALLS.clear()
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        return {"ui": {"seen": [{"calls": seen, "text": text, "graphs": graphs}]}}


VIDEO_NODES = {f"HostTest{cls.__name__}": cls for cls in (VideoModel, Patched, ModelCalls)}
