"""One case of ``bench.py decode`` in a process of its own: whole, then every way on every card.

    python _bench_decode_run.py --comfyui PATH --case wan2.1 --json rows.json

A line on stderr and a new file for each cell. Run by ComfyUI's Python.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _bench_decode_cases import CARDS_GIB, CASES, OURS, SIZES, WAYS
from _bench_decode_host import enter
from _bench_decode_rows import Setting, read

if TYPE_CHECKING:
    from _bench_decode_cells import Bench

DTYPES: Final = {"bf16": "bfloat16", "fp32": "float32"}


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    add_options(parser)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--json", type=Path, required=True, help="file that cells are added to")
    return parser.parse_args(arguments)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that ``bench.py decode`` has, too."""
    add = parser.add_argument
    add("--comfyui", type=Path, required=True)
    add("--cards", type=float, nargs="+", default=CARDS_GIB, metavar="GIB")
    add("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    add("--size", choices=SIZES, help="default: full, small for fp32, tiny with --cpu")
    add("--dtype", choices=DTYPES, default="bf16")
    add("--allocator", default="cudaMallocAsync", help="native or cudaMallocAsync, the default")
    add("--no-dynamic-vram", action="store_true", help="as ComfyUI with --disable-dynamic-vram")
    add("--beside-context", action="store_true", help="a card's size does not hold our context")
    add("--told-total", action="store_true", help="decoders are told the emulated card's size")
    add("--cold", action="store_true", help="empty stores before each decode of ours")
    add("--once", action="store_true", help="one decode of ours for each cell, not two")
    add("--cpu", action="store_true", help="to try the bench: no ballast, cards cap our node")
    add("--limit-s", type=float, default=float("inf"), help="begin no cell after so long")
    add("--skip", type=Path, nargs="*", default=[], help="files with cells not to measure again")
    add("--data", type=Path, help="folder of taef2_encoder.pth and taef2_decoder.pth")
    add("--photos", type=Path, help="folder of photos; default: scikit-image's")


def main() -> int:
    """Measure one case; 1 where a decode of ours failed."""
    asked = options()
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        base = Path(folder)
        enter(asked.comfyui, base, *_host_arguments(asked))
        from _bench_decode_cells import Bench  # noqa: PLC0415, torch comes after ComfyUI

        bench = Bench.prepared(asked, setting_of(asked), base)
        try:
            return _measure(bench, asked, started_s)
        finally:
            bench.end()


def setting_of(asked: argparse.Namespace) -> Setting:
    """What the rows have in common."""
    size = asked.size
    if size is None:
        size = "tiny" if asked.cpu else "small" if asked.dtype == "fp32" else "full"
    allocator = "cpu" if asked.cpu else asked.allocator
    dynamic = not (asked.cpu or asked.no_dynamic_vram)
    return Setting(asked.case, size, asked.dtype, allocator, dynamic, asked.beside_context)


def _host_arguments(asked: argparse.Namespace) -> list[str]:
    arguments = [f"--{asked.dtype}-vae"]
    if asked.cpu:
        arguments += ["--cpu", "--use-pytorch-cross-attention"]
    if asked.no_dynamic_vram:
        arguments.append("--disable-dynamic-vram")
    return arguments


def _measure(bench: Bench, asked: argparse.Namespace, started_s: float) -> int:
    rows = read([asked.json]) if asked.json.is_file() else read([])
    known = read(asked.skip)
    rows.add(whole := bench.whole())
    rows.write(asked.json)
    say(
        f"{asked.case}: whole {whole.seconds} s, peak {whole.peak_bytes}, spread {whole.spread:.1e}"
    )
    failed = 0
    # Large cards first within a way: what a small one does to cuDNN's choices stays.
    for way, card in itertools.product(asked.ways, sorted(asked.cards, reverse=True)):
        if (bench.setting, card, way) in known.cells:
            continue
        if time.monotonic() - started_s > asked.limit_s:
            say(f"{asked.case}: the time is up before {WAYS[way]} at {card:g} GiB")
            break
        cell = bench.cell(way, card)
        failed += cell.state != "ok" and way in OURS
        rows.add(cell)
        rows.write(asked.json)
        say(line(cell))
    return 1 if failed else 0


def line(cell: Any) -> str:  # noqa: ANN401
    """A cell for those who watch."""
    shown = replace(cell, report={}, plan="")
    took = "" if shown.seconds is None else f" {shown.seconds:.2f} s"
    apart = "" if shown.relative is None else f", rel {shown.relative:.2e}"
    note = f" {shown.note}" if shown.note else ""
    return (
        f"{shown.setting.case} {shown.card_gib:g} GiB {WAYS[shown.way]}: {shown.state}"
        f"{took}{apart}{note} [{cell.plan}]"
    )


def say(text: str) -> None:
    """Progress, at once."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
