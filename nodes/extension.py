"""The extension ComfyUI asks for nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import ComfyExtension

from ..supervisor.telemetry.history import DAY_S
from .faces.hard_memory_purge import HardMemoryPurge
from .faces.hw_probe_recommendations import HwProbeRecommendations
from .faces.hw_supporter import HwSupporter
from .faces.hw_supporter_any import HwSupporterAny
from .faces.sampler_windowed import SamplerCustomAdvancedWindowed
from .faces.vae_decode_tiled_safe import VaeDecodeTiledSafe
from .faces.vae_decode_to_disk import VaeDecodeToDisk
from .faces.vae_encode_tiled_safe import VaeEncodeTiledSafe
from .faces.vram_cleanup import VramCleanup
from .faces.vram_flush_latent import VramFlushLatent
from .host.duplicates import DuplicateWatch
from .host.runtime import runtime
from .safe_decode import protection

if TYPE_CHECKING:
    from .host.preferences import Preferences

NODES: tuple[type[Any], ...] = (
    HwSupporter,
    HwSupporterAny,
    VramCleanup,
    VaeDecodeTiledSafe,
    VaeDecodeToDisk,
    VaeEncodeTiledSafe,
    SamplerCustomAdvancedWindowed,
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
        runtime().preferences.follow(_apply)


def _apply(preferences: Preferences) -> None:
    """Have what the user wants in every workflow hold from now on."""
    watched = runtime().supervisor
    watched.set_rate(preferences.sampling_rate_hz)
    watched.history.keep_for(preferences.history_days * DAY_S)
    switch = protection().switch_on if preferences.protect_vae_decode else protection().switch_off
    switch()
