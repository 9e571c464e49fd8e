"""The family table: dry runs of every known VAE over a grid, and a GPU's measured ratios.

    python _calibrate_table.py --comfyui <folder> --rows native.json async.json --out table.json

Run by ComfyUI's Python, with no GPU: a dry run needs none. ``calibrate.py`` starts it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _host_vaes import ZOO, enter_host, load

from vram_supervisor.nodes.host.dry_runs import trace_vae
from vram_supervisor.supervisor.planning.architecture import architecture_hash
from vram_supervisor.supervisor.planning.families import layout_cost
from vram_supervisor.supervisor.planning.workspace import CUDNN_LAYOUT, MODEL_VERSION

FAMILIES: Final = {
    "kl": ("kl", "kl16"),
    "flux2": ("flux2",),
    "wan2.1": ("wan2.1",),
    "wan2.2": ("wan2.2",),
    "hunyuan": ("hunyuan",),
    "hunyuan1.5": ("hunyuan1.5",),
    "ltx": ("ltx", "ltx0.9.1", "ltx0.9.5", "ltx2", "ltx2.3"),
    "mochi": ("mochi",),
    "cosmos": ("cosmos",),
    "cogvideo": ("cogvideo",),
    "h3": ("h3",),
}
"""Who asks by name gets the hungriest layout of a family."""

EDGES: Final = {
    8: ((8, 8), (16, 16), (24, 40), (48, 64), (60, 104), (90, 160), (136, 240)),
    16: ((8, 8), (16, 16), (22, 40), (30, 52), (45, 80), (68, 120)),
    32: ((4, 4), (8, 8), (12, 20), (16, 24), (24, 40), (34, 60)),
}
"""Latent heights and widths by spatial scale."""
IMAGE_EDGES: Final = ((8, 8), (16, 16), (64, 64), (256, 256), (512, 512))
FRAMES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17, 19, 21, 25, 31, 41)
EVERY_FRAME: Final = (*range(1, 26), 30, 31, 40, 41)
"""CogVideoX holds more with an odd number of frames."""
BETWEEN: Final = 24
"""Random sizes, thin ones too, at which the table is held against a dry run."""
H3: Final = (((16, 16), (16, 32), (32, 32)), (1, 2, 7, 12))
"""It cuts both space and time itself: more than a few of its tiles tells nothing new."""
WITHOUT_END: Final = 100_000
LARGE_CARD_BYTES: Final = 24 << 30
"""LTX decodes longer chunks on larger cards, up to this size."""


def main() -> int:
    """Dry-run the grid, add what was measured, write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--rows", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", nargs="*", help="layouts to hold against dry runs; default: all")
    parser.add_argument("--names", nargs="*", help="layouts to dry-run anew; default: all")
    options = parser.parse_args()
    enter_host(options.comfyui, "--cpu", "--use-pytorch-cross-attention")
    logging.disable(logging.INFO)
    document: dict[str, Any] = {"layouts": {}}
    if options.out.is_file():
        document = json.loads(options.out.read_text(encoding="utf-8"))
    layouts = [name for members in FAMILIES.values() for name in members]
    for name in layouts if options.names is None else options.names:
        print(name, flush=True)
        document["layouts"][name] = dry_runs(name)
        _write(options.out, document)
    for name in layouts if options.check is None else options.check:
        document["layouts"][name]["table_ratio"] = table_ratio(name, document["layouts"][name])
        print(name, document["layouts"][name]["table_ratio"], flush=True)
        _write(options.out, document)
    document["predictor"] = MODEL_VERSION
    document["families"] = FAMILIES
    if options.rows:
        document["measured"] = measured([json.loads(path.read_text()) for path in options.rows])
    _write(options.out, document)
    return 0


def dry_runs(name: str) -> dict[str, Any]:
    """Base bytes over the grid, one row for each number of frames. bfloat16."""
    layout = ZOO[name]
    vae = load(name, weights="empty")
    edges, frames = _grid(name)
    rows: list[list[int]] = []
    for count in frames:
        time_dims = () if count is None else (count,)
        shapes = [(1, layout.latent_channels, *time_dims, *edge) for edge in edges]
        rows.append([_base_bytes(vae, shape) for shape in shapes])
    if name == "h3":  # however long the clip, a chunk is all that is held
        frames, rows = (*frames, WITHOUT_END), [*rows, rows[-1]]
    module = vae.first_stage_model
    return {
        "architecture": architecture_hash(module),
        "channels": layout.latent_channels,
        "spatial_scale": layout.spatial_scale,
        "temporal_scale": layout.temporal_scale or 1,
        "video": layout.temporal_scale is not None,
        "weight_bytes": 2 * sum(each.numel() for each in module.parameters()),
        "areas": [height * width for height, width in edges],
        "frames": [count or 1 for count in frames],
        "base_bytes": rows,
    }


def _base_bytes(vae: Any, shape: tuple[int, ...]) -> int:  # noqa: ANN401
    """As a tile, which needs no less than decoding the same at once."""
    trace = trace_vae(vae, shape, tiled=True, total_bytes=LARGE_CARD_BYTES)
    return CUDNN_LAYOUT.peak_bytes(trace)


def _grid(name: str) -> tuple[tuple[tuple[int, int], ...], tuple[int | None, ...]]:
    layout = ZOO[name]
    if name == "h3":
        return H3
    if layout.temporal_scale is None:
        return IMAGE_EDGES, (None,)
    return EDGES[layout.spatial_scale], EVERY_FRAME if name == "cogvideo" else FRAMES


def table_ratio(name: str, table: dict[str, Any]) -> float:
    """The largest dry run over what the table says, at random sizes inside it; at least 1."""
    if name == "h3":
        return 1.0
    layout, random = ZOO[name], Random(name)
    vae = load(name, weights="empty")
    family = next(family for family, members in FAMILIES.items() if name in members)
    cost = replace(layout_cost(family, table), table_ratio=1.0)
    worst = 1.0
    for _ in range(BETWEEN):
        count = random.randint(1, min(26, table["frames"][-1])) if table["video"] else None
        area = random.choice(table["areas"][1:-1])
        height = max(4, round((area * random.uniform(0.4, 1.0) * random.uniform(0.2, 1.6)) ** 0.5))
        width = max(4, min(area // height, table["areas"][-1] // height))
        time_dims = () if count is None else (count,)
        exact = _base_bytes(vae, (1, layout.latent_channels, *time_dims, height, width))
        worst = max(worst, exact / cost.base_at(1, count, height, width))
    return round(worst + 0.0005, 3)


def measured(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """For each layout the ratios of measured to base bytes, and seconds per pixel."""
    machine = documents[0]["machine"]
    found: dict[str, Any] = {}
    for name in dict.fromkeys(row["name"] for each in documents for row in each["rows"]):
        rows = [row for each in documents for row in each["rows"] if row["name"] == name]
        vae = load(name, weights="empty")
        ratios = [row["measured_bytes"] / _same_base(vae, row) for row in rows]
        speeds = [row["seconds"] / row["pixels"] for row in rows if not row["is_first"]]
        found[name] = {
            "decodes": len(rows),
            "least_ratio": round(min(ratios), 4),
            "most_ratio": round(max(ratios), 4),
            "seconds_per_pixel": float(f"{median(speeds):.3g}"),
        }
    return {"machine": machine, "layouts": found}


def _same_base(vae: Any, row: dict[str, Any]) -> int:  # noqa: ANN401
    piece = tuple(row["piece"])
    tiled = piece != tuple(row["shape"])
    return CUDNN_LAYOUT.peak_bytes(trace_vae(vae, piece, tiled=tiled, total_bytes=1 << 40))


def _write(path: Path, document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=None, separators=(",", ":"))
    lines = text.replace('"layouts":', '\n"layouts":').replace("},", "},\n")
    path.write_text(f"{lines}\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
