"""Nodes and a route for the host tests only: latents, comparisons, failures, a look at settings."""

from __future__ import annotations

import copy
import threading

import comfy.model_management as management
import comfy.model_patcher
import server
import torch
from aiohttp import web

import nodes

from .card import NODES as CARD_NODES
from .video import VIDEO_NODES

CORE = nodes.NODE_CLASS_MAPPINGS
GATE = {"reached": threading.Event()}


def settings() -> dict:
    matmul = torch.backends.cuda.matmul
    return {
        "reserve_bytes": management.EXTRA_RESERVED_VRAM,
        "fp16_accumulation": getattr(matmul, "allow_fp16_accumulation", None),
        "tf32_matmul": matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "precision": getattr(matmul, "fp32_precision", None),
    }


@server.PromptServer.instance.routes.get("/host_test/settings")
async def read_settings(_request):
    return web.json_response(settings())


@server.PromptServer.instance.routes.get("/host_test/waiting")
async def is_waiting(_request):
    return web.json_response(GATE["reached"].is_set())


@server.PromptServer.instance.routes.get("/host_test/decode_functions")
async def decode_functions(_request):
    """Where the code of core's decode nodes lies."""
    return web.json_response(
        {name: CORE[name].decode.__code__.co_filename for name in ("VAEDecode", "VAEDecodeTiled")}
    )


class Node:
    CATEGORY = "host_test"
    FUNCTION = "run"


class Latent(Node):
    """A seeded latent; frames 0 makes an image latent."""

    @classmethod
    def INPUT_TYPES(cls):
        number = ("INT", {"default": 1, "min": 0, "max": 1 << 30})
        names = ("seed", "batch", "channels", "frames", "height", "width")
        return {"required": dict.fromkeys(names, number), "optional": {"nested": ("BOOLEAN",)}}

    RETURN_TYPES = ("LATENT",)

    def run(self, seed, batch, channels, frames, height, width, nested=False):
        time = (frames,) if frames else ()
        random = torch.Generator().manual_seed(seed)
        latent = torch.randn((batch, channels, *time, height, width), generator=random)
        if nested:
            from comfy.nested_tensor import NestedTensor

            latent = NestedTensor([latent, torch.zeros(1, 8, 4, 16)])
        return ({"samples": latent},)


class Pictures(Node):
    """Seeded pictures [N, H, W, C]."""

    @classmethod
    def INPUT_TYPES(cls):
        number = ("INT", {"default": 1, "min": 0, "max": 1 << 30})
        return {"required": dict.fromkeys(("seed", "count", "height", "width", "channels"), number)}

    RETURN_TYPES = ("IMAGE",)

    def run(self, seed, count, height, width, channels):
        random = torch.Generator().manual_seed(seed)
        return (torch.rand((count, height, width, channels), generator=random),)


class BorrowedDecode(Node):
    """Another pack's node that calls the function of core's, as some do."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",)}}

    RETURN_TYPES = ("IMAGE",)

    def run(self, samples, vae):
        return CORE["VAEDecode"]().decode(vae, samples)


class Compare(Node):
    """Shapes and the largest difference of two images."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("IMAGE",), "b": ("IMAGE",)}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def run(self, a, b):
        same = a.shape == b.shape
        difference = (a.float() - b.float()).abs().max().item() if same else None
        seen = {"a": list(a.shape), "b": list(b.shape), "spread": a.float().std().item()}
        return {"ui": {"seen": [{**seen, "difference": difference}]}}


class CompareLatents(Node):
    """The same of two latents, their relative distance (L2), and what else they hold."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("LATENT",), "b": ("LATENT",)}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def run(self, a, b):
        seen = Compare().run(a["samples"], b["samples"])["ui"]["seen"][0]
        ours, cores = a["samples"].double(), b["samples"].double()
        if ours.shape == cores.shape:
            seen["error"] = ((ours - cores).norm() / cores.norm()).item()
        seen["types"] = [str(each["samples"].dtype) for each in (a, b)]
        return {"ui": {"seen": [{**seen, "keys": [sorted(a), sorted(b)]}]}}


class Show(Node):
    """Puts a text or number out where /history shows it."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*",)}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def run(self, value):
        return {
            "ui": {"seen": [value if isinstance(value, str | int | float | bool) else str(value)]}
        }


class SettingsNow(Node):
    """The process-wide settings when the node runs; its inputs order it."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"after": ("*",)}, "optional": {"salt": ("INT",)}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def run(self, after, salt=0):
        return {"ui": {"seen": [settings()]}}


class Model(Node):
    """A tiny model in a patcher."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    RETURN_TYPES = ("MODEL",)

    def run(self):
        inner = torch.nn.Linear(4, 4)
        inner.device = torch.device("cpu")
        cpu = torch.device("cpu")
        return (comfy.model_patcher.ModelPatcher(inner, load_device=cpu, offload_device=cpu),)


class Sample(Node):
    """Runs a model the way core's guider does: pre_run and cleanup around the work."""

    @classmethod
    def INPUT_TYPES(cls):
        how = (["succeed", "fail", "wait"],)
        return {"required": {"model": ("MODEL",), "how": how, "salt": ("INT", {"default": 0})}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def run(self, model, how, salt):
        before = settings()
        model.pre_run()
        try:
            during = settings()
            act(how)
        finally:
            model.cleanup()
        return {"ui": {"seen": [{"before": before, "during": during, "after": settings()}]}}


class Act(Node):
    """Passes on, fails, or waits until the job is interrupted."""

    @classmethod
    def INPUT_TYPES(cls):
        how = (["succeed", "fail", "wait"],)
        return {"required": {"value": ("*",), "how": how, "salt": ("INT", {"default": 0})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        return True

    RETURN_TYPES = ("*",)
    OUTPUT_NODE = True

    def run(self, value, how, salt):
        act(how)
        return (value,)


def act(how):
    if how == "fail":
        raise RuntimeError("failed on purpose")
    if how == "wait":
        GATE["reached"].set()
        try:
            while True:
                management.throw_exception_if_processing_interrupted()
                threading.Event().wait(0.01)
        finally:
            GATE["reached"].clear()


class FailingVae(Node):
    """A VAE whose decoder runs out of memory above a size, or fails, or is interrupted.

    With "ask" the user's interrupt comes while it decodes, and it decodes on.
    """

    @classmethod
    def INPUT_TYPES(cls):
        ways = ("out of memory", "out of system memory", "broken", "interrupt", "ask")
        how = ([*ways, "looks at values", "whole encodes"],)
        largest = ("INT", {"default": 0, "min": 0, "max": 1 << 30})
        return {"required": {"vae": ("VAE",), "how": how, "largest_latent_pixels": largest}}

    RETURN_TYPES = ("VAE",)

    def run(self, vae, how, largest_latent_pixels):
        failing = copy.copy(vae)
        if how == "looks at values":
            failing.first_stage_model = LookingDecoder(vae.first_stage_model)
            return (failing,)
        if how == "whole encodes":
            failing.first_stage_model = limited(vae.first_stage_model, largest_latent_pixels)
            return (failing,)
        failing.first_stage_model = FailingDecoder(
            vae.first_stage_model, how, largest_latent_pixels
        )
        return (failing,)


class LookingDecoder(torch.nn.Module):
    """Decides by values, which fake tensors do not have."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def decode(self, latent, **options):
        assert latent.float().abs().max().item() > 0
        return self.inner.decode(latent, **options)

    def encode(self, pixels, **options):
        assert pixels.float().abs().max().item() > 0
        return self.inner.encode(pixels, **options)


def limited(model, largest):
    """The same network, whose own ``encode`` runs out of memory above a size in pixels."""
    known = copy.copy(model)

    def encode(pixels, **options):
        if pixels.shape[-1] * pixels.shape[-2] > largest:
            raise torch.cuda.OutOfMemoryError("out of memory, said by the test")
        return model.encode(pixels, **options)

    known.encode = encode
    return known


class FailingDecoder:
    def __init__(self, model, how, largest):
        self._model, self._how, self._largest = model, how, largest

    def __getattr__(self, name):
        return getattr(self._model, name)

    def encode(self, pixels, **options):
        """Sizes count in pixels here."""
        self._fail(pixels)
        return self._model.encode(pixels, **options)

    def decode(self, latent, **options):
        self._fail(latent)
        return self._model.decode(latent, **options)

    def _fail(self, given):
        if given.shape[-1] * given.shape[-2] > self._largest:
            if self._how == "out of memory":
                raise torch.cuda.OutOfMemoryError("out of memory, said by the test")
            if self._how == "broken":
                raise RuntimeError("broken, said by the test")
            if self._how == "out of system memory":
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory, said by the test")
            if self._how == "ask":
                management.interrupt_current_processing()
                return
            raise management.InterruptProcessingException


NODE_CLASS_MAPPINGS = (
    {
        f"HostTest{cls.__name__}": cls
        for cls in (
            Latent,
            Pictures,
            BorrowedDecode,
            Compare,
            CompareLatents,
            Show,
            SettingsNow,
            Model,
            Sample,
            Act,
            FailingVae,
        )
    }
    | CARD_NODES
    | VIDEO_NODES
)
