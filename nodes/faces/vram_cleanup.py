"""VRAM Cleanup: unload and empty between two heavy phases, and say how much came free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..cleaning import clean_all, clean_for_next, tell
from ..host.purge import measure
from ..host.runtime import runtime
from ..report import Report, hardware_facts
from .common import CATEGORY, Anything

if TYPE_CHECKING:
    from ..host.evicting import Eviction


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
                io.Boolean.Input(
                    "unload_all_models",
                    default=True,
                    tooltip="On: every model leaves. Off: only as much as the next models need, "
                    "first what the queue needs last.",
                ),
                io.Boolean.Input(
                    "soft_empty_cache",
                    default=True,
                    tooltip="Give memory that torch keeps for later back to the driver.",
                ),
                io.Model.Input("model", optional=True, tooltip="Passes through unchanged."),
                io.Clip.Input("clip", optional=True, tooltip="Passes through unchanged."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Passes through unchanged; tells what decoding passthrough needs.",
                ),
                Anything.Input(
                    "passthrough",
                    optional=True,
                    tooltip="Any link, such as the latent between sampling and decode: this node "
                    "then runs between the two.",
                ),
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
        done: list[Eviction | None] = []

        def work() -> None:
            done.append(
                clean_all(here.memory, here.memory.main_device(), empty_cache=soft_empty_cache)
                if unload_all_models
                # What runs next decides: the connected models only pass through.
                else clean_for_next(
                    here.memory, latent=passthrough, vae=vae, empty_cache=soft_empty_cache
                )
            )

        freed = measure(here.memory, work)
        report.applied = dict(widgets)
        report.effective = freed.as_dict()
        tell(report, done[0])
        return io.NodeOutput(model, clip, vae, passthrough, report.as_json())
