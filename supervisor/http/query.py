"""Query strings become records here, or are refused with the name of the field.

Pure: takes the parsed multi-map, raises ``QueryRejectedError``, knows nothing of responses.
Unknown parameters are ignored (hosts and browsers add their own).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import QueryRejectedError
from ..planning.recommend import FAMILIES
from ..types import DecodeContext

if TYPE_CHECKING:
    from multidict import MultiMapping

MAX_PIXELS: Final = 16384
MAX_FRAMES: Final = 100_000
MAX_FPS: Final = 240
MAX_HISTORY: Final = 1000
DEFAULT_HISTORY: Final = 50

_LONGEST_NUMBER: Final = 32
_LONGEST_JOB_ID: Final = 200
# Plain decimal notation only: what float() takes beyond it (1e3, 1_000, other scripts' digits,
# spaces) is a mistake of the client far more often than a wish.
_NUMBER: Final = re.compile(r"(?P<whole>[0-9]+)(?:\.(?P<fraction>[0-9]*))?")
_NEGATIVE: Final = re.compile(r"-[0-9.]+")
_NOT_FINITE: Final = frozenset({"nan", "inf", "infinity"})
_TRUE: Final = frozenset({"1", "true"})
_FALSE: Final = frozenset({"", "0", "false"})


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """How many finished jobs are asked for, newest first, and of which id (None: any)."""

    limit: int = DEFAULT_HISTORY
    job_id: str | None = None


def parse_context(query: MultiMapping[str]) -> DecodeContext:
    """Read ``width``, ``height``, ``frames``, ``fps`` and ``vae``; empty or 0 means unset.

    Raises:
        QueryRejectedError: a value is not acceptable or given twice.
    """
    return DecodeContext(
        width=_whole(query, "width", MAX_PIXELS),
        height=_whole(query, "height", MAX_PIXELS),
        frames=_whole(query, "frames", MAX_FRAMES),
        fps=_number(query, "fps", MAX_FPS),
        family=_family(query),
    )


def parse_history(query: MultiMapping[str]) -> HistoryQuery:
    """Read ``limit`` (1 to 1000) and ``job_id``; empty or 0 means unset.

    Raises:
        QueryRejectedError: a value is not acceptable or given twice.
    """
    return HistoryQuery(
        limit=_whole(query, "limit", MAX_HISTORY) or DEFAULT_HISTORY,
        job_id=_job_id(query),
    )


def wants_slow(query: MultiMapping[str]) -> bool:
    """True with ``slow=1``: events once a second will do.

    Raises:
        QueryRejectedError: ``slow`` is neither 1, true, 0 nor false.
    """
    text = (_single(query, "slow") or "").lower()
    if text not in _TRUE | _FALSE:
        raise QueryRejectedError("slow", "is neither 1 nor 0")
    return text in _TRUE


def wants_stream(query: MultiMapping[str], accept: str) -> bool:
    """True when the client asks for events: ``stream=1`` or an Accept header naming them.

    An explicit ``stream=0`` wins over the header.

    Raises:
        QueryRejectedError: ``stream`` is neither 1, true, 0 nor false.
    """
    text = _single(query, "stream")
    if text is None or text == "":
        return _accepts_events(accept)
    lowered = text.lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise QueryRejectedError("stream", "must be 1 or true for a stream, 0 or false for none")


def whole_number(field: str, text: str, maximum: int) -> int | None:
    """``"1280"`` or ``"1280.0"`` as int; ``""`` and ``"0"`` are None (unset).

    Raises:
        QueryRejectedError: not such a number, or above ``maximum``.
    """
    value = _read_number(field, text, maximum)
    if value is None:
        return None
    if not value.is_integer():
        raise QueryRejectedError(field, "must be a whole number")
    return int(value) or None


def _whole(query: MultiMapping[str], field: str, maximum: int) -> int | None:
    return whole_number(field, _single(query, field) or "", maximum)


def _number(query: MultiMapping[str], field: str, maximum: int) -> float | None:
    return _read_number(field, _single(query, field) or "", maximum) or None


def _read_number(field: str, text: str, maximum: int) -> float | None:
    if not text:
        return None
    if len(text) > _LONGEST_NUMBER:
        raise QueryRejectedError(field, f"has more than {_LONGEST_NUMBER} characters")
    if _NEGATIVE.fullmatch(text):
        raise QueryRejectedError(field, "must not be negative")
    if text.lstrip("+-").lower() in _NOT_FINITE:
        raise QueryRejectedError(field, "must be a finite number")
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise QueryRejectedError(field, "must be a number in plain digits")
    value = float(text)
    if value > maximum:
        raise QueryRejectedError(field, f"must be at most {maximum}")
    return value


def _family(query: MultiMapping[str]) -> str | None:
    text = _single(query, "vae")
    if text is None or text in {"", "0"}:
        return None
    family = text.lower()
    if family not in FAMILIES:
        raise QueryRejectedError("vae", f"must be one of {', '.join(sorted(FAMILIES))}")
    return family


def _job_id(query: MultiMapping[str]) -> str | None:
    text = _single(query, "job_id")
    if not text:
        return None
    if len(text) > _LONGEST_JOB_ID or not text.isprintable():
        raise QueryRejectedError(
            "job_id", f"must be at most {_LONGEST_JOB_ID} printable characters"
        )
    return text


def _single(query: MultiMapping[str], field: str) -> str | None:
    values = query.getall(field, [])
    if len(values) > 1:
        raise QueryRejectedError(field, f"is given {len(values)} times")
    return values[0] if values else None


def _accepts_events(accept: str) -> bool:
    for entry in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
        if media_type == "text/event-stream":
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False
