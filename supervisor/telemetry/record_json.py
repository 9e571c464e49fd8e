"""A job record as one JSON text, and back. Fields of later versions are ignored."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any, TypeVar

from ..types import DecodeSummary, JobRecord, NodeRecord, Peak

_Record = TypeVar("_Record", JobRecord, NodeRecord, Peak, DecodeSummary)


def to_json(record: JobRecord) -> str:
    """Compact JSON."""
    return json.dumps(asdict(record), separators=(",", ":"))


def from_json(text: str) -> JobRecord:
    """The record that was written.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the text is not a record.
    """
    values: dict[str, Any] = json.loads(text)
    nodes = tuple(_build(NodeRecord, {**node, "peaks": _peaks(node)}) for node in values["nodes"])
    decodes = tuple(_decode(decode) for decode in values.get("decodes", ()))
    return _build(
        JobRecord, {**values, "nodes": nodes, "peaks": _peaks(values), "decodes": decodes}
    )


def _decode(values: dict[str, Any]) -> DecodeSummary:
    return _build(DecodeSummary, {**values, "retries": tuple(values.get("retries", ()))})


def _peaks(values: dict[str, Any]) -> tuple[Peak, ...]:
    return tuple(_build(Peak, peak) for peak in values["peaks"])


def _build(kind: type[_Record], values: dict[str, Any]) -> _Record:
    known = {each.name for each in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})
