"""The cleanup route: who may ask, what may be asked, and never under a running job."""

import asyncio
import threading
from contextlib import nullcontext

import pytest
from support.http_world import listen
from support.prompt_world import Queue

from vram_supervisor.supervisor.errors import ForeignOriginError, QueryRejectedError
from vram_supervisor.supervisor.types import JobPosition

torch = pytest.importorskip("torch")
aiohttp = pytest.importorskip("aiohttp")

from support.card_world import Card, Patcher  # noqa: E402

from vram_supervisor.nodes.host.cleanup_route import (  # noqa: E402
    CLEANUP_PATH,
    Cleaner,
    CleanupWish,
    JobGate,
    add_cleanup_route,
    parse_wish,
    refuse_foreign,
)
from vram_supervisor.supervisor.units import MiB  # noqa: E402

HERE = "127.0.0.1:8188"


@pytest.mark.parametrize(
    ("sentence", "headers", "allowed"),
    [
        ("a program that is no browser", {}, True),
        ("a page of this server", {"Origin": f"http://{HERE}"}, True),
        ("behind a proxy that ends TLS", {"Origin": f"https://{HERE}"}, True),
        ("a newer browser", {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{HERE}"}, True),
        ("a page of another site", {"Origin": "http://evil.example"}, False),
        ("another port of this machine", {"Origin": "http://127.0.0.1:9999"}, False),
        ("a sandboxed frame", {"Origin": "null"}, False),
        ("an origin that is none", {"Origin": "http://["}, False),
        ("an empty origin", {"Origin": ""}, False),
        ("a newer browser on another site", {"Sec-Fetch-Site": "cross-site"}, False),
        ("a sister site", {"Sec-Fetch-Site": "same-site", "Origin": f"http://{HERE}"}, False),
    ],
)
def test_who_may_ask(sentence, headers, allowed):
    expected = nullcontext() if allowed else pytest.raises(ForeignOriginError, match="was changed")
    with expected:
        refuse_foreign({"Host": HERE, **headers})


@pytest.mark.parametrize(
    ("body", "wish"),
    [
        ({}, CleanupWish()),
        ({"unload_all_models": True}, CleanupWish(unload_all_models=True)),
        ({"soft_empty_cache": False, "free_bytes": 7}, CleanupWish(False, False, 7)),
        ({"free_bytes": None}, CleanupWish()),
    ],
)
def test_what_may_be_asked(body, wish):
    assert parse_wish(body) == wish


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ("text", "body"),
        ({"unload_all_models": "yes"}, "unload_all_models"),
        ({"unload_all_models": None}, "unload_all_models"),
        ({"soft_empty_cache": 1}, "soft_empty_cache"),
        ({"free_bytes": 0}, "free_bytes"),
        ({"free_bytes": -1}, "free_bytes"),
        ({"free_bytes": 1.5}, "free_bytes"),
        ({"free_bytes": True}, "free_bytes"),
        ({"free_bytes": "1 GiB"}, "free_bytes"),
        ({"unload": True}, "unload"),
    ],
)
def test_what_may_not_be_asked(body, field):
    with pytest.raises(QueryRejectedError) as caught:
        parse_wish(body)
    assert caught.value.field == field


class Server:
    """The route on a real server, its card, queue and gate."""

    def __init__(self, *patchers):
        self.card, self.queue, self.gate = Card(1000 * MiB, *patchers), Queue(), JobGate()
        self.position = JobPosition("job", "5", "KSampler")
        self.cleaner = Cleaner(
            self.card.memory, self.queue, self.gate.closed, lambda: self.position
        )

    async def start(self, runners):
        routes = aiohttp.web.RouteTableDef()
        add_cleanup_route(routes, self.cleaner)
        app = aiohttp.web.Application()
        app.add_routes(routes)
        self.url = await listen(app, runners)

    async def ask(self, body, **how):
        url = self.url + CLEANUP_PATH
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json=body, **how) as answer,
        ):
            return answer.status, await answer.json()


@pytest.fixture
async def serve():
    runners = []

    async def start(*patchers):
        server = Server(*patchers)
        await server.start(runners)
        return server

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_all_models_are_unloaded_between_jobs(serve):
    server = await serve(Patcher("A", 900 * MiB))
    status, answer = await server.ask({"unload_all_models": True})
    assert (status, answer["cache_emptied"]) == (200, True)
    assert answer["eviction"]["freed_bytes"] == 900 * MiB
    assert server.card.loaded() == []


async def test_so_much_is_freed_as_is_asked(serve):
    server = await serve(Patcher("A", 900 * MiB))
    _, answer = await server.ask({"free_bytes": 300 * MiB})
    assert answer["eviction"]["freed_bytes"] == 200 * MiB
    assert answer["eviction"]["reached"] is True


async def test_without_a_wish_only_the_cache_is_emptied(serve):
    server = await serve(Patcher("A", 900 * MiB))
    assert await server.ask({}) == (200, {"cache_emptied": True, "eviction": None})
    assert (server.card.emptied, server.card.patchers[0].loaded) == (1, 900 * MiB)


async def test_more_than_the_device_has_is_refused(serve):
    server = await serve()
    status, answer = await server.ask({"free_bytes": 1 << 60})
    assert (status, answer["error"]["field"]) == (400, "free_bytes")
    assert "Nothing was changed" in answer["error"]["message"]
    assert server.card.emptied == 0


async def test_nothing_is_taken_from_a_running_job(serve):
    server = await serve(Patcher("A", 900 * MiB))
    server.queue.running = [(1, "job", {}, {}, [])]
    status, answer = await server.ask({"unload_all_models": True})
    assert (status, server.card.loaded()) == (409, ["A"])
    assert answer["error"]["message"].startswith("Node 5 (KSampler) of job job runs")
    server.position = JobPosition()
    _, answer = await server.ask({})
    assert answer["error"]["message"].startswith("Job job runs")


async def test_other_sites_are_refused(serve):
    server = await serve(Patcher("A", 900 * MiB))
    status, _ = await server.ask({"unload_all_models": True}, headers={"Origin": "http://evil"})
    assert (status, server.card.loaded()) == (403, ["A"])


@pytest.mark.parametrize(
    ("data", "content_type", "field"),
    [
        (b"{}", "text/plain", "Content-Type"),
        (b"unload_all_models=1", "application/x-www-form-urlencoded", "Content-Type"),
        (b"{", "application/json", "body"),
        (b"[" * 5000, "application/json", "body"),
        (b"[" * 4000, "application/json", "body"),
        (b"\xff", "application/json", "body"),
    ],
)
async def test_a_body_that_is_no_json_is_refused(serve, data, content_type, field):
    server = await serve()
    headers = {"Content-Type": content_type}
    async with aiohttp.ClientSession() as session:
        url = server.url + CLEANUP_PATH
        async with session.post(url, data=data, headers=headers) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["field"] == field


async def test_a_job_that_starts_meanwhile_waits_until_memory_is_clean(serve):
    server = await serve(Patcher("A", 900 * MiB))
    cleaning, at_the_gate, go_on = threading.Event(), threading.Event(), threading.Event()
    order = []

    def unload():
        cleaning.set()
        go_on.wait()
        order.append("clean")

    server.card.management.unload_all_models = unload

    def job():
        at_the_gate.set()
        server.gate.wait()
        order.append("job")

    asked = asyncio.create_task(server.ask({"unload_all_models": True}))
    await asyncio.to_thread(cleaning.wait)
    starting = asyncio.create_task(asyncio.to_thread(job))
    await asyncio.to_thread(at_the_gate.wait)
    _, waiting = await asyncio.wait({starting}, timeout=0.1)
    assert waiting, "the job waits at the gate"
    go_on.set()
    await asyncio.gather(asked, starting)
    assert order == ["clean", "job"]
