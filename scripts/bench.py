#!/usr/bin/env python3
"""Measure what the supervisor costs and how true it is; tables for ``docs/benchmarks``.

    python scripts/bench.py monitor            cost, event-loop delay, latency, memory
    python scripts/bench.py ui                 what the panel costs the browser (Chromium)
    python scripts/bench.py figures            the monitor's figures next to nvidia-smi (CUDA)
    python scripts/bench.py predict --comfyui PATH    predicted next to measured decodes (CUDA)
    python scripts/bench.py decode --comfyui PATH    decodes on emulated small cards (CUDA)
    python scripts/bench.py decode --merge FILES      its page from files measured before
    python scripts/bench.py evict --comfyui PATH    what a queue loads again on small cards (CUDA)
    python scripts/bench.py reserve --comfyui PATH    another program grows in mid-job (CUDA)
    python scripts/bench.py attention --comfyui PATH    SageAttention beside ComfyUI's (CUDA)

Prints Markdown on stdout. All that take ``--comfyui`` run in ComfyUI's Python (COMFYUI_PYTHON, or
the one in its own environment); ``_bench_decode.py --help`` tells decode's many options. Standard
library only up to the point where ``.venv`` is ready; ``--here`` skips the environment and uses
the interpreter that runs this file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

ROOT = Path(__file__).resolve().parent.parent
BENCHES = {
    "monitor": "_bench_monitor.py",
    "figures": "_bench_figures.py",
    "ui": "_bench_ui.py",
}
IN_COMFYUI = {
    "predict": "_bench_predict.py",
    "decode": "_bench_decode.py",
    "evict": "_bench_evict.py",
    "reserve": "_bench_reserve.py",
    "attention": "_bench_attention.py",
}


def main() -> int:
    """Command line; arguments that are not ours go to the bench."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bench", choices=sorted((*BENCHES, *IN_COMFYUI)))
    parser.add_argument("--here", action="store_true", help="use this interpreter as it is")
    options, rest = parser.parse_known_args()
    if options.bench == "decode" and "--merge" in rest:
        script = ROOT / "scripts" / IN_COMFYUI["decode"]
        return subprocess.run([sys.executable, script, *rest], check=False).returncode
    if options.bench in IN_COMFYUI:
        return in_comfyui(options.bench, rest)
    python = Path(sys.executable)
    if not options.here:
        from _bootstrap import ensure_environment  # noqa: PLC0415

        python = ensure_environment(
            ROOT, ("standalone", "test"), ROOT / "tests" / "constraints.txt"
        )
    script = ROOT / "scripts" / BENCHES[options.bench]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.run([python, script, *rest], env=environment, check=False).returncode


def in_comfyui(bench: str, arguments: list[str]) -> int:
    """Run a bench that needs ComfyUI in ComfyUI's Python."""
    from _host_process import pack_environment  # noqa: PLC0415
    from run import SetupFailedError, comfyui_python, find_comfyui  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog=f"bench.py {bench}", add_help=False)
    parser.add_argument("--comfyui", type=Path)
    options, rest = parser.parse_known_args(arguments)
    try:
        comfyui = find_comfyui(options.comfyui, os.environ, ROOT)
    except SetupFailedError as error:
        parser.error(str(error))
    if comfyui is None:
        parser.error("give ComfyUI's folder with --comfyui or COMFYUI_PATH")
    script = [comfyui_python(comfyui, os.environ), ROOT / "scripts" / IN_COMFYUI[bench]]
    with pack_environment(PYTHONUNBUFFERED="1") as environment:
        command = [*script, "--comfyui", comfyui, *rest]
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
