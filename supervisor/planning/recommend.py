"""Advice for one device and one decode to come: profile, reserve and decode sizes. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..errors import LatentNotDecodableError
from ..units import GiB, MiB, format_bytes, from_gib
from .families import BY_FAMILY, FAMILIES
from .planner import plan_decode
from .plans import CPU_RATIO
from .presets import AUTO, BALANCED, LOW_VRAM, MAX_SPEED, TWELVE, WINDOWS, Preset
from .question import SMALLEST_TILE_PX
from .tiling import round_up
from .types import Abilities, PlanRequest, Recommendation, Room

if TYPE_CHECKING:
    from ..types import DecodeContext, DeviceInfo, Plan, Reading
    from .cost import FamilyCost
    from .time_model import TimeModel

__all__ = ["FAMILIES", "Recommendation", "recommend"]

WIDGET_TILE_LIMIT_PX: Final = 4096
WIDGET_FRAMES_LIMIT: Final = 4096
UNKNOWN_VIDEO_FAMILY: Final = "hunyuan"
"""A decode planned for it fits for most others too; Mochi and CogVideoX need more."""
RESERVE_SHARE: Final = 0.25
"""No reserve takes more than this share of the device."""
WORKSPACE_BYTES: Final = 256 * MiB
"""Left alone for the allocator's rounding and other processes while a decode runs."""


_CPU: Final = Preset("low_vram", 0.0)
_UNKNOWN: Final = Preset(AUTO, 1.0)

_BY_SIZE: Final = ((10 * GiB, LOW_VRAM), (14 * GiB, TWELVE), (22 * GiB, BALANCED))
"""Upper ends; a card sold as 12 GB reports a little less, one sold as 24 GB too."""


def recommend(
    context: DecodeContext,
    device: DeviceInfo | None,
    reading: Reading | None,
    *,
    os_name: str | None = None,
    host_bytes: int | None = None,
    times: TimeModel | None = None,
) -> Recommendation:
    """Widget values for this device, as free as it is now, and this decode.

    Args:
        context: size, frames and family of the decode, as far as known.
        device: the device that will decode; None when there is none.
        reading: its latest figures; None before the first sample.
        os_name: ``platform.system()`` of the machine that will decode, None if unknown.
        host_bytes: free system memory, None if unknown.
        times: how fast this device is, where that was learned; None: the family's own figures.
    """
    total, free = _total_bytes(device, reading), free_for_us_bytes(reading)
    profile = _profile(device, total)
    effective_gib = _effective_reserve_gib(profile, total)
    base = Recommendation(
        profile=profile.name,
        reserved_vram_gb=profile.reserve_gib,
        reserved_vram_effective_gb=effective_gib,
        warnings=_warnings(device, free, from_gib(effective_gib)),
        notes=_device_notes(device, reading, profile),
    )
    base = _for_system(base, profile, os_name)
    budget = _budget_bytes(total, free, effective_gib)
    on_cpu = device is not None and device.kind == "cpu"
    if budget is None:
        return _with_decode(base, context, None, times, on_cpu=on_cpu)
    room = Room(budget, _evictable_bytes(device, reading), host_bytes=host_bytes)
    return _with_decode(base, context, room, times, on_cpu=on_cpu)


def free_for_us_bytes(reading: Reading | None) -> int | None:
    """Free memory plus what torch's cache holds but no tensor uses; None if unknown."""
    if reading is None or reading.free_bytes is None:
        return None
    reserved, allocated = reading.torch_reserved_bytes, reading.torch_allocated_bytes
    cached = max(0, reserved - allocated) if reserved is not None and allocated is not None else 0
    return reading.free_bytes + cached


def _profile(device: DeviceInfo | None, total_bytes: int | None) -> Preset:
    if device is None or device.kind == "cpu":
        return _CPU
    if total_bytes is None:
        return _UNKNOWN
    for below_bytes, profile in _BY_SIZE:
        if total_bytes < below_bytes:
            return profile
    return MAX_SPEED


def _total_bytes(device: DeviceInfo | None, reading: Reading | None) -> int | None:
    if reading is not None and reading.total_bytes is not None:
        return reading.total_bytes
    return None if device is None else device.total_bytes


def _effective_reserve_gib(profile: Preset, total_bytes: int | None) -> float:
    if total_bytes is None:
        return profile.reserve_gib
    return round(min(profile.reserve_gib, total_bytes * RESERVE_SHARE / GiB), 2)


def _budget_bytes(total: int | None, free: int | None, reserve_gib: float) -> int | None:
    """What a decode may add: live free memory if known, else the device less its reserve."""
    if free is not None:
        return max(0, free - WORKSPACE_BYTES)
    return None if total is None else max(0, total - from_gib(reserve_gib) - WORKSPACE_BYTES)


def _evictable_bytes(device: DeviceInfo | None, reading: Reading | None) -> int:
    """What torch's tensors hold: before a decode, nearly all of it are models."""
    if device is None or device.kind == "cpu" or reading is None:
        return 0
    return reading.torch_allocated_bytes or 0


def _warnings(
    device: DeviceInfo | None, free_bytes: int | None, reserve_bytes: int
) -> tuple[str, ...]:
    if device is None:
        return ("No device is known: these are defaults.",)
    if free_bytes is None or free_bytes >= reserve_bytes:
        return ()
    shortage = (
        f"Only {format_bytes(free_bytes)} is free on {device.key}, less than the reserve of "
        f"{format_bytes(reserve_bytes)}: close other programs or run VRAM Cleanup."
    )
    return (shortage,)


def _device_notes(
    device: DeviceInfo | None, reading: Reading | None, profile: Preset
) -> tuple[str, ...]:
    notes: list[str] = []
    if device is None or device.kind == "cpu":
        notes.append("No accelerator: sizes are for system memory, nothing is reserved.")
    elif reading is None or reading.free_bytes is None:
        notes.append("Free memory is unknown: sizes rest on the card's total memory.")
    if device is not None and device.unified:
        notes.append("The GPU shares system memory: free memory is the system's.")
    if profile is TWELVE:
        notes.append("Raise the reserve to 1.5 GiB if running out of memory persists.")
    return tuple(notes)


def _for_system(base: Recommendation, profile: Preset, os_name: str | None) -> Recommendation:
    """The profile's compile and attention values, safe for this operating system."""
    safe = profile.on(os_name)
    based = replace(
        base,
        torch_compile_mode=safe.torch_compile_mode,
        allow_sageattention_torch_compile=safe.sage_with_compile,
        sage_attention=safe.sage_attention,
    )
    if os_name != WINDOWS:
        return based
    note = "Windows: compile stays off and Triton attention is avoided, both may crash hard."
    return replace(based, notes=(*base.notes, note))


def _with_decode(
    base: Recommendation,
    context: DecodeContext,
    room: Room | None,
    times: TimeModel | None,
    *,
    on_cpu: bool,
) -> Recommendation:
    """The decode sizes: planned where size and room are known, else the node's defaults."""
    cost, family_notes = _family(context)
    times = times or cost.time
    if on_cpu:
        # The tables are of 16-bit decodes on a GPU; a CPU decodes in 32-bit.
        cost = replace(cost, ratio=cost.ratio * CPU_RATIO)
        times = replace(times, per_pixel_s=times.cpu_per_pixel_s)
    shape = cost.shape_for(context)
    if shape is None:
        note = "No size given: decode sizes are the node's defaults."
        return replace(base, notes=(*base.notes, note))
    notes = (*base.notes, *family_notes)
    if room is None:
        note = "No memory figure is known: decode sizes are the node's defaults."
        return replace(base, notes=(*notes, note))
    video, grows = shape.frames is not None, cost.growth == "linear"
    abilities = (
        Abilities.whole_only()
        if cost.tiles_itself
        else Abilities.of_host(video=video, carves_time=grows)
    )
    try:
        plan = plan_decode(shape, cost, room, PlanRequest(), abilities, times=times)
    except LatentNotDecodableError as error:
        return replace(base, notes=(*notes, str(error)))
    notes = (*notes, *_cost_notes(cost, context))
    return _with_sizes(replace(base, notes=notes, plan=plan), plan, context)


def _with_sizes(base: Recommendation, plan: Plan, context: DecodeContext) -> Recommendation:
    """Widget values that make a manual node do what the plan says."""
    longest_px = max(context.width or 0, context.height or 0)
    nothing_fits = plan.kind == "cpu"
    tile_px = SMALLEST_TILE_PX if nothing_fits else plan.tile_size or round_up(longest_px, 32)
    frames = max(base.temporal_size, round_up(context.frames or 1, 8))
    return replace(
        base,
        tile_size=max(SMALLEST_TILE_PX, min(WIDGET_TILE_LIMIT_PX, tile_px)),
        overlap=base.overlap if plan.overlap is None else plan.overlap,
        temporal_size=plan.temporal_size or min(WIDGET_FRAMES_LIMIT, frames),
        temporal_overlap=plan.temporal_overlap or base.temporal_overlap,
        cleanup_before_decode=nothing_fits or plan.evict_bytes > 0,
    )


def _family(context: DecodeContext) -> tuple[FamilyCost, tuple[str, ...]]:
    """The family named, or the safest guess with a note that says so."""
    if context.family is not None:
        return BY_FAMILY[context.family], ()
    if (context.frames or 1) <= 1:
        return BY_FAMILY["kl"], ("No VAE family given: figured as an image VAE (kl).",)
    cost = BY_FAMILY[UNKNOWN_VIDEO_FAMILY]
    note = (
        f"No VAE family given: figured as {cost.title}; Mochi and CogVideoX need more, most "
        "others less; name it with vae= for a closer plan."
    )
    return cost, (note,)


def _cost_notes(cost: FamilyCost, context: DecodeContext) -> tuple[str, ...]:
    how = "" if cost.measured else "estimate, not measured: "
    notes = [f"{cost.title} memory: {how}{cost.source}."]
    if (context.frames or 1) > 1 and cost.video:
        notes.append(_GROWTH_NOTES[cost.growth].format(title=cost.title))
    return tuple(notes)


_GROWTH_NOTES: Final = {
    "none": "{title} does not grow with time: temporal chunks would save nothing.",
    "flat": "{title} is flat after 5 latent frames: temporal chunks would save nothing.",
    "linear": "{title} grows with time: temporal_size is a lever for long video.",
}
