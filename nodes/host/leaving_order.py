"""In which order models streamed by DynamicVRAM give up their pages, once memory is needed.

comfy-aimdo lists models by priority. Loading one puts it first; whatever torch allocates, and
every page of weights that comes in, takes the pages it lacks from the last of the list. Listed by
next use, models leave as Belady's rule has it, and not a page before it must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ...supervisor.jobs.eviction import leaving_order
from .evicting import is_streamed, resident_of
from .held_models import base_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from .evicting import Memory
    from .next_use import Uses


class Pages(Protocol):
    """A model's weights in comfy-aimdo (``ModelVBAR``)."""

    def deprioritize(self) -> None:
        """Make it the first to leave."""
        ...

    def loaded_size(self) -> int:
        """Bytes of its pages on the device."""
        ...


def leave_in_order(
    memory: Memory, uses: Uses | None, device: torch.device, keep: Sequence[object | None]
) -> tuple[str, ...]:
    """List the streamed models of ``device`` by next use; no page leaves by it.

    The list holds until the host loads one of them, which then comes first. ``keep`` (patchers)
    leave after all others.

    Returns:
        Who has pages there, the first to leave first; empty where of none the next use is known:
        comfy-aimdo's order, the least recently loaded first, stays.
    """
    streamed = [
        (resident_of(each, uses), pages)
        for each in memory.others_on(device, *keep)
        if (pages := _pages(getattr(each, "model", None), device)) is not None
    ]
    residents = [each for each, _ in streamed]
    if all(each.next_use is None for each in residents):
        return ()
    order = [streamed[index] for index in leaving_order(residents)]
    for _, pages in reversed(order):
        pages.deprioritize()
    return tuple(each.name for each, pages in order if pages.loaded_size() > 0)


def _pages(patcher: Any, device: torch.device) -> Pages | None:
    """None where its weights are not streamed, were never on the device, or this comfy-aimdo
    knows no order."""
    if not is_streamed(patcher):
        return None
    pages = getattr(base_of(patcher), "dynamic_vbars", {}).get(device)
    return pages if hasattr(pages, "deprioritize") else None
