"""VAE Decode Tiled (safe): decode within what is free, whatever the sizes."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ...supervisor.planning.types import PlanRequest
from ...supervisor.units import from_gib
from ..decoding import DecodeWish
from ..host.runtime import runtime
from ..report import Report, decode_facts, hardware_facts
from ..safe_decode import safe_decode
from ..suggestion import suggestion_of
from ..supporting import advice_facts, decode_advice
from .common import CATEGORY, quality_widget, tiling_widgets

_log = logging.getLogger("vram_supervisor.nodes")


class VaeDecodeTiledSafe(io.ComfyNode):
    """Face ``IAMCCS_VAEDecodeTiledSafe``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face. New inputs stay last: saved workflows store values by position."""
        return io.Schema(
            node_id="IAMCCS_VAEDecodeTiledSafe",
            display_name="VAE Decode Tiled (safe, optional cleanup)",
            category=CATEGORY,
            description="Decodes whole where that fits into free memory, else after evicting "
            "other models, else in parts that fit and together equal the whole decode.",
            inputs=[
                io.Latent.Input("samples", tooltip="The latent to decode."),
                io.Vae.Input("vae", tooltip="Decodes it."),
                *tiling_widgets(),
                io.Int.Input(
                    "temporal_size",
                    default=256,
                    min=8,
                    max=4096,
                    step=4,
                    tooltip="Video frames of a chunk, overlap included; manual mode only. Saves "
                    "memory for Mochi, Cosmos, CogVideoX and LTX, not for Wan or Hunyuan.",
                ),
                io.Int.Input(
                    "temporal_overlap",
                    default=32,
                    min=4,
                    max=4096,
                    step=4,
                    tooltip="Video frames that neighbouring chunks share; manual mode only. Raise "
                    "it where a jump shows between chunks.",
                ),
                io.Boolean.Input(
                    "cleanup_before_decode",
                    default=False,
                    tooltip="Make room for the whole decode first. Off: other models leave only "
                    "if the decode would not fit beside them.",
                ),
                io.Boolean.Input(
                    "last_frame_fix",
                    default=False,
                    optional=True,
                    tooltip="Decode the last latent frame twice and drop the copy. Try it if the "
                    "end of a clip is damaged.",
                ),
                io.Int.Input(
                    "duration_hint_s",
                    default=0,
                    min=0,
                    max=3600,
                    step=1,
                    optional=True,
                    tooltip="Seconds of the clip. A note for the report; does not change the "
                    "decode.",
                ),
                quality_widget(optional=True),
                io.Float.Input(
                    "vram_budget_gb",
                    default=0.0,
                    min=0.0,
                    max=1024.0,
                    step=0.25,
                    round=0.01,
                    optional=True,
                    tooltip="The most the decode may add to the card, in GiB. 0: what is free.",
                ),
                io.Boolean.Input(
                    "keep_latent_on_failure",
                    default=True,
                    optional=True,
                    tooltip="Save the latent to the output folder if the decode fails.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE"),
                io.String.Output(display_name="report_json"),
            ],
        )

    @classmethod
    def execute(cls, samples: Any, vae: Any, **widgets: Any) -> io.NodeOutput:
        """Decode and report."""
        here = runtime()
        widgets = DEFAULTS | widgets
        report = Report(
            requested=dict(widgets),
            hardware=hardware_facts(here.supervisor.devices, here.primary()),
        )
        decoded = safe_decode(samples["samples"], vae, _wish(widgets))
        plan = decoded.record.plan
        report.warnings = [*decoded.warnings, *(plan.warnings if plan else ())]
        report.applied = {} if plan is None else {"kind": plan.kind, "tiles": plan.tiles}
        report.notes += decoded.notes
        report.vae_tiling_suggestion = suggestion_of(decoded)
        report.recommendations = advice_facts(here) | decode_advice(report.vae_tiling_suggestion)
        report.decode = decode_facts(decoded)
        _log.info("Safe decode: %s", "; ".join(decoded.record.tried))
        return io.NodeOutput(decoded.images, report.as_json())


DEFAULTS = {
    "last_frame_fix": False,
    "duration_hint_s": 0,
    "quality": "exact",
    "vram_budget_gb": 0.0,
    "keep_latent_on_failure": True,
}
"""Inputs that API prompts of old workflows lack."""


def _wish(widgets: dict[str, Any]) -> DecodeWish:
    request = PlanRequest(
        tile=widgets["tile"],
        manual=widgets["tiling_mode"] == "manual",
        tile_size=widgets["tile_size"],
        overlap=widgets["overlap"],
        temporal_size=widgets["temporal_size"],
        temporal_overlap=widgets["temporal_overlap"],
        cleanup_before_decode=widgets["cleanup_before_decode"],
        quality=widgets["quality"],
    )
    return DecodeWish(
        request,
        last_frame_fix=widgets["last_frame_fix"],
        budget_cap_bytes=from_gib(widgets["vram_budget_gb"]),
        keep_latent=widgets["keep_latent_on_failure"],
    )
