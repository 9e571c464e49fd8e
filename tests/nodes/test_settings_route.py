"""The settings route: what it tells, and who may change what."""

from types import SimpleNamespace

import pytest

aiohttp = pytest.importorskip("aiohttp")
from support.http_world import listen  # noqa: E402

from vram_supervisor.nodes.host.preferences import PreferenceBook  # noqa: E402
from vram_supervisor.nodes.host.settings_route import (  # noqa: E402
    SETTINGS_PATH,
    add_settings_route,
)


@pytest.fixture
async def server(tmp_path):
    book = PreferenceBook(tmp_path / "settings.json", {})
    routes = aiohttp.web.RouteTableDef()
    add_settings_route(routes, book)
    app = aiohttp.web.Application()
    app.add_routes(routes)
    runners = []
    address = await listen(app, runners)
    async with aiohttp.ClientSession() as session:
        yield SimpleNamespace(book=book, url=f"{address}{SETTINGS_PATH}", session=session)
    for runner in runners:
        await runner.cleanup()


async def answer(call):
    async with call as response:
        return response.status, await response.json()


async def test_it_tells_what_holds_and_what_each_may_be(server):
    status, told = await answer(server.session.get(server.url))
    assert status == 200
    assert told == server.book.as_dict() | {"fields": told["fields"]}
    assert told["settings"]["sampling_rate_hz"] == 10
    assert told["fields"]["default_quality"]["choices"] == ["exact", "balanced", "fast"]
    assert "min" not in told["fields"]["protect_vae_decode"]


async def test_a_change_is_answered_with_what_holds_now(server):
    status, told = await answer(server.session.post(server.url, json={"history_days": 7}))
    assert (status, told["settings"]["history_days"]) == (200, 7)
    assert server.book.now.history_days == 7


@pytest.mark.parametrize(
    ("sentence", "how", "status", "words"),
    [
        ("a value that cannot be", {"json": {"history_days": 0}}, 400, "history_days is not"),
        ("no object", {"json": [1]}, 400, "body is not a JSON object"),
        ("no JSON", {"data": "{", "headers": {"Content-Type": "application/json"}}, 400, "JSON"),
        ("a form", {"data": {"history_days": "7"}}, 400, "Content-Type is not"),
        ("a foreign page", {"json": {}, "headers": {"Origin": "http://evil.example"}}, 403, "evil"),
    ],
)
async def test_what_is_refused_changes_nothing(server, sentence, how, status, words):
    before = server.book.now
    got, told = await answer(server.session.post(server.url, **how))
    assert got == status, sentence
    assert words in told["error"]["message"]
    assert server.book.now is before
