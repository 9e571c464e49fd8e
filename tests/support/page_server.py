"""Servers on a thread of their own, for tests that drive a browser; the embedded host is one."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING

from aiohttp import web

from vram_supervisor.supervisor.embedded.server import build_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware
    from playwright.sync_api import Page

    from vram_supervisor.supervisor.embedded.decode_job import DecodeJobs
    from vram_supervisor.supervisor.service import Supervisor


class ThreadedServer:
    """On a port of its own; it can be stopped and started again there. Counts requests."""

    def __init__(self, make_app: Callable[[], web.Application], shutdown_s: float = 60.0) -> None:
        self._make_app, self._shutdown_s = make_app, shutdown_s
        self.requests: Counter[str] = Counter()
        self.port = 0
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], None] = lambda: None

    def start(self) -> None:
        ready = threading.Event()
        app = self._make_app()
        app.middlewares.append(self._counting())
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(app, ready)))
        self._thread.start()
        assert ready.wait(20), "the server did not start"

    def stop(self) -> None:
        if self._thread is not None:
            self._stop()
            self._thread.join(20)
            assert not self._thread.is_alive(), "the server did not stop"
            self._thread = None

    async def _serve(self, app: web.Application, ready: threading.Event) -> None:
        runner = web.AppRunner(app, shutdown_timeout=self._shutdown_s)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = runner.addresses[0][1]
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        ready.set()
        await stopped.wait()
        await runner.cleanup()

    def _counting(self) -> Middleware:
        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.requests[request.path] += 1
            return await handler(request)

        return count


class PageServer(ThreadedServer):
    """Serves the embedded page."""

    def __init__(self, supervisor: Supervisor, jobs: DecodeJobs) -> None:
        super().__init__(lambda: build_app(supervisor, jobs))
        self.supervisor, self.jobs = supervisor, jobs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


def set_visibility(page: Page, state: str) -> None:
    """What the browser does when the tab goes to the back or the front."""
    page.evaluate(
        """state => {
          Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )


def wait_for_samples(supervisor: Supervisor, count: int) -> None:
    """Until the supervisor has taken so many more samples."""
    arrived = threading.Semaphore(0)
    follower = supervisor.ring.subscribe(None, arrived.release)
    seen = 0
    while seen < count:
        assert arrived.acquire(timeout=20), "no samples are taken"
        seen += len(follower.take(count)[0])
    follower.close()
