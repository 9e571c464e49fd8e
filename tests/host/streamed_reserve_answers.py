"""A job with a reserve under DynamicVRAM while another program grows, without a GPU, as JSON.

    python streamed_reserve_answers.py <ComfyUI folder> <fake libcuda> <card GiB> <reserve GiB> ...

A reserve of 0 is none. The job and the sizes are those of ``bench.py reserve``; what runs beneath
is told in streamed_host.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from streamed_host import GIB, Driver, enter_host, layers_of, place_on


def answers(comfyui: Path, driver: Driver, reserves_gib: list[float]):
    """By reserve: what the other program got of what it wanted, what was free at each step, and
    the memory settings while the job ran and after it."""
    host = enter_host(comfyui, driver)
    from _bench_evict_host import Prompts
    from _bench_reserve import GROWTH_GIB, MODEL_GIB, WORK_GIB
    from _bench_reserve_host import Course, Outside, Steps, start, wishes_now, workflow

    place = place_on(host, int(WORK_GIB * GIB))
    layers = layers_of(place, {"Diffusion": MODEL_GIB})["Diffusion"]
    Steps.allocate = lambda _node, size_bytes: driver.allocate(size_bytes)
    Steps.pause_s = 0.0
    prompts = Prompts(host, place)
    outside = Outside(lambda: driver.others_take(int(GROWTH_GIB * GIB)), driver.free_bytes)
    start(prompts, outside)
    found = {}
    for reserve_gib in reserves_gib:
        Steps.course = course = Course()
        job = workflow(layers, 0, reserve="manual" if reserve_gib else "off")
        job["support"]["inputs"]["reserved_vram_gb"] = reserve_gib
        prompts.run([job])
        found[f"{reserve_gib:g}"] = {
            "got": course.got_bytes,
            "oom_step": course.oom_step,
            "free": course.used,
            "held": course.wishes[0],
            "after": wishes_now(),
        }
        driver.others_leave()
    return found


if __name__ == "__main__":
    comfyui, library, card_gib, *reserves = sys.argv[1:]
    card = Driver(library, int(float(card_gib) * GIB))
    print(json.dumps(answers(Path(comfyui), card, [float(each) for each in reserves])))
