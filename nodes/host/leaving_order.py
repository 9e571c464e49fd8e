"""In which order models streamed by DynamicVRAM give up their pages, once memory is needed.

comfy-aimdo lists models by priority. Loading one puts it first; whatever torch allocates, and
every page of weights that comes in, takes the pages it lacks from the last of the list. Listed by
next use, models leave as Belady's rule has it, and not a page before it must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...supervisor.jobs.eviction import leaving_order
from .evicting import is_streamed, resident_of
from .held_models import base_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from .evicting import Memory


def leave_in_order(
    memory: Memory, device: torch.device, keep: Sequence[object | None]
) -> tuple[str, ...]:
    """List the streamed models of ``device`` by next use; no page leaves by it.

    The list holds until the host loads one of them, which then comes first. ``keep`` (patchers)
    leave after all others.

    Returns:
        Who has pages there, the first to leave first; empty where nobody knows the next uses: the
        host's order, the least recently loaded first, stays.
    """
    uses = memory.look_ahead()
    if uses is None:
        return ()
    streamed = [
        (resident_of(each, uses), put_last)
        for each in memory.others_on(device, *keep)
        if (put_last := _put_last(getattr(each, "model", None), device)) is not None
    ]
    residents = [each for each, _ in streamed]
    order = leaving_order(residents)
    for index in reversed(order):
        _, put_last = streamed[index]
        put_last()
    return tuple(residents[index].name for index in order if residents[index].loaded_bytes > 0)


def _put_last(patcher: Any, device: torch.device) -> Callable[[], object] | None:
    """How its weights are made the first to leave; None where they are not streamed, were never
    on the device, or this comfy-aimdo cannot."""
    if not is_streamed(patcher):
        return None
    pages = getattr(base_of(patcher), "dynamic_vbars", {}).get(device)
    return getattr(pages, "deprioritize", None)
