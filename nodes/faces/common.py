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
        "Other widgets win. The profile supplies the reserve where reserved_vram_gb is 0.",
    )


def reserve_widgets() -> list[Any]:
    """Whether and how much memory to keep free for others."""
    return [
        io.Boolean.Input("apply_reserved_vram", default=True),
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
            tooltip="GiB kept free for other programs while the job runs. 0: the profile's.",
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
            optional=optional,
        ),
        io.Float.Input(
            "reserved_vram_auto_max_gb",
            default=0.0,
            min=0.0,
            max=48.0,
            step=0.25,
            optional=optional,
            tooltip="0: no upper limit.",
        ),
    ]


def switch_widgets() -> list[Any]:
    """Torch's two speed switches."""
    return [
        choice("fp16_accumulation", SWITCH, "auto"),
        choice("tf32", SWITCH, "auto"),
    ]


def closing_widgets() -> list[Any]:
    """Cleaning, logging and the long report."""
    return [
        io.Boolean.Input("clean_gpu_before", default=False),
        io.Boolean.Input("console_log", default=True),
        io.Boolean.Input(
            "include_hardware_report",
            default=False,
            tooltip="Add the probe's full answer to report_json.",
        ),
    ]


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
