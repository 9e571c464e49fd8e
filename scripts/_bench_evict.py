"""``bench.py evict``: what a queue of prompts loads again on emulated small cards.

Three prompts wait; each runs one model of diffusion size, another, and a VAE, and between them
room is made in three ways: the host's own (no cleanup), VRAM Cleanup with ``unload_all_models``,
and VRAM Cleanup as the queue needs it. Beside them the best order of what leaves, worked out with
all that comes known: without DynamicVRAM under the host's rule that 1.1 times the missing weights
be free, with it beside the work and comfy-aimdo's headroom.

With DynamicVRAM and without, each in a process of its own. ``--cpu`` tries the bench in system
memory, 64 times smaller. Prints Markdown. Run by ComfyUI's Python.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _bench_decode_host import Host, enter
from _bench_evict_best import Phase, least_reloaded_bytes
from _bench_evict_host import LAYER_EDGE, Place, Prompts, card, workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

GIB: Final = 1 << 30
PHASES: Final = ("A", "B", "VAE")
PROMPTS: Final = 3
CARDS_GIB: Final = (12.0, 16.0)
SIZES_GIB: Final = {"A": 6.5, "B": 8.0, "VAE": 0.25}
WORK_GIB: Final = 1.0
HOSTS_MARGIN: Final = 1.1
GOAL: Final = 1.1
"""Times the best order."""
TRIED_SMALLER: Final = 64
WAYS: Final = {"none": "no cleanup", "all": "unload all models", "queue": "as the queue needs"}
HEADINGS: Final = (
    "DynamicVRAM", "card GiB", "free GiB", "cleanup", "loaded again GiB", "of unload all",
    "of the best order", "queue s",
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
        prog="bench.py evict", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--cards", type=float, nargs="+", default=CARDS_GIB, metavar="GIB")
    parser.add_argument("--a", type=float, default=SIZES_GIB["A"], help="the first model")
    parser.add_argument("--b", type=float, default=SIZES_GIB["B"], help="the second model")
    parser.add_argument("--vae", type=float, default=SIZES_GIB["VAE"])
    parser.add_argument("--work", type=float, default=WORK_GIB, help="beside the weights")
    parser.add_argument("--phases", nargs="+", default=PHASES, choices=PHASES, help="of a prompt")
    parser.add_argument("--cpu", action="store_true", help="to try it, 64 times smaller")
    parser.add_argument("--mode", choices=("on", "off"), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> int:
    """All cards and ways in this process; 1 where the pack missed what it promises."""
    # As the executor of the bench caches: the pack reads it from the command line.
    arguments = ["--cache-classic", *(["--cpu"] if options.cpu else [])]
    arguments += ["--disable-dynamic-vram"] if options.mode == "off" else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        enter(options.comfyui, Path(folder), *arguments)
        return _measured(options)


def _measured(options: argparse.Namespace) -> int:
    import torch  # noqa: PLC0415, the host comes first

    host = Host.entered()
    if (options.mode == "on") != host.is_dynamic:
        print(_line([options.mode, "this ComfyUI has no DynamicVRAM here"]), flush=True)
        return 0
    scale = TRIED_SMALLER if options.cpu else 1
    device = torch.device("cpu", 0) if options.cpu else host.device
    place = Place(device, 512 if options.cpu else LAYER_EDGE, int(options.work * GIB) // scale)
    sizes = {"A": options.a, "B": options.b, "VAE": options.vae}
    layers = {name: place.layers(int(gib * GIB / scale)) for name, gib in sizes.items()}
    prompts = Prompts(host, place)
    prompts.start()
    if not options.cpu:
        # What kernels and libraries keep is on the card before what is free there is looked at.
        prompts.run([workflow(options.phases, layers, 0, cleanup="none")])
    become, end = _cards(host, options, scale)
    missed = 0
    try:
        with torch.inference_mode():
            for card_gib in options.cards:
                free_bytes = become(card_gib)
                with card(host, place, free_bytes):
                    missed |= _on_card(prompts, layers, card_gib, free_bytes, options)
    finally:
        end()
    return missed


def _cards(
    host: Host, options: argparse.Namespace, scale: int
) -> tuple[Callable[[float], int], Callable[[], None]]:
    """How to make a card of a size, which gives what is free there; and how to end that."""
    room = int(host.management.minimum_inference_memory())
    if options.cpu:
        # The host's own room is not scaled: it comes on top.
        return lambda gib: int(gib * GIB) // scale + room, lambda: None
    import torch  # noqa: PLC0415
    from _bench_decode_ballast import Emulation  # noqa: PLC0415

    emulation = Emulation.start(lambda: torch.cuda.mem_get_info(host.device))

    def become(card_gib: float) -> int:
        host.clean()
        emulation.become(int(card_gib * GIB))
        return int(host.management.get_free_memory(host.device))

    return become, emulation.end


def _on_card(
    prompts: Prompts,
    layers: Mapping[str, int],
    card_gib: float,
    free_bytes: int,
    options: argparse.Namespace,
) -> int:
    """Every way on one card; 1 where a goal was missed."""
    best = best_bytes(prompts, options.phases, layers, free_bytes, streamed=options.mode == "on")
    found = reloaded_by_way(prompts, options.phases, layers)
    for way, (again, seconds) in found.items():
        cells = (again / GIB, *(ratio(again, to) for to in (found["all"][0], best)))
        shown = [
            options.mode,
            f"{card_gib:g}",
            f"{free_bytes / GIB:.2f}",
            WAYS[way],
            f"{cells[0]:.2f}",
        ]
        print(_line([*shown, *map(_share, cells[1:]), f"{seconds:.1f}"]), flush=True)
    ours = found["queue"][0]
    return int(ours > found["all"][0] / 2 or (best is not None and ours > GOAL * best))


def best_bytes(
    prompts: Prompts,
    phases: Sequence[str],
    layers: Mapping[str, int],
    free_bytes: int,
    *,
    streamed: bool,
) -> int | None:
    """What the best order loads again; None where a model does not fit."""
    sizes = {name: count * prompts.place.layer_bytes for name, count in layers.items()}
    room, margin = _rule(prompts, streamed=streamed)
    coming = [Phase(name, room) for _ in range(PROMPTS) for name in phases]
    return least_reloaded_bytes(coming, sizes, free_bytes, margin)


def reloaded_by_way(
    prompts: Prompts, phases: Sequence[str], layers: Mapping[str, int]
) -> dict[str, tuple[int, float]]:
    """Run the queue in each way: what it loads again, and seconds."""
    found: dict[str, tuple[int, float]] = {}
    for way in WAYS:
        queued = [workflow(phases, layers, seed, cleanup=way) for seed in range(PROMPTS)]
        loads, seconds = prompts.run(queued)
        found[way] = reloaded_bytes(loads), seconds
    return found


def _rule(prompts: Prompts, *, streamed: bool) -> tuple[int, float]:
    """Bytes that are free beside weights while a model runs, and how many times its missing
    weights are before it is loaded."""
    management, work_bytes = prompts.host.management, prompts.place.work_bytes
    if streamed:
        headroom = import_module("vram_supervisor.nodes.host.headroom")
        return work_bytes + headroom.DEFAULT_BYTES, 1.0
    reserve = int(management.extra_reserved_memory())
    return max(int(management.minimum_inference_memory()), work_bytes + reserve), HOSTS_MARGIN


def reloaded_bytes(loads: Sequence[tuple[str, int]]) -> int:
    """Bytes loaded beyond each model's first run."""
    met: set[str] = set()
    again = 0
    for name, loaded_bytes in loads:
        again += loaded_bytes if name in met else 0
        met.add(name)
    return again


def ratio(part: int, whole: int | None) -> float | None:
    """None where there is nothing to compare with."""
    return part / whole if whole else None


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
