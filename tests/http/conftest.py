"""A supervisor over scripted instruments, and a real server and client around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, web
from support.http_world import CPU, GPU, ListHistory, NoCounter, SilentProbe, listen

from vram_supervisor.supervisor.http.routes import add_routes, answering
from vram_supervisor.supervisor.http.stream import EventStreams
from vram_supervisor.supervisor.service import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from vram_supervisor.supervisor.types import DeviceInfo


@pytest.fixture
def make_supervisor() -> Callable[..., Supervisor]:
    """Not started: the test publishes into its ring what should happen, and when."""

    def make(
        devices: Sequence[DeviceInfo] = (GPU, CPU),
        history: ListHistory | None = None,
        **options: int,
    ) -> Supervisor:
        return Supervisor(
            probes=[SilentProbe(device) for device in devices],
            history=history or ListHistory(),
            counter=NoCounter(),
            **options,
        )

    return make


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., object]]:
    """``await serve(supervisor)`` gives the address of a real server on a free port."""
    runners: list[web.AppRunner] = []

    async def start(supervisor: Supervisor, **options: object) -> str:
        return await listen(routed_app(supervisor, **options), runners)

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def serve_and_stop() -> AsyncIterator[Callable[..., object]]:
    """``url, stop = await serve_and_stop(supervisor)`` for tests about the end of a server."""
    runners: list[web.AppRunner] = []

    async def start(supervisor: Supervisor) -> object:
        url = await listen(routed_app(supervisor), runners)
        return url, runners[-1].cleanup

    yield start
    for runner in runners:
        await runner.cleanup()


def routed_app(supervisor: Supervisor, **options: object) -> web.Application:
    routes = web.RouteTableDef()
    streams = add_routes(routes, supervisor, versions={"pack": "1"}, **options)
    app = web.Application()
    app.add_routes(routes)

    async def close_streams(_app: web.Application) -> None:
        streams.close()

    app.on_shutdown.append(close_streams)
    return app


@pytest.fixture
async def serve_streams() -> AsyncIterator[Callable[..., object]]:
    """``await serve_streams(supervisor, heartbeat_s=...)``: only the stream, at the root."""
    runners: list[web.AppRunner] = []

    async def start(supervisor: Supervisor, **options: float) -> str:
        streams = EventStreams(supervisor, **options)
        app = web.Application()
        app.router.add_get("/", answering(streams.serve))

        async def close_streams(_app: web.Application) -> None:
            streams.close()

        app.on_shutdown.append(close_streams)
        return await listen(app, runners)

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session
