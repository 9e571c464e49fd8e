"""``bench.py monitor``: what the background monitor costs.

Four measurements, each in the process layout of real use (monitor thread, aiohttp loop, clients
in another process):

- CPU time of the monitor at 1 and 10 Hz as a share of one core (``getrusage`` of this process
  over the window, less the same window without a monitor);
- how late the server's event loop wakes a timer, with 0 and 64 streams open;
- age of a sample when a client on loopback has parsed it;
- memory after 24 hours of samples on a simulated clock.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
import time
import tracemalloc
from dataclasses import dataclass, replace
from multiprocessing import get_context
from statistics import median
from typing import TYPE_CHECKING

from aiohttp import ClientSession, ClientTimeout, web

from vram_supervisor.supervisor.http.routes import add_routes
from vram_supervisor.supervisor.jobs.tracker import JobTracker
from vram_supervisor.supervisor.service import Supervisor, build_supervisor
from vram_supervisor.supervisor.telemetry.allocator import TorchCounter
from vram_supervisor.supervisor.telemetry.peaks import PeakBook
from vram_supervisor.supervisor.telemetry.ring import EventRing
from vram_supervisor.supervisor.types import DeviceInfo, JobChange, Reading, Sample

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

STREAMS = 64
DELAY_PROBE_S = 0.005
HOURS = 24
TICKS_PER_HOUR = 36_000
NODE_TICKS, JOB_TICKS = 300, 3_000
IDLE_GOAL_PERCENT, BUSY_GOAL_PERCENT = 0.1, 0.5
DELAY_GOAL_MS, AGE_GOAL_MS, GROWTH_GOAL_MIB = 2.0, 50.0, 1.0


@dataclass(frozen=True)
class Row:
    """One line of the table. ``value`` and ``goal`` share the unit; goal None is no goal."""

    what: str
    figure: str
    value: float
    goal: float | None
    unit: str

    @property
    def met(self) -> bool:
        """The value is under its goal, or there is none."""
        return self.goal is None or self.value < self.goal

    def __str__(self) -> str:
        goal = "-" if self.goal is None else f"< {self.goal:g} {self.unit}"
        return f"| {self.what} | {self.figure} | {goal} | {'yes' if self.met else 'no'} |"


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cpu_seconds(window_s: float) -> float:
    """CPU time this process uses while the main thread sleeps, in seconds."""
    before = time.process_time()
    time.sleep(window_s)
    return time.process_time() - before


def monitor_cost(window_s: float, *, busy: bool) -> float:
    """Share of one core in percent that a running monitor takes."""
    baseline_s = cpu_seconds(window_s)
    supervisor = build_supervisor(None)
    supervisor.start()
    subscription = supervisor.open_stream(None, lambda: None) if busy else None
    try:
        cpu_seconds(2.0)  # imports, first readings
        used_s = cpu_seconds(window_s)
    finally:
        if subscription is not None:
            subscription.close()
        supervisor.stop()
    return 100.0 * (used_s - baseline_s) / window_s


async def loop_delays(window_s: float) -> list[float]:
    """How late the running loop wakes a 5 ms timer, in seconds, over the window."""
    delays: list[float] = []
    end = time.monotonic() + window_s
    while time.monotonic() < end:
        asked = time.monotonic()
        await asyncio.sleep(DELAY_PROBE_S)
        delays.append(time.monotonic() - asked - DELAY_PROBE_S)
    return delays


async def read_stream(session: ClientSession, url: str, until: float, ages: list[float]) -> None:
    """Read one stream until the given wall time; collects the age of each sample."""
    async with session.get(url) as response:
        event = b""
        async for line in response.content:
            if line.startswith(b"event:"):
                event = line[6:].strip()
            elif line.startswith(b"data:") and event == b"telemetry":
                taken_s = json.loads(line[5:])["time_s"]
                ages.append(time.time() - taken_s)
            if time.time() > until:
                return


async def client_main(url: str, streams: int, window_s: float) -> list[float]:
    """Open the streams and read them for the window; returns all sample ages in seconds."""
    ages: list[float] = []
    until = time.time() + window_s
    timeout = ClientTimeout(total=window_s + 30)
    async with ClientSession(timeout=timeout) as session:
        await asyncio.gather(*(read_stream(session, url, until, ages) for _ in range(streams)))
    return ages


def client_process(pipe: Connection, url: str, streams: int, window_s: float) -> None:
    """Entry point of the process that plays the clients."""
    pipe.send(asyncio.run(client_main(url, streams, window_s)))


async def serve_and_measure(
    supervisor: Supervisor, streams: int, window_s: float
) -> tuple[list[float], list[float]]:
    """Serve, let ``streams`` clients read; returns (loop delays, sample ages) in seconds."""
    routes = web.RouteTableDef()
    add_routes(routes, supervisor, versions={})
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    url = f"http://{host}:{port}/iamccs/hw_probe?stream=1"
    ages: list[float] = []
    try:
        if streams == 0:
            return await loop_delays(window_s), ages
        context = get_context("spawn")
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=client_process, args=(there, url, streams, window_s + 4))
        child.start()
        await asyncio.sleep(4)  # the child imports and connects outside the window
        delays = await loop_delays(window_s)
        ages = await asyncio.to_thread(here.recv)
        await asyncio.to_thread(child.join)
        return delays, ages
    finally:
        await runner.cleanup()


def stream_figures(window_s: float) -> tuple[list[float], list[float], list[float]]:
    """Loop delays without streams, with 64 streams, and the sample ages with 64 streams."""
    supervisor = build_supervisor(None)
    supervisor.start()
    # Held open in both runs, so that 10 Hz sampling is not what the difference shows.
    keep_busy = supervisor.open_stream(None, lambda: None)
    try:
        quiet, _ = asyncio.run(serve_and_measure(supervisor, 0, window_s))
        keep_busy.close()
        loaded, ages = asyncio.run(serve_and_measure(supervisor, STREAMS, window_s))
    finally:
        supervisor.stop()
    return quiet, loaded, ages


class SimulatedClock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def time_s(self) -> float:
        """Seconds since the epoch."""
        return self.now_s

    def monotonic_s(self) -> float:
        """The same figure."""
        return self.now_s


def day_of_samples() -> tuple[float, float]:
    """MiB of Python objects held after one hour and after 24 hours of 10 Hz samples.

    A job of ten nodes runs every five minutes, so rings, books and records all turn over.
    """
    clock = SimulatedClock()
    ring, book = EventRing(8192), PeakBook(TorchCounter(), clock)

    def publish(change: JobChange) -> None:
        ring.publish("job", change)

    tracker = JobTracker(clock, publish, book)
    device = DeviceInfo(key="cuda:0", kind="cuda", name="simulated", total_bytes=24 << 30)
    reading = Reading(total_bytes=24 << 30, used_bytes=8 << 30, free_bytes=16 << 30)
    sample = Sample(time_s=0, monotonic_s=0, device=device, reading=reading)
    held: list[float] = []
    tracemalloc.start()
    for tick in range(HOURS * TICKS_PER_HOUR):
        clock.now_s += 0.1
        if tick % JOB_TICKS == 0:
            tracker.start_job(f"job-{tick}")
        if tick % NODE_TICKS == 0:
            tracker.enter_node(str(tick // NODE_TICKS), "Node")
        fresh = replace(
            sample,
            time_s=clock.now_s,
            monotonic_s=clock.now_s,
            reading=replace(reading, used_bytes=(8 << 30) + tick),
            position=tracker.position(),
        )
        book.observe(fresh)
        ring.publish("telemetry", fresh)
        if (tick + 1) % NODE_TICKS == 0:
            tracker.leave_node(str(tick // NODE_TICKS))
        if (tick + 1) % JOB_TICKS == 0:
            tracker.end_job("success")
        if tick + 1 in (TICKS_PER_HOUR, HOURS * TICKS_PER_HOUR):
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0] / (1 << 20))
    tracemalloc.stop()
    return held[0], held[1]


def rows(window_s: float) -> list[Row]:
    """Run everything."""
    idle, busy = monitor_cost(window_s, busy=False), monitor_cost(window_s, busy=True)
    quiet, loaded, ages = stream_figures(window_s)
    quiet_ms, loaded_ms = (1e3 * percentile(values, 0.99) for values in (quiet, loaded))
    age_ms = 1e3 * percentile(ages, 0.99)
    hour, day = day_of_samples()
    added_ms = loaded_ms - quiet_ms
    return [
        Row("monitor at 1 Hz", f"{idle:.3f} %", idle, IDLE_GOAL_PERCENT, "% of one core"),
        Row("monitor at 10 Hz", f"{busy:.3f} %", busy, BUSY_GOAL_PERCENT, "% of one core"),
        Row("event-loop delay p99, 0 streams", f"{quiet_ms:.2f} ms", quiet_ms, None, "ms"),
        Row(
            f"event-loop delay p99, {STREAMS} streams",
            f"{loaded_ms:.2f} ms ({added_ms:+.2f})",
            added_ms,
            DELAY_GOAL_MS,
            "ms added",
        ),
        Row(
            f"sample to client p99, {STREAMS} streams",
            f"{age_ms:.1f} ms (median {1e3 * median(ages):.1f}, n={len(ages)})",
            age_ms,
            AGE_GOAL_MS,
            "ms",
        ),
        Row(
            "memory held after 24 h of samples",
            f"{day:.1f} MiB (after 1 h: {hour:.1f})",
            day - hour,
            GROWTH_GOAL_MIB,
            "MiB growth in 23 h",
        ),
    ]


def machine() -> str:
    """One line that names what the figures were taken on."""
    probes = build_supervisor(None)
    names = ", ".join(f"{d.key} {d.name or ''}".strip() for d in probes.devices)
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, devices: {names}"
    )


def main() -> int:
    """Command line; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description="Cost of the monitor")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each window")
    options = parser.parse_args()
    table = rows(options.seconds)
    print(f"Machine: {machine()}; windows of {options.seconds:g} s.\n")
    print("| what | figure | goal | met |\n|---|---|---|---|")
    print("\n".join(map(str, table)))
    return int(not all(row.met for row in table))


if __name__ == "__main__":
    sys.exit(main())
