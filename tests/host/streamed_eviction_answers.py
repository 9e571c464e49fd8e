"""What a queue of prompts loads again under DynamicVRAM, without a GPU, as JSON.

    python streamed_eviction_answers.py <ComfyUI folder> <fake libcuda> <card GiB>

Sizes are those of ``bench.py evict``; what runs beneath is told in streamed_host.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamed_host import GIB, Driver, enter_host, layers_of, place_on


def answers(comfyui: Path, driver: Driver):
    """Bytes loaded again by way of cleaning up, and the fewest there can be beside the work and
    what comfy-aimdo keeps free."""
    host = enter_host(comfyui, driver)
    from _bench_evict import PHASES, SIZES_GIB, WORK_GIB, best_bytes, reloaded_by_way
    from _bench_evict_host import Prompts, Run

    place = place_on(host, int(WORK_GIB * GIB))
    layers = layers_of(place, SIZES_GIB)
    Run.allocate = lambda _node, size_bytes: driver.allocate(size_bytes)
    prompts = Prompts(host, place)
    prompts.start()
    least = best_bytes(prompts, PHASES, layers, driver.free_bytes(), streamed=True)
    found = reloaded_by_way(prompts, PHASES, layers)
    return {"least": least} | {way: again for way, (again, _) in found.items()}


if __name__ == "__main__":
    comfyui, library, card_gib = sys.argv[1:]
    card = Driver(library, int(float(card_gib) * GIB))
    print(json.dumps(answers(Path(comfyui), card)))
