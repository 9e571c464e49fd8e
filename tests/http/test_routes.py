from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiohttp import ClientSession, web
from support.http_world import ListHistory

from vram_supervisor.supervisor.http.routes import HISTORY_PATH, PROBE_PATH, add_routes
from vram_supervisor.supervisor.service import Supervisor
from vram_supervisor.supervisor.types import JobRecord, NodeRecord, Peak

Make = Callable[..., Supervisor]
Serve = Callable[..., Awaitable[str]]


async def test_the_probe_answers_json_that_is_never_cached(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    url = await serve(make_supervisor())
    async with client.get(url + PROBE_PATH, params={"width": "640", "height": "480"}) as response:
        report = await response.json()
    assert response.status == 200
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert report["recommendations"]["vae_decode"]["context"]["width"] == 640
    assert report["versions"] == {"pack": "1"}
    assert report["stream"]["last_event_id"].endswith("-0")


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        (PROBE_PATH, "width=abc", "width"),
        (PROBE_PATH, "height=-3", "height"),
        (PROBE_PATH, "frames=NaN", "frames"),
        (PROBE_PATH, "fps=241", "fps"),
        (PROBE_PATH, "vae=nope", "vae"),
        (PROBE_PATH, "width=1&width=1", "width"),
        (PROBE_PATH, "width=%D9%A1", "width"),
        (PROBE_PATH, "width=%FF%FE", "width"),
        (PROBE_PATH, "stream=1&frames=100001", "frames"),
        (PROBE_PATH, "stream=perhaps", "stream"),
        (HISTORY_PATH, "limit=1001", "limit"),
        (HISTORY_PATH, "limit=1&limit=2", "limit"),
    ],
)
async def test_bad_input_is_a_400_that_names_the_field(
    *,
    make_supervisor: Make,
    serve: Serve,
    client: ClientSession,
    path: str,
    query: str,
    field: str,
) -> None:
    url = await serve(make_supervisor())
    async with client.get(f"{url}{path}?{query}") as response:
        answer = await response.json()
    assert response.status == 400
    assert answer["error"]["field"] == field
    assert field in answer["error"]["message"]
    async with client.get(url + PROBE_PATH) as response:
        assert response.status == 200, "a refusal changes nothing for the next one"


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [PROBE_PATH, HISTORY_PATH])
async def test_other_methods_are_405(
    make_supervisor: Make, serve: Serve, client: ClientSession, method: str, path: str
) -> None:
    url = await serve(make_supervisor())
    async with client.request(method, url + path) as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]


async def test_history_lists_peaks_by_job_and_node(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    node = NodeRecord("7", "VAEDecode", 1.0, 2.0, (Peak("cuda:0", torch_bytes=9),))
    records = [
        JobRecord(f"job-{index}", index, index + 1, "success", (node,)) for index in range(5)
    ]
    url = await serve(make_supervisor(history=ListHistory(records, "disk full")))
    async with client.get(url + HISTORY_PATH, params={"limit": "2"}) as response:
        answer = await response.json()
    assert [job["job_id"] for job in answer["jobs"]] == ["job-0", "job-1"]
    assert answer["jobs"][0]["nodes"][0]["peaks"][0]["torch_bytes"] == 9
    assert answer["problem"] == "disk full"
    async with client.get(url + HISTORY_PATH, params={"job_id": "job-4"}) as response:
        assert [job["job_id"] for job in (await response.json())["jobs"]] == ["job-4"]
    async with client.get(url + HISTORY_PATH, params={"job_id": "none such"}) as response:
        assert (await response.json())["jobs"] == []


async def test_history_is_read_off_the_event_loop(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    class Spy(ListHistory):
        thread: int | None = None

        def jobs(self, limit: int, job_id: str | None = None) -> Sequence[JobRecord]:
            self.thread = threading.get_ident()
            return []

    spy = Spy()
    url = await serve(make_supervisor(history=spy))
    async with client.get(url + HISTORY_PATH) as response:
        assert response.status == 200
    assert spy.thread not in {None, threading.get_ident()}


def test_the_host_can_repeat_every_route_for_its_api_twin(make_supervisor: Make) -> None:
    """ComfyUI calls the decorator again with the route's keyword arguments, which must be none."""
    routes = web.RouteTableDef()
    add_routes(routes, make_supervisor(), versions={})
    assert {(route.method, route.path) for route in routes} == {
        ("GET", PROBE_PATH),
        ("GET", HISTORY_PATH),
    }
    assert all(not route.kwargs for route in routes)
