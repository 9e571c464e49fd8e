"""``bench.py ui``: what the panel costs the browser.

Debian's Chromium opens the panel over a real supervisor with two made-up devices sampled at
10 Hz, served by a real aiohttp server:

- time to the panel's first frame, and to its first figures;
- share of one core that the page's main thread takes, from Chromium's own counters over the
  window;
- the most script in any frame: event handlers and animation callbacks between two frames;
- heap, nodes and listeners over 30 minutes of samples fed faster than real time;
- requests while the page is hidden.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import platform
import shutil
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from playwright.sync_api import sync_playwright

from vram_supervisor.supervisor.http.routes import add_routes
from vram_supervisor.supervisor.service import Supervisor
from vram_supervisor.supervisor.telemetry.allocator import TorchCounter
from vram_supervisor.supervisor.telemetry.history import MemoryHistory
from vram_supervisor.supervisor.types import DeviceInfo, Reading
from vram_supervisor.supervisor.units import GiB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from playwright.sync_api import CDPSession, Page

HERE = Path(__file__).resolve().parent
WEB = HERE.parent / "web"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
TICKS_PER_MINUTE = 600
MINUTES = 30
WARM_MINUTES = 3
MIB = 2**20


@dataclass(frozen=True)
class Row:
    """One line of the table; goal None is no goal."""

    what: str
    value: float
    unit: str
    goal: float | None = None


class WavingProbe:
    """A device of 24 GiB whose use goes up and down."""

    def __init__(self, index: int) -> None:
        self.device = DeviceInfo(
            f"cuda:{index}", "cuda", name=f"Made-up card {index}", total_bytes=24 * GiB
        )
        self._shift = index

    def read(self) -> Reading:
        """Another figure each time."""
        share = 0.45 + 0.3 * math.sin(time.monotonic() + self._shift)
        used = int(24 * GiB * share)
        return Reading(
            total_bytes=24 * GiB,
            used_bytes=used,
            free_bytes=24 * GiB - used,
            torch_allocated_bytes=used // 2,
            torch_reserved_bytes=used // 2,
            outside_torch_bytes=used // 8,
            external_bytes=used - used // 2 - used // 8,
            utilization_percent=50.0,
            temperature_c=60.0,
            power_w=200.0,
        )

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Site:
    """The page, the modules and the real routes, on a thread of its own. Counts requests."""

    supervisor: Supervisor
    requests: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def start(self) -> None:
        """Serve until the process ends."""
        ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        thread.start()
        ready.wait()

    async def _serve(self, ready: threading.Event) -> None:
        @web.middleware
        async def counting(
            request: web.Request,
            handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        ) -> web.StreamResponse:
            self.requests[request.path] += 1
            return await handler(request)

        routes = web.RouteTableDef()
        add_routes(routes, self.supervisor, versions={})
        app = web.Application(middlewares=[counting])
        app.add_routes(routes)
        app.router.add_static("/web", WEB)
        app.router.add_get("/", self._page)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        ready.set()
        await asyncio.Event().wait()

    async def _page(self, request: web.Request) -> web.FileResponse:
        del request
        return web.FileResponse(HERE / "_bench_ui.html")


def main() -> int:
    """Measure and print the table; 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="bench.py ui", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="window for the live figures")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        parser.error("no Chromium: install Debian's package chromium")
    supervisor = Supervisor(
        probes=[WavingProbe(0), WavingProbe(1)], history=MemoryHistory(), counter=TorchCounter()
    )
    site = Site(supervisor)
    site.start()
    supervisor.start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        rows = [*live(page, site, options.seconds), *simulated(page, site)]
        version = browser.version
        browser.close()
    supervisor.stop()
    show(rows, version)
    return int(any(row.goal is not None and row.value > row.goal for row in rows))


def live(page: Page, site: Site, seconds: float) -> list[Row]:
    """The panel over the real stream."""
    opened(page, site)
    cdp = page.context.new_cdp_session(page)
    cdp.send("Performance.enable")
    first = page.evaluate("() => window.bench.open()")
    page.wait_for_timeout(2000)
    before = metrics(cdp)
    page.wait_for_timeout(seconds * 1000)
    after = metrics(cdp)
    window_s = after["Timestamp"] - before["Timestamp"]
    task = 100 * (after["TaskDuration"] - before["TaskDuration"]) / window_s
    script = 100 * (after["ScriptDuration"] - before["ScriptDuration"]) / window_s
    page.evaluate("() => window.bench.watchFrames()")
    page.wait_for_timeout(seconds * 1000)
    longest = page.evaluate("() => window.bench.frames.longest")
    return [
        Row("first frame of the panel", first["painted"], "ms", 200),
        Row("first figures in the panel", first["figures"], "ms"),
        Row("main thread at 10 Hz, 2 devices: all tasks", task, "% of a core", 2),
        Row("of that, script", script, "% of a core"),
        Row("most script in a frame", longest, "ms", 8),
        Row("requests in 5 s while hidden", hidden(page, site), "", 0),
    ]


def hidden(page: Page, site: Site) -> int:
    """Requests of a hidden page, the stream that was open before not counted."""
    page.evaluate(
        """() => {
          Object.defineProperty(document, "visibilityState", {value: "hidden", configurable: true});
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    page.wait_for_timeout(500)
    before = site.requests.total()
    page.wait_for_timeout(5000)
    return site.requests.total() - before


def simulated(page: Page, site: Site) -> list[Row]:
    """30 minutes of samples and jobs in a fresh page."""
    opened(page, site)
    cdp = page.context.new_cdp_session(page)
    page.evaluate("() => { window.feed = window.bench.simulated(); }")
    page.evaluate("async () => { window.report = await (await fetch('/iamccs/hw_probe')).json(); }")
    feed(page, 0, WARM_MINUTES)
    before = held(cdp)
    feed(page, WARM_MINUTES, MINUTES)
    after = held(cdp)
    return [
        Row(f"heap after {WARM_MINUTES} minutes", before["heap"] / MIB, "MiB"),
        Row(f"heap after {MINUTES} minutes", after["heap"] / MIB, "MiB"),
        Row("growth of the heap", (after["heap"] - before["heap"]) / MIB, "MiB", 1),
        Row("more nodes", after["nodes"] - before["nodes"], "", 200),
        Row("more listeners", after["listeners"] - before["listeners"], "", 80),
    ]


def feed(page: Page, first: int, last: int) -> None:
    """A minute at a time, from one minute to another."""
    for minute in range(first, last):
        page.evaluate(
            "([from, count]) => window.feed(window.report, from, count)",
            [minute * TICKS_PER_MINUTE, TICKS_PER_MINUTE],
        )


def held(cdp: CDPSession) -> dict[str, float]:
    """What is left after collecting garbage."""
    for _ in range(3):
        cdp.send("HeapProfiler.collectGarbage")
    counters: dict[str, Any] = cdp.send("Memory.getDOMCounters")
    usage: dict[str, Any] = cdp.send("Runtime.getHeapUsage")
    return {
        "heap": usage["usedSize"],
        "nodes": counters["nodes"],
        "listeners": counters["jsEventListeners"],
    }


def metrics(cdp: CDPSession) -> dict[str, float]:
    """Chromium's own counters, seconds."""
    answer: dict[str, Any] = cdp.send("Performance.getMetrics")
    return {each["name"]: each["value"] for each in answer["metrics"]}


def opened(page: Page, site: Site) -> None:
    """The bench's page, its modules loaded."""
    page.goto(f"http://127.0.0.1:{site.port}/")
    page.wait_for_function("() => window.ready")


def show(rows: list[Row], version: str) -> None:
    """The table."""
    sys.stdout.write(f"Chromium {version}, {platform.machine()}, no GPU.\n\n")
    sys.stdout.write("| what | measured | goal |\n|---|---|---|\n")
    for row in rows:
        goal = "" if row.goal is None else f"at most {row.goal:g} {row.unit}".strip()
        sys.stdout.write(f"| {row.what} | {row.value:.3g} {row.unit} | {goal} |\n")


if __name__ == "__main__":
    raise SystemExit(main())
