"""Decode sizes as widget values: for a connected VAE, or for what was just decoded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..supervisor.planning.allocator import usable_bytes
from ..supervisor.planning.planner import plan_decode
from ..supervisor.planning.types import Abilities, DecodeShape, PlanRequest, Room
from ..supervisor.units import to_gib
from .host.vae import Vae, read_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..supervisor.types import Plan
    from .decoding import Decoded
    from .host.forecast import Forecast
    from .host.memory import HostMemory

NOMINAL_PX: Final = 4096
NOMINAL_FRAMES: Final = 81
LEAST_TILE_PX: Final = 64
"""The widget's smallest tile: advised where nothing is predicted to fit."""
MOST_TILE_PX: Final = 4096
"""The widget's largest."""


def tiling_suggestion(
    vae: Vae, memory: HostMemory, forecasts: Callable[[Vae, tuple[int, ...]], Forecast]
) -> dict[str, Any]:
    """Sizes for a 4096 px picture (81 frames where the VAE makes video) in what is free now."""
    facts = read_facts(vae)
    if not facts.pictures:
        return {"tile": False, "reason": "this VAE does not make pictures"}
    channels = int(getattr(vae, "latent_channels", 4))
    edge = NOMINAL_PX // facts.spatial_scale
    scale = facts.temporal_scale
    frames = None if scale is None else 1 + (NOMINAL_FRAMES - 1) // scale
    shape = DecodeShape(1, channels, frames, edge, edge, facts.spatial_scale, scale or 1)
    forecast = forecasts(vae, _latent_shape(shape))
    room = _room(vae, memory, forecast)
    abilities = Abilities.of_host(
        video=frames is not None, carves_time=facts.cuts_time(manual=False)
    )
    times = forecast.time_model()
    plan = plan_decode(shape, forecast, room, PlanRequest(), abilities, times=times)
    return suggested(plan, shape)


def suggested(plan: Plan, shape: DecodeShape) -> dict[str, Any]:
    """A plan as widget values, with what it is for and what it is predicted to take."""
    nothing_fits = plan.kind == "cpu"
    longest_px = max(shape.pixel_height, shape.pixel_width)
    tile_px = LEAST_TILE_PX if nothing_fits else plan.tile_size or min(longest_px, MOST_TILE_PX)
    time = "" if shape.frames is None else f", {shape.pixel_frames} frames"
    size = f"{shape.pixel_width} x {shape.pixel_height} px"
    return {
        "tile": nothing_fits or plan.tile_size is not None,
        "tile_size": tile_px,
        "overlap": plan.overlap,
        "temporal_size": plan.temporal_size,
        "temporal_overlap": plan.temporal_overlap,
        "cleanup_before_decode": nothing_fits or plan.evict_bytes > 0,
        "predicted_peak_bytes": plan.predicted_peak_bytes,
        "predicted_peak_gb": to_gib(plan.predicted_peak_bytes),
        "predicted_seconds": plan.predicted_seconds,
        "reason": plan.reason,
        "for": f"{size}{time}",
    }


def suggestion_of(decoded: Decoded) -> dict[str, Any] | None:
    """What a manual node would be set to for the same decode; None where none was planned."""
    plan, shape = decoded.record.plan, decoded.shape
    return None if plan is None or shape is None else suggested(plan, replace(shape, batch=1))


def _latent_shape(shape: DecodeShape) -> tuple[int, ...]:
    time_dims = () if shape.frames is None else (shape.frames,)
    return (shape.batch, shape.channels, *time_dims, shape.height, shape.width)


def _room(vae: Vae, memory: HostMemory, forecast: Forecast) -> Room:
    free = memory.free_bytes(vae.device)
    if vae.device.type != "cpu":
        free -= memory.kept_free_bytes() + memory.missing_weights_bytes(vae.patcher)
    evictable = memory.evictable_bytes(vae.device, vae.patcher)
    needed_again = memory.next_use_bytes(vae.device, vae.patcher)
    allocator = forecast.allocator
    return Room(*(usable_bytes(each, allocator) for each in (free, evictable, needed_again)))
