"""``bench.py reserve``: another program takes 2 GiB in the middle of a job on a small card.

A ballast process makes the GPU a card of 12 GiB. Another program swings by 2 GiB before, as a
browser does; then a job loads a diffusion-size model, does steps with activations, and in the
middle of them that program grows by 2 GiB again. Without a reserve, and with the adaptive one;
without DynamicVRAM and with it, each in a process of its own. A row shows whether the job ran
out of memory, how much the other program got, what NVML calls used, and how reserve and headroom
went while the job ran; the ballast is taken off.

``--cpu`` tries the bench in system memory, 64 times smaller, where nothing runs out. Prints
Markdown. Run by ComfyUI's Python.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _bench_decode_host import Host, enter
from _bench_evict_host import LAYER_EDGE, Place, Prompts, card
from _bench_reserve_host import MEMORY, Course, Outside, run, start
from _bench_reserve_neighbour import Neighbour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

GIB: Final = 1 << 30
CARD_GIB: Final = 12.0
MODEL_GIB: Final = 11.0
WORK_GIB: Final = 1.0
GROWTH_GIB: Final = 2.0
HELD_GIB: Final = 1.0
"""What the other program holds anyway."""
SWING_S: Final = 2.2
"""How long each state of the swing lasts: an idle monitor looks once a second."""
PATIENCE_S: Final = 1.5
TRIED_SMALLER: Final = 64
WAYS: Final = ("off", "adaptive")
HEADINGS: Final = (
    "DynamicVRAM", "reserve", "out of memory", "other program got GiB", "used before GiB",
    "peak", "after", "reserve over time GiB", "headroom over time GiB", "job s",
)  # fmt: skip


def main() -> int:
    """Each mode in a process; the table as rows come."""
    options = command_line()
    if options.mode is not None:
        return measure(options)
    modes = ("off",) if options.cpu else ("off", "on")
    print(_line(HEADINGS), _line(["---"] * len(HEADINGS)), sep="\n", flush=True)
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
    codes = [subprocess.run([*command, "--mode", each], check=False).returncode for each in modes]
    return max(codes)


def command_line() -> argparse.Namespace:
    """The options; sizes in GiB."""
    parser = argparse.ArgumentParser(
        prog="bench.py reserve", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--card", type=float, default=CARD_GIB)
    parser.add_argument("--model", type=float, default=MODEL_GIB, help="its weights")
    parser.add_argument("--work", type=float, default=WORK_GIB, help="activations of a step")
    parser.add_argument("--growth", type=float, default=GROWTH_GIB, help="of the other program")
    parser.add_argument("--ways", nargs="+", default=WAYS, help="off, adaptive, auto_used_plus")
    parser.add_argument("--cpu", action="store_true", help="to try it, 64 times smaller")
    parser.add_argument("--mode", choices=("on", "off"), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> int:
    """Every way in this process; 1 where a job with a reserve ran out of memory."""
    arguments = ["--cpu"] if options.cpu else []
    arguments += ["--disable-dynamic-vram"] if options.mode == "off" else []
    neighbour = Neighbour(cpu=options.cpu)  # it starts while the host does
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            enter(options.comfyui, Path(folder), *arguments)
            return _measured(options, neighbour)
    finally:
        neighbour.end()


def _measured(options: argparse.Namespace, neighbour: Neighbour) -> int:
    import torch  # noqa: PLC0415, the host comes first

    host = Host.entered()
    if (options.mode == "on") != host.is_dynamic:
        print(_line([options.mode, "this ComfyUI has no DynamicVRAM here"]), flush=True)
        return 0
    scale = TRIED_SMALLER if options.cpu else 1
    device = torch.device("cpu", 0) if options.cpu else host.device
    place = Place(device, 512 if options.cpu else LAYER_EDGE, int(options.work * GIB) // scale)
    held_bytes, growth_bytes = int(HELD_GIB * GIB) // scale, int(options.growth * GIB) // scale

    def grow() -> int:
        return neighbour.hold(held_bytes + growth_bytes, PATIENCE_S) - held_bytes

    become, ballast_bytes, end = _card(host, options, scale)
    try:
        neighbour.hold(held_bytes)
        free_bytes = become()
        # Only now: the ballast would be growth in the monitor's eyes.
        prompts = Prompts(host, place)
        start(prompts, Outside(grow, lambda: _used_bytes(host) - ballast_bytes()))
        _swing(neighbour, held_bytes, growth_bytes)
        layers = place.layers(int(options.model * GIB / scale))
        missed = 0
        with torch.inference_mode(), card(host, place, free_bytes):
            for seed, way in enumerate(options.ways):
                neighbour.hold(held_bytes)
                host.clean()
                before = _used_bytes(host) - ballast_bytes()
                course, seconds = run(prompts, layers, seed, reserve=way)
                after = _used_bytes(host) - ballast_bytes()
                shown = row((options.mode, way), course, (before, after), ballast_bytes(), seconds)
                print(_line(shown), flush=True)
                short = course.oom_step is not None or course.got_bytes < growth_bytes
                missed |= int(way != "off" and short)
        return missed
    finally:
        end()


def _swing(neighbour: Neighbour, held_bytes: int, growth_bytes: int) -> None:
    """What the monitor sees before the jobs: the other program grows and shrinks again."""
    for more in (0, growth_bytes, 0):
        neighbour.hold(held_bytes + more, PATIENCE_S)
        time.sleep(SWING_S)


def _card(
    host: Host, options: argparse.Namespace, scale: int
) -> tuple[Callable[[], int], Callable[[], int], Callable[[], None]]:
    """How to make the card, which gives what is free there; what the ballast holds; the end."""
    if options.cpu:
        room = int(host.management.minimum_inference_memory())
        # The host's own room is not scaled: it comes on top.
        return (lambda: int(options.card * GIB) // scale + room), (lambda: 0), (lambda: None)
    import torch  # noqa: PLC0415
    from _bench_decode_ballast import Emulation  # noqa: PLC0415

    emulation = Emulation.start(lambda: torch.cuda.mem_get_info(host.device))

    def become() -> int:
        host.clean()
        return emulation.become(int(options.card * GIB))[0]

    def ballast_bytes() -> int:
        return emulation.ballast.held_bytes + emulation.overhead_bytes

    return become, ballast_bytes, emulation.end


def _used_bytes(host: Host) -> int:
    """What NVML calls used, of the device; of the system where there is no GPU."""
    import torch  # noqa: PLC0415

    if host.device.type != "cuda":
        import psutil  # noqa: PLC0415

        return int(psutil.virtual_memory().used)
    reading = _nvml_used_bytes(torch.cuda.get_device_properties(host.device).uuid)
    if reading is not None:
        return reading
    free_bytes, total_bytes = torch.cuda.mem_get_info(host.device)
    return int(total_bytes - free_bytes)


def _nvml_used_bytes(uuid: object) -> int | None:
    """None where NVML cannot be asked: the driver's figure through CUDA is the same then."""
    try:
        import pynvml  # noqa: PLC0415
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return None


def row(
    tried: tuple[str, str],
    course: Course,
    used: tuple[int, int],
    ballast_bytes: int,
    seconds: float,
) -> Sequence[str]:
    """The cells of one job; ``tried`` with DynamicVRAM or without and which reserve, ``used``
    before and after. What others hold is in a headroom, so the ballast is, once it was counted
    at all."""
    before, after = used
    reserves, headrooms = ([each.get(name) for each in course.wishes] for name in MEMORY)
    beside = [
        each if each is None or each < ballast_bytes else each - ballast_bytes for each in headrooms
    ]
    return (
        *tried,
        "no" if course.oom_step is None else f"at step {course.oom_step + 1}",
        f"{course.got_bytes / GIB:.2f}",
        *(f"{each / GIB:.2f}" for each in (before, max(course.used, default=before), after)),
        *map(changes, (reserves, beside)),
        f"{seconds:.1f}",
    )


def changes(values: Iterable[int | None]) -> str:
    """Figures over time, each once until it changes."""
    found = [value for value, _ in groupby(values) if value is not None]
    return " -> ".join(f"{value / GIB:.2f}" for value in found) or "-"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
