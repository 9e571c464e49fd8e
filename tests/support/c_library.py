"""Builds fake drivers with the system's C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def find_compiler() -> str | None:
    """A C compiler on this machine: ``CC``, cc, gcc or clang; None where there is none."""
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next(filter(None, (shutil.which(name) for name in names if name)), None)


def build_library(compiler: str, source: Path, library: Path, *options: str) -> Path:
    """Compile one file into a shared library; its folder is made."""
    library.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run([compiler, *flags, *options, "-o", library, source], check=True)
    return library
