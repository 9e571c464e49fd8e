"""The supervisor's routes for any aiohttp host.

Literal paths without ``/api``: ComfyUI adds that twin itself, and so does the embedded host.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from ..errors import QueryRejectedError, StreamLimitReachedError
from .probe_report import build_report
from .query import HistoryQuery, parse_context, parse_history, wants_stream
from .stream import EventStreams
from .wire import dump_json, record_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeAlias

    from ..service import Supervisor
    from .wire import JsonObject

    Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBE_PATH = "/iamccs/hw_probe"
HISTORY_PATH = "/iamccs/supervisor/history"


def add_routes(
    routes: web.RouteTableDef,
    supervisor: Supervisor,
    *,
    versions: Mapping[str, str | None],
    cors_origin: str | None = None,
) -> EventStreams:
    """Register the probe (JSON and stream) and the history.

    ``cors_origin`` is the origin the host answers foreign pages with, None where it allows
    none; only the stream needs it, for its headers pass the host's middleware by.
    Returns the streams, so that a host with a shutdown hook can close them.
    """
    streams = EventStreams(supervisor, cors_origin=cors_origin)

    # Registered without keyword arguments: ComfyUI cannot repeat those for its /api twin.
    @routes.get(PROBE_PATH)
    @answering
    async def hw_probe(request: web.Request) -> web.StreamResponse:
        context = parse_context(request.query)
        if wants_stream(request.query, request.headers.get("Accept", "")):
            return await streams.serve(request)
        # Taken first: a stream resumed from this id repeats rather than misses an event.
        resume_from = streams.last_event_id()
        report = build_report(context, supervisor, versions=versions)
        return json_response({**report, "stream": {"last_event_id": resume_from}})

    @routes.get(HISTORY_PATH)
    @answering
    async def history(request: web.Request) -> web.StreamResponse:
        query = parse_history(request.query)
        return text_response(await asyncio.to_thread(_read_history, supervisor, query))

    return streams


def answering(handler: Handler) -> Handler:
    """Turn refusals into their JSON answers and HEAD, which aiohttp adds to GET, into 405."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            raise web.HTTPMethodNotAllowed("HEAD", ["GET"])
        try:
            return await handler(request)
        except QueryRejectedError as error:
            return error_response(400, str(error), field=error.field)
        except StreamLimitReachedError as error:
            response = error_response(503, str(error))
            response.headers["Retry-After"] = str(error.retry_after_s)
            return response

    return answer


def json_response(value: JsonObject, status: int = 200) -> web.Response:
    """A JSON answer; large ones are better dumped off the event loop."""
    return text_response(dump_json(value), status)


def text_response(text: str, status: int = 200) -> web.Response:
    """JSON that is never cached: it is old the moment it leaves."""
    return web.Response(
        text=text,
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def error_response(status: int, message: str, field: str | None = None) -> web.Response:
    """``{"error": {"field", "message"}}``; the field is null where none is to blame."""
    return json_response({"error": {"field": field, "message": message}}, status)


def _read_history(supervisor: Supervisor, query: HistoryQuery) -> str:
    """Blocking: reads the disk, and a thousand jobs are megabytes of JSON."""
    store = supervisor.history
    records = store.jobs(query.limit, query.job_id)
    jobs = [record_json(record) for record in records]
    return dump_json({"jobs": jobs, "problem": store.problem()})
