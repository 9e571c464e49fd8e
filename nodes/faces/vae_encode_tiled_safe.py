"""VAE Encode Tiled (safe): encode within what is free, whatever the sizes."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ...supervisor.units import from_gib
from ..encoding import EncodeWish
from ..host.runtime import runtime
from ..report import Report, decode_facts, hardware_facts
from ..safe_encode import safe_encode
from .common import CATEGORY, quality_widget

_log = logging.getLogger("vram_supervisor.nodes")


class VaeEncodeTiledSafe(io.ComfyNode):
    """Face ``IAMCCS_VAEEncodeTiledSafe``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face. New inputs stay last: saved workflows store values by position."""
        return io.Schema(
            node_id="IAMCCS_VAEEncodeTiledSafe",
            display_name="VAE Encode Tiled (safe)",
            category=CATEGORY,
            description="Encodes whole where that fits into free memory, else after evicting "
            "other models, else in parts that together equal the whole.",
            inputs=[
                io.Image.Input("pixels", tooltip="Pictures, or the frames of a video."),
                io.Vae.Input("vae", tooltip="Encodes them."),
                quality_widget(optional=False),
                io.Float.Input(
                    "vram_budget_gb",
                    default=0.0,
                    min=0.0,
                    max=1024.0,
                    step=0.25,
                    round=0.01,
                    tooltip="The most the encode may add to the card, in GiB. 0: what is free.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT"),
                io.String.Output(display_name="report_json"),
            ],
        )

    @classmethod
    def execute(
        cls, pixels: Any, vae: Any, quality: str = "exact", vram_budget_gb: float = 0.0
    ) -> io.NodeOutput:
        """Encode and report."""
        here = runtime()
        report = Report(
            requested={"quality": quality, "vram_budget_gb": vram_budget_gb},
            hardware=hardware_facts(here.supervisor.devices, here.primary()),
        )
        wish = EncodeWish(quality, from_gib(vram_budget_gb))
        encoded = safe_encode(pixels, vae, wish)
        plan = encoded.record.plan
        report.warnings = [] if plan is None else list(plan.warnings)
        report.applied = {} if plan is None else {"kind": plan.kind, "tiles": plan.tiles}
        report.notes += encoded.notes
        report.decode = decode_facts(encoded)
        _log.info("Safe encode: %s", "; ".join(encoded.record.tried))
        return io.NodeOutput({"samples": encoded.samples}, report.as_json())
