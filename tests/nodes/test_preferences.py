"""What a user may want of the pack in every workflow, and the file that keeps it."""

import json

import pytest

from vram_supervisor.nodes.host.preferences import FIELDS, PreferenceBook, Preferences
from vram_supervisor.supervisor.errors import QueryRejectedError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "settings.json"


@pytest.fixture
def book(path):
    return PreferenceBook(path, {})


def kept(path):
    return PreferenceBook(path, {}).now


def test_nothing_said_everything_is_standard(book, path):
    assert book.now == Preferences()
    assert book.problem is None
    assert not path.exists()
    assert {name: field.default for name, field in FIELDS.items()} == book.as_dict()["settings"]


def test_a_change_holds_is_kept_and_is_told(book, path):
    told = []
    book.follow(told.append)
    book.change({"sampling_rate_hz": 5, "default_quality": "balanced"})
    wanted = Preferences(sampling_rate_hz=5.0, default_quality="balanced")
    assert book.now == wanted
    assert told == [Preferences(), wanted]
    assert kept(path) == wanted
    assert not list(path.parent.glob("*.tmp"))


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ([], "body", "is not a JSON object"),
        ({"colour": 1}, "colour", "is not known"),
        ({"sampling_rate_hz": 0}, "sampling_rate_hz", "is not between 1 and 20"),
        ({"sampling_rate_hz": True}, "sampling_rate_hz", "is not a number"),
        ({"sampling_rate_hz": float("nan")}, "sampling_rate_hz", "is not between"),
        ({"history_days": 1.5}, "history_days", "is not a whole number"),
        ({"history_days": float("inf")}, "history_days", "is not between"),
        ({"default_quality": "best"}, "default_quality", "is none of exact, balanced, fast"),
        ({"default_quality": ["exact"]}, "default_quality", "is none of"),
        ({"protect_vae_decode": 1}, "protect_vae_decode", "is not true or false"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_nothing_changes(book, path, body, field, words):
    body = (
        {"history_days": 7, **body} if isinstance(body, dict) and field != "history_days" else body
    )
    with pytest.raises(QueryRejectedError, match=words) as caught:
        book.change(body)
    assert caught.value.field == field
    assert book.now == Preferences()
    assert not path.exists()


@pytest.mark.parametrize("text", ["{", "\xff", '{"a":' * 100_000, "[1]"])
def test_a_file_that_is_none_leaves_the_standard(path, text):
    path.parent.mkdir()
    path.write_text(text, "latin-1")
    assert kept(path) == Preferences()


def test_of_a_file_what_can_be_used_is(path, caplog):
    path.parent.mkdir()
    path.write_text(json.dumps({"history_days": 7, "sampling_rate_hz": "fast", "later": 1}))
    assert kept(path) == Preferences(history_days=7)
    assert "sampling_rate_hz is not a number" in caplog.text
    assert "later is not known" in caplog.text


def test_what_cannot_be_written_holds_until_the_end_and_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    book = PreferenceBook(tmp_path / "file" / "settings.json", {})
    book.change({"history_days": 7})
    assert book.now.history_days == 7
    assert "cannot be written" in book.problem


@pytest.mark.parametrize("text", ["1", "true", "YES", " on "])
def test_the_variable_switches_on_whatever_was_kept(book, path, text):
    book.change({"protect_vae_decode": False})
    fixed = PreferenceBook(path, {"IAMCCS_PROTECT_VAE_DECODE": text})
    assert fixed.now.protect_vae_decode
    with pytest.raises(QueryRejectedError, match="IAMCCS_PROTECT_VAE_DECODE"):
        fixed.change({"protect_vae_decode": False})


@pytest.mark.parametrize("text", ["0", "False", "no", "off"])
def test_the_variable_switches_off_whatever_was_kept(book, path, caplog, text):
    book.change({"protect_vae_decode": True})
    assert not PreferenceBook(path, {"IAMCCS_PROTECT_VAE_DECODE": text}).now.protect_vae_decode
    assert caplog.text == ""


@pytest.mark.parametrize("environment", [{}, {"IAMCCS_PROTECT_VAE_DECODE": ""}])
def test_where_it_is_unset_the_kept_setting_holds(book, path, environment):
    book.change({"protect_vae_decode": True})
    assert PreferenceBook(path, environment).now.protect_vae_decode


def test_neither_yes_nor_no_is_off_with_a_word(path, caplog):
    book = PreferenceBook(path, {"IAMCCS_PROTECT_VAE_DECODE": "2"})
    assert not book.now.protect_vae_decode
    assert "IAMCCS_PROTECT_VAE_DECODE is '2'" in caplog.text
