"""HW Probe Recommendations: the probe endpoint's answer inside a workflow."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ...supervisor.types import DecodeContext
from ..host.runtime import runtime
from ..report import to_json
from ..supporting import probe
from .common import CATEGORY


class HwProbeRecommendations(io.ComfyNode):
    """Face ``IAMCCS_HWProbeRecommendations``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face."""
        return io.Schema(
            node_id="IAMCCS_HWProbeRecommendations",
            display_name="HW Probe Recommendations (JSON)",
            category=CATEGORY,
            description="Recommended settings for a decode of this size on this machine as it "
            "is now. 0 means unknown.",
            inputs=[
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip="Pixels of the decoded picture. 0: unknown.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip="Pixels of the decoded picture. 0: unknown.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=100000,
                    step=1,
                    tooltip="Video frames; 1 for a picture. 0: unknown.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.5,
                    tooltip="Frames per second, for the duration in the report. 0: unknown.",
                ),
                io.Boolean.Input(
                    "pretty", default=True, tooltip="report_json with line breaks and indents."
                ),
            ],
            outputs=[
                io.String.Output(display_name="report_json"),
                io.String.Output(display_name="profile"),
                io.Float.Output(display_name="reserved_vram_effective_gb"),
                io.Int.Output(display_name="vae_tile_size"),
                io.Int.Output(display_name="vae_overlap"),
                io.Int.Output(display_name="vae_temporal_size"),
                io.Int.Output(display_name="vae_temporal_overlap"),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **widgets: Any) -> str:
        """The advice itself: the node, and what hangs on it, runs again when it changes."""
        known = {name: widgets.get(name) or 0 for name in ("width", "height", "frames", "fps")}
        recommendations = probe(runtime(), _context(**known))["recommendations"]
        return json.dumps(recommendations, sort_keys=True)

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        frames: int,
        fps: float,
        pretty: bool,  # noqa: FBT001
    ) -> io.NodeOutput:
        """Ask for advice from the latest samples."""
        answer = probe(runtime(), _context(width, height, frames, fps))
        supporter = answer["recommendations"]["hw_supporter"]
        decode = answer["recommendations"]["vae_decode"]
        return io.NodeOutput(
            to_json(answer, pretty=pretty),
            supporter["profile"],
            float(supporter["reserved_vram_effective_gb"]),
            decode["tile_size"],
            decode["overlap"],
            decode["temporal_size"],
            decode["temporal_overlap"],
        )


def _context(width: int, height: int, frames: int, fps: float) -> DecodeContext:
    return DecodeContext(width or None, height or None, frames or None, fps or None)
