"""HW Supporter (ANY passthrough): the same settings on any link, for the whole job."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..cleaning import clean_gpu_before
from ..host.runtime import runtime
from ..reserving import hold_for_job, hold_reserve
from ..supporting import new_report, resolve_switches
from .common import (
    CATEGORY,
    Anything,
    auto_reserve_widgets,
    closing_widgets,
    current_node_id,
    log_report,
    profile_widget,
    reserve_widgets,
    switch_widgets,
)


class HwSupporterAny(io.ComfyNode):
    """Face ``IAMCCS_HwSupporterAny``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face."""
        return io.Schema(
            node_id="IAMCCS_HwSupporterAny",
            display_name="HW Supporter (ANY passthrough)",
            category=CATEGORY,
            description="Holds a VRAM reserve and torch switches from the start of the job to "
            "its end; whatever is connected passes through unchanged.",
            inputs=[
                Anything.Input("input", tooltip="Any link. Passes through unchanged."),
                profile_widget(),
                *reserve_widgets(),
                *auto_reserve_widgets(optional=False),
                *switch_widgets(),
                *closing_widgets(),
            ],
            outputs=[
                Anything.Output(display_name="output"),
                io.String.Output(display_name="report_json"),
            ],
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_widgets: Any) -> str:
        """Always the same. The host asks at the start of every job, cached or not, and some
        hosts give no other sign of it."""
        runtime().look_at_queue()
        return ""

    @classmethod
    def execute(cls, input: Any, **widgets: Any) -> io.NodeOutput:  # noqa: A002
        """Hold everything until the job ends. The prompt's start has done so already, unless
        a widget is fed by a link."""
        here = runtime()
        report = new_report(here, widgets)
        clean_gpu_before(here.memory, report, asked=widgets["clean_gpu_before"], values=(input,))
        node_id = current_node_id()
        wishes = hold_reserve(here, widgets, report)
        wishes |= resolve_switches(here, widgets, report)
        hold_for_job(here, node_id, wishes, report)
        if widgets["console_log"]:
            log_report("HW Supporter (ANY)", report)
        return io.NodeOutput(input, report.as_json())
