"""Server-sent events out of the supervisor's ring.

The ring is the only store. A client holds a cursor into it, so a slow one costs no memory:
what fell out of the ring before it was read is counted and told in a ``dropped`` event.
Each event is encoded once and the bytes are shared by all clients.

Ids are ``<epoch>-<sequence>``. The epoch is drawn when the server starts, so an id of
another server life is recognised and its stream starts cleanly instead of waiting for a
sequence that may never come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from aiohttp import web

from .query import wants_slow
from .thinning import Thinner
from .wakeups import Wakeups
from .wire import dump_json, event_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..service import Supervisor
    from ..telemetry.ring import Subscription
    from ..types import Event

HEARTBEAT_S: Final = 15.0
STALL_S: Final = 60.0
"""A client that reads nothing for so long is let go; it may resume where it stopped."""
RETRY_MS: Final = 2000

_BATCH: Final = 64
_CACHED_EVENTS: Final = 512
_ID: Final = re.compile(r"(?P<epoch>[0-9a-f]{1,32})-(?P<sequence>[0-9]{1,18})")

_log = logging.getLogger(__name__)


class EventEncoder:
    """Turns events into the bytes of the stream, each only once while it is fresh."""

    def __init__(self, epoch: str, capacity: int = _CACHED_EVENTS) -> None:
        self._epoch = epoch
        self._capacity = capacity
        self._cache: OrderedDict[int, bytes] = OrderedDict()

    def encode(self, event: Event) -> bytes:
        """``id``, ``event`` and one ``data`` line of JSON, ending in an empty line."""
        cached = self._cache.get(event.sequence)
        if cached is not None:
            return cached
        body = dump_json(event_json(event.payload))
        encoded = (
            f"id: {self._epoch}-{event.sequence}\nevent: {event.kind}\ndata: {body}\n\n"
        ).encode()
        self._cache[event.sequence] = encoded
        if len(self._cache) > self._capacity:
            self._cache.popitem(last=False)
        return encoded


class EventStreams:
    """All event streams of one server; create it once per supervisor, use it on one loop."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        cors_origin: str | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        stall_s: float = STALL_S,
    ) -> None:
        self._supervisor = supervisor
        self._cors_origin = cors_origin
        self._heartbeat_s = heartbeat_s
        self._stall_s = stall_s
        self._epoch = secrets.token_hex(4)
        self._encoder = EventEncoder(self._epoch)
        self._wakeups = Wakeups()
        self._streams: set[_Stream] = set()
        self._closing = False

    def last_event_id(self) -> str:
        """The id of the newest event: a stream resumed from here misses nothing after now."""
        return f"{self._epoch}-{self._supervisor.ring.last_sequence}"

    def close(self) -> None:
        """End every stream now. Call it on the event loop that serves them."""
        self._closing = True
        for stream in self._streams:
            stream.end()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one client until it leaves, stalls or the server stops.

        Raises:
            StreamLimitReachedError: every slot is taken.
        """
        waker = asyncio.Event()
        notify = self._wakeups.notifier(asyncio.get_running_loop(), waker)
        slow = wants_slow(request.query)
        subscription = self._supervisor.open_stream(
            self._resume_after(request), notify, hurried=not slow
        )
        try:
            response = web.StreamResponse(headers=self._headers())
            await response.prepare(request)
            stream = _Stream(request, response, subscription, waker, Thinner() if slow else None)
            self._streams.add(stream)
            try:
                if not self._closing:
                    await stream.run(self._encoder, self._heartbeat_s, self._stall_s)
            finally:
                self._streams.discard(stream)
            return response
        finally:
            subscription.close()

    def _resume_after(self, request: web.Request) -> int | None:
        """The sequence to go on after; None starts at the newest event.

        The header is what a browser sends when it reconnects by itself, so it is newer than
        the query parameter of the address it was opened with.
        """
        text = request.headers.get("Last-Event-ID") or request.query.get("last_event_id", "")
        match = _ID.fullmatch(text)
        if match is None or match["epoch"] != self._epoch:
            return None
        sequence = int(match["sequence"])
        return sequence if sequence <= self._supervisor.ring.last_sequence else None

    def _headers(self) -> dict[str, str]:
        """A stream's headers leave before any middleware sees the response."""
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
        if self._cors_origin is not None:
            headers |= {
                "Access-Control-Allow-Origin": self._cors_origin,
                "Access-Control-Allow-Methods": "GET, OPTIONS",
                "Access-Control-Allow-Headers": "Content-Type, Authorization, Last-Event-ID",
                "Access-Control-Allow-Credentials": "true",
            }
        return headers


class _Stream:
    """One client. It runs ten times a second and more, so it sets no timer per event."""

    def __init__(
        self,
        request: web.Request,
        response: web.StreamResponse,
        subscription: Subscription,
        waker: asyncio.Event,
        thinner: Thinner | None = None,
    ) -> None:
        self._request = request
        self._response = response
        self._subscription = subscription
        self._waker = waker
        self._thinner = thinner
        self._ended = False
        self._heartbeat_due = False
        self._writes_begun = 0
        self._writes_done = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def end(self) -> None:
        """Let the stream finish; takes effect at once, it never waits for the client."""
        self._ended = True
        self._waker.set()

    async def run(self, encoder: EventEncoder, heartbeat_s: float, stall_s: float) -> None:
        """Send until the client is gone or ``end`` is called."""
        self._repeat("heartbeat", heartbeat_s, self._beat)
        self._repeat("stall", stall_s, self._stall_check(stall_s))
        try:
            # A client that leaves is the normal end of a stream.
            with contextlib.suppress(ConnectionError):
                await self._write(f"retry: {RETRY_MS}\n\n".encode())
                while not self._ended and _connected(self._request):
                    await self._step(encoder)
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _step(self, encoder: EventEncoder) -> None:
        self._waker.clear()
        events, dropped = self._subscription.take(_BATCH)
        chunks = [_dropped(dropped)] if dropped else []
        chunks += [encoder.encode(event) for event in events if self._is_wanted(event)]
        if self._heartbeat_due:
            self._heartbeat_due = False
            chunks.append(b": heartbeat\n\n")
        if chunks:
            await self._write(b"".join(chunks))
        elif not events and not self._ended:
            await self._waker.wait()

    def _is_wanted(self, event: Event) -> bool:
        return self._thinner is None or self._thinner.keeps(event)

    async def _write(self, chunk: bytes) -> None:
        """Write and wait while the transport is full, so that nothing piles up."""
        self._writes_begun += 1
        await self._response.write(chunk)
        self._writes_done += 1

    def _beat(self) -> None:
        self._heartbeat_due = True
        self._waker.set()

    def _stall_check(self, stall_s: float) -> Callable[[], None]:
        """Let a client go that has been in the same write since the last check."""
        stuck_in: int | None = None

        def check() -> None:
            nonlocal stuck_in
            writing = self._writes_begun if self._writes_begun > self._writes_done else None
            if writing is not None and writing == stuck_in:
                _log.info("A stream's client read nothing for %.0f s and was let go.", stall_s)
                self._abort()
            stuck_in = writing

        return check

    def _abort(self) -> None:
        self._ended = True
        if self._request.transport is not None:
            self._request.transport.abort()

    def _repeat(self, name: str, interval_s: float, action: Callable[[], None]) -> None:
        """Run ``action`` every so often until the stream is over."""
        loop = asyncio.get_running_loop()

        def run() -> None:
            self._timers[name] = loop.call_later(interval_s, run)
            action()

        self._timers[name] = loop.call_later(interval_s, run)


def _connected(request: web.Request) -> bool:
    transport = request.transport
    return transport is not None and not transport.is_closing()


def _dropped(count: int) -> bytes:
    return f'event: dropped\ndata: {{"count":{count}}}\n\n'.encode()
