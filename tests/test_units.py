"""Sizes: read, shown, converted."""

import math

import pytest

from vram_supervisor.supervisor.errors import SizeUnreadableError, SupervisorError
from vram_supervisor.supervisor.units import GiB, MiB, format_bytes, from_gib, parse_bytes, to_gib


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        pytest.param("11GiB", 11 * GiB, id="a binary unit without a space"),
        pytest.param(" 512 mib ", 512 * MiB, id="spaces and lower case"),
        pytest.param("8GB", 8 * 10**9, id="a decimal unit is decimal"),
        pytest.param("1.5GiB", 3 * GiB // 2, id="a fraction"),
        pytest.param("4096", 4096, id="no unit is bytes"),
        pytest.param("0", 0, id="zero is a size"),
    ],
)
def test_sizes_are_read(text, size_bytes):
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1e3", "nan", "inf", "3 parsecs", "1GiB2"])
def test_what_is_no_size_is_refused_with_advice(text):
    with pytest.raises(SizeUnreadableError, match="for example 11GiB") as caught:
        parse_bytes(text)
    assert isinstance(caught.value, SupervisorError)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(None, "unknown"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (-2 * MiB, "-2.0 MiB"),
     (3 * GiB, "3.0 GiB"), (2048 * GiB, "2.0 TiB")],
)  # fmt: skip
def test_sizes_are_shown_in_binary_units(size_bytes, text):
    assert format_bytes(size_bytes) == text


def test_unknown_stays_unknown_in_json():
    assert to_gib(None) is None
    assert to_gib(3 * GiB // 2) == 1.5


@pytest.mark.parametrize("entered", [math.nan, math.inf, -1.0, 0.0])
def test_a_widget_value_that_is_no_amount_counts_as_nothing(entered):
    assert from_gib(entered) == 0


def test_a_widget_value_becomes_bytes():
    assert from_gib(1.25) == 1280 * MiB
