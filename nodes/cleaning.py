"""Cleaning up: everything, or just the room that what comes next needs."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .host.evicting import SLACK_BYTES, Eviction, holders, is_streamed
from .host.held_models import base_of, patchers_in
from .host.leaving_order import leave_in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from .host.memory import HostMemory
    from .host.next_use import Uses
    from .report import Report

LOADING_MARGIN: Final = 1.1
"""The host wants so many times a model's missing weights free before it loads them."""
CONDITIONS: Final = 2
"""Samplers run a latent with and without the prompt at once."""
IMAGE_DIMENSIONS: Final = 2
VIDEO_LATENT: Final = 5
"""[batch, channels, frames, height, width]."""

NOTHING_KNOWN: Final = (
    "What comes next needs no room that is known: nothing does, or its loader has still to run. "
    "Models stayed, garbage was collected."
)
LEAVING: Final = (
    "DynamicVRAM streams weights: more of them leaves page by page, once memory is needed, in this "
    "order: {}."
)


@dataclass(frozen=True, slots=True)
class Coming:
    """Models that are loaded next, all on one device, and the room they need there.

    Attributes:
        room_bytes: weights that are missing, and what the host wants free beside them.
    """

    device: torch.device
    patchers: tuple[object, ...]
    room_bytes: int


def clean_all(memory: HostMemory, device: torch.device, *, empty_cache: bool) -> Eviction:
    """Unload every model from every device, needed again or not.

    The answer is about ``device``; asked for is all that its models held.
    """
    before = memory.free_bytes(device)
    asked = before + memory.evictable_bytes(device, None)
    memory.unload_all()
    gc.collect()
    waited_s = 0.0
    if empty_cache:
        memory.empty_cache()
        waited_s = memory.recovery.back(asked, lambda: memory.free_bytes(device))
    after = memory.free_bytes(device)
    done = Eviction(str(device), asked, before, after, waited_s=waited_s, slack_bytes=SLACK_BYTES)
    return done if done.reached else replace(done, held=holders(memory, device, ()))


def clean_for_next(
    memory: HostMemory,
    values: Sequence[object] = (),
    *,
    latent: object = None,
    vae: object = None,
    empty_cache: bool = True,
) -> Eviction | None:
    """Make the room that the next models need; others leave only as far as they must.

    Args:
        memory: the host's memory manager.
        values: models, CLIPs and VAEs to make room for; none: what the queue runs next.
        latent: what is sampled or decoded next, as far as known.
        vae: its VAE counts with what decoding the latent takes, where it is what comes next.
        empty_cache: give torch's unused memory back also where nobody had to leave.

    Returns:
        None where nothing is known to come, or not how large it is.
    """
    gc.collect()
    if empty_cache:
        memory.empty_cache()
    uses = memory.look_ahead()
    # The node that cleans up is through with its models.
    later = None if uses is None else uses.later()
    next_one = coming(memory, later, values, latent, vae)
    if next_one is None:
        leave_in_order(memory, later, memory.main_device(), ())
        return None
    device, patchers = next_one.device, next_one.patchers
    done = memory.make_room(next_one.room_bytes, device, *patchers, uses=later)
    return replace(done, leaving=leave_in_order(memory, later, device, patchers))


def coming(
    memory: HostMemory,
    uses: Uses | None,
    values: Sequence[object],
    latent: object,
    vae: object = None,
) -> Coming | None:
    """The models to make room for, and how much; None where that is not known."""
    given = patchers_in(list(values))
    if given:
        return _room_for(memory, given, latent, vae)
    for step in () if uses is None else uses.coming():
        found = _room_for(memory, step.patchers, latent, vae)
        if found is not None or step.unmade:
            return found
    return None


def clean_gpu_before(
    memory: HostMemory, report: Report, *, asked: bool, values: Sequence[object] = ()
) -> None:
    """The supporter nodes' ``clean_gpu_before``: room for the models that go through them."""
    report.applied["clean_gpu_before"] = asked
    if asked:
        tell(report, clean_for_next(memory, values))


def tell(report: Report, done: Eviction | None) -> None:
    """Put an eviction into a report."""
    report.effective["eviction"] = None if done is None else done.as_dict()
    if done is None:
        report.notes.append(NOTHING_KNOWN)
        return
    if done.leaving:
        report.notes.append(LEAVING.format(" then ".join(done.leaving)))
    if not done.reached:
        report.warnings.append(f"Not all the memory came free: {done.line()}")


def _room_for(
    memory: HostMemory, patchers: Sequence[object], latent: object, vae: object
) -> Coming | None:
    """Room where the first of them is loaded. Models that work where they lie, as text encoders
    on the CPU do, need none."""
    moving = [each for each in patchers if _device(each, "load") != _device(each, "offload")]
    if not moving:
        return None
    device: Any = _device(moving[0], "load")
    together = tuple(each for each in moving if _device(each, "load") == device)
    return Coming(device, together, _room_bytes(memory, device, together, latent, vae))


def _device(patcher: object, which: str) -> object:
    return getattr(patcher, f"{which}_device", None)


def _room_bytes(
    memory: HostMemory,
    device: torch.device,
    patchers: Sequence[object],
    latent: object,
    vae: object,
) -> int:
    distinct = list({id(base_of(each)): each for each in patchers}.values())
    missing = sum(memory.missing_weights_bytes(each) for each in distinct)
    work = max((_work_bytes(each, latent, vae) for each in distinct), default=0)
    if all(is_streamed(each) for each in distinct) and not _any_whole(memory, device, patchers):
        # Pages and tensors take the room they need from others' pages, one by one. Made in advance
        # it is too much: estimates of work are, and the host's of a streamed model above all. But
        # decoders of other packs choose their tiles by what is free.
        decodes = any(_is_of(vae, each) for each in distinct)
        return work if decodes or not memory.pages_leave_for_tensors(device) else 0
    return int(missing * LOADING_MARGIN) + memory.inference_bytes(work)


def _any_whole(memory: HostMemory, device: torch.device, keep: Sequence[object]) -> bool:
    """Whether others are there that leave as a whole or in layers: the host has them leave for a
    streamed model, too, in its own order."""
    others = memory.others_on(device, *keep)
    return not all(is_streamed(getattr(each, "model", None)) for each in others)


def _work_bytes(patcher: Any, latent: object, vae: Any) -> int:
    """What sampling or decoding a latent takes by the host's own estimate; 0 where it has none."""
    samples = latent.get("samples") if isinstance(latent, Mapping) else None
    shape = getattr(samples, "shape", None)
    if shape is None:
        return 0
    if _is_of(vae, patcher):
        return _decoding_bytes(vae, tuple(shape))
    if not hasattr(base_of(patcher), "memory_required"):
        return 0
    return int(patcher.memory_required([shape[0] * CONDITIONS, *shape[1:]]))


def _is_of(vae: object, patcher: object) -> bool:
    return vae is not None and base_of(getattr(vae, "patcher", None)) is base_of(patcher)


def _decoding_bytes(vae: Any, shape: tuple[int, ...]) -> int:
    """Of a video an image VAE decodes the first frame, as the host has it."""
    if getattr(vae, "latent_dim", None) == IMAGE_DIMENSIONS and len(shape) == VIDEO_LATENT:
        shape = (*shape[:2], *shape[3:])
    try:
        return int(vae.memory_used_decode(shape, vae.vae_dtype))
    except IndexError:  # a latent of fewer dimensions: not what this VAE will decode
        return 0
