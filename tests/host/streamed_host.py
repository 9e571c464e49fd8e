"""A real ComfyUI with DynamicVRAM in this process, without a GPU. For ComfyUI's Python.

Its memory management and comfy-aimdo are the real ones; the driver beneath them counts memory and
has none, so tensors on the card are of torch's "meta" device, and weights are never read.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
import weakref
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

CARD_INDEX = 0
GIB = 1 << 30
CONTEXT_BYTES = GIB // 2
"""What the driver itself takes of a card."""


class Held:
    """Memory on the card."""


class Driver:
    """The fake libcuda, loaded where comfy-aimdo finds it."""

    def __init__(self, library: str, card_bytes: int) -> None:
        self.card_bytes = card_bytes
        self._library = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        self._library.fake_cuda_card.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
        self._library.fake_cuda_free.restype = ctypes.c_size_t
        self._library.cuMemFreeAsync.argtypes = [ctypes.c_ulonglong, ctypes.c_void_p]
        self._library.fake_cuda_card(card_bytes, CONTEXT_BYTES)

    def others_take(self, size_bytes: int) -> int:
        """Another program wants so much; returns what it gets."""
        got = min(size_bytes, self.free_bytes())
        self._library.fake_cuda_card(self.card_bytes, CONTEXT_BYTES + got)
        return got

    def others_leave(self) -> None:
        """It gives all of that back."""
        self._library.fake_cuda_card(self.card_bytes, CONTEXT_BYTES)

    def free_bytes(self) -> int:
        return self._library.fake_cuda_free()

    def allocate(self, size_bytes: int) -> object:
        """Through comfy-aimdo's hooks, as torch does; given back when nobody holds it."""
        pointer = ctypes.c_ulonglong()
        size = ctypes.c_size_t(size_bytes)
        if self._library.cuMemAllocAsync(ctypes.byref(pointer), size, None):
            raise MemoryError(f"{size_bytes} bytes do not fit beside the weights")
        held = Held()
        weakref.finalize(held, self._library.cuMemFreeAsync, pointer, None)
        return held


def enter_host(comfyui: Path, driver: Driver):
    """ComfyUI with DynamicVRAM on the card, which torch allocates on as ComfyUI has it there."""
    from _bench_decode_host import Host, enter
    from comfy_aimdo import control

    # Before anything imports the modules that look at its library.
    control.init(implementation="cuda")
    base = Path(tempfile.mkdtemp())
    enter(comfyui, base, "--cache-classic", "--cpu", "--disable-pinned-memory")

    import comfy.memory_management
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy_aimdo.torch
    import torch

    from vram_supervisor.nodes.host import device_facts

    if not control.init_devices([CARD_INDEX]):
        raise SystemExit("comfy-aimdo did not take the fake driver")
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
    card = torch.device("meta", CARD_INDEX)

    def tensor(allocation, _device):
        return torch.empty(allocation[2], dtype=torch.uint8, device="meta")

    known_free = management.get_free_memory

    def free_memory(dev=None, torch_free_too=False):
        if dev != card:
            return known_free(dev, torch_free_too)
        free = driver.free_bytes()
        return (free, 0) if torch_free_too else free

    comfy_aimdo.torch.aimdo_to_tensor = tensor
    management.get_free_memory = free_memory
    management.get_total_memory = lambda *_args, **_more: driver.card_bytes
    management.get_torch_device = lambda: card
    management.get_all_torch_devices = lambda *_args, **_more: [card]
    device_facts.allocator_name = lambda _device: "cudaMallocAsync"
    return Host(management, card)


def place_on(host, work_bytes: int):
    """Where the benchmarks' models run: with the layers that they have on a GPU."""
    from _bench_evict_host import LAYER_EDGE, Place

    return Place(host.device, LAYER_EDGE, work_bytes)


def layers_of(place, sizes_gib):
    """How many layers each model has. Their weights are never written to and take no memory."""
    import torch
    from _bench_evict_host import WEIGHTS

    layers = {name: place.layers(int(gib * GIB)) for name, gib in sizes_gib.items()}
    shape = (place.layer_edge, place.layer_edge)
    for name, count in layers.items():
        WEIGHTS[name] = [torch.empty(shape, dtype=torch.bfloat16) for _ in range(count)]
    return layers
