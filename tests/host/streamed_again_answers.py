"""What one workflow, run again with another seed each time, loads again under DynamicVRAM. JSON.

    python streamed_again_answers.py <ComfyUI folder> <fake libcuda> <card GiB>

A text encoder, whose text stays and whose result is cached, a diffusion model, a cleanup and a
decode that needs much room. What runs beneath is told in streamed_host.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamed_host import GIB, Driver, enter_host, layers_of, place_on

SIZES_GIB = {"Text": 5, "Model": 6, "VAE": 0.25}
WORK_GIB = {"Text": 0.25, "Model": 1, "VAE": 3}
RUNS = 4


def answers(comfyui: Path, driver: Driver):
    """Models and the bytes they loaded: of the first run, and of those after it."""
    host = enter_host(comfyui, driver)
    from _bench_evict_host import Prompts, Run, Start

    import nodes as comfy_nodes

    class Seeded(Start):
        """A latent to sample for a prompt."""

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"seed": ("INT", {}), "prompt": ("LATENT",)}}

        def run(self, seed, prompt):
            return super().run(seed)

    class Working(Run):
        """Takes as much beside the weights as its model does."""

        def run(self, model, latent):
            self.name = type(model.model).__name__
            return super().run(model, latent)

        def allocate(self, _size_bytes):
            return driver.allocate(int(WORK_GIB[self.name] * GIB))

    place = place_on(host, GIB)
    layers = layers_of(place, SIZES_GIB)
    prompts = Prompts(host, place)
    prompts.start()
    comfy_nodes.NODE_CLASS_MAPPINGS |= {"Seeded": Seeded, "Run": Working}
    jobs = [workflow(layers, seed) for seed in range(RUNS)]
    loads, _ = prompts.run(jobs, at_once=False)
    return {"first": loads[: len(layers)], "later": loads[len(layers) :]}


def workflow(layers, seed):
    """The text is always the same one."""
    nodes = {
        f"load {name}": {"class_type": "Model", "inputs": {"name": name, "layers": count}}
        for name, count in layers.items()
    }
    run = {
        "encode": ("Run", {"model": ["load Text", 0], "latent": ["text", 0]}),
        "noise": ("Seeded", {"seed": seed, "prompt": ["encode", 0]}),
        "sample": ("Run", {"model": ["load Model", 0], "latent": ["noise", 0]}),
        "clean": (
            "IAMCCS_VRAMCleanup",
            {"unload_all_models": False, "soft_empty_cache": True, "passthrough": ["sample", 0]},
        ),
        "decode": ("Run", {"model": ["load VAE", 0], "latent": ["clean", 3]}),
        "end": ("End", {"latent": ["decode", 0]}),
        "text": ("Start", {"seed": 0}),
    }
    return nodes | {key: {"class_type": kind, "inputs": each} for key, (kind, each) in run.items()}


if __name__ == "__main__":
    comfyui, library, card_gib = sys.argv[1:]
    card = Driver(library, int(float(card_gib) * GIB))
    print(json.dumps(answers(Path(comfyui), card)))
