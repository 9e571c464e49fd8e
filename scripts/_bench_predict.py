"""``bench.py predict``: predicted beside measured bytes, and what predicting costs.

Decodes real ComfyUI VAEs on a CUDA GPU under both allocators (``_decode_cases.py``), predicts
each without and with one other shape measured, and prints both beside ComfyUI's own estimate.
``--rows`` takes decodes measured before; then no GPU is needed. Run by ComfyUI's Python.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _host_process import ALLOCATORS
from _host_vaes import ZOO, enter_host, load

from vram_supervisor.nodes.host.dry_runs import trace_vae
from vram_supervisor.supervisor.planning.calibration import Calibration, Measurement, PieceShape
from vram_supervisor.supervisor.planning.families import MARGIN
from vram_supervisor.supervisor.planning.planner import plan_decode
from vram_supervisor.supervisor.planning.traced_cost import TracedCost
from vram_supervisor.supervisor.planning.types import Abilities, DecodeShape, PlanRequest, Room
from vram_supervisor.supervisor.planning.workspace import CUDNN_LAYOUT
from vram_supervisor.supervisor.units import GiB

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vram_supervisor.supervisor.planning.trace import Trace
    from vram_supervisor.supervisor.planning.traced_cost import Piece

HERE: Final = Path(__file__).resolve().parent
NAMES: Final = (
    "kl", "wan2.1", "wan2.2", "hunyuan", "hunyuan1.5", "ltx", "mochi", "cosmos", "cogvideo",
)  # fmt: skip


@dataclass(frozen=True)
class Predicted:
    """One decode, and what was predicted for it.

    Attributes:
        cold: predicted over measured with an empty store and a prior fitted without this shape.
        unknown: the same without any prior.
        warm: the same after one other shape was measured, for each other shape.
    """

    row: dict[str, Any]
    base_bytes: int
    cold: float
    unknown: float
    warm: tuple[float, ...]

    @property
    def mode(self) -> str:
        """How the latent was decoded."""
        return "whole" if self.row["piece"] == self.row["shape"] else "tiled"


class DryRuns:
    """One dry run for each VAE, piece and way to decode it."""

    def __init__(self) -> None:
        self.traces: dict[tuple[str, tuple[int, ...], bool], Trace] = {}
        self._name = ""
        self._vae: Any = None

    def base_bytes(self, row: dict[str, Any]) -> int:
        """Of the piece a row decoded at once; of pictures in tiles, the hungriest proportion."""
        is_tile = row["piece"] != row["shape"]
        shapes = _proportions(row) if is_tile else [tuple(row["piece"])]
        return max(self.piece_bytes(row["name"], shape, tiled=is_tile) for shape in shapes)

    def piece_bytes(self, name: str, shape: tuple[int, ...], *, tiled: bool = False) -> int:
        """Tensors and workspace of one piece."""
        key = (name, shape, tiled)
        if key not in self.traces:
            total = torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 1 << 40
            vae = self.loaded(name)
            self.traces[key] = trace_vae(vae, shape, tiled=tiled, total_bytes=total)
        return CUDNN_LAYOUT.peak_bytes(self.traces[key])

    def loaded(self, name: str) -> Any:  # noqa: ANN401
        """The VAE of that name, with empty weights, on the CPU."""
        if self._name != name:
            self._name, self._vae = name, load(name, device="cpu", weights="empty")
        return self._vae


def _proportions(row: dict[str, Any]) -> list[tuple[int, ...]]:
    """ComfyUI's tiled decode of pictures makes three passes; each tile ends at the edges."""
    *lead, height, width = row["piece"]
    if len(lead) != len(("B", "C")):
        return [tuple(row["piece"])]
    bottom, right = row["shape"][-2:]
    passes = ((height, width), (height * 2, width // 2), (height // 2, width * 2))
    return [(*lead, min(h, bottom), min(w, right)) for h, w in passes]


def main() -> int:
    """Measure, predict, print Markdown; 1 where a prediction was too low."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--rows", type=Path, nargs="*", help="measured before, one for each")
    parser.add_argument("--keep", type=Path, help="folder to write the measured decodes to")
    parser.add_argument("--limit-s", type=float, default=600.0, help="for each allocator")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        keep = options.keep or Path(folder)
        files = options.rows or [_measured(options, name, keep) for name in ALLOCATORS]
        documents = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    # The decoders' attention is chosen when they are made: it must be the one that was measured.
    place = [] if torch.cuda.is_available() else ["--cpu"]
    enter_host(options.comfyui, "--use-pytorch-cross-attention", *place)
    logging.disable(logging.INFO)
    runs = DryRuns()
    too_low = 0
    for document in documents:
        too_low += _report(document, runs)
    _costs(runs)
    return 1 if too_low else 0


def _measured(options: argparse.Namespace, allocator: str, keep: Path) -> Path:
    """Decode everything in a process of its own: torch chooses its allocator at the start."""
    out = keep / f"{allocator}.json"
    command = [
        sys.executable, HERE / "_decode_cases.py", "--comfyui", options.comfyui, "--out", out,
        "--limit-s", str(options.limit_s), *NAMES,
    ]  # fmt: skip
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": ALLOCATORS[allocator]}
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    return out


def _report(document: dict[str, Any], runs: DryRuns) -> int:
    """One allocator's tables; how many predictions were too low."""
    machine = document["machine"]
    print(
        f"\n### {machine['allocator']} allocator\n\n{machine['gpu']}, torch {machine['torch']}, "
        f"cuDNN {machine['cudnn']}, {machine['dtype']}\n"
    )
    print("| VAE | latent piece | | measured | core | dry run | cold | warm |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    found: list[Predicted] = []
    for name in NAMES:
        rows = [row for row in document["rows"] if row["name"] == name]
        found += _predicted(rows, runs)
    for each in found:
        print(_line(each))
    return _summary(found)


def _predicted(rows: list[dict[str, Any]], runs: DryRuns) -> list[Predicted]:
    known = [(row, runs.base_bytes(row)) for row in rows]
    found: list[Predicted] = []
    for row, base in known:
        others = [(o, b) for o, b in known if o["piece"] != row["piece"] and not o["is_first"]]
        ratios = [other["measured_bytes"] / other_base for other, other_base in others]
        prior = max(1.0, *ratios) * MARGIN
        measured = row["measured_bytes"]
        shape = _piece(row)
        warm = [Calibration([_measurement(o, b)], prior).bound(base, shape) for o, b in others]
        found.append(
            Predicted(
                row,
                base,
                Calibration((), prior).bound(base, shape).bytes / measured,
                Calibration((), None).bound(base, shape).bytes / measured,
                tuple(bound.bytes / measured for bound in warm),
            )
        )
    return found


def _piece(row: dict[str, Any]) -> PieceShape:
    batch, _, *rest = row["piece"]
    frames = rest[0] if len(rest) == len(("T", "H", "W")) else None
    return PieceShape(batch, frames, rest[-2], rest[-1])


def _measurement(row: dict[str, Any], base_bytes: int) -> Measurement:
    return Measurement(*_piece(row), base_bytes=base_bytes, measured_bytes=row["measured_bytes"])


def _line(each: Predicted) -> str:
    row = each.row
    measured = row["measured_bytes"]
    piece = " x ".join(map(str, row["piece"][2:]))
    mode = f"{each.mode}, first" if row["is_first"] else each.mode
    warm = f"{min(each.warm):.3f}-{max(each.warm):.3f}" if each.warm else "-"
    return (
        f"| {ZOO[row['name']].title} | {piece} | {mode} | {measured / 2**20:,.0f} MiB "
        f"| {row['core_bytes'] / measured:.2f} | {each.base_bytes / measured:.3f} "
        f"| {each.cold:.3f} | {warm} |"
    )


def _summary(found: list[Predicted]) -> int:
    cold = [each.cold for each in found]
    unknown = [each.unknown for each in found]
    warm = [ratio for each in found for ratio in each.warm]
    core = [each.row["core_bytes"] / each.row["measured_bytes"] for each in found]
    low = [ratio for ratio in (*cold, *unknown, *warm) if ratio < 1]
    errors = [abs(ratio - 1) for ratio in warm]
    print(
        f"\n{len(found)} decodes. Core's estimate: {_range(core)}. Cold: {_range(cold)}. "
        f"Unknown family: {_range(unknown)}. Warm, {len(warm)} pairs: {_range(warm)}, median "
        f"error {median(errors):.2%}, worst {max(errors):.2%}. Too low: {len(low)}."
    )
    return len(low)


def _range(values: Iterable[float]) -> str:
    known = list(values)
    return f"{min(known):.3f}x to {max(known):.3f}x"


def _costs(runs: DryRuns) -> None:
    """How long predicting takes, and what it takes of the device."""
    print("\n### What predicting costs\n\n| | |\n|---|---:|")
    for name, shape in (
        ("kl", (1, 4, 128, 128)),
        ("kl", (1, 4, 512, 512)),
        ("wan2.1", (1, 16, 21, 90, 160)),
        ("hunyuan", (1, 16, 17, 90, 160)),
        ("mochi", (1, 12, 7, 60, 106)),
        ("ltx", (1, 128, 16, 24, 40)),
    ):
        vae = runs.loaded(name)
        trace = trace_vae(vae, shape)
        print(f"| dry run, {ZOO[name].title}, {shape} | {trace.seconds:.2f} s |")
    print(f"| planning with costs known, the slower of 5 | {_planning_s(runs) * 1000:.1f} ms |")
    if torch.cuda.is_available():
        print(f"| device bytes allocated by planning | {_device_bytes(runs)} |")


def _planning_s(runs: DryRuns) -> float:
    """The second planning of a Wan decode that does not fit."""
    shape = DecodeShape(1, 16, 21, 90, 160, 8, 4)

    def dry_run(batch: int, frames: int | None, height: int, width: int) -> int:
        return runs.piece_bytes("wan2.1", (batch, 16, frames or 1, height, width))

    def bound(base_bytes: int, _piece: Piece) -> int:
        return base_bytes

    cost = TracedCost(dry_run, bound)
    took: list[float] = []
    for _ in range(6):
        started = time.perf_counter()
        plan_decode(shape, cost, Room(5 * GiB), PlanRequest(), Abilities.of_host(video=True))
        took.append(time.perf_counter() - started)
    return max(took[1:])


def _device_bytes(runs: DryRuns) -> int:
    """What a dry run and a planning added to the driver's and torch's figures, at any time."""
    torch.cuda.init()
    torch.empty(1, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved(), torch.cuda.mem_get_info()[0]
    allocations = torch.cuda.memory_stats()["allocated_bytes.all.allocated"]
    trace_vae(runs.loaded("wan2.1"), (1, 16, 3, 60, 104))
    _planning_s(runs)
    after = torch.cuda.memory_reserved(), torch.cuda.mem_get_info()[0]
    allocated = torch.cuda.memory_stats()["allocated_bytes.all.allocated"] - allocations
    return allocated + (after[0] - before[0]) + max(0, before[1] - after[1])


if __name__ == "__main__":
    sys.exit(main())
