"""Tells decoders apart by how they are built, not by their weights."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

DIGITS = 16
"""Of the hash, in hexadecimal."""


def architecture_hash(module: nn.Module) -> str:
    """Equal for modules of the same classes with parameters and buffers of the same shapes.

    Weights, dtype and device do not count.
    """
    lines = [f"{name} {_path(part)}" for name, part in module.named_modules()]
    lines += [f"{name} {tuple(value.shape)}" for name, value in _tensors(module)]
    return _digest("\n".join(sorted(lines)).encode())


def code_hash(module: nn.Module) -> str:
    """Changes when a file changes that defines one of the module's classes.

    Torch's own are left out: its version is known. A class without a file counts by name.
    """
    names = {type(part).__module__ for part in module.modules()}
    parts = [_source(name) for name in sorted(names) if name.partition(".")[0] != "torch"]
    return _digest(b"\0".join(parts))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _path(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _source(name: str) -> bytes:
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or not Path(file).is_file():
        return name.encode()
    return Path(file).read_bytes()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]
