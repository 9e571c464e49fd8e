"""The fake NVML, built once and loaded afresh by each test."""

from __future__ import annotations

import ctypes
import shutil
import sys
from itertools import count
from typing import TYPE_CHECKING

import pytest
from fake_nvml.build import build
from support.c_library import find_compiler

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def nvml_libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of the fake library: of a ``"new"`` and of an ``"old"`` driver."""
    compiler = find_compiler()
    if sys.platform != "linux":
        pytest.skip("the fake NVML is a Linux library")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    folder = tmp_path_factory.mktemp("fake_nvml")
    return {
        "new": build(compiler, folder / "new"),
        "old": build(compiler, folder / "old", "OLD_DRIVER"),
    }


@pytest.fixture
def load_nvml(
    nvml_libraries: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ctypes.CDLL]:
    """``load_nvml(script)`` puts a fresh fake driver under pynvml and gives the library."""
    import pynvml

    numbers = count()

    def load(script: str, driver: str = "new") -> ctypes.CDLL:
        number = next(numbers)
        path = tmp_path / f"script-{number}.txt"
        path.write_text(script)
        monkeypatch.setenv("FAKE_NVML_SCRIPT", str(path))
        # A copy of its own: the loader would hand out the same library, counters included.
        copy = tmp_path / f"libnvidia-ml-{number}.so.1"
        shutil.copy(nvml_libraries[driver], copy)
        library = ctypes.CDLL(str(copy))
        monkeypatch.setattr(pynvml, "nvmlLib", library)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return library

    return load
