from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, ClientTimeout
from support.http_world import BUSY_READING, sample_at
from support.sse import Message, read_message, read_until

from vram_supervisor.supervisor.http.routes import PROBE_PATH
from vram_supervisor.supervisor.http.stream import EventEncoder
from vram_supervisor.supervisor.service import Supervisor
from vram_supervisor.supervisor.types import (
    Event,
    JobChange,
    JobPosition,
    JobRecord,
    Reading,
)

Make = Callable[..., Supervisor]
Serve = Callable[..., Awaitable[str]]
STREAM = f"{PROBE_PATH}?stream=1"


async def opened(response) -> None:
    """The stream's first block: from here on the client is subscribed."""
    message = await read_message(response)
    assert message == Message(retry_ms=2000)


def publish(supervisor: Supervisor, count: int, start: int = 0, **position: str) -> None:
    for index in range(start, start + count):
        supervisor.ring.publish("telemetry", sample_at(float(index), **position))


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (STREAM, {}),
        (PROBE_PATH + "?stream=true", {}),
        (PROBE_PATH, {"Accept": "text/event-stream"}),
    ],
    ids=["stream=1", "stream=true", "Accept"],
)
async def test_samples_and_job_changes_arrive_in_order(
    make_supervisor: Make, serve: Serve, client: ClientSession, path: str, headers: dict[str, str]
) -> None:
    supervisor = make_supervisor()
    url = await serve(supervisor)
    async with client.get(url + path, headers=headers) as response:
        assert response.content_type == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Access-Control-Allow-Origin" not in response.headers
        await opened(response)
        position = JobPosition("j", "3", "KSampler")
        supervisor.ring.publish("job", JobChange(1.0, "start", JobPosition("j")))
        supervisor.ring.publish("telemetry", sample_at(2.0, job_id="j", node_id="3"))
        supervisor.ring.publish("job", JobChange(3.0, "node", position))
        record = JobRecord("j", 1.0, 4.0, "success")
        supervisor.ring.publish("job", JobChange(4.0, "end", JobPosition("j"), record))
        messages = [await read_message(response) for _ in range(4)]
    assert [message.event for message in messages] == ["job", "telemetry", "job", "job"]
    assert messages[1].data["reading"]["used_bytes"] == BUSY_READING.used_bytes
    assert messages[1].data["job_id"] == "j"
    assert messages[2].data["node_type"] == "KSampler"
    assert messages[3].data["record"]["status"] == "success"
    sequences = [int(message.id.split("-")[1]) for message in messages]
    assert sequences == [1, 2, 3, 4]


async def test_a_slow_client_gets_a_sample_a_second_and_hurries_nobody(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    supervisor = make_supervisor()
    url = await serve(supervisor)
    async with client.get(f"{url}/iamccs/hw_probe?stream=1&slow=1") as response:
        await opened(response)
        assert supervisor.health()["streams"] == 1
        assert supervisor.health()["rate_hz"] == 1.0
        for tenth in range(12):
            supervisor.ring.publish("telemetry", sample_at(100.0 + tenth / 10))
        supervisor.ring.publish("job", JobChange(3.0, "start", JobPosition("j")))
        messages = [await read_message(response) for _ in range(3)]
    assert [message.event for message in messages] == ["telemetry", "telemetry", "job"]
    assert [message.data["time_s"] for message in messages[:2]] == [100.0, 101.0]


async def test_slow_is_yes_or_no(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    url = await serve(make_supervisor())
    async with client.get(f"{url}/iamccs/hw_probe?stream=1&slow=often") as response:
        assert response.status == 400
        assert (await response.json())["error"]["field"] == "slow"


async def test_figures_json_cannot_write_reach_the_client_as_null(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    supervisor = make_supervisor()
    url = await serve(supervisor)
    async with client.get(url + STREAM) as response:
        await opened(response)
        supervisor.ring.publish("telemetry", sample_at(1.0, Reading(power_w=float("nan"))))
        message = await read_until(response, "telemetry")
    assert message.data["reading"]["power_w"] is None


@pytest.mark.parametrize("carrier", ["header", "query"])
async def test_a_client_resumes_after_the_last_event_it_saw(
    make_supervisor: Make, serve: Serve, client: ClientSession, carrier: str
) -> None:
    supervisor = make_supervisor()
    url = await serve(supervisor)
    async with client.get(url + STREAM) as response:
        await opened(response)
        publish(supervisor, 2)
        await read_message(response)
        seen = (await read_message(response)).id
    publish(supervisor, 3, start=2)
    headers = {"Last-Event-ID": seen} if carrier == "header" else {}
    extra = "" if carrier == "header" else f"&last_event_id={seen}"
    async with client.get(url + STREAM + extra, headers=headers) as response:
        await opened(response)
        resumed = [(await read_message(response)).data["time_s"] for _ in range(3)]
    assert resumed == [2.0, 3.0, 4.0]


async def test_the_reconnect_header_is_newer_than_the_address(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    supervisor = make_supervisor()
    url = await serve(supervisor)
    publish(supervisor, 5)
    async with client.get(url + PROBE_PATH) as response:
        epoch = (await response.json())["stream"]["last_event_id"].split("-")[0]
    async with client.get(
        f"{url}{STREAM}&last_event_id={epoch}-1", headers={"Last-Event-ID": f"{epoch}-4"}
    ) as response:
        await opened(response)
        assert (await read_message(response)).data["time_s"] == 4.0


@pytest.mark.parametrize(
    "stale",
    [
        "ffffffff-1",
        "{epoch}-999999",
        "1",
        "nonsense",
        "{epoch}-",
        "{epoch}--1",
        "{epoch}-1e3",
        "x" * 5000,
    ],
    ids=["another life", "the future", "no epoch", "words", "no number", "negative", "1e3", "long"],
)
async def test_an_id_that_is_not_of_this_life_starts_at_the_newest(
    make_supervisor: Make, serve: Serve, client: ClientSession, stale: str
) -> None:
    supervisor = make_supervisor()
    url = await serve(supervisor)
    publish(supervisor, 3)
    async with client.get(url + PROBE_PATH) as response:
        epoch = (await response.json())["stream"]["last_event_id"].split("-")[0]
    headers = {"Last-Event-ID": stale.replace("{epoch}", epoch)}
    async with client.get(url + STREAM, headers=headers) as response:
        await opened(response)
        publish(supervisor, 1, start=100)
        message = await read_message(response)
    assert (message.event, message.data["time_s"]) == ("telemetry", 100.0)


async def test_two_servers_draw_different_epochs(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    ids = []
    for _ in range(2):
        async with client.get(await serve(make_supervisor()) + PROBE_PATH) as response:
            ids.append((await response.json())["stream"]["last_event_id"])
    assert ids[0] != ids[1]


async def test_resuming_past_the_rings_memory_tells_how_much_was_lost(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    supervisor = make_supervisor(ring_capacity=16)
    url = await serve(supervisor)
    async with client.get(url + PROBE_PATH) as response:
        start = (await response.json())["stream"]["last_event_id"]
    publish(supervisor, 100)
    async with client.get(url + STREAM, headers={"Last-Event-ID": start}) as response:
        await opened(response)
        dropped = await read_message(response)
        first = await read_message(response)
    assert (dropped.event, dropped.data, dropped.id) == ("dropped", {"count": 84}, None)
    assert first.data["time_s"] == 84.0


async def test_a_slow_client_loses_samples_and_the_server_no_memory(
    make_supervisor: Make, serve: Serve
) -> None:
    """It stops reading until the kernel's buffers are full; the ring turns over meanwhile."""
    supervisor = make_supervisor(ring_capacity=64)
    url = urlsplit(await serve(supervisor))
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, (url.hostname, url.port))
        request = f"GET {STREAM} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n"
        await loop.sock_sendall(raw, request.encode())
        received = b""
        while b"retry: 2000" not in received:
            received += await loop.sock_recv(raw, 4096)
        # Ever more samples until the server stands still: what it sent no longer grows.
        for round_number in range(400):
            publish(supervisor, 64, start=round_number * 64)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        text = ""
        while "event: dropped" not in text:
            text += (await loop.sock_recv(raw, 1 << 16)).decode()
    block = text.split("event: dropped\ndata: ")[1]
    assert json.loads(block.split("\n")[0])["count"] > 64


async def test_the_sixty_fifth_stream_is_refused_and_a_freed_slot_is_given_again(
    make_supervisor: Make, serve: Serve
) -> None:
    supervisor = make_supervisor()
    url = await serve(supervisor)
    async with ClientSession(timeout=ClientTimeout(total=None)) as many:
        many.connector._limit = 0
        responses = [await many.get(url + STREAM) for _ in range(64)]
        async with many.get(url + STREAM) as refused:
            assert refused.status == 503
            assert int(refused.headers["Retry-After"]) > 0
            assert "64" in (await refused.json())["error"]["message"]
        async with many.get(url + PROBE_PATH) as polled:
            assert polled.status == 200
        responses.pop().close()
        status = 503
        while status == 503:  # the server notices at its next event
            publish(supervisor, 1)
            async with many.get(url + STREAM) as again:
                status = again.status
        assert status == 200
        for response in responses:
            response.close()


async def test_a_heartbeat_comes_when_nothing_happens_and_when_much_does(
    make_supervisor: Make, client: ClientSession, serve_streams: Serve
) -> None:
    supervisor = make_supervisor()
    url = await serve_streams(supervisor, heartbeat_s=0.01)
    async with client.get(url) as response:
        await opened(response)
        assert await read_message(response) == Message(comment="heartbeat")
        comments = 0
        while comments < 2:
            publish(supervisor, 1)
            message = await read_message(response)
            comments += message.comment == "heartbeat"


async def test_a_client_that_stalls_is_let_go(make_supervisor: Make, serve_streams: Serve) -> None:
    supervisor = make_supervisor(stream_limit=1)
    url = urlsplit(await serve_streams(supervisor, stall_s=0.01))
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=64)
    writer.write(f"GET / HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    await reader.read(1)
    async with ClientSession() as client:
        status = 503
        while status == 503:
            publish(supervisor, 64)
            async with client.get(url.geturl()) as response:
                status = response.status
    assert status == 200
    writer.close()


async def test_stopping_the_server_ends_streams_at_once(
    make_supervisor: Make, serve_and_stop: Callable
) -> None:
    supervisor = make_supervisor(stream_limit=2)
    url, stop = await serve_and_stop(supervisor)
    async with (
        ClientSession() as client,
        client.get(url + STREAM) as first,
        client.get(url + STREAM) as second,
    ):
        await opened(first)
        await opened(second)
        await stop()
        assert await read_message(first) is None
        assert await read_message(second) is None
    for _ in range(2):  # both slots are free again
        supervisor.open_stream(None, lambda: None)


async def test_a_foreign_origin_is_answered_only_where_the_host_allows_it(
    make_supervisor: Make, serve: Serve, client: ClientSession
) -> None:
    url = await serve(make_supervisor(), cors_origin="https://example.org")
    async with client.get(url + STREAM) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "https://example.org"
        assert response.headers["Access-Control-Allow-Credentials"] == "true"


def test_an_event_is_encoded_once_for_all_clients() -> None:
    encoder = EventEncoder("e", capacity=2)
    events = [Event(number, "telemetry", sample_at(1.0)) for number in range(3)]
    first = encoder.encode(events[0])
    assert encoder.encode(events[0]) is first
    encoder.encode(events[1])
    encoder.encode(events[2])
    again = encoder.encode(events[0])
    assert again == first
    assert again is not first, "the cache is bounded"


def test_an_event_is_one_block_whatever_its_text() -> None:
    reading = Reading(error="two\nlines\n\nevent: forged")
    block = EventEncoder("e").encode(Event(1, "telemetry", sample_at(1.0, reading)))
    assert block.endswith(b"\n\n")
    assert block.count(b"\n") == 4
