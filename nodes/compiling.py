"""What HW Supporter does with its ``torch_compile_mode`` widget."""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .attention.choosing import TRITON_ON_WINDOWS
from .host.compile_support import (
    compiled,
    has_cpp_compiler,
    has_triton,
    host_support,
    is_compiled,
)
from .host.evicting import is_streamed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .report import Report

_log = logging.getLogger(__name__)

WIDGET: Final = "torch_compile_mode"
OFF: Final = "off"
AUTOMATIC: Final = "auto"
AUTOMATIC_MODE: Final = "reduce-overhead"
OFFLOADS: Final = (
    "this model is larger than the memory that is to be had: compiled, it needs more at its first "
    "run and its weights cannot be streamed; choose off if it runs out of memory"
)
NOT_STREAMED: Final = (
    "torch.compile: DynamicVRAM does not stream a compiled model; its weights stay on the device "
    "while it runs"
)
FIRST_RUN: Final = "torch.compile: the first run of each size compiles, which takes minutes"


@dataclass(frozen=True)
class CompileWorld:
    """What the outside gives.

    Attributes:
        kind: of the device, ``"cuda"``, ``"cpu"`` and so on.
        offloads: whether the host would not keep the whole model on the device.
        os_name: ``platform.system()``.
        triton: whether a GPU can be compiled for.
        cpp: whether a CPU can.
        support: the host's function, None where it has none.
    """

    kind: str
    offloads: Callable[[Any], bool] = lambda _model: False
    os_name: str = field(default_factory=platform.system)
    triton: Callable[[], bool] = has_triton
    cpp: Callable[[], bool] = has_cpp_compiler
    support: Callable[[], Callable[..., None] | None] = host_support


def compile_model(model: Any, mode: str, world: CompileWorld, report: Report) -> Any:
    """A clone that is compiled at its first run, or the model itself; the report says which."""
    report.applied[WIDGET], report.effective[WIDGET] = None, OFF
    if mode == OFF:
        if is_compiled(model):
            report.notes.append("torch.compile: a node before compiled this model; that stays")
            report.effective[WIDGET] = "as compiled before"
        return model
    support, why = world.support(), _problem(model, world)
    if why is None and support is not None:
        chosen = AUTOMATIC_MODE if mode == AUTOMATIC else mode
        try:
            made = compiled(model, chosen, support)
        except (RuntimeError, TypeError, AttributeError, KeyError) as problem:
            _log.info("This model cannot be compiled", exc_info=problem)
            why = f"torch refuses: {problem}"[:300]
        else:
            return _told(made, model, mode, chosen, world, report)
    why = why or "this ComfyUI has no support for it"
    report.warnings.append(f"{WIDGET}={mode} is not applied: {why}. The model runs as it is.")
    return model


def _problem(model: Any, world: CompileWorld) -> str | None:
    if not hasattr(model, "add_wrapper_with_key"):
        return "this model takes no wrappers"
    if world.kind == "cpu":
        return None if world.cpp() else "a CPU needs a C++ compiler, and none is installed"
    return None if world.triton() else "a GPU needs Triton, which is not installed or not usable"


def _told(
    made: Any, model: Any, mode: str, chosen: str, world: CompileWorld, report: Report
) -> Any:
    report.applied[WIDGET] = report.effective[WIDGET] = chosen
    report.notes.append(FIRST_RUN)
    if is_streamed(model):
        report.notes.append(NOT_STREAMED)
    if is_compiled(model):
        report.notes.append("torch.compile: this replaces what a node before had compiled")
    if world.os_name == "Windows":
        report.warnings.append(f"{WIDGET}={mode}: {TRITON_ON_WINDOWS} Choose off for compile.")
    if world.offloads(model):
        report.warnings.append(f"{WIDGET}={mode}: {OFFLOADS}")
    return made
