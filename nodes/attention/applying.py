"""What HW Supporter does with its ``sage_attention`` widget."""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from .choosing import AUTOMATIC, DISABLED, Choice, InstalledPackages, Packages, Place, choose
from .kernels import KERNELS, Kernel
from .usage import RecentRuns, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..host.wishes import Machine
    from ..report import Report
    from .override import Attending

_log = logging.getLogger(__name__)

KEY: Final = "vram_supervisor.attention"
WIDGET: Final = "sage_attention"
COMPILE_WIDGET: Final = "allow_sageattention_torch_compile"
OVERRIDE: Final = "optimized_attention_override"
HOSTS: Final = "host's attention"


@dataclass(frozen=True, slots=True)
class World:
    """What the outside gives: packages, kernels, the system, and where finished runs go."""

    packages: Packages = field(default_factory=InstalledPackages)
    kernels: tuple[Kernel, ...] = KERNELS
    os_name: str = field(default_factory=platform.system)
    recent: RecentRuns = field(default_factory=RecentRuns)


@lru_cache(maxsize=1)
def world() -> World:
    """The one of this process."""
    return World()


def apply_attention(
    model: Any,
    widgets: Mapping[str, Any],
    machine: Machine,
    report: Report,
    around: World | None = None,
) -> Any:
    """A clone of the model whose attention runs a SageAttention kernel, or the model itself.

    Whatever comes of the wish is said in the report, beside what the last sampling run counted.
    The clone keeps its override in ComfyUI's cache, so it holds on a second queue too; nothing
    of the process is changed.
    """
    around = around or world()
    mode = str(widgets[WIDGET])
    _tell_last_run(report, around.recent)
    report.applied[WIDGET], report.effective[WIDGET] = None, HOSTS
    choice = _choice(model, mode, machine, around)
    if choice.kernel is None:
        _tell_none(mode, choice, report)
        return _without_ours(model)
    report.applied[WIDGET] = choice.kernel.mode
    report.effective[WIDGET] = f"{choice.kernel.module}.{choice.kernel.function}"
    report.warnings += [f"{WIDGET}={mode}: {choice.warning}"] if choice.warning else []
    if mode != AUTOMATIC and _others_override(model) is not None:
        report.warnings.append(
            "this model carries another pack's attention override: it computes only the calls "
            f"that {choice.kernel.mode} does not take"
        )
    compiles = bool(widgets.get(COMPILE_WIDGET, False))
    return _bound(model, choice, around, races=mode == AUTOMATIC, compiles=compiles)


def _choice(model: Any, mode: str, machine: Machine, around: World) -> Choice:
    """The kernel, unless the host, the model or another pack speaks against it."""
    place = Place(machine.kind, machine.capability, around.os_name)
    choice = choose(mode, place, around.kernels, around.packages)
    if choice.kernel is None:
        return choice
    why = _models_problem(model)
    if why is None and mode == AUTOMATIC and _others_override(model) is not None:
        why = "this model carries another pack's attention override, which auto leaves as it is"
    return choice if why is None else Choice(None, {}, why)


def _models_problem(model: Any) -> str | None:
    if not hasattr(model, "model_options") or not hasattr(model, "add_callback_with_key"):
        return "this model takes neither options nor callbacks"
    from comfy.ldm.modules import attention

    if not hasattr(attention, "wrap_attn"):
        return "this ComfyUI lets no model override its attention"
    return None


def _bound(model: Any, choice: Choice, around: World, *, races: bool, compiles: bool) -> Any:
    """The clone, with its override and what begins and ends the counting of a run."""
    from comfy.patcher_extension import CallbacksMP

    from .calls import Ready
    from .override import Attending, make_override

    kernel = choice.kernel
    assert kernel is not None  # noqa: S101
    function = around.packages.function(kernel.module, kernel.function)
    assert function is not None  # noqa: S101
    attending = Attending(
        Ready(kernel, function, choice.options),
        Usage(kernel.mode),
        _others_override(model),
        races=races,
    )
    bound = _without_ours(model, anew=True)
    _options(bound)[OVERRIDE] = make_override(attending, compiles=compiles)
    begin = partial(_begin, attending, rehearses=compiles)
    bound.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, begin)
    bound.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, partial(_end, attending, around))
    return bound


def _begin(attending: Attending, patcher: Any, *, rehearses: bool) -> None:
    attending.usage.begin()
    if rehearses:
        attending.rehearse(patcher.load_device)


def _end(attending: Attending, around: World, _patcher: object) -> None:
    run = attending.usage.end()
    if run is not None:
        around.recent.add(run)
        _log.info("%s", run.sentence())


def _without_ours(model: Any, *, anew: bool = False) -> Any:
    """The model without this pack's override: of two supporters in a row the later one decides.

    A clone where there is something to remove, or where the caller wants one ``anew``.
    """
    ours = _ours(model)
    if ours is None and not anew:
        return model
    bare = model.clone()
    if ours is not None:
        from comfy.patcher_extension import CallbacksMP

        del _options(bare)[OVERRIDE]
        if ours.before is not None:
            _options(bare)[OVERRIDE] = ours.before
        for moment in (CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_CLEANUP):
            bare.remove_callbacks_with_key(moment, KEY)
    return bare


def _options(model: Any) -> dict[str, Any]:
    return model.model_options.setdefault("transformer_options", {})


def _override(model: Any) -> Callable[..., Any] | None:
    options: Mapping[str, Any] = getattr(model, "model_options", {})
    return options.get("transformer_options", {}).get(OVERRIDE)


def _ours(model: Any) -> Attending | None:
    found = _override(model)
    if found is None:
        return None
    from .override import carried_by

    return carried_by(found)


def _others_override(model: Any) -> Callable[..., Any] | None:
    """Another pack's, beneath ours if need be."""
    ours = _ours(model)
    return _override(model) if ours is None else ours.before


def _tell_last_run(report: Report, recent: RecentRuns) -> None:
    last = recent.newest()
    report.effective[f"{WIDGET}_last_run"] = None if last is None else last.as_dict()
    if last is not None:
        report.notes.append(f"Last sampling run: {last.sentence()}.")


def _tell_none(mode: str, choice: Choice, report: Report) -> None:
    """``auto`` wishes for nothing that could be missed: a note will do."""
    if mode == DISABLED:
        return
    text = f"{WIDGET}={mode}: {choice.why}; the host's attention stays"
    (report.notes if mode == AUTOMATIC else report.warnings).append(text)
