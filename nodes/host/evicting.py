"""Makes room on a device: models leave in order of their next use, and no more than is asked.

What the host says it freed is not taken for granted: the free memory is measured until it is
back, for a moment at most, and what then holds the rest is named.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from ...supervisor.jobs.eviction import NEVER, Resident, victims
from ...supervisor.units import MiB, format_bytes
from .held_models import base_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch

    from .next_use import Uses

_log = logging.getLogger(__name__)

ROUNDS: Final = 4
"""Layers are of a size: a part that leaves can be short of what was asked."""
EVERYTHING_BYTES: Final = 1 << 50
"""No device has as much: who asks for it means all that can leave."""
GARBAGE_BYTES: Final = 256 * MiB
"""Tensors beside the weights from which on they may be garbage; latents are smaller."""
SLACK_BYTES: Final = 32 * MiB
"""Devices give memory out in pages; so much of what left may seem to stay."""


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """What torch and the driver say of a device. Bytes.

    Attributes:
        allocated_bytes: in torch's live tensors.
        reserved_bytes: those and torch's cache.
        free_bytes: for any program, as the driver says.
    """

    allocated_bytes: int
    reserved_bytes: int
    free_bytes: int
    total_bytes: int


class Memory(Protocol):
    """What is asked of the host's memory manager."""

    @property
    def management(self) -> Any:
        """``comfy.model_management``."""
        ...

    @property
    def recovery(self) -> Recovery:
        """Waits for memory to be back."""
        ...

    def free_bytes(self, device: torch.device) -> int:
        """What this process may still allocate."""
        ...

    def device_use(self, device: torch.device) -> DeviceUse | None:
        """What torch and the driver say, None where they cannot."""
        ...

    def empty_cache(self) -> None:
        """Give torch's unused blocks back."""
        ...

    def look_ahead(self) -> Uses | None:
        """When models are needed next, None where nobody knows."""
        ...

    def loaded_on(self, device: torch.device) -> list[object]:
        """Loaded models."""
        ...

    def others_on(self, device: torch.device, *keep: object | None) -> list[object]:
        """Those but ``keep`` and their clones."""
        ...


@dataclass(frozen=True, slots=True)
class Left:
    """A model that left, or a part of it.

    Attributes:
        next_use: node runs until it is needed, ``NEVER``, None where unknown.
    """

    name: str
    freed_bytes: int
    next_use: float | None

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return {
            "name": self.name,
            "freed_bytes": self.freed_bytes,
            "next_use": next_use_words(self.next_use),
        }


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds memory on the device."""

    name: str
    held_bytes: int
    why: str

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return {"name": self.name, "held_bytes": self.held_bytes, "why": self.why}


@dataclass(frozen=True, slots=True)
class Eviction:
    """What came of asking for room.

    Attributes:
        asked_bytes: what was to be free.
        left: models that left, the first to leave first.
        leaving: streamed ones that leave once memory is needed, the first to leave first.
        held: who holds the device where that was not reached, else nobody.
        waited_s: how long the memory took to be back after the models had left.
        slack_bytes: so much less counts as reached: where all was asked for and not what some
            work needs.
    """

    device: str
    asked_bytes: int
    free_before_bytes: int
    free_after_bytes: int
    left: tuple[Left, ...] = ()
    held: tuple[Holder, ...] = ()
    waited_s: float = 0.0
    slack_bytes: int = 0
    leaving: tuple[str, ...] = ()

    @property
    def freed_bytes(self) -> int:
        """How much more is free; what others took or gave meanwhile is in it."""
        return max(0, self.free_after_bytes - self.free_before_bytes)

    @property
    def reached(self) -> bool:
        """Whether what was asked for is free."""
        return self.free_after_bytes >= self.asked_bytes - self.slack_bytes

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        return {
            "device": self.device,
            "asked_bytes": self.asked_bytes,
            "free_before_bytes": self.free_before_bytes,
            "free_after_bytes": self.free_after_bytes,
            "freed_bytes": self.freed_bytes,
            "reached": self.reached,
            "left": [each.as_dict() for each in self.left],
            "leaving_as_needed": list(self.leaving),
            "still_held": [each.as_dict() for each in self.held],
            "waited_s": round(self.waited_s, 3),
        }

    def line(self) -> str:
        """In one line, for people."""
        everything = self.asked_bytes >= EVERYTHING_BYTES
        size = "all that can be" if everything else format_bytes(self.asked_bytes)
        asked = f"asked for {size} free on {self.device}"
        freed = f"freed {format_bytes(self.freed_bytes)}"
        who = ", ".join(f"{each.name} {format_bytes(each.freed_bytes)}" for each in self.left)
        told = f"{asked}: {freed}" + (f" ({who})" if who else "")
        if self.reached or (everything and not self.held):
            return told
        held = "; ".join(_held_words(each) for each in self.held) or "nobody known"
        return f"{told}, {format_bytes(self.free_after_bytes)} is free. Still held: {held}"


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


@dataclass(frozen=True, slots=True)
class Recovery:
    """Waits for memory to be back. Drivers may take a moment, those of Windows above all."""

    patience_s: float = 2.0
    interval_s: float = 0.01
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = _pause

    def back(self, wanted_bytes: int, free_bytes: Callable[[], int]) -> float:
        """Wait until so much is free, or patience ends. Returns how long it took."""
        began_s = self.clock()
        while (
            free_bytes() < wanted_bytes - SLACK_BYTES and self.clock() - began_s < self.patience_s
        ):
            self.pause(self.interval_s)
        return self.clock() - began_s


@dataclass
class _Round:
    """One request for room, through all its rounds."""

    memory: Memory
    device: torch.device
    keep: Sequence[object | None]
    uses: Uses | None
    left: dict[int, Left] = field(default_factory=dict[int, Left])

    def evict(self, missing_bytes: int) -> int:
        """Have models leave; returns how many bytes of weights did."""
        loaded = self.memory.others_on(self.device, *self.keep)
        residents = [resident_of(each, self.uses) for each in loaded]
        freed = 0
        for victim in victims(residents, missing_bytes):
            freed_bytes = unload(self.memory.management, loaded[victim.index], victim.leaving_bytes)
            self._note(loaded[victim.index], residents[victim.index], freed_bytes)
            freed += freed_bytes
        return freed

    def _note(self, loaded: object, resident: Resident, freed_bytes: int) -> None:
        before = self.left.get(id(loaded))
        freed_before = 0 if before is None else before.freed_bytes
        self.left[id(loaded)] = Left(resident.name, freed_before + freed_bytes, resident.next_use)


def make_room(
    memory: Memory,
    needed_bytes: int,
    device: torch.device,
    keep: Sequence[object | None],
    uses: Uses | None = None,
) -> Eviction:
    """Have models leave ``device``, never ``keep``, until ``needed_bytes`` are free there.

    ``uses`` tells who is needed when; None: as it is now.

    Garbage and torch's cache go first; a model leaves only for what is then still missing.
    Collecting garbage takes as long as a short decode does: only where there may be any.
    """
    before = memory.free_bytes(device)
    if before >= needed_bytes:
        return Eviction(str(device), needed_bytes, before, before)
    _let_go(memory, collect=_may_hold_garbage(memory, device))
    asking = _Round(memory, device, keep, memory.look_ahead() if uses is None else uses)
    waited_s = 0.0
    for _ in range(ROUNDS):
        free = memory.free_bytes(device)
        if free >= needed_bytes:
            break
        freed = asking.evict(needed_bytes - free)
        if freed <= 0:
            break
        wanted = min(needed_bytes, free + freed)
        _let_go(memory)
        if memory.free_bytes(device) < wanted - SLACK_BYTES:
            # A model can be part of a reference cycle.
            _let_go(memory, collect=True)
        waited_s += memory.recovery.back(wanted, lambda: memory.free_bytes(device))
    if memory.free_bytes(device) < needed_bytes:
        _let_go(memory, collect=True)
    after = memory.free_bytes(device)
    short = after < needed_bytes
    held = holders(memory, device, keep) if short else ()
    left = tuple(asking.left.values())
    done = Eviction(str(device), needed_bytes, before, after, left, held, waited_s)
    _log.log(logging.INFO if left else logging.DEBUG, "Eviction: %s", done.line())
    return done


def _let_go(memory: Memory, *, collect: bool = False) -> None:
    if collect:
        gc.collect()
    memory.empty_cache()


def _may_hold_garbage(memory: Memory, device: torch.device) -> bool:
    """Whether torch holds much beside the models' weights; so where nobody can say."""
    use = memory.device_use(device)
    return use is None or _tensor_bytes(use, memory.loaded_on(device)) > GARBAGE_BYTES


def resident_of(loaded: object, uses: Uses | None) -> Resident:
    """A loaded model as the policy sees it."""
    patcher: Any = getattr(loaded, "model", None)
    return Resident(
        name_of(patcher),
        leaving_bytes(loaded),
        None if uses is None else uses.of(patcher),
        divisible=hasattr(patcher, "partially_unload"),
    )


def leaving_bytes(loaded: object) -> int:
    """What unloading a model frees: nothing where it would only move within its device, as with
    ``--gpu-only``, or on a CPU."""
    patcher = getattr(loaded, "model", None)
    if getattr(patcher, "offload_device", None) == getattr(loaded, "device", None):
        return 0
    return _size(loaded, "model_loaded_memory")


def unload(management: Any, loaded: Any, wanted_bytes: int) -> int:
    """Have one loaded model give back so much; returns what it did.

    Streamed models (DynamicVRAM) stay in the host's list with their copies in system memory:
    unloading them as a whole would throw those away, too, and they would come from disk again.

    Others are asked for half of what is still wanted, again and again: the host frees room for the
    buffers to stream layers through on top, which is as large as its largest layers and counts
    towards the rest then.
    """
    patcher = loaded.model
    before = _size(patcher, "loaded_size")
    if is_streamed(patcher):
        patcher.partially_unload(patcher.offload_device, wanted_bytes)
        return max(0, before - _size(patcher, "loaded_size"))
    if _unload_portions(loaded, wanted_bytes):
        models: list[object] = management.current_loaded_models
        models[:] = [each for each in models if each is not loaded]
    return max(0, before - _size(patcher, "loaded_size"))


def _unload_portions(loaded: Any, wanted_bytes: int) -> bool:
    """Returns whether the model left as a whole."""
    patcher = loaded.model
    rest = wanted_bytes
    while rest > 0:
        before = _size(patcher, "loaded_size")
        portion = rest if rest >= before else max(1, rest // 2)
        if loaded.model_unload(portion):
            return True
        freed = before - _size(patcher, "loaded_size")
        rest -= freed
        if freed < portion:
            # Not as the host's patchers do: no halving further and further.
            return rest > 0 and bool(loaded.model_unload(rest))
    return False


def is_streamed(patcher: Any) -> bool:
    """Whether DynamicVRAM brings its weights in as they are used."""
    is_dynamic = getattr(patcher, "is_dynamic", None)
    return bool(is_dynamic is not None and is_dynamic())


def holders(
    memory: Memory, device: torch.device, keep: Sequence[object | None]
) -> tuple[Holder, ...]:
    """Who holds memory on a device now, the largest first."""
    others = memory.others_on(device, *keep)
    found: list[Holder] = []
    for loaded in memory.loaded_on(device):
        patcher = getattr(loaded, "model", None)
        stays = leaving_bytes(loaded) == 0
        why = "in use" if loaded not in others else "kept by the host" if stays else "did not leave"
        found.append(Holder(name_of(patcher), _size(patcher, "loaded_size"), why))
    lost = _lost(memory, device)
    use = memory.device_use(device)
    if use is not None:
        lost_bytes = sum(each.held_bytes for each in lost)
        found += _beyond_models(use, memory.loaded_on(device), lost_bytes)
    found += lost
    named = [each for each in found if each.held_bytes > 0]
    return tuple(sorted(named, key=lambda each: -each.held_bytes))


def _lost(memory: Memory, device: torch.device) -> list[Holder]:
    """Weights in torch that the host cannot unload, for their patcher is gone and they are not."""
    found: list[Holder] = []
    for loaded in getattr(memory.management, "current_loaded_models", ()):
        reference = getattr(loaded, "real_model", None)
        base = None if reference is None or loaded.model is not None else reference()
        if base is not None and loaded.device == device:
            held_bytes = int(getattr(base, "model_loaded_weight_memory", 0))
            found.append(Holder(type(base).__name__, held_bytes, "dropped, but still referred to"))
    return found


def _beyond_models(use: DeviceUse, models: Sequence[object], lost_bytes: int) -> Iterable[Holder]:
    """What torch holds beside weights, and what others hold. Streamed weights lie outside torch."""
    patchers = [getattr(each, "model", None) for each in models]
    weights = sum(_size(each, "loaded_size") for each in patchers)
    in_torch = sum(_in_torch(each) for each in patchers)
    ours = use.reserved_bytes + weights - in_torch
    tensor_bytes = _tensor_bytes(use, models) - lost_bytes
    return (
        Holder("tensors of this process", tensor_bytes, "still referred to"),
        Holder(
            "torch's cache",
            use.reserved_bytes - use.allocated_bytes,
            "in blocks that are in use in part",
        ),
        Holder("others", use.total_bytes - use.free_bytes - ours, "other programs and drivers"),
    )


def _tensor_bytes(use: DeviceUse, models: Sequence[object]) -> int:
    """In torch's live tensors beside the weights of these models."""
    in_torch = sum(_in_torch(getattr(each, "model", None)) for each in models)
    return use.allocated_bytes - in_torch


def _in_torch(patcher: object) -> int:
    known = getattr(base_of(patcher), "model_loaded_weight_memory", None)
    return _size(patcher, "loaded_size") if known is None else int(known)


def name_of(patcher: object) -> str:
    """What people know a model by."""
    return type(base_of(patcher)).__name__


def next_use_words(next_use: float | None) -> str:
    """For people."""
    if next_use is None:
        return "unknown"
    if next_use == NEVER:
        return "not needed again"
    return "needed now" if next_use == 0 else f"in {int(next_use)} node runs"


def _held_words(holder: Holder) -> str:
    return f"{holder.name} {format_bytes(holder.held_bytes)} ({holder.why})"


def _size(owner: object, name: str) -> int:
    """A size that a host object knows; 0 where this version does not."""
    method = getattr(owner, name, None)
    return 0 if method is None else int(cast("float", method()))


def distinct(models: Sequence[object]) -> list[object]:
    """Loaded models without further clones of the same weights, whose bytes are the same ones."""
    by_weights = {id(base_of(getattr(each, "model", None))): each for each in reversed(models)}
    kept = {id(each) for each in by_weights.values()}
    return [each for each in models if id(each) in kept]
