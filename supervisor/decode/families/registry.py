"""Which family a loaded network belongs to."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..program import Program

MODULES: Final = (
    "kl",
    "flux2",
    "hunyuan",
    "hunyuan15",
    "hunyuan_image",
    "wan21",
    "wan22",
    "ltx",
    "mochi",
    "cosmos",
    "cogvideo",
    "taesd",
)
"""In the order they are asked."""


def decoder_of(model: Any) -> tuple[str, Callable[[Any], Program | None]] | None:
    """Name and program of the family whose decoder this is, None for unknown ones."""
    return _found(model, "decoder")


def encoder_of(model: Any) -> tuple[str, Callable[[Any], Program | None]] | None:
    """The same for encoders."""
    return _found(model, "encoder")


def decoder_scale(model: Any) -> int | None:
    """Pixels along one side that a decoder makes of one latent, None for unknown ones."""
    program = _program(model, "decoder")
    return None if program is None else int(program.scale)


def encoder_scale(model: Any) -> int | None:
    """Pixels along one side that an encoder makes one latent of, None for unknown ones."""
    program = _program(model, "encoder")
    return None if program is None else int(1 / program.scale)


def _program(model: Any, what: str) -> Program | None:
    found = _found(model, what)
    return None if found is None else found[1](model)


def _found(model: Any, what: str) -> tuple[str, Callable[[Any], Program | None]] | None:
    for name in MODULES:
        family: Any = import_module(f".{name}", __package__)
        build = getattr(family, what, None)
        if build is not None and build(model) is not None:
            return family.NAME, build
    return None
