"""Results that wait: on the device as far as they may, else parked in page-locked host memory.

Copies run on streams of their own, beside the kernels. What is parked lies in pages of one size,
so that whatever shapes come and go, a page that was freed serves again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils._pytree import tree_map_only

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_log = logging.getLogger(__name__)

LEAVING_BYTES: Final = 128 << 20
"""What may be on its way to the host, and so still on the device, at any time."""
KEPT_S: Final = 60.0
"""How long memory is kept that nobody uses."""
PAGE_BYTES: Final = 64 << 20
"""Large enough for full transfer speed, small enough to fill well."""


@dataclass(slots=True)
class Page:
    """Host memory of one size.

    Attributes:
        locked: page-locked, so that transfers run beside the kernels.
        used_until: when the last copy out of it is done.
    """

    data: Tensor
    locked: bool
    used_until: torch.cuda.Event | None = None


class HostPages:
    """Page-locked host memory in pages, kept for the next decode: locking costs 0.2 s per GiB.
    Thread-safe.

    Args:
        page_bytes: of one page.
        locks: whether there is a GPU to lock them for.
        clock: seconds.
    """

    def __init__(
        self,
        page_bytes: int = PAGE_BYTES,
        *,
        locks: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.page_bytes = page_bytes
        self._locks, self._clock = locks, clock
        self._free: list[Page] = []
        self._lock = threading.Lock()
        self._used_s = 0.0
        self.taken = 0
        """Pages in use."""

    @property
    def held_bytes(self) -> int:
        """All host memory it holds, in use or not."""
        return (len(self._free) + self.taken) * self.page_bytes

    @property
    def idle_bytes(self) -> int:
        """Of that, what nobody uses: it counts as free for what parks here."""
        return len(self._free) * self.page_bytes

    def take(self) -> Page:
        """A page that nobody uses; copies out of it may still be under way."""
        with self._lock:
            page = self._free.pop() if self._free else None
            self.taken += 1
        if page is not None:
            return page
        try:
            return self._new()
        except BaseException:
            with self._lock:
                self.taken -= 1
            raise

    def take_for(self, size_bytes: int) -> list[Page]:
        """As many as so many bytes fill; none where memory does not suffice for all."""
        pages: list[Page] = []
        try:
            while len(pages) * self.page_bytes < size_bytes:
                pages.append(self.take())
        except BaseException:
            self.give(pages)
            raise
        return pages

    def give(self, pages: list[Page]) -> None:
        """Take pages back."""
        with self._lock:
            self.taken -= len(pages)
            self._free.extend(pages)
            self._used_s = self._clock()

    def rest(self) -> int:
        """Give everything back to the system once nobody has used it for a while; returns how
        much. To be called now and then while nothing runs."""
        is_due = self._clock() - self._used_s >= KEPT_S
        return self.trim() if self._free and not self.taken and is_due else 0

    def _new(self) -> Page:
        data = torch.empty(self.page_bytes, dtype=torch.uint8)
        # Touched first, by many threads: locking it would do that with one.
        data.zero_()
        locked = self._locks and _page_locked(data)
        # Where the system has no more to lock, asking again for each page only costs time.
        self._locks = locked
        return Page(data, locked)

    def trim(self, keep_bytes: int = 0) -> int:
        """Give memory back to the system; returns how much."""
        freed = 0
        while (page := self._surplus(keep_bytes)) is not None:
            if page.used_until is not None:
                page.used_until.synchronize()
            if page.locked:
                _runtime().cudaHostUnregister(page.data.data_ptr())
            freed += self.page_bytes
        return freed

    def _surplus(self, keep_bytes: int) -> Page | None:
        with self._lock:
            return self._free.pop() if self._free and self.held_bytes > keep_bytes else None


@dataclass(slots=True)
class Held:
    """One tensor that waits, and where.

    Attributes:
        resident: on the device; None while it is parked.
        pages: its bytes in the host's memory, in order.
        parked: when they are all there.
        coming: on its way back, with the event that says when it is there.
        carried: it waits for the next chunk of time, not for the next stage.
    """

    shape: torch.Size
    dtype: torch.dtype
    size_bytes: int
    resident: Tensor | None
    pages: list[Page] = field(default_factory=list["Page"])
    parked: torch.cuda.Event | None = None
    coming: tuple[Tensor, torch.cuda.Event | None] | None = None
    carried: bool = False


class Parking:
    """Keeps tensors of one device.

    Args:
        device: where the work runs.
        resident_bytes: how much may stay there.
        pages: host memory; None: of its own, given back at the end.
    """

    def __init__(
        self, device: torch.device, resident_bytes: int, pages: HostPages | None = None
    ) -> None:
        self.device = device
        self.limit_bytes = resident_bytes
        self.limit_carried_bytes = resident_bytes
        """How much of that may be what waits for the next chunk of time."""
        self.resident_bytes = 0
        self.carried_bytes = 0
        """Of what is resident, what waits for the next chunk."""
        self.moved_bytes = 0
        """To the host and back, in all."""
        cuda = device.type == "cuda"
        self._owns_pages = pages is None
        self._pages = HostPages(locks=cuda) if pages is None else pages
        self._held: list[Held] = []
        self._leaving: deque[tuple[torch.cuda.Event, Tensor]] = deque()
        self._leaving_bytes = 0
        self._out = torch.cuda.Stream(device) if cuda else None
        self._in = torch.cuda.Stream(device) if cuda else None

    def keep(self, tensor: Tensor, *, carried: bool = False) -> Held:
        """Take a contiguous tensor, on the device while there is room for it.

        Args:
            tensor: not to be changed any more.
            carried: it waits for the next chunk of time, and gives way to what is needed sooner.
        """
        size = tensor.numel() * tensor.element_size()
        held = Held(tensor.shape, tensor.dtype, size, tensor, carried=carried)
        self._count(held, size)
        self._held.append(held)
        crowded = carried and self.carried_bytes > self.limit_carried_bytes
        if crowded or self.resident_bytes > self.limit_bytes:
            try:
                self._park(held)
            except BaseException:
                self.drop(held)
                raise
        return held

    def keep_all(self, state: object) -> object:
        """The same for every tensor in lists, tuples and dicts that time carries on."""
        kept: list[Held] = []

        def keep(tensor: Tensor) -> Held:
            kept.append(self.keep(tensor.contiguous(), carried=True))
            return kept[-1]

        try:
            return tree_map_only(torch.Tensor, keep, state)
        except BaseException:
            for held in kept:
                self.drop(held)
            raise

    def get(self, held: Held) -> Tensor:
        """The tensor on the device; kernels launched from now on may read it."""
        if held.resident is not None:
            return held.resident
        tensor, ready = held.coming or self.fetch(held)
        held.coming = None
        if ready is not None:
            torch.cuda.current_stream(self.device).wait_event(ready)
        return tensor

    def prefetch_all(self, state: object) -> None:
        """Begin to bring back what ``keep_all`` gave, for the next ``get`` of each."""

        def begin(held: Held) -> Held:
            if held.resident is None and held.coming is None:
                held.coming = self.fetch(held)
            return held

        tree_map_only(Held, begin, state)

    def fetch(self, held: Held) -> tuple[Tensor, torch.cuda.Event | None]:
        """Begin to copy a parked tensor back; the event says when it is there."""
        if held.resident is not None:
            return held.resident, None
        tensor = torch.empty(held.shape, dtype=held.dtype, device=self.device)
        flat = tensor.view(-1).view(torch.uint8)
        self.moved_bytes += held.size_bytes
        if self._in is None:
            self._copy_in(flat, held)
            return tensor, None
        # Not before the kernels that used this memory last are done with it.
        self._in.wait_stream(torch.cuda.current_stream(self.device))
        if held.parked is not None:
            self._in.wait_event(held.parked)
        with torch.cuda.stream(self._in):
            self._copy_in(flat, held)
            ready = torch.cuda.Event()
            ready.record()
        for page in held.pages:
            page.used_until = ready
        return tensor, ready

    def take(self, held: Held) -> Tensor:
        """The tensor, which does not wait any more."""
        tensor = self.get(held)
        self.drop(held)
        return tensor

    def take_all(self, state: object) -> object:
        """The same for what ``keep_all`` gave."""
        return tree_map_only(Held, self.take, state)

    def drop(self, held: Held) -> None:
        """Forget a tensor."""
        if held.resident is not None:
            self._count(held, -held.size_bytes)
        self.discard(held.coming)
        held.resident = held.coming = None
        self._pages.give(held.pages)
        held.pages = []
        self._held = [each for each in self._held if each is not held]

    def drop_all(self, state: object) -> None:
        """The same for what ``keep_all`` gave."""
        tree_map_only(Held, self.drop, state)

    def park_everything(self) -> None:
        """After running out of memory: nothing stays on the device."""
        for held in self._held:
            self.discard(held.coming)
            held.coming = None
            if held.resident is not None:
                self._park(held)
        self.settle()

    def discard(self, coming: tuple[Tensor, torch.cuda.Event | None] | None) -> None:
        """Give up what ``fetch`` began: its memory is free once the copy is done."""
        if coming is not None and coming[1] is not None:
            torch.cuda.current_stream(self.device).wait_event(coming[1])

    def settle(self) -> None:
        """Wait for all copies."""
        while self._leaving:
            self._let_go()
        for stream in (self._out, self._in):
            if stream is not None:
                stream.synchronize()

    def close(self) -> None:
        """Forget everything."""
        self.settle()
        for held in list(self._held):
            self.drop(held)
        if self._owns_pages:
            self._pages.trim()

    def _count(self, held: Held, size_bytes: int) -> None:
        self.resident_bytes += size_bytes
        if held.carried:
            self.carried_bytes += size_bytes

    def _park(self, held: Held) -> None:
        tensor = held.resident
        if tensor is None or held.size_bytes == 0:
            return
        pages = self._pages.take_for(held.size_bytes)
        try:
            held.parked = self._copied_out(tensor, pages)
        except BaseException:
            self._pages.give(pages)
            raise
        held.pages, held.resident = pages, None
        self._count(held, -held.size_bytes)
        self.moved_bytes += held.size_bytes

    def _copied_out(self, tensor: Tensor, pages: list[Page]) -> torch.cuda.Event | None:
        """Begin to copy; the event says when it is done."""
        flat = tensor.view(-1).view(torch.uint8)
        if self._out is None:
            self._copy_out(flat, pages)
            return None
        self._out.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._out):
            for page in pages:
                if page.used_until is not None:
                    self._out.wait_event(page.used_until)
            self._copy_out(flat, pages)
            parked = torch.cuda.Event()
            parked.record()
        self._leaving.append((parked, tensor))
        self._leaving_bytes += flat.numel()
        while self._leaving_bytes > LEAVING_BYTES:
            self._let_go()
        return parked

    def _let_go(self) -> None:
        """Wait for the oldest copy to the host. Memory that another stream uses is not simply
        freed: the allocator would take new memory until that stream is done."""
        parked, tensor = self._leaving.popleft()
        parked.synchronize()
        self._leaving_bytes -= tensor.numel() * tensor.element_size()

    def _copy_out(self, flat: Tensor, pages: list[Page]) -> None:
        for part, page in zip(flat.split(self._pages.page_bytes), pages, strict=True):
            page.data[: part.numel()].copy_(part, non_blocking=True)

    def _copy_in(self, flat: Tensor, held: Held) -> None:
        for part, page in zip(flat.split(self._pages.page_bytes), held.pages, strict=True):
            part.copy_(page.data[: part.numel()], non_blocking=True)


def _runtime() -> Any:  # noqa: ANN401 - torch declares no types for it
    """CUDA's own functions."""
    return torch.cuda.cudart()


def _page_locked(data: Tensor) -> bool:
    """Lock memory for transfers beside the kernels; without, they are slower but right."""
    status = _runtime().cudaHostRegister(data.data_ptr(), data.numel(), 0)
    if int(status) == 0:
        return True
    _log.warning("Host memory could not be page-locked (CUDA error %s): parking is slower", status)
    _clear_last_error()
    return False


def _clear_last_error() -> None:
    """The runtime keeps a failed call's error, and the next kernel's check would take it for
    its own."""
    try:
        torch.ones(1, device="cuda").add_(1)
        torch.cuda.synchronize()
    except RuntimeError as problem:
        _log.debug("Cleared: %s", problem)
