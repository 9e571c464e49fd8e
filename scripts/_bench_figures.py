"""``bench.py figures``: the monitor's figures next to nvidia-smi, under known loads.

Each situation is set up with torch, then the monitor and ``nvidia-smi`` are asked in turn.
Needs a CUDA device.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import torch

from vram_supervisor.supervisor.service import build_supervisor
from vram_supervisor.supervisor.telemetry.probes.discover import discover_probes
from vram_supervisor.supervisor.units import GiB, MiB

if TYPE_CHECKING:
    from collections.abc import Callable

    from vram_supervisor.supervisor.ports import Probe
    from vram_supervisor.supervisor.types import Reading

SLOW_FIGURES_S = 0.6
OTHER_PROCESS = """
import sys, torch
held = torch.zeros(2 << 30, dtype=torch.uint8, device="cuda")
torch.cuda.synchronize()
print("ready", flush=True)
sys.stdin.read()
"""


def nvidia_smi(uuid: str) -> dict[str, float]:
    """What nvidia-smi says of the device: MiB, percent, degrees, watts."""
    fields = ("memory.total", "memory.used", "memory.free", "temperature.gpu", "power.draw")
    done = subprocess.run(
        [
            "nvidia-smi",
            f"--query-gpu={','.join(fields)}",
            "--format=csv,noheader,nounits",
            "-i",
            uuid,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(fields, map(float, done.stdout.strip().split(",")), strict=True))


def mib(value: int | None) -> str:
    """Whole MiB, a dash when unknown."""
    return "-" if value is None else f"{value / MiB:.0f}"


def line(what: str, probe: Probe) -> str:
    """One row: the monitor's reading and nvidia-smi's, taken back to back."""
    probe.read()
    time.sleep(SLOW_FIGURES_S)  # temperature, power and process list are read twice a second
    reading: Reading = probe.read()
    smi = nvidia_smi(probe.device.uuid or "0")
    difference = abs((reading.used_bytes or 0) / MiB - smi["memory.used"])
    return (
        f"| {what} | {mib(reading.used_bytes)} | {smi['memory.used']:.0f} | {difference:.0f} "
        f"| {mib(reading.total_bytes)} | {smi['memory.total']:.0f} "
        f"| {mib(reading.torch_allocated_bytes)} | {mib(reading.torch_reserved_bytes)} "
        f"| {mib(reading.outside_torch_bytes)} | {mib(reading.process_bytes)} "
        f"| {mib(reading.external_bytes)} "
        f"| {reading.temperature_c or '-'} / {smi['temperature.gpu']:.0f} "
        f"| {reading.power_w or '-'} / {smi['power.draw']:.0f} |"
    )


def situations() -> list[tuple[str, Callable[[], object]]]:
    """Name and set-up of each load; what a set-up returns is kept alive."""

    def tensors() -> object:
        return torch.zeros(4 * GiB, dtype=torch.uint8, device="cuda")

    def cached() -> object:
        held = torch.zeros(3 * GiB, dtype=torch.uint8, device="cuda")
        del held
        return None

    def other() -> object:
        child = subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout is not None  # noqa: S101
        child.stdout.readline()
        return child

    return [
        ("context only", lambda: torch.zeros(1, device="cuda")),
        ("4 GiB in tensors", tensors),
        ("plus 3 GiB cached by torch", cached),
        ("plus 2 GiB in another process", other),
    ]


def main() -> int:
    """Command line; exit code 1 without CUDA."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device here; nothing was measured.", file=sys.stderr)
        return 1
    torch.cuda.init()
    probe = next(p for p in discover_probes() if p.device.key == "cuda:0")
    supervisor = build_supervisor(None)
    print(f"Device: {probe.device.name}, torch {torch.__version__}, all memory in MiB.")
    print(f"Devices seen: {', '.join(d.key for d in supervisor.devices)}\n")
    print(
        "| situation | used | nvidia-smi used | differ | total | nvidia-smi total "
        "| torch allocated | torch reserved | outside torch | this process | external "
        "| deg C / smi | W / smi |"
    )
    print("|---" * 13 + "|")
    kept: list[tuple[str, object]] = [(line("before any CUDA context", probe), None)]
    for what, set_up in situations():
        held = set_up()
        torch.cuda.synchronize()
        kept.append((line(what, probe), held))
    for text, held in kept:
        print(text)
        if isinstance(held, subprocess.Popen) and held.stdin is not None:
            held.stdin.close()
            held.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
