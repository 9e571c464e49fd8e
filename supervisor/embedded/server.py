"""The embedded host's web application: page, static modules, routes and the decode job.

Meant for one person on one machine: it answers only requests addressed to a loopback name
(a foreign page that points its own domain at 127.0.0.1 is refused) and starts work only for
its own page.
"""

from __future__ import annotations

import asyncio
import platform
from collections import OrderedDict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from aiohttp import web

from ..errors import DecodeBusyError, QueryRejectedError
from ..http.query import MAX_FRAMES, MAX_PIXELS
from ..http.routes import add_routes, answering, error_response, json_response
from ..units import GiB
from .decode_job import DecodeRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from typing import TypeAlias

    from aiohttp.typedefs import Middleware

    from ..http.wire import JsonObject
    from ..service import Supervisor
    from .decode_job import DecodeJobs

    Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1"})
DECODE_PATH: Final = "/iamccs/embedded/decode"
PREVIEW_PATH: Final = "/iamccs/embedded/preview.png"
MAX_BUDGET_GIB: Final = 4096.0

_PAGE: Final = Path(__file__).parent / "page"
_WEB: Final = Path(__file__).parents[2] / "web"
_PAGE_FILES: Final = ("page.css", "page.js", "devices.js", "jobs.js", "decode.js")
_LARGEST_BODY_BYTES: Final = 64 << 10
_REMEMBERED_RESULTS: Final = 64
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def build_app(
    supervisor: Supervisor,
    jobs: DecodeJobs,
    *,
    versions: Mapping[str, str | None] | None = None,
    allowed_hosts: Collection[str] = LOOPBACK_HOSTS,
) -> web.Application:
    """The application; the caller starts and stops ``supervisor`` and serves the app.

    ``allowed_hosts`` are the host names, without port, that requests may be addressed to.
    """
    app = web.Application(
        client_max_size=_LARGEST_BODY_BYTES, middlewares=[_only_addressed_to(allowed_hosts)]
    )
    routes = web.RouteTableDef()
    streams = add_routes(routes, supervisor, versions=versions or embedded_versions())
    _add_decode_routes(routes, jobs)
    app.add_routes(routes)
    app.add_routes(api_twins(routes))
    app.add_routes([web.get("/", _page_file("index.html"))])
    app.add_routes([web.get(f"/{name}", _page_file(name)) for name in _PAGE_FILES])
    app.router.add_static("/web/", _WEB)

    async def end_streams(_app: web.Application) -> None:
        streams.close()

    app.on_shutdown.append(end_streams)
    app.on_response_prepare.append(_harden)
    return app


def embedded_versions() -> dict[str, str | None]:
    """Versions of what the figures depend on; None where it is not installed."""
    return {
        "vram_supervisor": _version("vram-supervisor"),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "aiohttp": _version("aiohttp"),
        "nvidia-ml-py": _version("nvidia-ml-py"),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def api_twins(routes: web.RouteTableDef) -> list[web.RouteDef]:
    """The same routes under ``/api``, as ComfyUI adds them."""
    return [
        web.route(route.method, f"/api{route.path}", route.handler)
        for route in routes
        if isinstance(route, web.RouteDef)
    ]


def _page_file(name: str) -> Handler:
    async def serve(_request: web.Request) -> web.StreamResponse:
        return web.FileResponse(_PAGE / name)

    return serve


# --- the decode job ---------------------------------------------------------------------------


class _Results:
    """What past decodes were predicted and measured at, by job, newest last; bounded."""

    def __init__(self) -> None:
        self._by_job: OrderedDict[str, JsonObject] = OrderedDict()

    def remember(self, snapshot: Mapping[str, object]) -> None:
        """Keep a snapshot that has a prediction; a later one of the same job replaces it."""
        job_id = snapshot.get("job_id")
        if not isinstance(job_id, str):
            return
        self._by_job[job_id] = {
            "job_id": job_id,
            "predicted_peak_bytes": snapshot.get("predicted_peak_bytes"),
            "measured_peak_bytes": snapshot.get("measured_peak_bytes"),
        }
        if len(self._by_job) > _REMEMBERED_RESULTS:
            self._by_job.popitem(last=False)

    def as_list(self) -> list[JsonObject]:
        return list(self._by_job.values())


def _add_decode_routes(routes: web.RouteTableDef, jobs: DecodeJobs) -> None:
    results = _Results()

    def state() -> JsonObject:
        snapshot = jobs.snapshot()
        results.remember(snapshot)
        return {**snapshot, "results": results.as_list()}

    @routes.get(DECODE_PATH)
    @answering
    async def status(_request: web.Request) -> web.StreamResponse:
        return json_response(state())

    @routes.post(DECODE_PATH)
    @answering
    async def start(request: web.Request) -> web.StreamResponse:
        if not _from_own_page(request):
            return error_response(403, "Only this server's own page may start a decode.")
        wish = decode_request(await _json_object(request))
        state()
        try:
            # Off the loop: it waits for a lock and for a thread to come up.
            job_id = await asyncio.to_thread(jobs.start, wish)
        except DecodeBusyError as error:
            return error_response(409, str(error))
        return json_response({"job_id": job_id}, status=202)

    @routes.get(PREVIEW_PATH)
    @answering
    async def preview(_request: web.Request) -> web.StreamResponse:
        png = await asyncio.to_thread(jobs.preview_png)
        if png is None:
            return error_response(404, "No decode has finished yet, so there is no picture.")
        return web.Response(
            body=png, content_type="image/png", headers={"Cache-Control": "no-store"}
        )


def decode_request(body: Mapping[str, object]) -> DecodeRequest:
    """Validate ``{"width", "height", "frames", "budget_gib"}``; sizes in pixels and frames.

    ``budget_gib`` null or missing means the live budget.

    Raises:
        QueryRejectedError: a field is missing, of the wrong type or out of range.
    """
    return DecodeRequest(
        width=_whole(body, "width", MAX_PIXELS),
        height=_whole(body, "height", MAX_PIXELS),
        frames=_whole(body, "frames", MAX_FRAMES),
        budget_bytes=_budget_bytes(body),
    )


def _whole(body: Mapping[str, object], field: str, maximum: int) -> int:
    value = body.get(field)
    # JSON true would pass as 1.
    if isinstance(value, bool) or not isinstance(value, int):
        raise QueryRejectedError(field, "must be a whole number")
    if not 1 <= value <= maximum:
        raise QueryRejectedError(field, f"must be between 1 and {maximum}")
    return value


def _budget_bytes(body: Mapping[str, object]) -> int | None:
    value = body.get("budget_gib")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise QueryRejectedError("budget_gib", "must be a number of GiB or null")
    # Written so that NaN, which Python's JSON reader lets in, fails too.
    if not 0 < value <= MAX_BUDGET_GIB:
        raise QueryRejectedError("budget_gib", f"must be above 0 and at most {MAX_BUDGET_GIB:g}")
    return max(1, int(value * GiB))


async def _json_object(request: web.Request) -> Mapping[str, object]:
    if request.content_type != "application/json":
        raise QueryRejectedError("Content-Type", "must be application/json")
    try:
        body = await request.json()
    except ValueError as error:  # malformed JSON or text that is not UTF-8
        raise QueryRejectedError("body", "is not valid JSON") from error
    if not isinstance(body, dict):
        raise QueryRejectedError("body", "must be a JSON object")
    return cast("dict[str, object]", body)


# --- who may ask ------------------------------------------------------------------------------


def _only_addressed_to(allowed_hosts: Collection[str]) -> Middleware:
    """Refuse requests whose Host is a foreign name: DNS rebinding."""

    @web.middleware
    async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _host_name(request.headers.get("Host", "")) not in allowed_hosts:
            return error_response(403, "This server answers on its own machine's address only.")
        return await handler(request)

    return check_host


def _host_name(host: str) -> str | None:
    """The name in a Host header, lower case, without port or brackets; None if malformed."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _from_own_page(request: web.Request) -> bool:
    """Browsers name the origin of a POST; a client without one is not a foreign page."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("Origin")
    return origin is None or origin.lower() == f"http://{request.host}".lower()


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    """Also reaches streams and files, whose headers leave before a middleware sees them."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-cache")
