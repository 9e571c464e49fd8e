"""A card, and ComfyUI's memory manager on it, without a GPU."""

from types import SimpleNamespace

import torch
from support.prompt_world import Base

from vram_supervisor.nodes.host.evicting import Recovery
from vram_supervisor.nodes.host.memory import HostMemory
from vram_supervisor.supervisor.units import MiB

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
LAYER = 10 * MiB


class Pages:
    """A streamed model's pages; ``order`` is comfy-aimdo's list, the first to leave first."""

    def __init__(self, name, order, size=MiB):
        self.name, self.order, self.size = name, order, size
        order.append(name)

    def loaded_size(self):
        return self.size

    def deprioritize(self):
        self.order.remove(self.name)
        self.order.insert(0, self.name)


class Patcher:
    """A model of layers that leave and come one by one; with the first of them leave ``buffers``
    more, to stream those that left; ``stiff`` ones only leave as a whole."""

    def __init__(
        self,
        name,
        loaded,
        *,
        missing=0,
        dynamic=False,
        offload=CPU,
        base=None,
        buffers=0,
        stiff=False,
    ):
        self.model = base or type(name, (Base,), {})()
        self.load_device, self.offload_device = GPU, offload
        self.size, self.loaded, self.dynamic = loaded + missing, loaded, dynamic
        self.asked = []
        self.copies_in_ram = dynamic
        self.buffers, self.stiff = buffers, stiff

    def model_size(self):
        return self.size

    def loaded_size(self):
        return self.loaded

    def is_dynamic(self):
        return self.dynamic

    def partially_unload(self, device, wanted):
        self.asked.append(wanted)
        if self.stiff:
            return 0
        layers = -(-wanted // LAYER) + self.buffers
        self.buffers = 0
        freed = min(self.loaded, layers * LAYER)
        self.loaded -= freed
        return freed


class Loaded:
    """An entry of the host's list."""

    def __init__(self, patcher):
        self.model, self.device = patcher, patcher.load_device
        self.detached = False

    def model_loaded_memory(self):
        return self.model.loaded_size()

    def model_unload(self, wanted):
        if wanted < self.model.loaded and self.model.partially_unload(CPU, wanted) >= wanted:
            return False
        self.model.loaded, self.model.copies_in_ram = 0, False
        self.detached = True
        return True


class Card:
    """So much memory; what models give back is seen to be free ``lag_s`` after the start."""

    def __init__(self, size, *patchers, tensors=0, lag_s=0.0, uses=None):
        self.size, self.tensors, self.lag_s = size, tensors, lag_s
        self.at_first = sum(each.loaded for each in patchers)
        self.now_s, self.emptied = 0.0, 0
        self.patchers = patchers
        self.management = SimpleNamespace(
            current_loaded_models=[Loaded(each) for each in patchers],
            get_free_memory=lambda device: self.free(),
            get_total_memory=lambda device: size,
            get_torch_device=lambda: GPU,
            soft_empty_cache=self._empty,
            unload_all_models=self._unload_all,
            minimum_inference_memory=lambda: 50 * MiB,
            EXTRA_RESERVED_VRAM=20 * MiB,
        )
        recovery = Recovery(patience_s=2.0, clock=lambda: self.now_s, pause=self._pause)
        self.memory = HostMemory(self.management, uses and (lambda: uses), recovery)

    def free(self):
        now = sum(each.loaded for each in self.patchers)
        held = self.at_first if self.now_s < self.lag_s else now
        return self.size - self.tensors - held

    def loaded(self):
        return [type(each.model.model).__name__ for each in self.management.current_loaded_models]

    def _empty(self):
        self.emptied += 1

    def _unload_all(self):
        for each in self.management.current_loaded_models:
            each.model_unload(each.model.loaded)
        self.management.current_loaded_models.clear()

    def _pause(self, seconds):
        self.now_s += seconds


def uses_of(**next_uses):
    """Stands in for ``Uses``: by the model's name."""
    return SimpleNamespace(
        of=lambda patcher: next_uses.get(type(patcher.model).__name__),
        coming=lambda: iter(()),
    )
