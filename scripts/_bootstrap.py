"""Makes the environment the scripts run in. Standard library only, for it runs before any.

``ensure_environment`` leaves a stamp inside ``.venv`` once everything is installed; while the
stamp still fits, the next start does nothing and takes no time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Runner = Callable[[Sequence[str]], int]

MINIMUM_PYTHON = (3, 10)
STAMP_NAME = "vram-supervisor-setup.json"
STAMP_FORMAT = 1


class SetupFailedError(SystemExit):
    """The environment cannot be made; printed and exit code 1 where nobody catches it."""


def say(text: str) -> None:
    """One line on stderr: stdout belongs to what the script is asked for."""
    print(f"[setup] {text}", file=sys.stderr, flush=True)


def require_python(version: tuple[int, ...]) -> None:
    """Refuse a Python that is too old for the package.

    Raises:
        SetupFailedError: it is.
    """
    if version[:2] < MINIMUM_PYTHON:
        wanted = ".".join(map(str, MINIMUM_PYTHON))
        raise SetupFailedError(
            f"This is Python {'.'.join(map(str, version[:3]))} and {wanted} or newer is needed. "
            f"Nothing was changed. Start this script with a newer one, for example python{wanted}."
        )


def ensure_environment(
    root: Path,
    extras: Sequence[str],
    constraints: Path | None,
    *,
    run: Runner | None = None,
) -> Path:
    """Make ``.venv`` beside ``pyproject.toml`` and install the package with ``extras``.

    Args:
        root: the checkout.
        extras: of the package, from pyproject; what earlier starts installed stays.
        constraints: versions for pip to keep to, or None.
        run: runs a command and gives its exit code; tests pass their own.

    Returns:
        The environment's Python.

    Raises:
        SetupFailedError: with what failed, what was kept and what to do.
    """
    require_python(sys.version_info[:3])
    run = run or run_on_stderr
    venv = root / ".venv"
    key = setup_key(root, constraints)
    python = python_of(venv)
    installed = read_stamp(venv / STAMP_NAME, key)
    if python.is_file() and installed is not None and set(extras) <= installed:
        return python
    _make_venv(venv, python, run)
    wanted = sorted({*extras, *(installed or ())})
    _install(root, python, wanted, constraints, run)
    stamp = {"format": STAMP_FORMAT, "key": key, "extras": wanted}
    (venv / STAMP_NAME).write_text(json.dumps(stamp), encoding="utf-8")
    say("ready")
    return python


def python_of(venv: Path, *, windows: bool = os.name == "nt") -> Path:
    """Where an environment keeps its interpreter."""
    return venv / "Scripts" / "python.exe" if windows else venv / "bin" / "python"


def setup_key(root: Path, constraints: Path | None) -> str:
    """Changes whenever an installation made earlier may not fit any more."""
    digest = hashlib.sha256()
    digest.update(repr((STAMP_FORMAT, str(root), sys.version_info[:2])).encode())
    digest.update((root / "pyproject.toml").read_bytes())
    if constraints is not None:
        digest.update(constraints.read_bytes())
    return digest.hexdigest()


def read_stamp(path: Path, key: str) -> set[str] | None:
    """Extras a finished installation has; None when there is none or it does not fit."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(stamp, dict) or stamp.get("key") != key:
        return None
    return {str(extra) for extra in stamp.get("extras", ())}


def run_on_stderr(command: Sequence[str]) -> int:
    """Run a command with its output on stderr; 127 when it cannot be started."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # Set by whoever runs another Python; they would lead this one to the wrong library.
    for name in ("PYTHONHOME", "PYTHONPATH"):
        environment.pop(name, None)
    try:
        done = subprocess.run(command, stdout=sys.stderr.fileno(), env=environment, check=False)
    except OSError as error:
        say(f"cannot start {command[0]}: {error}")
        return 127
    return done.returncode


def _make_venv(venv: Path, python: Path, run: Runner) -> None:
    """Make the environment unless a working one is there; a broken one is made anew."""
    check = [str(python), "-c", f"import pip, sys; sys.exit(sys.version_info < {MINIMUM_PYTHON})"]
    if python.is_file() and run(check) == 0:
        return
    say(f"making {venv} with {sys.executable}" + (" (anew)" if python.exists() else ""))
    if run([sys.executable, "-m", "venv", "--clear", str(venv)]) != 0:
        raise SetupFailedError(
            f"The environment {venv} could not be made (see above). Nothing else was changed. "
            "On Debian and Ubuntu install the package python3-venv; elsewhere check that there "
            "is room on the disk and that the folder may be written to, then start again."
        )


def _install(
    root: Path, python: Path, extras: Sequence[str], constraints: Path | None, run: Runner
) -> None:
    """Install the package, editable, with its extras."""
    what = f"{root}[{','.join(extras)}]" if extras else str(root)
    command = [str(python), "-m", "pip", "install", "--editable", what]
    if constraints is not None:
        command += ["--constraint", str(constraints)]
    say(f"installing vram-supervisor with {', '.join(extras) or 'no extras'} (minutes at first)")
    if run(command) != 0:
        raise SetupFailedError(
            f"pip could not install the package (see above). {root / '.venv'} was kept, and so "
            "was what pip had finished. Check the network, the disk and pip's settings, then "
            f"start again, or run it by hand:\n  {shlex.join(command)}"
        )
