"""A small card made of system memory, and models that are loaded onto it by the host's own rules.

Its device is ``cpu:0``, which the host takes for another than ``cpu``: weights that move there stay
where they are, but are counted. Only what is free there is made up.
"""

from __future__ import annotations

import sys
import weakref

import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import server
import torch
from aiohttp import web

CARD = torch.device("cpu", 0)
CPU = torch.device("cpu")
LAYER_EDGE = 512
LAYER_BYTES = LAYER_EDGE * LAYER_EDGE * 4
WEIGHTS_BYTES = 24 * LAYER_BYTES
"""What fits beside the memory that the host wants free."""
MADE: weakref.WeakSet = weakref.WeakSet()
LOADED: list[tuple[str, int]] = []
"""Layers each run brought onto the card, by model."""

_known_free = management.get_free_memory
_known_unload = management.unload_all_models


def free_memory(dev=None, torch_free_too=False):
    if dev != CARD:
        return _known_free(dev, torch_free_too)
    # The host's list does not do: a model is not in it while it is loaded again.
    held = sum(each.model_loaded_weight_memory for each in MADE)
    free = management.minimum_inference_memory() + WEIGHTS_BYTES - held
    return (free, 0) if torch_free_too else free


def unload_all_models():
    _known_unload()
    management.free_memory(1e30, CARD)


management.get_free_memory = free_memory
management.unload_all_models = unload_all_models


@server.PromptServer.instance.routes.get("/host_test/loaded")
async def loaded(_request):
    """What was loaded since the last time somebody asked."""
    told, LOADED[:] = list(LOADED), []
    return web.json_response(told)


class HeavyModel(torch.nn.Sequential):
    """Layers that the host can move one by one."""


class Heavy:
    """A model of so many MiB on the card; its class is named as asked."""

    CATEGORY, FUNCTION, RETURN_TYPES = "host_test", "run", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": ("STRING", {}), "layers": ("INT", {"default": 1})}}

    def run(self, name, layers):
        linear = comfy.ops.disable_weight_init.Linear
        sizes = (LAYER_EDGE, LAYER_EDGE)
        made = [linear(*sizes, bias=False, dtype=torch.float32) for _ in range(layers)]
        model = type(name, (HeavyModel,), {})(*made)
        patcher = comfy.model_patcher.ModelPatcher(model, load_device=CARD, offload_device=CPU)
        MADE.add(model)
        return (patcher,)


class HeavyRun:
    """Loads a model as samplers do; the latent only orders it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "host_test", "run", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "latent": ("LATENT",)}}

    def run(self, model, latent):
        before = model.loaded_size()
        management.load_models_gpu([model])
        name = type(model.model).__name__
        LOADED.append((name, (model.loaded_size() - before) // LAYER_BYTES))
        return (latent,)


class Coming:
    """Which models the pack expects to be used, in order, when this node runs."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "host_test", "run", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"after": ("LATENT",)}}

    def run(self, after):
        steps = _runtime().memory.look_ahead().coming()
        names = [type(each.model).__name__ for step in steps for each in step.patchers]
        return {"ui": {"seen": [" ".join(names)]}}


def _runtime():
    """The pack's own, wherever the host put its modules."""
    name = next(each for each in sys.modules if each.endswith(".nodes.host.runtime"))
    return sys.modules[name].runtime()


NODES = {"HostTestHeavy": Heavy, "HostTestHeavyRun": HeavyRun, "HostTestComing": Coming}
