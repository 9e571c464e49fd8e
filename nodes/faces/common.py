"""What the faces share: the any type, common widgets, and who is running."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from comfy_api.latest import io

from ...supervisor.planning.presets import AUTO
from ..profiles import PROFILES
from ..summary import summary_line

if TYPE_CHECKING:
    from ..report import Report

_log = logging.getLogger("vram_supervisor.nodes")

CATEGORY: Final = "IAMCCS/HW"
RESERVE_MODES: Final = ("manual", "auto_used_plus", "adaptive")
SWITCH: Final = ("auto", "on", "off")
SAGE_MODES: Final = (
    "disabled",
    "auto",
    "sageattn_qk_int8_pv_fp16_cuda",
    "sageattn_qk_int8_pv_fp16_triton",
    "sageattn_qk_int8_pv_fp8_cuda",
    "sageattn_qk_int8_pv_fp8_cuda++",
    "sageattn3",
    "sageattn3_per_block_mean",
)
COMPILE_MODES: Final = (
    "off",
    "auto",
    "default",
    "reduce-overhead",
    "max-autotune",
    "max-autotune-no-cudagraphs",
)


class _AnyName(str):
    """A type name that is unequal to none: hosts before the wildcard compare names."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, str(other))

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


Anything: Any = io.Custom(_AnyName("*"))
"""Connects to every type, in the editor and in API prompts."""


def choice(
    name: str,
    options: tuple[str, ...],
    default: str,
    tooltip: str | None = None,
    *,
    optional: bool = False,
) -> Any:
    """A drop-down widget."""
    return io.Combo.Input(
        name, options=list(options), default=default, tooltip=tooltip, optional=optional
    )


def profile_widget() -> Any:
    """The profile; it only stands in for a reserve of 0."""
    return choice(
        "profile",
        PROFILES,
        AUTO,
        "The kind of card. Other widgets win: a profile only supplies the reserve where "
        "reserved_vram_gb is 0. Choosing one fills the widgets below. auto: from your card.",
    )


def reserve_widgets() -> list[Any]:
    """Whether and how much memory to keep free for others."""
    return [
        io.Boolean.Input(
            "apply_reserved_vram",
            default=True,
            tooltip="Keep memory free for other programs while the job runs. Off: ComfyUI's own "
            "reserve stays.",
        ),
        choice(
            "reserved_vram_mode",
            RESERVE_MODES,
            "adaptive",
            "manual: reserved_vram_gb as given. adaptive: how far other programs' memory grew "
            "lately. auto_used_plus: what they hold plus the headroom. The report says why.",
        ),
        io.Float.Input(
            "reserved_vram_gb",
            default=1.25,
            min=0.0,
            max=24.0,
            step=0.25,
            round=0.01,
            tooltip="GiB kept free for other programs while the job runs, in manual mode. 0: the "
            "profile's. Raise it if other programs run out of memory.",
        ),
    ]


def auto_reserve_widgets(*, optional: bool) -> list[Any]:
    """Figures of the automatic reserve modes."""
    return [
        io.Float.Input(
            "reserved_vram_auto_headroom_gb",
            default=1.0,
            min=-2.0,
            max=24.0,
            step=0.25,
            round=0.01,
            optional=optional,
            tooltip="GiB that auto_used_plus adds to what other programs hold. Raise it if they "
            "grow while a job runs.",
        ),
        io.Float.Input(
            "reserved_vram_auto_max_gb",
            default=0.0,
            min=0.0,
            max=48.0,
            step=0.25,
            round=0.01,
            optional=optional,
            tooltip="The most, in GiB, that adaptive and auto_used_plus may reserve. 0: no upper "
            "limit.",
        ),
    ]


def switch_widgets() -> list[Any]:
    """Torch's two speed switches."""
    return [
        choice(
            "fp16_accumulation",
            SWITCH,
            "auto",
            "Sum 16-bit products in 16 bits: faster, a little less precise. auto: on where the "
            "card gains from it (capability 7.0 or newer).",
        ),
        choice(
            "tf32",
            SWITCH,
            "auto",
            "Compute 32-bit products in TF32: faster, a little less precise. auto: on for Ampere "
            "(capability 8.0) or newer.",
        ),
    ]


def closing_widgets() -> list[Any]:
    """Cleaning, logging and the long report."""
    return [
        io.Boolean.Input(
            "clean_gpu_before",
            default=False,
            tooltip="First make room for the models that pass through here. Others leave only as "
            "far as they must.",
        ),
        io.Boolean.Input(
            "console_log",
            default=True,
            tooltip="One line on the console with what was applied, and each warning.",
        ),
        io.Boolean.Input(
            "include_hardware_report",
            default=False,
            tooltip="Add the probe's full answer to report_json.",
        ),
    ]


def tiling_widgets() -> list[Any]:
    """How pictures are cut, where they are."""
    return [
        io.Boolean.Input(
            "tile",
            default=True,
            tooltip="Allow parts where the whole does not fit. Off is a wish: parts all the same "
            "if the alternative is running out of memory.",
        ),
        choice(
            "tiling_mode",
            ("auto", "manual"),
            "auto",
            "auto: sizes are planned from what is free when it runs. manual: the sizes below.",
        ),
        io.Int.Input(
            "tile_size",
            default=512,
            min=64,
            max=4096,
            step=32,
            tooltip="Edge of a tile in pixels, overlap included; manual mode only. Halve it after "
            "running out of memory.",
        ),
        io.Int.Input(
            "overlap",
            default=64,
            min=0,
            max=4096,
            step=32,
            tooltip="Pixels that neighbouring tiles share; manual mode only. Raise it where seams "
            "show.",
        ),
    ]


def quality_widget(*, optional: bool) -> Any:
    """What a join that can be seen is worth avoiding."""
    return choice(
        "quality",
        ("exact", "balanced", "fast"),
        "exact",
        "What avoiding joins that can be seen is worth. exact: any time and any eviction. "
        "balanced: some time. fast: the quickest way that fits.",
        optional=optional,
    )


def current_node_id() -> str:
    """The node that runs now; ``"unknown"`` outside a prompt."""
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    return "unknown" if context is None else str(context.node_id)


def log_report(title: str, report: Report) -> None:
    """One line for the console, and each warning on a line of its own."""
    _log.info("%s: %s", title, summary_line(report))
    for warning in report.warnings:
        _log.warning("%s: %s", title, warning)
