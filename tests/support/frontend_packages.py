"""ComfyUI's frontend as PyPI has it, at the versions this pack supports; fetched once and kept."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

OLDEST, NEWEST = "1.27.10", "1.58.1"
DISTRIBUTION = "comfyui-frontend-package"
PATIENCE_S = 300


def cache_folder() -> Path:
    """Where they are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vram-supervisor" / "frontends"


def static_files(version: str) -> Path | str:
    """The folder with ``index.html``, or why it cannot be had."""
    folder = cache_folder() / version
    static = folder / "comfyui_frontend_package" / "static"
    if (static / "index.html").is_file():
        return static
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
        "--disable-pip-version-check", "--dest", str(folder), f"{DISTRIBUTION}=={version}",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        return f"{DISTRIBUTION} {version} did not arrive from PyPI within {PATIENCE_S} s"
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"{DISTRIBUTION} {version} cannot be had from PyPI: {last}"
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()
    return static
