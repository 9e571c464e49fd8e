"""ComfyUI as the tests find it, and scripts run by its Python with this pack on the path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS.parent / "scripts"))

from _host_process import pack_environment  # noqa: E402


def installation() -> Path:
    return Path(os.environ["COMFYUI_PATH"]).resolve()


def python() -> str:
    return os.environ.get("COMFYUI_PYTHON", sys.executable)


def answers(script: str, *arguments: object, cwd: Path | None = None, timeout_s=None) -> Any:
    """What a script of ``tests/host`` says in its last line, which is JSON.

    The folder of ComfyUI is its first argument.
    """
    given = (TESTS / "host" / script, installation(), *arguments)
    return answers_of(*given, cwd=cwd, timeout_s=timeout_s)


def answers_of(*arguments: object, cwd: Path | None = None, timeout_s=None) -> Any:
    """The same of anything that ComfyUI's Python can be started with."""
    command = [python(), *map(str, arguments)]
    with pack_environment() as environment:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
