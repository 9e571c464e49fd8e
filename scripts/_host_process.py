"""What a process of ComfyUI's Python needs to import this pack. Standard library only."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from run import link_folder, unlink_folder

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT: Final = Path(__file__).resolve().parent.parent
ALLOCATORS: Final = {"native": "", "cudaMallocAsync": "backend:cudaMallocAsync"}
"""What PYTORCH_CUDA_ALLOC_CONF says for each."""


@contextmanager
def pack_environment(**variables: str) -> Generator[dict[str, str]]:
    """Environment variables with which ``vram_supervisor`` can be imported, installed or not.

    A folder with a link to this checkout is on the path while it lasts; nothing is left behind.
    """
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "vram_supervisor"
        link_folder(link, ROOT)
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        try:
            yield {**os.environ, "PYTHONPATH": path, **variables}
        finally:
            unlink_folder(link)
