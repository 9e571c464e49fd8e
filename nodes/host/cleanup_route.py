"""``POST /iamccs/supervisor/cleanup``: memory back between jobs, asked for by this server's pages.

Body, all optional: ``unload_all_models`` (false), ``soft_empty_cache`` (true), ``free_bytes``
(what shall be free on the main device, at most what it has).
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ...supervisor.errors import ForeignOriginError, JobRunningError, QueryRejectedError
from ...supervisor.http.routes import error_response, json_response
from ..cleaning import clean_all
from .queue import running_prompts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping

    from aiohttp import web

    from ...supervisor.types import JobPosition
    from .evicting import Eviction
    from .memory import HostMemory
    from .queue import PromptQueue

CLEANUP_PATH: Final = "/iamccs/supervisor/cleanup"
MOST_BODY_BYTES: Final = 4096
_FIELDS: Final = ("unload_all_models", "soft_empty_cache", "free_bytes")


@dataclass(frozen=True, slots=True)
class CleanupWish:
    """What the body asks for.

    Attributes:
        free_bytes: what shall be free afterwards; None: no model has to leave for room.
    """

    unload_all_models: bool = False
    soft_empty_cache: bool = True
    free_bytes: int | None = None


class JobGate:
    """Keeps the next job from starting while memory is cleaned up, and only then."""

    def __init__(self) -> None:
        self._closed = threading.Lock()

    def wait(self) -> None:
        """Called by the host's executor before a job's first node: pass when it is open."""
        with self._closed:
            pass

    @contextmanager
    def closed(self) -> Generator[None]:
        """Hold jobs back."""
        with self._closed:
            yield


@dataclass(frozen=True)
class Cleaner:
    """Cleans up where no job runs.

    Attributes:
        hold: keeps jobs from starting: the gate, or, on hosts that do not report starts, the
            queue's mutex, without which no prompt leaves the queue.
        position: the node that runs now.
    """

    memory: HostMemory
    queue: PromptQueue
    hold: Callable[[], AbstractContextManager[object]]
    position: Callable[[], JobPosition]

    def clean(self, wish: CleanupWish) -> Eviction | None:
        """Blocking.

        Raises:
            JobRunningError: a job runs; nothing was done.
        """
        with self.hold():
            self._refuse_while_running()
            return self._clean(wish)

    def _clean(self, wish: CleanupWish) -> Eviction | None:
        device = self.memory.main_device()
        total = self.memory.total_bytes(device)
        if wish.free_bytes is not None and wish.free_bytes > total:
            raise QueryRejectedError("free_bytes", f"is more than the {total} the device has")
        if wish.unload_all_models:
            return clean_all(self.memory, device, empty_cache=wish.soft_empty_cache)
        if wish.soft_empty_cache:
            self.memory.empty_cache()
        if wish.free_bytes is None:
            return None
        return self.memory.make_room(wish.free_bytes, device)

    def _refuse_while_running(self) -> None:
        running = running_prompts(self.queue)
        if running:
            raise JobRunningError(_running_words(running[0].prompt_id, self.position()))


def add_cleanup_route(routes: web.RouteTableDef, cleaner: Cleaner) -> None:
    """Register the route; the host adds its ``/api`` twin."""

    @routes.post(CLEANUP_PATH)
    @refusing
    async def cleanup(request: web.Request) -> web.StreamResponse:
        refuse_foreign(request.headers)
        wish = parse_wish(await json_body(request))
        done = await asyncio.to_thread(cleaner.clean, wish)
        eviction = None if done is None else done.as_dict()
        return json_response({"cache_emptied": wish.soft_empty_cache, "eviction": eviction})


def refusing(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Turn refusals into their JSON answers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except QueryRejectedError as error:
            return error_response(400, str(error), field=error.field)
        except ForeignOriginError as error:
            return error_response(403, str(error))
        except JobRunningError as error:
            return error_response(409, str(error))

    return answer


def refuse_foreign(headers: Mapping[str, str]) -> None:
    """Let only pages of this server ask, and programs that are no browser.

    Browsers say where a request comes from; newer ones in ``Sec-Fetch-Site``, all of them in
    ``Origin`` for a POST to another site.

    Raises:
        ForeignOriginError: a page of another site asks.
    """
    origin = headers.get("Origin")
    if headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise ForeignOriginError(origin or "another site")
    if origin is not None and _site(origin) != headers.get("Host", "").lower():
        raise ForeignOriginError(origin or "an unnamed site")


def _site(origin: str) -> str | None:
    """Host and port; None for what is no origin."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def parse_wish(body: object) -> CleanupWish:
    """Check the body.

    Raises:
        QueryRejectedError: names the field that is wrong.
    """
    if not isinstance(body, dict):
        raise QueryRejectedError("body", "is not a JSON object")
    fields: dict[str, Any] = body
    for name in fields:
        if name not in _FIELDS:
            raise QueryRejectedError(name, f"is not known; known are {', '.join(_FIELDS)}")
    for name in ("unload_all_models", "soft_empty_cache"):
        if not isinstance(fields.get(name, True), bool):
            raise QueryRejectedError(name, "is not true or false")
    return CleanupWish(
        fields.get("unload_all_models", False),
        fields.get("soft_empty_cache", True),
        _size(fields.get("free_bytes")),
    )


def _size(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise QueryRejectedError("free_bytes", "is not a whole number of bytes above 0")
    return value


async def json_body(request: web.Request) -> object:
    """The JSON body; its type is insisted on, for forms of foreign pages cannot send it.

    Raises:
        QueryRejectedError: it is not JSON, or too long.
    """
    if request.content_type != "application/json":
        raise QueryRejectedError("Content-Type", "is not application/json")
    try:
        data = await request.content.readexactly(MOST_BODY_BYTES + 1)
    except asyncio.IncompleteReadError as all_of_it:
        data = all_of_it.partial
    if len(data) > MOST_BODY_BYTES:
        raise QueryRejectedError("body", f"is longer than {MOST_BODY_BYTES} bytes")
    try:
        return json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise QueryRejectedError("body", "is not JSON, or too deep") from None


def _running_words(prompt_id: str, position: JobPosition) -> str:
    if position.node_id is None:
        return f"Job {prompt_id} runs"
    return f"Node {position.node_id} ({position.node_type}) of job {prompt_id} runs"
