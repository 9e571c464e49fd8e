from __future__ import annotations

import pytest
from multidict import MultiDict

from vram_supervisor.supervisor.errors import QueryRejectedError
from vram_supervisor.supervisor.http.query import (
    HistoryQuery,
    parse_context,
    parse_history,
    wants_stream,
)
from vram_supervisor.supervisor.types import DecodeContext

ACCEPTED = [
    ("nothing given is nothing known", {}, DecodeContext()),
    (
        "all five given",
        {"width": "1280", "height": "720", "frames": "81", "fps": "16", "vae": "wan2.1"},
        DecodeContext(1280, 720, 81, 16.0, "wan2.1"),
    ),
    ("empty means unset", {"width": "", "height": "", "vae": ""}, DecodeContext()),
    ("0 means unset", {"width": "0", "fps": "0", "vae": "0"}, DecodeContext()),
    ("0.0 means unset too", {"frames": "0.0", "fps": "0.000"}, DecodeContext()),
    ("a whole number with a fraction of zero", {"width": "1280.0"}, DecodeContext(width=1280)),
    ("a trailing point", {"width": "1280."}, DecodeContext(width=1280)),
    ("leading zeros", {"frames": "0081"}, DecodeContext(frames=81)),
    ("the rate may be fractional", {"fps": "23.976"}, DecodeContext(fps=23.976)),
    ("the largest size", {"width": "16384", "height": "16384"}, DecodeContext(16384, 16384)),
    ("the most frames", {"frames": "100000"}, DecodeContext(frames=100_000)),
    ("the highest rate", {"fps": "240"}, DecodeContext(fps=240.0)),
    ("a family in capitals", {"vae": "KL"}, DecodeContext(family="kl")),
    ("a parameter nobody knows", {"cache_buster": "x"}, DecodeContext()),
]

REJECTED = [
    ("letters", "width", "wide", "plain digits"),
    ("a unit", "width", "1280px", "plain digits"),
    ("negative", "height", "-1", "negative"),
    ("minus zero", "height", "-0", "negative"),
    ("negative fraction", "fps", "-0.5", "negative"),
    ("not a number", "frames", "NaN", "finite"),
    ("infinite", "fps", "inf", "finite"),
    ("infinite, spelt out", "fps", "-Infinity", "finite"),
    ("a pixel too wide", "width", "16385", "at most 16384"),
    ("a pixel too high", "height", "16384.5", "at most 16384"),
    ("a frame too many", "frames", "100001", "at most 100000"),
    ("too fast", "fps", "240.01", "at most 240"),
    ("half a pixel", "width", "12.5", "whole number"),
    ("half a frame", "frames", "0.5", "whole number"),
    ("scientific notation", "width", "1e3", "plain digits"),
    ("hexadecimal", "width", "0x10", "plain digits"),
    ("digits of another script", "width", "١٢٨٠", "plain digits"),
    ("digits with a separator", "width", "1_280", "plain digits"),
    ("a thousands separator", "width", "1,280", "plain digits"),
    ("spaces around it", "width", " 1280", "plain digits"),
    ("a plus sign", "fps", "+24", "plain digits"),
    ("a newline after it", "width", "1280\n", "plain digits"),
    ("a million digits", "frames", "9" * 1_000_000, "more than 32 characters"),
    ("two numbers", "width", "1 2", "plain digits"),
    ("an unknown family", "vae", "vq", "must be one of"),
    ("a family with a space", "vae", "kl ", "must be one of"),
]


@pytest.mark.parametrize(
    ("query", "expected"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_accepted_context(query: dict[str, str], expected: DecodeContext) -> None:
    assert parse_context(MultiDict(query)) == expected


@pytest.mark.parametrize(
    ("field", "text", "problem"), [row[1:] for row in REJECTED], ids=[row[0] for row in REJECTED]
)
def test_rejected_context_names_the_field(field: str, text: str, problem: str) -> None:
    with pytest.raises(QueryRejectedError, match=problem) as caught:
        parse_context(MultiDict({field: text}))
    assert caught.value.field == field
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize("field", ["width", "height", "frames", "fps", "vae"])
@pytest.mark.parametrize("values", [("1", "1"), ("", "")], ids=["equal", "empty"])
def test_a_repeated_key_is_refused_even_when_its_values_agree(
    field: str, values: tuple[str, str]
) -> None:
    with pytest.raises(QueryRejectedError, match="given 2 times") as caught:
        parse_context(MultiDict([(field, value) for value in values]))
    assert caught.value.field == field


STREAMS = [
    ("nothing said", {}, "", False),
    ("a browser asking for a page", {}, "text/html,*/*;q=0.8", False),
    ("stream=1", {"stream": "1"}, "", True),
    ("stream=true in capitals", {"stream": "TRUE"}, "", True),
    ("stream=0", {"stream": "0"}, "", False),
    ("an EventSource", {}, "text/event-stream", True),
    ("events among others", {}, "application/json, Text/Event-Stream;q=0.9", True),
    ("events expressly not wanted", {}, "text/event-stream;q=0, */*", False),
    ("an empty parameter leaves it to the header", {"stream": ""}, "text/event-stream", True),
    ("the parameter wins over the header", {"stream": "0"}, "text/event-stream", False),
]


@pytest.mark.parametrize(
    ("query", "accept", "expected"), [row[1:] for row in STREAMS], ids=[row[0] for row in STREAMS]
)
def test_wants_stream(query: dict[str, str], accept: str, expected: bool) -> None:
    assert wants_stream(MultiDict(query), accept) is expected


def test_an_unclear_stream_wish_is_refused() -> None:
    with pytest.raises(QueryRejectedError) as caught:
        wants_stream(MultiDict({"stream": "yes"}), "")
    assert caught.value.field == "stream"


HISTORIES = [
    ("nothing given", {}, HistoryQuery()),
    ("0 means unset", {"limit": "0", "job_id": ""}, HistoryQuery()),
    ("both given", {"limit": "1000", "job_id": "a-b"}, HistoryQuery(1000, "a-b")),
]


@pytest.mark.parametrize(
    ("query", "expected"), [row[1:] for row in HISTORIES], ids=[row[0] for row in HISTORIES]
)
def test_accepted_history(query: dict[str, str], expected: HistoryQuery) -> None:
    assert parse_history(MultiDict(query)) == expected


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("limit", "1001"),
        ("limit", "-1"),
        ("limit", "ten"),
        ("job_id", "x" * 201),
        ("job_id", "a\0"),
    ],
)
def test_rejected_history_names_the_field(field: str, text: str) -> None:
    with pytest.raises(QueryRejectedError) as caught:
        parse_history(MultiDict({field: text}))
    assert caught.value.field == field
