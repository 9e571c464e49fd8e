"""``GET`` and ``POST /iamccs/supervisor/settings``: what holds in every workflow.

The answer of both: ``settings`` that hold, ``fields`` with what each may be, ``fixed`` with why
one cannot be changed from a page, ``problem`` of the file or null. A POST has some settings as a
JSON object, from pages of this server only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ...supervisor.http.routes import answering, json_response
from .cleanup_route import json_body, refuse_foreign, refusing

if TYPE_CHECKING:
    from aiohttp import web

    from .preferences import PreferenceBook

SETTINGS_PATH: Final = "/iamccs/supervisor/settings"


def add_settings_route(routes: web.RouteTableDef, book: PreferenceBook) -> None:
    """Register both; the host adds their ``/api`` twins."""

    @routes.get(SETTINGS_PATH)
    @answering
    async def settings(request: web.Request) -> web.StreamResponse:
        del request
        return json_response(book.as_dict())

    @routes.post(SETTINGS_PATH)
    @refusing
    async def change(request: web.Request) -> web.StreamResponse:
        refuse_foreign(request.headers)
        await asyncio.to_thread(book.change, await json_body(request))
        return json_response(book.as_dict())
