"""Builds the fake NVML."""

from __future__ import annotations

from pathlib import Path

from support.c_library import build_library

SOURCE = Path(__file__).with_name("nvml.c")


def build(compiler: str, folder: Path, *defines: str) -> Path:
    """Compile into ``folder/libnvidia-ml.so.1``."""
    library = folder / "libnvidia-ml.so.1"
    return build_library(compiler, SOURCE, library, *(f"-D{name}" for name in defines))
