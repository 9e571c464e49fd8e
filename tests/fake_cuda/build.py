"""Builds the fake CUDA driver."""

from __future__ import annotations

from pathlib import Path

from support.c_library import build_library

SOURCE = Path(__file__).with_name("cuda.c")
ROOM_FOR_HOOKS = "-fpatchable-function-entry=16"
"""comfy-aimdo overwrites the first bytes of a function."""


def build(compiler: str, folder: Path) -> Path:
    """Compile into ``folder/libcuda.so.1``: comfy-aimdo looks for a loaded library of that name."""
    return build_library(compiler, SOURCE, folder / "libcuda.so.1", ROOM_FOR_HOOKS)
