"""VRAM Cleanup: unload and empty between two heavy phases, and say how much came free."""

from __future__ import annotations

from functools import partial
from typing import Any

from comfy_api.latest import io

from ..host.purge import clean, measure
from ..host.runtime import runtime
from ..report import Report, hardware_facts
from .common import CATEGORY, Anything


class VramCleanup(io.ComfyNode):
    """Face ``IAMCCS_VRAMCleanup``. Cached like any node: it runs again when what passes
    through it changes, so it never makes unchanged samplers run again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face."""
        return io.Schema(
            node_id="IAMCCS_VRAMCleanup",
            display_name="VRAM Cleanup (unload + empty cache)",
            category=CATEGORY,
            description="Frees memory at this point of the workflow. Lead the latent through "
            "passthrough to have it run between sampling and decode.",
            inputs=[
                io.Boolean.Input("unload_all_models", default=True),
                io.Boolean.Input("soft_empty_cache", default=True),
                io.Model.Input("model", optional=True),
                io.Clip.Input("clip", optional=True),
                io.Vae.Input("vae", optional=True),
                Anything.Input("passthrough", optional=True),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
                Anything.Output(display_name="passthrough"),
                io.String.Output(display_name="report_json"),
            ],
            not_idempotent=True,
        )

    @classmethod
    def execute(
        cls,
        unload_all_models: bool,  # noqa: FBT001
        soft_empty_cache: bool,  # noqa: FBT001
        model: Any = None,
        clip: Any = None,
        vae: Any = None,
        passthrough: Any = None,
    ) -> io.NodeOutput:
        """Free, measure, pass on."""
        here = runtime()
        widgets = {"unload_all_models": unload_all_models, "soft_empty_cache": soft_empty_cache}
        report = Report(
            requested=widgets, hardware=hardware_facts(here.supervisor.devices, here.primary())
        )
        work = partial(
            clean, here.memory, unload_all=unload_all_models, empty_cache=soft_empty_cache
        )
        report.applied = dict(widgets)
        report.effective = measure(here.memory, work).as_dict()
        return io.NodeOutput(model, clip, vae, passthrough, report.as_json())
