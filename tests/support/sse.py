"""A reader of server-sent events over a real response."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import ClientResponse


@dataclass(frozen=True)
class Message:
    """One block of the stream: an event with its id, or a comment."""

    event: str | None = None
    id: str | None = None
    data: object = None
    comment: str | None = None
    retry_ms: int | None = None


async def read_message(response: ClientResponse) -> Message | None:
    """The next block; None when the server ended the stream."""
    fields: dict[str, str] = {}
    while True:
        line = (await response.content.readline()).decode()
        if not line:
            return None
        if line == "\n":
            return _message(fields)
        name, _, value = line.rstrip("\n").partition(": ")
        fields[name or "comment"] = value or line.rstrip("\n").lstrip(": ")


async def read_until(response: ClientResponse, event: str) -> Message:
    """The next message of this kind, skipping others."""
    while True:
        message = await read_message(response)
        assert message is not None, f"the stream ended before a {event} event"
        if message.event == event:
            return message


def _message(fields: dict[str, str]) -> Message:
    retry = fields.get("retry")
    return Message(
        event=fields.get("event"),
        id=fields.get("id"),
        data=json.loads(fields["data"]) if "data" in fields else None,
        comment=fields.get(":") or fields.get("comment"),
        retry_ms=None if retry is None else int(retry),
    )
