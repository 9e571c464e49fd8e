"""What a queue of prompts loads again under DynamicVRAM, without a GPU, as JSON.

    python streamed_answers.py <ComfyUI folder> <fake libcuda> <card GiB>

Run by ComfyUI's Python. ComfyUI's memory management and comfy-aimdo are the real ones; the driver
beneath them counts memory and has none, so tensors on the card are of torch's "meta" device, and
weights are never read. Sizes are those of ``bench.py evict``.
"""

from __future__ import annotations

import ctypes
import json
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


def answers(comfyui: Path, driver: Driver):
    """Bytes loaded again by way of cleaning up, and the fewest there can be beside the work and
    what comfy-aimdo keeps free."""
    host = enter_host(comfyui, driver)
    import torch
    from _bench_evict import PHASES, PROMPTS, SIZES_GIB, WAYS, WORK_GIB, reloaded_bytes
    from _bench_evict_best import Phase, least_reloaded_bytes
    from _bench_evict_host import WEIGHTS, Place, Prompts, Run, workflow

    from vram_supervisor.nodes.host.headroom import DEFAULT_BYTES

    place = Place(host.device, 4096, int(WORK_GIB * GIB))
    layers = {name: int(gib * GIB) // place.layer_bytes for name, gib in SIZES_GIB.items()}
    for name, count in layers.items():
        shape = (place.layer_edge, place.layer_edge)
        # Never written to, they take no memory.
        WEIGHTS[name] = [torch.empty(shape, dtype=torch.bfloat16) for _ in range(count)]
    Run.allocate = lambda _node, size_bytes: driver.allocate(size_bytes)
    prompts = Prompts(host, place)
    prompts.start()
    sizes = {name: count * place.layer_bytes for name, count in layers.items()}
    room_bytes = place.work_bytes + DEFAULT_BYTES
    phases = [Phase(name, room_bytes) for _ in range(PROMPTS) for name in PHASES]
    found = {"least": least_reloaded_bytes(phases, sizes, driver.free_bytes())}
    for way in WAYS:
        queued = [workflow(PHASES, layers, seed, cleanup=way) for seed in range(PROMPTS)]
        found[way] = reloaded_bytes(prompts.run(queued)[0])
    return found


if __name__ == "__main__":
    comfyui, library, card_gib = sys.argv[1:]
    card = Driver(library, int(float(card_gib) * GIB))
    print(json.dumps(answers(Path(comfyui), card)))
