"""The extension ComfyUI asks for nodes."""

from __future__ import annotations

import os
from typing import Any

from comfy_api.latest import ComfyExtension

from .faces.hard_memory_purge import HardMemoryPurge
from .faces.hw_probe_recommendations import HwProbeRecommendations
from .faces.hw_supporter import HwSupporter
from .faces.hw_supporter_any import HwSupporterAny
from .faces.vae_decode_tiled_safe import VaeDecodeTiledSafe
from .faces.vae_decode_to_disk import VaeDecodeToDisk
from .faces.vae_encode_tiled_safe import VaeEncodeTiledSafe
from .faces.vram_cleanup import VramCleanup
from .faces.vram_flush_latent import VramFlushLatent
from .host.duplicates import DuplicateWatch
from .host.preferences import preferences_from
from .host.runtime import runtime
from .safe_decode import protection

NODES: tuple[type[Any], ...] = (
    HwSupporter,
    HwSupporterAny,
    VramCleanup,
    VaeDecodeTiledSafe,
    VaeDecodeToDisk,
    VaeEncodeTiledSafe,
    HwProbeRecommendations,
    VramFlushLatent,
    HardMemoryPurge,
)


class SupervisorExtension(ComfyExtension):
    """VRAM supervisor: starts the monitor when it loads and provides the nodes."""

    def __init__(self) -> None:
        self._started = False

    async def on_load(self) -> None:
        """Start; ComfyUI 0.3.64 never calls this."""
        self._start()

    async def get_node_list(self) -> list[type[Any]]:
        """All nodes of this pack."""
        self._start()
        return list(NODES)

    def _start(self) -> None:
        """Start the process-wide supervisor, register its routes, look for a second pack.

        Core's decode nodes are protected if the user wants that.
        """
        if self._started:
            return
        self._started = True
        watch = DuplicateWatch({node.GET_SCHEMA().node_id: node for node in NODES})
        watch.look()
        runtime().before_job = watch.look
        if preferences_from(os.environ).protect_vae_decode:
            protection().switch_on()
