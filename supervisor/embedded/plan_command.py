"""``vram-supervisor plan``: the plan table for a decode to come, on any machine.

Needs no GPU and never imports torch: costs come from the family table, free memory from the
command line or from the driver.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import psutil

from ..errors import LatentNotDecodableError, SizeUnreadableError
from ..planning.families import BY_FAMILY, FAMILIES
from ..planning.planner import plan_table
from ..planning.recommend import recommend
from ..planning.types import Abilities, PlanRequest, Room
from ..telemetry.clock import SystemClock
from ..telemetry.probes.nvidia import find_nvml, monitor_only_probes
from ..types import DecodeContext, DeviceInfo, Reading
from ..units import MiB, parse_bytes
from .plan_text import as_json, as_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..planning.cost import FamilyCost
    from ..planning.types import PlanTable

    Subcommands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # pyright: ignore[reportPrivateUsage]
    ReadGpu: TypeAlias = Callable[[], tuple[DeviceInfo, Reading] | None]

_FAMILY_HELP: Final = f"VAE family: {', '.join(sorted(FAMILIES))}"
QUALITIES: Final = ("exact", "balanced", "fast")
DESCRIPTION: Final = """\
Print how a VAE decode of this size would best be done and what it would need, without decoding
anything: no GPU is needed and none is touched."""
EPILOG: Final = """\
Sizes are written with a unit: 11GiB, 512MiB, 8GB (decimal). The exit code is 0, or 2 where an
argument is wrong or missing.

  vram-supervisor plan --vae wan2.1 --width 1280 --height 720 --frames 81 --free 11GiB"""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a decode may use, as told or as read. Bytes; None where unknown."""

    free_bytes: int
    total_bytes: int | None = None
    evictable_bytes: int = 0
    ram_bytes: int | None = None
    source: str = "as given"


def add_plan_command(subcommands: Subcommands) -> None:
    """Add ``plan`` to the command line."""
    parser = subcommands.add_parser(
        "plan",
        help="print how a decode would be done and what it needs; no GPU needed",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--vae", required=True, choices=sorted(FAMILIES), metavar="FAMILY", help=_FAMILY_HELP
    )
    parser.add_argument("--width", required=True, type=_count, metavar="W", help="pixels")
    parser.add_argument("--height", required=True, type=_count, metavar="H", help="pixels")
    parser.add_argument("--frames", type=_count, metavar="F", help="of a video; default 1")
    memory = parser.add_argument_group("memory")
    memory.add_argument(
        "--free", type=_size, metavar="SIZE", help="free on the card; default: this machine's GPU"
    )
    memory.add_argument("--total", type=_size, metavar="SIZE", help="memory the card has")
    memory.add_argument(
        "--evictable", type=_size, metavar="SIZE", help="models that may be evicted; default none"
    )
    memory.add_argument(
        "--ram", type=_size, metavar="SIZE", help="free system memory, for decoding on the CPU"
    )
    parser.add_argument(
        "--quality",
        choices=QUALITIES,
        default=QUALITIES[0],
        help="how much time it is worth to avoid joins that can be seen; default exact",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=partial(run_plan, parser))


def run_plan(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    read_gpu: ReadGpu | None = None,
) -> int:
    """Plan and print; the exit code. Ends the process with 2 where an argument is wrong.

    Args:
        read_gpu: the first GPU with its figures, None where there is none; asked only where
            no free memory was given.
    """
    machine = _machine(options, parser, read_gpu or read_first_gpu)
    cost = BY_FAMILY[options.vae]
    context = DecodeContext(options.width, options.height, options.frames or 1, None, options.vae)
    try:
        table = _table(cost, context, machine, options.quality)
    except LatentNotDecodableError as error:
        parser.error(str(error))
    notes = _notes(options, cost, machine)
    if options.json:
        facts = {**_facts(context, machine), "notes": notes}
        sys.stdout.write(json.dumps(as_json(table, facts), indent=2) + "\n")
    else:
        heading = _heading(cost, context, machine, options.quality)
        ram_known = machine.ram_bytes is not None
        sys.stdout.write(as_text(table, heading, notes, ram_known=ram_known))
    return 0


def read_first_gpu() -> tuple[DeviceInfo, Reading] | None:
    """The first NVIDIA GPU this process may see, as its driver tells; None without any."""
    probes = monitor_only_probes(find_nvml(SystemClock()))
    first: tuple[DeviceInfo, Reading] | None = None
    for probe in probes:
        with closing(probe):
            first = first or (probe.device, probe.read())
    return first


def _table(cost: FamilyCost, context: DecodeContext, machine: Machine, quality: str) -> PlanTable:
    shape = cost.shape_for(context)
    if shape is None:  # Both sizes are required and above 0.
        raise LatentNotDecodableError(f"{context.width} x {context.height} pixels", "no size")
    room = Room(machine.free_bytes, machine.evictable_bytes, host_bytes=machine.ram_bytes)
    abilities = (
        Abilities.whole_only()
        if cost.tiles_itself
        else Abilities.of_host(video=cost.video, carves_time=cost.growth == "linear")
    )
    request = PlanRequest(quality=quality)
    return plan_table(shape, cost, room, request, abilities, times=cost.time)


def _machine(
    options: argparse.Namespace,
    parser: argparse.ArgumentParser,
    read_gpu: ReadGpu,
) -> Machine:
    evictable: int = options.evictable or 0
    if options.free is None:
        return _own_machine(options, parser, read_gpu())
    if options.total is not None and options.free > options.total:
        parser.error("--free is more than --total; give what is free, and what the card has")
    return Machine(options.free, options.total, evictable, options.ram)


def _own_machine(
    options: argparse.Namespace,
    parser: argparse.ArgumentParser,
    found: tuple[DeviceInfo, Reading] | None,
) -> Machine:
    if found is None or found[1].free_bytes is None:
        why = "no NVIDIA GPU was found" if found is None else "the GPU does not tell what is free"
        parser.error(f"--free is needed here: {why}. Give it a size, such as --free 11GiB")
    device, reading = found
    return Machine(
        found[1].free_bytes,
        options.total or reading.total_bytes,
        options.evictable or 0,
        psutil.virtual_memory().available if options.ram is None else options.ram,
        source=f"free now on {device.name or device.key}",
    )


def _heading(
    cost: FamilyCost, context: DecodeContext, machine: Machine, quality: str
) -> tuple[tuple[str, str | int | None], ...]:
    frames = f", {context.frames} frame" + ("s" if context.frames != 1 else "")
    size = f"{context.width} x {context.height}" + (frames if cost.video else "")
    return (
        ("Decode", f"{cost.title}, {size}, quality {quality}"),
        ("Free", machine.free_bytes),
        ("Evictable", machine.evictable_bytes or None),
        ("RAM", machine.ram_bytes),
    )


def _notes(options: argparse.Namespace, cost: FamilyCost, machine: Machine) -> list[str]:
    notes: list[str] = []
    if options.frames is None and cost.video:
        notes.append("No --frames given: planned for 1 frame.")
    if options.frames is not None and options.frames > 1 and not cost.video:
        notes.append(f"{cost.title} makes single pictures: --frames is ignored.")
    if machine.source != "as given":
        notes.append(f"Memory: {machine.source}.")
    how = "measured" if cost.measured else "estimate, not measured"
    notes.append(f"{cost.title} memory ({how}): {cost.source.rstrip('.')}.")
    notes.append("Times are those of the card that was measured; another one differs.")
    if machine.total_bytes is not None:
        advice = _advice(machine)
        notes.append(f"This card's profile is {advice[0]}, with {advice[1]:g} GiB in reserve.")
    return notes


def _advice(machine: Machine) -> tuple[str, float]:
    """Profile and reserve in GiB for a card of this size."""
    total, free = machine.total_bytes, machine.free_bytes
    device = DeviceInfo("card", "cuda", total_bytes=total)
    got = recommend(DecodeContext(), device, Reading(total_bytes=total, free_bytes=free))
    return got.profile, got.reserved_vram_effective_gb


def _facts(context: DecodeContext, machine: Machine) -> dict[str, object]:
    return {
        "vae": context.family,
        "width": context.width,
        "height": context.height,
        "frames": context.frames if BY_FAMILY[context.family or ""].video else 1,
        "free_bytes": machine.free_bytes,
        "total_bytes": machine.total_bytes,
        "evictable_bytes": machine.evictable_bytes,
        "ram_bytes": machine.ram_bytes,
    }


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on, such as 720")
    return int(text)


def _size(text: str) -> int:
    """Bytes; a number so small that its unit was forgotten is refused."""
    try:
        size_bytes = parse_bytes(text)
    except SizeUnreadableError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except OverflowError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is more than any machine has") from error
    if 0 < size_bytes < MiB:
        raise argparse.ArgumentTypeError(
            f"{text!r} is {size_bytes} bytes; write the unit, for example 11GiB"
        )
    return size_bytes
