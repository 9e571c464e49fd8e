"""Builds the fake NVML with the system's C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")


def find_compiler() -> str | None:
    """A C compiler on this machine: ``CC``, cc, gcc or clang; None where there is none."""
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next(filter(None, (shutil.which(name) for name in names if name)), None)


def build(compiler: str, folder: Path, *defines: str) -> Path:
    """Compile into ``folder/libnvidia-ml.so.1``."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command = [compiler, *flags, *(f"-D{name}" for name in defines), "-o", library, SOURCE]
    subprocess.run(command, check=True)
    return library
