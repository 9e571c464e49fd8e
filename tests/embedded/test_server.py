from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, web
from support.http_world import CPU, GPU, ListHistory, NoCounter, SilentProbe, listen, sample_at
from support.sse import read_message, read_until

from vram_supervisor.supervisor.embedded.decode_job import DecodeRequest
from vram_supervisor.supervisor.embedded.server import build_app, decode_request
from vram_supervisor.supervisor.errors import DecodeBusyError, QueryRejectedError
from vram_supervisor.supervisor.service import Supervisor
from vram_supervisor.supervisor.units import GiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DECODE = "/iamccs/embedded/decode"
PREVIEW = "/iamccs/embedded/preview.png"
WISH = {"width": 512, "height": 320, "frames": 17, "budget_gib": None}


class ScriptedJobs:
    """Stands in for the decoder: the test says where the job stands."""

    def __init__(self) -> None:
        self.started: list[DecodeRequest] = []
        self.start_thread: int | None = None
        self.state = "idle"
        self.measured: int | None = None
        self.png: bytes | None = None

    def start(self, request: DecodeRequest) -> str:
        self.start_thread = threading.get_ident()
        if self.state == "running":
            raise DecodeBusyError(self.job_id)
        self.started.append(request)
        self.state, self.measured = "running", None
        return self.job_id

    @property
    def job_id(self) -> str:
        return f"decode-{len(self.started)}"

    def finish(self, measured: int) -> None:
        self.state, self.measured = "done", measured

    def snapshot(self) -> dict[str, object]:
        return {
            "state": self.state,
            "job_id": self.job_id if self.started else None,
            "progress": 0.0,
            "tiles": [],
            "predicted_peak_bytes": 100 if self.started else None,
            "measured_peak_bytes": self.measured,
        }

    def preview_png(self) -> bytes | None:
        return self.png


@pytest.fixture
def jobs() -> ScriptedJobs:
    return ScriptedJobs()


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor(
        probes=[SilentProbe(GPU), SilentProbe(CPU)], history=ListHistory(), counter=NoCounter()
    )


@pytest.fixture
async def runners() -> AsyncIterator[list[web.AppRunner]]:
    started: list[web.AppRunner] = []
    yield started
    for runner in started:
        await runner.cleanup()


@pytest.fixture
async def url(supervisor: Supervisor, jobs: ScriptedJobs, runners: list[web.AppRunner]) -> str:
    # As the command line does it: before a loop runs, for it looks at the disk.
    return await listen(await asyncio.to_thread(build_app, supervisor, jobs), runners)


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


# --- pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "html"),
        ("/page.css", "css"),
        ("/page.js", "javascript"),
        ("/devices.js", "javascript"),
        ("/jobs.js", "javascript"),
        ("/decode.js", "javascript"),
        ("/web/lib/stream.js", "javascript"),
        ("/web/lib/timeline.js", "javascript"),
    ],
)
async def test_the_page_and_all_it_needs_is_served_locked_down(
    url: str, client: ClientSession, path: str, content_type: str
) -> None:
    async with client.get(url + path) as response:
        assert response.status == 200
        assert response.content_type.partition("/")[2] == content_type
        assert (await response.text()).strip()
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_nothing_outside_the_web_folder_is_served(url: str, client: ClientSession) -> None:
    for path in ("/web/%2e%2e/pyproject.toml", "/web/../pyproject.toml", "/server.py", "/web/"):
        async with client.get(url + path) as response:
            assert response.status in {403, 404}


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_every_route_has_its_api_twin(
    url: str, client: ClientSession, prefix: str, jobs: ScriptedJobs
) -> None:
    async with client.get(f"{url}{prefix}/iamccs/hw_probe") as response:
        versions = (await response.json())["versions"]
        assert versions["vram_supervisor"]
        assert versions["python"]
    async with client.get(f"{url}{prefix}/iamccs/supervisor/history") as response:
        assert (await response.json())["jobs"] == []
    async with client.get(f"{url}{prefix}{DECODE}") as response:
        assert (await response.json())["state"] == "idle"
    async with client.post(f"{url}{prefix}{DECODE}", json=WISH) as response:
        assert response.status == 202
    assert len(jobs.started) == 1


async def test_a_stream_carries_the_headers_and_ends_with_the_server(
    url: str, client: ClientSession, supervisor: Supervisor, runners: list[web.AppRunner]
) -> None:
    async with client.get(f"{url}/api/iamccs/hw_probe?stream=1") as response:
        assert response.headers["Cache-Control"] == "no-cache"
        assert "Content-Security-Policy" in response.headers
        await read_message(response)
        supervisor.ring.publish("telemetry", sample_at(1.0))
        assert (await read_until(response, "telemetry")).data["device"] == "cuda:0"
        await runners[0].cleanup()
        assert await read_message(response) is None


# --- who may ask ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8288", "LOCALHOST", "[::1]:8288"])
async def test_requests_addressed_to_this_machine_are_answered(
    url: str, client: ClientSession, host: str
) -> None:
    async with client.get(url + "/", headers={"Host": host}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8288", "127.0.0.1.evil.example", "localhost.", "[", ""]
)
@pytest.mark.parametrize("path", ["/", "/iamccs/hw_probe", "/iamccs/hw_probe?stream=1", DECODE])
async def test_a_name_that_was_pointed_at_this_machine_is_refused(
    url: str, client: ClientSession, host: str, path: str
) -> None:
    async with client.get(url + path, headers={"Host": host}) as response:
        assert response.status in {400, 403}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=["foreign", "opaque", "another port", "cross-site", "same-site"],
)
async def test_only_the_own_page_may_start_a_decode(
    url: str, client: ClientSession, jobs: ScriptedJobs, headers: dict[str, str]
) -> None:
    async with client.post(url + DECODE, json=WISH, headers=headers) as response:
        assert response.status == 403
    assert jobs.started == []


async def test_the_own_page_may_start_a_decode(
    url: str, client: ClientSession, jobs: ScriptedJobs
) -> None:
    headers = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
    wish = {**WISH, "budget_gib": 0.5}
    async with client.post(url + DECODE, json=wish, headers=headers) as response:
        assert response.status == 202
        assert (await response.json()) == {"job_id": "decode-1"}
    assert jobs.started == [DecodeRequest(512, 320, 17, GiB // 2)]
    assert jobs.start_thread != threading.get_ident(), "planning must not block the loop"


# --- the decode job ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**WISH, "width": "512"}, "width"),
        ({**WISH, "width": 0}, "width"),
        ({**WISH, "width": 16385}, "width"),
        ({**WISH, "height": -8}, "height"),
        ({**WISH, "height": 12.5}, "height"),
        ({**WISH, "frames": True}, "frames"),
        ({**WISH, "frames": None}, "frames"),
        ({**WISH, "frames": 100_001}, "frames"),
        ({"width": 8, "height": 8}, "frames"),
        ({**WISH, "budget_gib": 0}, "budget_gib"),
        ({**WISH, "budget_gib": -1}, "budget_gib"),
        ({**WISH, "budget_gib": "1"}, "budget_gib"),
        ({**WISH, "budget_gib": False}, "budget_gib"),
        ({**WISH, "budget_gib": float("nan")}, "budget_gib"),
        ({**WISH, "budget_gib": float("inf")}, "budget_gib"),
    ],
)
def test_a_bad_wish_names_its_field(body: dict[str, object], field: str) -> None:
    with pytest.raises(QueryRejectedError) as caught:
        decode_request(body)
    assert caught.value.field == field


def test_a_missing_budget_means_the_live_one() -> None:
    assert decode_request({"width": 8, "height": 8, "frames": 1}).budget_bytes is None


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b'{"width": 0, "height": 8, "frames": 1}', 400),
        ("application/json", b"{", 400),
        ("application/json", b"[]", 400),
        ("application/json", b"\xff\xfe", 400),
        ("text/plain", json.dumps(WISH).encode(), 400),
        ("application/json", b" " * 100_000, 413),
    ],
    ids=["bad field", "not JSON", "not an object", "not UTF-8", "a form's type", "too long"],
)
async def test_a_bad_request_starts_nothing(
    *,
    url: str,
    client: ClientSession,
    jobs: ScriptedJobs,
    content_type: str,
    body: bytes,
    status: int,
) -> None:
    headers = {"Content-Type": content_type}
    async with client.post(url + DECODE, data=body, headers=headers) as response:
        assert response.status == status
        if status == 400:
            assert (await response.json())["error"]["field"]
    assert jobs.started == []


async def test_one_decode_at_a_time(url: str, client: ClientSession, jobs: ScriptedJobs) -> None:
    async with client.post(url + DECODE, json=WISH) as response:
        assert response.status == 202
    async with client.post(url + DECODE, json=WISH) as response:
        assert response.status == 409
        assert "decode-1" in (await response.json())["error"]["message"]
    assert len(jobs.started) == 1


async def test_past_predictions_stay_known_beside_the_running_job(
    url: str, client: ClientSession, jobs: ScriptedJobs
) -> None:
    for measured in (90, 110):
        async with client.post(url + DECODE, json=WISH) as response:
            assert response.status == 202
        jobs.finish(measured)
    async with client.get(url + DECODE) as response:
        answer = await response.json()
    assert answer["state"] == "done"
    assert answer["results"] == [
        {"job_id": "decode-1", "predicted_peak_bytes": 100, "measured_peak_bytes": 90},
        {"job_id": "decode-2", "predicted_peak_bytes": 100, "measured_peak_bytes": 110},
    ]


async def test_the_preview_is_there_once_a_decode_is_done(
    url: str, client: ClientSession, jobs: ScriptedJobs
) -> None:
    async with client.get(url + PREVIEW) as response:
        assert response.status == 404
    jobs.png = b"\x89PNG"
    async with client.get(url + PREVIEW) as response:
        assert response.content_type == "image/png"
        assert await response.read() == b"\x89PNG"
