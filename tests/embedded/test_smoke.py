import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from vram_supervisor.supervisor.embedded import __main__ as command_line
from vram_supervisor.supervisor.embedded.job_state import (
    DecodeRequest,
    JobSnapshot,
)
from vram_supervisor.supervisor.embedded.smoke import judge, smoke_request

MODULE = "vram_supervisor.supervisor.embedded"
REQUEST = DecodeRequest(320, 128, 13, budget_share=0.4, compare=True)
GOOD = JobSnapshot(
    "done",
    "job",
    frames=13,
    budget_bytes=100,
    whole_predicted_bytes=250,
    predicted_peak_bytes=90,
    measured_peak_bytes=90,
    relative_error=1e-6,
)


def test_a_job_that_kept_every_promise_is_ok():
    result = judge(GOOD, REQUEST, samples=5)
    assert result.ok
    assert result.problems == ()


@pytest.mark.parametrize(
    ("sentence", "changes"),
    [
        ("it failed", {"state": "error", "error": "NothingFitsError: ..."}),
        ("frames are missing", {"frames": 12}),
        ("the whole decode would have fitted", {"whole_predicted_bytes": 100}),
        ("it held more than the budget", {"measured_peak_bytes": 101}),
        ("nothing was measured", {"measured_peak_bytes": None}),
        ("measured is nothing", {"measured_peak_bytes": 0}),
        ("the picture is not the same", {"relative_error": 2e-4}),
        ("the picture was not compared", {"relative_error": None}),
        ("it is not a number", {"relative_error": float("nan")}),
    ],
)
def test_what_makes_it_fail(sentence, changes):
    result = judge(replace(GOOD, **changes), REQUEST, samples=5)
    assert not result.ok
    assert len(result.problems) == 1


def test_a_tile_that_had_to_be_split_is_told_but_is_no_failure():
    result = judge(replace(GOOD, ladder=("tile 3x3: out of memory",)), REQUEST, samples=5)
    assert result.ok
    assert result.ladder == ("tile 3x3: out of memory",)


def test_a_job_the_monitor_did_not_see_is_not_ok():
    assert not judge(GOOD, REQUEST, samples=0).ok


def test_a_job_that_takes_too_long_is_not_ok():
    assert judge(GOOD, REQUEST, samples=5, in_time=False).problems == ("it took too long",)


def test_the_job_fits_the_device():
    assert smoke_request("cpu", size=None, budget_bytes=None) == REQUEST
    assert smoke_request("cuda:0", size=None, budget_bytes=None).width > 320
    named = smoke_request("cpu", size=(64, 48, 5), budget_bytes=7)
    assert (named.width, named.height, named.frames) == (64, 48, 5)
    assert (named.budget_bytes, named.budget_share) == (7, None)


def run_module(*arguments):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-m", MODULE, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=300,
    )


def test_the_smoke_prints_one_object_and_succeeds():
    done = run_module("--smoke", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["ok"] is True
    assert result["frames"] == 13
    assert result["plan"]["kind"] == "streamed"
    assert result["measured_peak_bytes"] <= result["budget_bytes"]
    assert result["budget_bytes"] < result["whole_predicted_bytes"]
    assert result["relative_error"] <= 1e-4
    assert result["samples"] > 0


def test_a_smoke_that_cannot_succeed_says_why_and_exits_1():
    done = run_module("--smoke", "--device", "cpu", "--size", "64x64x5", "--budget", "64KiB")
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["ok"] is False
    assert "NothingFitsError" in result["problems"][0]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--port", "70000"), "not a port"),
        (("--budget", "lots"), "not a size"),
        (("--size", "64x64"), "WIDTHxHEIGHTxFRAMES"),
        (("--size", "0x64x5"), "start at 1"),
    ],
)
def test_bad_arguments_are_named(arguments, word, capsys):
    with pytest.raises(SystemExit) as caught:
        command_line.main(arguments)
    assert caught.value.code == 2
    assert word in capsys.readouterr().err


def test_a_taken_port_is_an_error_not_a_traceback(caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command_line.main(["--port", str(port), "--no-browser"]) == 1
    assert f"127.0.0.1:{port}" in caplog.text
    assert "--port" in caplog.text


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("win32", {}, True),
        ("darwin", {}, True),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {}, False),
    ],
)
def test_a_browser_only_opens_on_a_desktop(platform, environment, expected):
    assert command_line.can_show_browser(platform, environment) is expected


def test_where_the_history_is_kept():
    windows = command_line.default_history_path({"LOCALAPPDATA": "C:/data"})
    assert windows == Path("C:/data/vram-supervisor/history.sqlite")
    linux = command_line.default_history_path({})
    assert linux == Path.home() / ".local/share/vram-supervisor/history.sqlite"
