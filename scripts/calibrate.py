#!/usr/bin/env python3
"""Make the family table ``supervisor/planning/families.json`` anew.

    python scripts/calibrate.py measure --comfyui PATH --out FOLDER    on a CUDA GPU
    python scripts/calibrate.py table --comfyui PATH --measured FOLDER     on any machine

``measure`` decodes with every known VAE at several sizes, random weights, under both of
torch's allocators, and writes what each decode took to FOLDER (about five minutes on an H200).
``table`` dry-runs the same VAEs over a grid of sizes, which needs no GPU but half an hour, and
puts the measured ratios and times beside it. Both run in ComfyUI's Python (COMFYUI_PYTHON, or
the one in its own environment), which needs this pack's requirements.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _host_process import ALLOCATORS, pack_environment
from run import SetupFailedError, comfyui_python, find_comfyui

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TABLE = ROOT / "supervisor" / "planning" / "families.json"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("measure", "table"))
    parser.add_argument("--comfyui", type=Path, metavar="PATH", help="default: COMFYUI_PATH")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="measure: where rows go")
    parser.add_argument("--measured", type=Path, metavar="FOLDER", help="table: rows to put in")
    parser.add_argument("--layouts", nargs="*", help="table: dry-run only these anew")
    options = parser.parse_args()
    try:
        comfyui = find_comfyui(options.comfyui, os.environ, ROOT)
    except SetupFailedError as error:
        parser.error(str(error))
    if comfyui is None:
        parser.error("give ComfyUI's folder with --comfyui or COMFYUI_PATH; nothing was changed")
    if options.step == "measure":
        if options.out is None:
            parser.error("measure needs --out, the folder to write the decodes to")
        return measure(comfyui, options.out)
    rows = sorted(options.measured.glob("*.json")) if options.measured else []
    return make_table(comfyui, rows, options.layouts)


def measure(comfyui: Path, folder: Path) -> int:
    """Each allocator in a process of its own: torch chooses one when it starts."""
    folder.mkdir(parents=True, exist_ok=True)
    python = comfyui_python(comfyui, os.environ)
    for name, setting in ALLOCATORS.items():
        script = [python, HERE / "_decode_cases.py", "--comfyui", comfyui]
        environment = pack_environment(PYTORCH_CUDA_ALLOC_CONF=setting)
        with environment as variables:
            command = [*script, "--out", folder / f"{name}.json"]
            code = subprocess.run(command, env=variables, check=False).returncode
        if code:
            return code
    return 0


def make_table(comfyui: Path, rows: list[Path], layouts: list[str] | None) -> int:
    """Dry runs and measured ratios into the table that ships."""
    python = comfyui_python(comfyui, os.environ)
    command: list[str | Path] = [python, HERE / "_calibrate_table.py", "--comfyui", comfyui]
    command += ["--out", TABLE]
    if rows:
        command += ["--rows", *rows]
    if layouts is not None:
        command += ["--names", *layouts, "--check", *layouts]
    with pack_environment() as variables:
        return subprocess.run(command, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
