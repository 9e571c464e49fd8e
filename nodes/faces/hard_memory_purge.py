"""Hard Memory Purge: everything that can be given back, device and system memory."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ...supervisor.units import format_bytes, to_gib
from ..host.purge import clean, collect, collect_ipc, measure, trim_working_set
from ..host.runtime import runtime
from ..report import Report, hardware_facts
from .common import CATEGORY

if TYPE_CHECKING:
    from ..host.memory import HostMemory

_log = logging.getLogger("vram_supervisor.nodes")


class HardMemoryPurge(io.ComfyNode):
    """Face ``IAMCCS_HardMemoryPurge``; an output node, and run at every queue."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face."""
        return io.Schema(
            node_id="IAMCCS_HardMemoryPurge",
            display_name="Hard RAM/VRAM Purge (trim working set)",
            category=CATEGORY,
            description="Unloads models, collects garbage, empties torch's cache and asks the "
            "system to take unused pages back.",
            inputs=[
                io.Boolean.Input(
                    "unload_all_models",
                    default=True,
                    tooltip="Unload every model. What is needed again is loaded again.",
                ),
                io.Boolean.Input(
                    "soft_empty_cache",
                    default=True,
                    tooltip="Give memory that torch keeps for later back to the driver.",
                ),
                io.Boolean.Input(
                    "ipc_collect",
                    default=True,
                    tooltip="Release CUDA memory shared with processes that have ended.",
                ),
                io.Boolean.Input(
                    "trim_working_set",
                    default=True,
                    tooltip="Ask the system to take back pages of RAM that are not in use: "
                    "EmptyWorkingSet on Windows, malloc_trim on Linux.",
                ),
                io.Int.Input(
                    "gc_passes",
                    default=3,
                    min=1,
                    max=10,
                    step=1,
                    tooltip="How often Python looks for garbage. One is mostly enough.",
                ),
                io.Boolean.Input(
                    "console_log",
                    default=True,
                    tooltip="One line on the console with what came free.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="report"),
                io.Float.Output(display_name="rss_before_gb"),
                io.Float.Output(display_name="rss_after_gb"),
                io.Boolean.Output(display_name="trim_applied"),
            ],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_widgets: Any) -> float:
        """Never equal: memory may have filled up since the last queue."""
        return float("nan")

    @classmethod
    def execute(cls, **widgets: Any) -> io.NodeOutput:
        """Purge, and report what each step did."""
        here = runtime()
        report = Report(
            requested=dict(widgets),
            hardware=hardware_facts(here.supervisor.devices, here.primary()),
        )
        exacts = here.forecaster.exacts

        def work() -> None:
            purge(here.memory, widgets, report)
            parked = 0 if exacts is None else exacts.pages.trim()
            report.applied["parking_pages_freed_gb"] = to_gib(parked, 3)

        freed = measure(here.memory, work)
        report.effective = freed.as_dict()
        if widgets["console_log"]:
            _log.info(
                "Hard Memory Purge: process %s -> %s, device freed %s, %s",
                format_bytes(freed.rss_before_bytes),
                format_bytes(freed.rss_after_bytes),
                format_bytes(report.effective["freed_bytes"]),
                report.applied["trim_note"],
            )
        return io.NodeOutput(
            report.as_json(),
            to_gib(freed.rss_before_bytes, 3),
            to_gib(freed.rss_after_bytes, 3),
            report.applied["trim_working_set"],
        )


def purge(memory: HostMemory, widgets: dict[str, Any], report: Report) -> None:
    """Each step in turn; ``report.applied`` says what was done."""
    clean(memory, unload_all=widgets["unload_all_models"], empty_cache=False)
    found = collect(int(widgets["gc_passes"]))
    if widgets["soft_empty_cache"]:
        memory.empty_cache()
    ipc = collect_ipc() if widgets["ipc_collect"] else False
    trimmed, note = trim_working_set() if widgets["trim_working_set"] else (False, "not asked for")
    report.applied = {
        "unload_all_models": widgets["unload_all_models"],
        "soft_empty_cache": widgets["soft_empty_cache"],
        "ipc_collect": ipc,
        "gc_unreachable_objects": found,
        "trim_working_set": trimmed,
        "trim_note": note,
    }
