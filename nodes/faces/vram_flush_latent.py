"""VRAM Flush Latent: empty torch's cache while a latent passes through."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.purge import clean
from ..host.runtime import runtime
from .common import CATEGORY


class VramFlushLatent(io.ComfyNode):
    """Face ``IAMCCS_VRAMFlushLatent``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face."""
        return io.Schema(
            node_id="IAMCCS_VRAMFlushLatent",
            display_name="VRAM Flush - Latent passthrough (empty cache)",
            category=CATEGORY,
            description="Gives torch's unused memory back to the driver and passes the latent "
            "on unchanged. Models stay loaded.",
            inputs=[io.Latent.Input("latent", tooltip="Passes through unchanged.")],
            outputs=[io.Latent.Output(display_name="latent")],
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, latent: Any) -> io.NodeOutput:
        """Empty the cache, pass on."""
        clean(runtime().memory, unload_all=False, empty_cache=True)
        return io.NodeOutput(latent)
