"""What a queue of prompts loads again under DynamicVRAM, without a GPU, as JSON.

    python streamed_eviction_answers.py <ComfyUI folder> <fake libcuda> <card GiB>

Sizes are those of ``bench.py evict``; what runs beneath is told in streamed_host.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamed_host import GIB, Driver, enter_host, unwritten


def answers(comfyui: Path, driver: Driver):
    """Bytes loaded again by way of cleaning up, and the fewest there can be beside the work and
    what comfy-aimdo keeps free."""
    host = enter_host(comfyui, driver)
    from _bench_evict import PHASES, PROMPTS, SIZES_GIB, WAYS, WORK_GIB, reloaded_bytes
    from _bench_evict_best import Phase, least_reloaded_bytes
    from _bench_evict_host import WEIGHTS, Place, Prompts, Run, workflow

    from vram_supervisor.nodes.host.headroom import DEFAULT_BYTES

    place = Place(host.device, 4096, int(WORK_GIB * GIB))
    layers = {name: int(gib * GIB) // place.layer_bytes for name, gib in SIZES_GIB.items()}
    for name, count in layers.items():
        WEIGHTS[name] = unwritten(place, count)
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
