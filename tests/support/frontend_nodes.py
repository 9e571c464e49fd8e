"""Nodes as ComfyUI tells its frontend of them: this pack's from their faces, core's by hand."""

from __future__ import annotations

from typing import Any

from support.face_schemas import schemas

TYPES = {
    "Boolean": "BOOLEAN", "Int": "INT", "Float": "FLOAT", "String": "STRING", "Combo": "COMBO",
    "Clip": "CLIP", "Model": "MODEL", "Vae": "VAE", "Latent": "LATENT", "Image": "IMAGE",
    "Noise": "NOISE", "Guider": "GUIDER", "Sampler": "SAMPLER", "Sigmas": "SIGMAS",
}  # fmt: skip
"""Of sockets, by the schema's class."""
USUAL: dict[str, dict[str, Any]] = {
    "Combo": {"multiselect": False},
    "String": {"multiline": False},
}
"""What ComfyUI adds."""
LEFT_OUT = {"kind", "id", "optional", "display_name", "display_mode"}


def object_info() -> dict[str, Any]:
    """The answer of ``/object_info``."""
    ours = {node_id: _info(schema) for node_id, schema in schemas().items()}
    return {**ours, **CORE}


def input_info(schema: Any) -> dict[str, dict[str, Any]]:
    """Inputs with their options, required ones apart."""
    found: dict[str, dict[str, Any]] = {}
    for each in schema.inputs:
        group = "optional" if getattr(each, "optional", False) else "required"
        found.setdefault(group, {})[each.id] = [_type(each), _options(each)]
    return found


def _info(schema: Any) -> dict[str, Any]:
    inputs = input_info(schema)
    outputs = list(getattr(schema, "outputs", None) or [])
    return {
        "input": inputs,
        "input_order": {group: list(each) for group, each in inputs.items()},
        "output": [_type(each) for each in outputs],
        "output_is_list": [False] * len(outputs),
        "output_name": [_output_name(each) for each in outputs],
        "output_tooltips": [getattr(each, "tooltip", None) for each in outputs],
        "name": schema.node_id,
        "display_name": schema.display_name,
        "description": getattr(schema, "description", ""),
        "python_module": "custom_nodes.vram_supervisor",
        "category": schema.category,
        "output_node": bool(getattr(schema, "is_output_node", False)),
    }


def _type(each: Any) -> str:
    return TYPES.get(each.kind, each.kind)


def _output_name(each: Any) -> str:
    # The first argument of an output is its name inside the schema.
    return getattr(each, "display_name", None) or _type(each)


def _options(each: Any) -> dict[str, Any]:
    told = {name: value for name, value in vars(each).items() if name not in LEFT_OUT}
    told = USUAL.get(each.kind, {}) | told
    return {name: value for name, value in told.items() if value is not None}


def _core(name: str, required: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
    return {
        "input": {"required": required},
        "input_order": {"required": list(required)},
        "output": outputs,
        "output_is_list": [False] * len(outputs),
        "output_name": outputs,
        "name": name,
        "display_name": name,
        "description": "",
        "python_module": "nodes",
        "category": "core",
        "output_node": name == "PreviewImage",
    }


def _whole(default: int, least: int = 1, step: int = 1) -> list[Any]:
    return ["INT", {"default": default, "min": least, "max": 16384, "step": step}]


CORE = {
    name: _core(name, required, outputs)
    for name, required, outputs in (
        ("VAEDecode", {"samples": ["LATENT", {}], "vae": ["VAE", {}]}, ["IMAGE"]),
        (
            "VAEDecodeTiled",
            {
                "samples": ["LATENT", {}],
                "vae": ["VAE", {}],
                "tile_size": _whole(512, 64, 32),
                "overlap": _whole(64, 0, 32),
                "temporal_size": _whole(64, 8, 4),
                "temporal_overlap": _whole(8, 4, 4),
            },
            ["IMAGE"],
        ),
        ("VAELoader", {"vae_name": [["a.safetensors"], {}]}, ["VAE"]),
        ("PreviewImage", {"images": ["IMAGE", {}]}, []),
        (
            "EmptyLatentImage",
            {
                "width": _whole(512, 16, 8),
                "height": _whole(512, 16, 8),
                "batch_size": _whole(1),
            },
            ["LATENT"],
        ),
        (
            "EmptyHunyuanLatentVideo",
            {
                "width": _whole(848, 16, 16),
                "height": _whole(480, 16, 16),
                "length": _whole(25, 1, 4),
                "batch_size": _whole(1),
            },
            ["LATENT"],
        ),
    )
}
