"""``bench.py decode``: decodes on emulated small cards, ours beside core's and a table's.

    --json FILE        measure; cells are added to the file as they finish
    --merge FILES      no measuring: the page from files measured before, the later replacing

Each case runs in a process of its own (``_bench_decode_run.py``, whose options all pass through;
with ``--isolate`` each way, too, for short of memory cuDNN falls back to slower kernels and keeps
them). Prints the page, or writes it to ``--out``. Run by ComfyUI's Python; merging by any.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _bench_decode_cases import CASES, REAL, WAYS
from _bench_decode_page import page
from _bench_decode_rows import Rows, read
from _bench_decode_run import add_options
from _host_process import ALLOCATORS

HERE: Final = Path(__file__).resolve().parent


def main() -> int:
    """Measure or merge, then print; 1 where a decode of ours failed or a process ended early."""
    merging = argparse.ArgumentParser(add_help=False)
    merging.add_argument("--merge", type=Path, nargs="*", help="files measured before")
    merging.add_argument("--out", type=Path, help="file for the page; default: stdout")
    asked, rest = merging.parse_known_args()
    if asked.merge is not None:
        show(read(asked.merge), asked.out)
        return 0
    return measure(rest, asked.out)


def measure(arguments: list[str], out: Path | None) -> int:
    """Every case in turn."""
    parser = argparse.ArgumentParser(
        prog="bench.py decode",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    default = [name for name in CASES if name != REAL]
    parser.add_argument("--cases", choices=CASES, nargs="+", default=default)
    parser.add_argument("--json", type=Path, help="file for the rows; kept and added to")
    parser.add_argument("--isolate", action="store_true", help="a process for each way")
    options = parser.parse_args(arguments)
    if options.allocator not in ALLOCATORS:
        parser.error(f"--allocator is one of {', '.join(ALLOCATORS)}")
    with tempfile.TemporaryDirectory() as folder:
        rows = options.json or Path(folder) / "rows.json"
        code = _measured(options, passed_on(arguments), rows)
        show(read([rows]) if rows.is_file() else Rows(), out)
    return code


def passed_on(arguments: list[str]) -> list[str]:
    """What the processes get: all but what this one deals with."""
    ours = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    ours.add_argument("--cases", nargs="+")
    ours.add_argument("--ways", nargs="+")
    ours.add_argument("--json")
    ours.add_argument("--limit-s")
    ours.add_argument("--isolate", action="store_true")
    return ours.parse_known_args(arguments)[1]


def _measured(options: argparse.Namespace, passed: list[str], rows: Path) -> int:
    deadline = time.monotonic() + options.limit_s
    environment = {
        **os.environ,
        "PYTORCH_CUDA_ALLOC_CONF": ALLOCATORS[options.allocator],
        "PYTHONUNBUFFERED": "1",
    }
    # Only ways that are known are left; the order is the table's, not the command line's.
    ways = [way for way in WAYS if way in options.ways]
    groups = [[way] for way in ways] if options.isolate else [ways]
    worst = 0
    for case in options.cases:
        for group in groups:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            command = [sys.executable, HERE / "_bench_decode_run.py", *passed]
            command += ["--case", case, "--json", rows, "--ways", *group]
            command += [] if left_s == float("inf") else ["--limit-s", f"{left_s:.0f}"]
            done = subprocess.run(command, check=False, env=environment)
            worst = max(worst, 1 if done.returncode else 0)
    return worst


def show(rows: Rows, out: Path | None) -> None:
    """The page, where it was asked for."""
    if out is None:
        print(page(rows))
    else:
        out.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
