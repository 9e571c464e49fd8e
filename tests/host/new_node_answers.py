"""Protects a decode node of ComfyUI's newer kind and runs it. Run by ComfyUI's Python.

    python new_node_answers.py <ComfyUI folder>

ComfyUI's own decode nodes are of the older kind still; this one stands for what they may become.
ComfyUI's executor runs it. Says as JSON what it gave while the protection was off, on and off
again, and whether the class was then what it had been.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import torch
from _host_vaes import enter_host, load

PROMPT = {"1": {"class_type": "VAEDecode", "inputs": {}}}


def new_node() -> type:
    """As core would write its VAE Decode today, in place of its own."""
    from comfy_api.latest import io

    import nodes as host_nodes

    class NewVaeDecode(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="VAEDecode",
                category="latent",
                inputs=[io.Latent.Input("samples"), io.Vae.Input("vae")],
                outputs=[io.Image.Output()],
            )

        @classmethod
        def execute(cls, vae, samples):
            return io.NodeOutput(vae.decode(samples["samples"]))

    NewVaeDecode.GET_SCHEMA()
    host_nodes.NODE_CLASS_MAPPINGS["VAEDecode"] = NewVaeDecode
    return NewVaeDecode


def run(node: type, vae: object) -> str:
    """Who decoded, by what came out."""
    import execution
    from comfy_execution.graph import DynamicPrompt
    from comfy_execution.progress import reset_progress_state

    reset_progress_state("prompt", DynamicPrompt(PROMPT))
    samples = {"samples": torch.zeros(1, vae.latent_channels, 4, 4)}
    inputs = {"vae": [vae], "samples": [samples]}
    with torch.inference_mode():
        asked = execution.get_output_data("prompt", "1", node, inputs, v3_data=None)
        ((images,),), *_ = asyncio.run(asked)
    return images if isinstance(images, str) else f"core {list(images.shape)}"


def safe(latent, vae, request, core) -> str:
    return f"safe {list(latent.shape)}"


def answers() -> dict[str, object]:
    from vram_supervisor.nodes.host.protection import Protection, executing_class, host_classes

    node = new_node()
    before = vars(node)["execute"]
    protection = Protection(host_classes, executing_class, safe)
    vae = load("taesd", device="cpu", dtype=torch.float32)
    gave = [run(node, vae)]
    protected = protection.switch_on()
    gave.append(run(node, vae))
    protection.switch_off()
    gave.append(run(node, vae))
    restored = vars(node)["execute"] is before
    return {"gave": gave, "protected": protected, "restored": restored}


enter_host(sys.argv[1], "--cpu")
print(json.dumps(answers()))
