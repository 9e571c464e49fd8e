#!/usr/bin/env python3
"""Run every check and test that can run on this machine, and say which could not and why.

    python scripts/test.py                  everything
    python scripts/test.py lint unit        only these suites
    python scripts/test.py --no-install     never install Debian packages

Standard library only: it makes ``.venv``, installs the package with its test extras and,
on Debian as root, the programs the suites need. Exit code 0 when every suite that ran
passed and at least the lint, unit and web suites ran or were named as skipped.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _bootstrap import ensure_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "tests" / "constraints.txt"
DEBIAN_PACKAGES = {"chromium": "chromium", "cc": "gcc libc6-dev", "node": "nodejs"}
PROGRAMS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "cc": ("cc", "gcc", "clang"),
    "node": ("node",),
    "tsc": ("tsc",),
}
NODE_MAJOR_MIN = 18
NO_TESTS_COLLECTED = 5
MOST_PROCESSES = 8
"""That run unit tests at once: each imports torch, which takes time and memory."""


@dataclass(frozen=True)
class Suite:
    """One line of the final table.

    Attributes:
        commands: run one after the other with the environment's Python; all must pass.
        missing: says why the suite cannot run here, None when it can.
    """

    name: str
    about: str
    commands: Callable[[Path], Sequence[Sequence[str]]]
    missing: Callable[[Path], str | None] = lambda _python: None


def find(program: str) -> str | None:
    """Path of a program the suites need, None when it is not installed."""
    return next((path for name in PROGRAMS[program] if (path := shutil.which(name))), None)


def pytest(python: Path, *arguments: str) -> list[str]:
    """A pytest call in a fresh process."""
    return [str(python), "-m", "pytest", "-q", "-ra", *arguments]


def unit(python: Path) -> list[list[str]]:
    """All Python tests that need no GPU, browser or host."""
    at_once = ("-n", "auto", "--maxprocesses", str(MOST_PROCESSES))
    chosen = "not host and not gpu and not browser and not compiler"
    return [pytest(python, *at_once, "-m", chosen)]


def lint(python: Path) -> list[list[str]]:
    """Style, formatting, types and import direction."""
    tools = python.parent
    return [
        [str(tools / "ruff"), "check", "."],
        [str(tools / "ruff"), "format", "--check", "."],
        [str(tools / "basedpyright")],
        [str(tools / "lint-imports")],
    ]


def web(_python: Path) -> list[list[str]]:
    """Pure JavaScript modules under Node's own test runner."""
    tests = sorted(str(path) for path in (ROOT / "tests" / "web").glob("*.test.mjs"))
    return [[find("node") or "node", "--test", *tests]]


def no_node(_python: Path) -> str | None:
    """Node's test runner needs a recent Node."""
    node = find("node")
    if node is None:
        return "no Node"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major = int(version.strip().lstrip("v").split(".")[0])
    return None if major >= NODE_MAJOR_MIN else f"Node {version.strip()} is older than 18"


def types(_python: Path) -> list[list[str]]:
    """JSDoc types of the frontend's modules."""
    return [[find("tsc") or "tsc", "--project", str(ROOT / "tests" / "web" / "jsconfig.json")]]


def no_typescript(_python: Path) -> str | None:
    """Not in Debian without npm; whoever changes ``web/`` has it."""
    return None if find("tsc") else "no tsc (npm install --global typescript)"


def no_chromium(_python: Path) -> str | None:
    """The browser suite drives the system's Chromium."""
    return None if find("chromium") else "no Chromium"


def no_compiler(_python: Path) -> str | None:
    """The fake NVML is C, and needs the C library's headers as well as a compiler."""
    compiler = find("cc")
    if sys.platform != "linux" or compiler is None:
        return "no C compiler" if compiler is None else "the fake NVML is a Linux library"
    check = [compiler, "-fsyntax-only", "-x", "c", "-"]
    done = subprocess.run(check, input=b"#include <stdio.h>\n", capture_output=True, check=False)
    return None if done.returncode == 0 else f"{compiler} has no C headers"


def no_cuda(python: Path) -> str | None:
    """The GPU suite needs torch to see a CUDA device."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    found = subprocess.run([python, "-c", code], check=False, capture_output=True)
    return None if found.returncode == 0 else "no CUDA"


def no_comfyui(_python: Path) -> str | None:
    """The host suite starts the ComfyUI that COMFYUI_PATH names."""
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        return "no COMFYUI_PATH"
    return None if (Path(path) / "main.py").is_file() else f"no main.py in COMFYUI_PATH ({path})"


SUITES = (
    Suite("lint", "ruff, basedpyright, import-linter", lint),
    Suite("unit", "pytest without GPU, browser, host", unit),
    Suite(
        "nvml",
        "real pynvml over a fake NVML library",
        lambda python: [pytest(python, "-m", "compiler")],
        no_compiler,
    ),
    Suite("web", "node --test", web, no_node),
    Suite("types", "JSDoc types of web/, by TypeScript", types, no_typescript),
    Suite(
        "browser",
        "embedded page and ComfyUI's frontends in Chromium",
        lambda python: [pytest(python, "-m", "browser and not host")],
        no_chromium,
    ),
    Suite("gpu", "real CUDA device", lambda python: [pytest(python, "-m", "gpu")], no_cuda),
    Suite(
        "host",
        "nodes in a real ComfyUI",
        lambda python: [pytest(python, "-m", "host")],
        no_comfyui,
    ),
)


def say(text: str) -> None:
    """One line on stderr, at once, so that it stays in order with the suites' own output."""
    print(f"[test] {text}", file=sys.stderr, flush=True)


def install_programs() -> None:
    """On Debian as root, install what is missing; elsewhere the suites say what they lack."""
    lists = [packages for name, packages in DEBIAN_PACKAGES.items() if find(name) is None]
    if importlib.util.find_spec("ensurepip") is None:
        lists.append("python3-venv")
    wanted = " ".join(lists).split()
    if not wanted or shutil.which("apt-get") is None or not hasattr(os, "geteuid"):
        return
    if os.geteuid() != 0:
        say(f"not root, so not installing: {', '.join(wanted)}")
        return
    say(f"installing with apt-get: {', '.join(wanted)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends"]):
        arguments = [*command, *(wanted if command[0] == "install" else [])]
        done = subprocess.run(
            ["apt-get", *arguments], env=environment, check=False, stdout=subprocess.DEVNULL
        )
        if done.returncode != 0:
            say(f"apt-get {command[0]} failed; the suites that need {wanted} will be skipped")
            return


def run_suite(suite: Suite, python: Path) -> tuple[str, str]:
    """Run one suite. Returns (result, detail), the result one of passed, FAILED, skipped."""
    reason = suite.missing(python)
    if reason is not None:
        return "skipped", reason
    started = time.monotonic()
    failed: list[str] = []
    for command in suite.commands(python):
        shown = " ".join([Path(command[0]).name, *command[1:]])
        say(f"{suite.name}: {shown}")
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code != 0:
            failed.append("no tests found" if code == NO_TESTS_COLLECTED else shown)
    seconds = f"{time.monotonic() - started:.0f} s"
    return ("FAILED", "; ".join(failed)) if failed else ("passed", seconds)


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"{[s.name for s in SUITES]}")
    parser.add_argument("--no-install", action="store_true", help="install no Debian packages")
    options = parser.parse_args()
    names = {suite.name for suite in SUITES}
    if unknown := set(options.suites) - names:
        parser.error(f"unknown suite {', '.join(sorted(unknown))}; there are {sorted(names)}")
    if not options.no_install:
        install_programs()
    python = ensure_environment(ROOT, ("standalone", "test"), CONSTRAINTS)
    chosen = [suite for suite in SUITES if not options.suites or suite.name in options.suites]
    results = [(suite, *run_suite(suite, python)) for suite in chosen]
    say("")
    for suite, result, detail in results:
        say(f"{suite.name:8} {result:8} {detail:28} {suite.about}")
    return int(any(result == "FAILED" for _, result, _ in results))


if __name__ == "__main__":
    sys.exit(main())
