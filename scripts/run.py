#!/usr/bin/env python3
"""Start VRAM supervisor: inside your ComfyUI, or on its own with a page and a decode job.

    python scripts/run.py                       the embedded host on http://127.0.0.1:8288
    python scripts/run.py --smoke               one decode without a browser, as JSON
    python scripts/run.py --comfyui PATH        that ComfyUI with the pack in place
    python scripts/run.py --comfyui PATH -- --cpu --port 8190
    python scripts/run.py --comfyui PATH --protect-vae-decode
                                                its own VAE Decode nodes decode safely too

ComfyUI is also found through COMFYUI_PATH, or when this folder sits in its custom_nodes. Its
interpreter is COMFYUI_PYTHON, else the one in its own environment. Nothing is left behind in
ComfyUI: the pack is linked into a temporary folder that ComfyUI is told of. Arguments that
this script does not know go to what it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _bootstrap import SetupFailedError, ensure_environment, python_of, require_python, say

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from types import FrameType

# Not resolved: a checkout that is linked into custom_nodes counts as sitting there.
ROOT = Path(__file__).absolute().parent.parent
CONSTRAINTS = ROOT / "tests" / "constraints.txt"
EMBEDDED = "vram_supervisor.supervisor.embedded"
PACK_FOLDER = "vram-supervisor"
MODULES = {
    "nvidia-ml-py": "pynvml",
    "anyio": "anyio",
    "aiohttp": "aiohttp",
    "psutil": "psutil",
    "typing-extensions": "typing_extensions",
}
KILLED_BY_SIGNAL = 128
PROTECT_VARIABLE = "IAMCCS_PROTECT_VAE_DECODE"
"""What the pack reads inside ComfyUI, which would refuse a flag that it does not know."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        comfyui: the ComfyUI folder, None for the embedded host.
        arguments: passed on to what is started.
        protect_vae_decode: ComfyUI's own decode nodes decode safely too.
    """

    comfyui: Path | None
    install_requirements: bool
    arguments: tuple[str, ...]
    protect_vae_decode: bool = False

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The variables ComfyUI starts with; what they say already stays without the flag."""
        protect = {PROTECT_VARIABLE: "1"} if self.protect_vae_decode else {}
        return {**environment, **protect}


def read_request(arguments: Sequence[str], environment: Mapping[str, str], root: Path) -> Request:
    """Understand the command line; ``--smoke`` and ``--embedded`` never start ComfyUI.

    Raises:
        SetupFailedError: there is no ComfyUI where one is needed.
    """
    own, passed_on = split_arguments(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comfyui", type=Path, metavar="PATH", help="start this ComfyUI")
    parser.add_argument("--embedded", action="store_true", help="never start ComfyUI")
    parser.add_argument(
        "--no-install",
        action="store_false",
        dest="install_requirements",
        help="do not install what the pack lacks into ComfyUI's Python, say so and stop",
    )
    parser.add_argument(
        "--protect-vae-decode",
        action="store_true",
        help=f"ComfyUI's own VAE Decode nodes decode safely too (sets {PROTECT_VARIABLE}=1)",
    )
    options, unknown = parser.parse_known_args(own)
    embedded = options.embedded or "--smoke" in unknown
    comfyui = None if embedded else find_comfyui(options.comfyui, environment, root)
    protect = options.protect_vae_decode
    if protect and comfyui is None:
        raise SetupFailedError(
            "--protect-vae-decode is for ComfyUI's own decode nodes, and no ComfyUI is to be "
            "started. Nothing was started. Name its folder with --comfyui or COMFYUI_PATH, or "
            "leave the flag out."
        )
    return Request(comfyui, options.install_requirements, (*unknown, *passed_on), protect)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before and after the first ``--``."""
    if "--" not in arguments:
        return list(arguments), []
    middle = list(arguments).index("--")
    return list(arguments[:middle]), list(arguments[middle + 1 :])


def find_comfyui(named: Path | None, environment: Mapping[str, str], root: Path) -> Path | None:
    """The ComfyUI folder: the one named, else the environment's, else the one around us.

    Raises:
        SetupFailedError: the folder named is not a ComfyUI.
    """
    around = root.parent.parent if root.parent.name == "custom_nodes" else None
    path = named or (Path(value) if (value := environment.get("COMFYUI_PATH")) else None)
    if path is None:
        return around if around is not None and (around / "main.py").is_file() else None
    if not (path / "main.py").is_file():
        raise SetupFailedError(
            f"There is no main.py in {path}, so it is not a ComfyUI folder. Nothing was changed. "
            "Give the folder that holds ComfyUI's main.py with --comfyui or COMFYUI_PATH."
        )
    return path.absolute()


def comfyui_python(
    comfyui: Path, environment: Mapping[str, str], *, windows: bool = os.name == "nt"
) -> Path:
    """ComfyUI's interpreter: COMFYUI_PYTHON, its own environment's, the portable one, ours."""
    if named := environment.get("COMFYUI_PYTHON"):
        return Path(named)
    candidates = [python_of(comfyui / name, windows=windows) for name in ("venv", ".venv")]
    candidates.append(comfyui.parent / "python_embeded" / "python.exe")
    return next((path for path in candidates if path.is_file()), Path(sys.executable))


def check_requirements(python: Path, root: Path, *, install: bool) -> None:
    """See to it that ComfyUI's Python can import what the pack needs.

    Raises:
        SetupFailedError: it cannot, with the command that helps.
    """
    missing = missing_requirements(python)
    if not missing:
        return
    command = [str(python), "-m", "pip", "install", "-r", str(root / "requirements.txt")]
    if install:
        say(f"installing {', '.join(missing)} into {python}")
        if subprocess.run(command, check=False, stdout=sys.stderr.fileno()).returncode == 0:
            missing = missing_requirements(python)
    if missing:
        raise SetupFailedError(
            f"{python} lacks {', '.join(missing)}. Nothing was started. Install what the pack "
            f"needs (torch is not touched):\n  {shlex.join(command)}\n"
            "or start this script again without --no-install."
        )


def missing_requirements(python: Path) -> list[str]:
    """Distributions the pack needs that this interpreter cannot find.

    Raises:
        SetupFailedError: the interpreter does not run.
    """
    code = (
        "import importlib.util, json, sys\n"
        "modules = json.loads(sys.argv[1])\n"
        "print(json.dumps([d for d, m in modules.items() if not importlib.util.find_spec(m)]))"
    )
    command = [str(python), "-c", code, json.dumps(MODULES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupFailedError(
            f"ComfyUI's Python {python} does not run: {error}. Nothing was started. "
            "Name the right one with COMFYUI_PYTHON."
        ) from error
    missing: list[str] = json.loads(done.stdout)
    return missing


def in_place(comfyui: Path, root: Path) -> bool:
    """Whether this checkout, or a link to it, already sits in ComfyUI's custom_nodes."""
    folder = comfyui / "custom_nodes"
    if not folder.is_dir():
        return False
    return any(child.resolve() == root.resolve() for child in folder.iterdir())


@contextlib.contextmanager
def pack_in_place(comfyui: Path, root: Path) -> Generator[list[str]]:
    """Arguments that make ComfyUI load this checkout; what they need is removed at the end."""
    if in_place(comfyui, root):
        yield []
        return
    folder = Path(tempfile.mkdtemp(prefix="vram-supervisor-"))
    link = folder / "custom_nodes" / PACK_FOLDER
    try:
        link.parent.mkdir()
        link_folder(link, root.resolve())
        config = folder / "extra_model_paths.yaml"
        # JSON is YAML too, and quotes every path safely.
        config.write_text(
            json.dumps({"vram_supervisor": {"custom_nodes": str(link.parent)}}), encoding="utf-8"
        )
        yield ["--extra-model-paths-config", str(config)]
    finally:
        # The link first and by itself, so that nothing can follow it into the checkout.
        unlink_folder(link)
        shutil.rmtree(folder, ignore_errors=True)


def link_folder(link: Path, target: Path) -> None:
    """Link a folder; on Windows by a junction, which needs no privilege."""
    if os.name == "nt":
        import _winapi  # noqa: PLC0415

        _winapi.CreateJunction(str(target), str(link))  # pyright: ignore[reportAttributeAccessIssue]
    else:
        link.symlink_to(target, target_is_directory=True)


def unlink_folder(link: Path) -> None:
    """Remove the link, never what it leads to."""
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        # A junction: rmdir removes it and refuses a folder with something in it.
        link.rmdir()


def run_child(
    command: Sequence[str],
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run until the child ends, hand it the signals we get, and give its exit code.

    Without an ``environment`` it gets ours.
    """
    child = subprocess.Popen(command, cwd=cwd, env=environment)

    def forward(number: int, _frame: FrameType | None) -> None:
        # A console sends Ctrl+C to the child as well; twice would cut its clean-up short.
        by_console = os.name == "nt" or (number == signal.SIGINT and sys.stdin.isatty())
        if child.poll() is None and not by_console:
            child.send_signal(number)

    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    for name in names:
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, forward)
    code = child.wait()
    return code if code >= 0 else KILLED_BY_SIGNAL - code


def run_comfyui(comfyui: Path, request: Request, environment: Mapping[str, str]) -> int:
    """Start ComfyUI with the pack and wait for it."""
    python = comfyui_python(comfyui, environment)
    check_requirements(python, ROOT, install=request.install_requirements)
    with pack_in_place(comfyui, ROOT) as placing:
        say(f"starting {comfyui} with {python}")
        command = [str(python), "main.py", *placing, *request.arguments]
        return run_child(command, comfyui, request.environment(environment))


def run_embedded(request: Request) -> int:
    """Start the embedded host, or its smoke, and wait for it."""
    python = ensure_environment(ROOT, ("standalone",), CONSTRAINTS)
    return run_child([str(python), "-m", EMBEDDED, *request.arguments])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code of what was started."""
    require_python(sys.version_info[:3])
    request = read_request(sys.argv[1:] if arguments is None else arguments, os.environ, ROOT)
    if request.comfyui is not None:
        return run_comfyui(request.comfyui, request, os.environ)
    return run_embedded(request)


if __name__ == "__main__":
    sys.exit(main())
