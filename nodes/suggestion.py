"""Decode sizes for a connected VAE, before anyone knows what it will decode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..supervisor.planning.planner import plan_decode
from ..supervisor.planning.types import DecodeShape, PlanRequest
from .host.vae import Vae, cost_of, read_facts

if TYPE_CHECKING:
    from .host.memory import HostMemory

NOMINAL_PX: Final = 4096
NOMINAL_FRAMES: Final = 81
LEAST_TILE_PX: Final = 64
"""The widget's smallest tile: advised where nothing is predicted to fit."""


def tiling_suggestion(vae: Vae, memory: HostMemory) -> dict[str, Any]:
    """Sizes for a 4096 px picture (81 frames where the VAE makes video) in what is free now."""
    facts = read_facts(vae)
    if not facts.pictures:
        return {"tile": False, "reason": "this VAE does not make pictures"}
    channels = int(getattr(vae, "latent_channels", 4))
    edge = NOMINAL_PX // facts.spatial_scale
    scale = facts.temporal_scale
    frames = None if scale is None else 1 + (NOMINAL_FRAMES - 1) // scale
    shape = DecodeShape(1, channels, frames, edge, edge, facts.spatial_scale, scale or 1)
    free = memory.free_bytes(vae.device)
    if vae.device.type != "cpu":
        free -= memory.reserve_bytes() + memory.missing_weights_bytes(vae.patcher)
    plan = plan_decode(
        shape,
        cost_of(vae, facts, channels),
        max(0, free),
        PlanRequest(),
        evictable_bytes=memory.evictable_bytes(vae.device, vae.patcher),
        temporal_tiling=facts.cuts_time(manual=False),
    )
    nothing_fits = plan.kind == "cpu"
    return {
        "tile": nothing_fits or plan.tile_size is not None,
        "tile_size": LEAST_TILE_PX if nothing_fits else plan.tile_size or NOMINAL_PX,
        "overlap": plan.overlap,
        "temporal_size": plan.temporal_size,
        "temporal_overlap": plan.temporal_overlap,
        "reason": plan.reason,
        "for": f"{NOMINAL_PX} px" + ("" if frames is None else f", {NOMINAL_FRAMES} frames"),
    }
