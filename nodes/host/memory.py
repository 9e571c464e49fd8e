"""What ComfyUI's memory manager holds, and how to make it let go.

Features are looked up, not versions: names missing on an older ComfyUI fall back to what
that version had.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from ...supervisor.jobs.eviction import needed_again_bytes
from .evicting import DeviceUse, Eviction, Recovery, distinct, leaving_bytes, make_room, resident_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import torch

    from .next_use import Uses

UNLOAD_ALL_BYTES: Final = 1 << 60
"""More than any device has: ``free_memory`` then unloads every model there."""


@dataclass(frozen=True, slots=True)
class HostMemory:
    """ComfyUI's memory manager (``comfy.model_management``) behind named questions.

    Attributes:
        next_uses: tells when models are needed next; None: nobody knows.
        recovery: waits for memory to be back.
        spill_margin: what plans keep from a driver that moves memory to the system's instead of
            failing, in bytes of a device's total.
    """

    management: ModuleType
    next_uses: Callable[[], Uses] | None = None
    recovery: Recovery = field(default_factory=Recovery)
    spill_margin: Callable[[int], int] = lambda _total_bytes: 0

    def main_device(self) -> torch.device:
        """The device ComfyUI computes on."""
        return self.management.get_torch_device()

    def free_bytes(self, device: torch.device) -> int:
        """What this process may still allocate there, torch's unused cache included."""
        return int(self.management.get_free_memory(device))

    def total_bytes(self, device: torch.device) -> int:
        """All the memory a device has, as decoders that ask are told."""
        return int(self.management.get_total_memory(device))

    def host_free_bytes(self) -> int:
        """Free system memory."""
        import psutil

        return int(psutil.virtual_memory().available)

    def driver_free_bytes(self, device: torch.device) -> int:
        """What the driver calls free: torch's unused cache is not, until it is emptied."""
        if device.type == "cuda":
            import torch

            return int(torch.cuda.mem_get_info(device)[0])
        return self.free_bytes(device)

    def device_use(self, device: torch.device) -> DeviceUse | None:
        """What torch and the driver say of a device, None where there is no CUDA."""
        import torch

        if device.type != "cuda" or not torch.cuda.is_available():
            return None
        free, total = torch.cuda.mem_get_info(device)
        allocated = torch.cuda.memory_allocated(device)
        return DeviceUse(allocated, torch.cuda.memory_reserved(device), free, total)

    def loaded_models(self) -> int:
        """How many models ComfyUI keeps on devices now."""
        return len(getattr(self.management, "current_loaded_models", ()))

    def reserve_bytes(self) -> int:
        """What ComfyUI keeps free for others, as set now."""
        return int(getattr(self.management, "EXTRA_RESERVED_VRAM", 0))

    def kept_free_bytes(self) -> int:
        """What plans leave alone: the reserve, or more where the driver would spill."""
        margin_bytes = self.spill_margin(self.total_bytes(self.main_device()))
        return max(self.reserve_bytes(), margin_bytes)

    def evictable_bytes(self, device: torch.device, keep: object | None) -> int:
        """What unloading every model but ``keep`` (a patcher) would free on ``device``."""
        return sum(leaving_bytes(model) for model in self.others_on(device, keep))

    def next_use_bytes(self, device: torch.device, keep: object | None) -> int:
        """How much of that the queue needs again; 0 where nobody knows what it needs."""
        uses = self.look_ahead()
        if uses is None:
            return 0
        return needed_again_bytes(resident_of(each, uses) for each in self.others_on(device, keep))

    def look_ahead(self) -> Uses | None:
        """When models are needed next, None where nobody knows. Not for an event loop."""
        return None if self.next_uses is None else self.next_uses()

    def missing_weights_bytes(self, patcher: object | None) -> int:
        """Weights of a model that loading it would still bring onto its device."""
        size, on_device = _call(patcher, "model_size"), _call(patcher, "loaded_size")
        return max(0, size - on_device) if size is not None and on_device is not None else 0

    def evict(self, needed_bytes: int, device: torch.device, keep: object | None) -> int:
        """Unload models until ``needed_bytes`` are free, never ``keep``.

        Returns:
            How much more is free afterwards.
        """
        return self.make_room(needed_bytes, device, keep).freed_bytes

    def make_room(
        self,
        needed_bytes: int,
        device: torch.device,
        *keep: object | None,
        uses: Uses | None = None,
    ) -> Eviction:
        """The same, and what came of it: models leave in order of their next use (``uses``, or as
        it is now), and only as much of them as is missing."""
        return make_room(self, needed_bytes, device, keep, uses)

    def pages_leave_for_tensors(self, device: torch.device) -> bool:
        """Whether streamed weights make way for what torch allocates: comfy-aimdo sees the
        allocations of torch's pools, not those of expandable segments."""
        return self.dynamic() and _hooked(device) is not None

    def load(self, patcher: object, needed_bytes: int, *, entirely: bool = False) -> None:
        """Load a model, evicting others until ``needed_bytes`` are free beside its weights.

        Args:
            patcher: what holds the model.
            needed_bytes: room for the work that follows.
            entirely: never leave a part of the weights behind. Hosts that know VAEs which ask
                for it know the argument.
        """
        options = {"force_full_load": True} if entirely else {}
        self.management.load_models_gpu([patcher], memory_required=needed_bytes, **options)

    def settle(self, device: torch.device) -> None:
        """Make the process's first matrix product on a GPU, if it has not made one yet: cuBLAS
        takes a workspace for it (32 MiB on an H200) and keeps it, which would else count as
        need of the first decode."""
        if device.type == "cuda":
            import torch

            values = torch.ones((16, 16), device=device)
            torch.mm(values, values)

    def unload_all(self) -> None:
        """Unload every model from every device."""
        self.management.unload_all_models()
        cleanup = getattr(self.management, "cleanup_models", None)
        if cleanup is not None:
            cleanup()

    def inference_bytes(self, work_bytes: int = 0) -> int:
        """What the host wants free beside the weights it loads, for work of a size."""
        least = getattr(self.management, "minimum_inference_memory", None)
        least_bytes = 0 if least is None else int(least())
        return max(least_bytes, work_bytes + self.reserve_bytes())

    def empty_cache(self) -> None:
        """Give torch's unused blocks back to the driver; does nothing on a CPU."""
        self.management.soft_empty_cache()

    def is_oom(self, problem: BaseException) -> bool:
        """Whether an error means that memory ran out, wherever: the host's own answer, or an
        error of the driver, cuDNN, cuBLAS, Triton or system memory, which the host may not
        know."""
        from ...supervisor.decode.memory import is_out_of_memory

        known = getattr(self.management, "is_oom", None)
        if known is not None and bool(known(problem)):
            return True
        if known is None and isinstance(problem, self.management.OOM_EXCEPTION):
            return True
        return is_out_of_memory(problem)

    def is_interrupt(self, problem: BaseException) -> bool:
        """Whether it is the user's interrupt; older hosts made that an ``Exception``."""
        return isinstance(problem, self.management.InterruptProcessingException)

    def raise_if_interrupted(self) -> None:
        """Raise ComfyUI's interrupt if the user asked for one."""
        self.management.throw_exception_if_processing_interrupted()

    def progress_bar(self, steps: int) -> Callable[[], None]:
        """A bar of so many steps at the node that runs; what it gives advances it by one."""
        import comfy.utils

        bar: Any = comfy.utils.ProgressBar(max(1, steps))

        def advance() -> None:
            bar.update(1)

        return advance

    def dynamic(self) -> bool:
        """Whether DynamicVRAM manages the weights: the reserve does not reach it."""
        import comfy

        memory = getattr(comfy, "memory_management", None)
        return bool(getattr(memory, "aimdo_enabled", False))

    def outside_torch_bytes(self, device: str) -> int | None:
        """Streamed weights on ``device`` that torch's allocator does not know.

        comfy-aimdo counts what passes through its hooks: torch's allocations too, which are
        taken off. None where DynamicVRAM is off or its library cannot tell it per device.
        """
        if not self.dynamic() or not device.startswith("cuda"):
            return None
        from comfy_aimdo import control

        if len(getattr(control, "devctxs", ())) > 1:
            return None
        total = getattr(control, "get_total_vram_usage", None)
        return None if total is None else max(0, int(total()) - _hooked_bytes(device))

    def loaded_on(self, device: torch.device) -> list[object]:
        """Models on a device, clones of the same weights once.

        Entries whose patcher is gone only await the host's cleanup.
        """
        models = getattr(self.management, "current_loaded_models", ())
        here = [
            loaded
            for loaded in models
            if getattr(loaded, "device", None) == device
            and getattr(loaded, "model", None) is not None
        ]
        return distinct(here)

    def others_on(self, device: torch.device, *keep: object | None) -> list[object]:
        """Those but ``keep`` (patchers) and their clones."""
        loaded = self.loaded_on(device)
        return [each for each in loaded if not any(_holds(each, kept) for kept in keep)]


def _hooked_bytes(name: str) -> int:
    """What of torch's memory comfy-aimdo has counted."""
    import torch

    device = torch.device(name)
    counted = _hooked(device)
    return 0 if counted is None else int(counted(device))


def _hooked(device: torch.device) -> Callable[[torch.device], int] | None:
    """What counts the memory that passes comfy-aimdo's hooks: live tensors where the driver keeps
    the pool, whole segments where torch does. None for expandable segments: they take another
    way."""
    import torch

    from .device_facts import allocator_name

    counters = {
        "cudaMallocAsync": torch.cuda.memory_allocated,
        "native": torch.cuda.memory_reserved,
    }
    return counters.get(allocator_name(device))


def _holds(loaded: object, patcher: object | None) -> bool:
    """Whether a loaded model is ``patcher`` or shares its weights."""
    model = getattr(loaded, "model", None)
    if patcher is None or model is None:
        return False
    return model is patcher or getattr(model, "model", None) is getattr(patcher, "model", model)


def _call(owner: object | None, name: str) -> int | None:
    """A size that a host object knows, None where this version does not."""
    method = getattr(owner, name, None)
    return None if method is None else int(cast("float", method()))
