import argparse
import json
import subprocess
import sys

import pytest

from vram_supervisor.supervisor.embedded import plan_command
from vram_supervisor.supervisor.embedded.__main__ import main
from vram_supervisor.supervisor.embedded.plan_command import add_plan_command, run_plan
from vram_supervisor.supervisor.embedded.plan_text import as_json, as_text, seconds_text
from vram_supervisor.supervisor.planning.families import FAMILIES
from vram_supervisor.supervisor.planning.types import PlanTable
from vram_supervisor.supervisor.types import DeviceInfo, Plan, Reading
from vram_supervisor.supervisor.units import GiB, MiB

WAN = ["--vae", "wan2.1", "--width", "1280", "--height", "720", "--frames", "81"]
KL = ["--vae", "kl", "--width", "1024", "--height", "1024"]
ISSUE_KEYS = [
    "kind", "tile_size", "overlap", "temporal_size", "temporal_overlap", "predicted_peak_bytes",
    "predicted_seconds", "fits", "reason",
]  # fmt: skip
GPU = DeviceInfo("nvml:0", "cuda", "Test GPU", total_bytes=24 * GiB)


def answer(capsys, *arguments):
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def text(capsys, *arguments):
    assert main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["plan", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def with_gpu(found, *arguments):
    """Run the command on a machine whose first GPU is ``found``."""
    parser = argparse.ArgumentParser()
    add_plan_command(parser.add_subparsers())
    return run_plan(parser, parser.parse_args(["plan", *arguments]), read_gpu=lambda: found)


def test_the_json_has_the_documented_keys_first(capsys):
    got = answer(capsys, *WAN, "--free", "11GiB")
    assert list(got)[:2] == ["plans", "chosen"]
    for plan in got["plans"]:
        assert list(plan)[: len(ISSUE_KEYS)] == ISSUE_KEYS
    assert got["chosen"] == 0
    assert (got["vae"], got["width"], got["height"], got["frames"]) == ("wan2.1", 1280, 720, 81)
    assert got["free_bytes"] == 11 * GiB


@pytest.mark.parametrize("free", ["1MiB", "2GiB", "6GiB", "40GiB", "500GiB"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_lists_the_whole_decode_and_chooses_what_fits(capsys, family, free):
    size = ["--vae", family, "--width", "848", "--height", "480", "--frames", "121"]
    got = answer(capsys, *size, "--free", free)
    (whole,) = (plan for plan in got["plans"] if plan["kind"] == "whole")
    chosen = got["plans"][got["chosen"]]
    if whole["fits"]:
        assert chosen == whole
    if any(plan["fits"] for plan in got["plans"]):
        assert chosen["fits"]
    else:
        assert chosen["kind"] == "cpu"
    assert all(plan["predicted_seconds"] > 0 for plan in got["plans"])


@pytest.mark.parametrize(
    ("sentence", "arguments", "kind"),
    [
        ("plenty free decodes whole", ["--free", "500GiB"], "whole"),
        ("little free is tiled", ["--free", "4GiB"], "tiled"),
        ("models are evicted where that is enough", ["--free", "4GiB", "--evictable", "90GiB"],
         "evict"),
        ("nothing free goes to the CPU", ["--free", "0"], "cpu"),
    ],
)  # fmt: skip
def test_choices(capsys, sentence, arguments, kind):
    assert answer(capsys, *WAN, *arguments)["plans"][0]["kind"] == kind


@pytest.mark.parametrize(
    ("ram", "fits", "word"),
    [("900GiB", True, "yes"), ("1GiB", False, "no"), (None, False, "unknown")],
)
def test_the_cpu_is_held_against_the_system_memory(capsys, ram, fits, word):
    arguments = [*WAN, "--free", "0", *([] if ram is None else ["--ram", ram])]
    cpu = answer(capsys, *arguments)["plans"][0]
    assert (cpu["kind"], cpu["fits"]) == ("cpu", fits)
    row = next(line for line in text(capsys, *arguments).splitlines() if line.startswith("> cpu"))
    assert f" {word} " in row


def test_the_table_is_aligned_and_marks_the_choice(capsys):
    lines = text(capsys, *WAN, "--free", "6GiB", "--ram", "64GiB").splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("  plan"))
    rows = lines[head + 1 : lines.index("", head)]
    assert [row[0] for row in rows] == [">", *" " * (len(rows) - 1)]
    end = lines[head].index("peak") + len("peak")
    assert all(row[:end].endswith("iB") and row[end] == " " for row in rows)
    assert {row[2:].split()[0] for row in rows} >= {"whole", "tiled", "cpu"}
    reason = lines[lines.index("", head) + 1]
    assert reason.startswith("> ")
    assert "whole needs" in reason


def test_one_frame_is_planned_and_said_where_none_are_given(capsys):
    without = WAN[:-2]
    assert "No --frames given: planned for 1 frame." in text(capsys, *without, "--free", "8GiB")
    assert answer(capsys, *without, "--free", "8GiB")["frames"] == 1
    assert "No --frames" not in text(capsys, *WAN, "--free", "8GiB")


def test_a_picture_ignores_frames_and_says_so(capsys):
    many = answer(capsys, *KL, "--frames", "81", "--free", "8GiB")
    assert many["frames"] == 1
    assert any("--frames is ignored" in note for note in many["notes"])
    assert many["plans"] == answer(capsys, *KL, "--free", "8GiB")["plans"]


def test_quality_decides_whether_joins_or_an_eviction_is_worse(capsys):
    arguments = [*WAN, "--free", "5GiB", "--evictable", "90GiB", "--quality"]
    assert answer(capsys, *arguments, "exact")["plans"][0]["kind"] == "evict"
    assert answer(capsys, *arguments, "fast")["plans"][0]["quality"] == "fast"


def test_the_cards_size_adds_its_profile(capsys):
    notes = answer(capsys, *WAN, "--free", "11GiB", "--total", "12GiB")["notes"]
    assert any("12GB_VRAM_32GB_RAM" in note for note in notes)


@pytest.mark.parametrize(
    ("sentence", "arguments", "words"),
    [
        ("a size without sense", [*KL, "--free", "much"], "'much' is not a size"),
        ("a size that is no number", [*KL, "--free", "nan"], "'nan' is not a size"),
        ("a negative size", [*KL, "--free=-1GiB"], "'-1GiB' is not a size"),
        ("a size beyond all numbers", [*KL, "--free", "9" * 400], "more than any machine has"),
        ("an unknown unit", [*KL, "--free", "11GX"], "Write a number and a unit"),
        ("no width", ["--vae", "kl", "--width", "0", "--height", "9", "--free", "1GiB"],
         "'0' is not a whole number from 1 on"),
        ("half a pixel", ["--vae", "kl", "--width", "1.5", "--height", "9", "--free", "1GiB"],
         "'1.5' is not a whole number"),
        ("no such family", ["--vae", "vqgan", "--width", "8", "--height", "8"], "wan2.1"),
        ("an absurd size", ["--vae", "kl", "--width", "9999999", "--height", "9999999",
         "--free", "1GiB"], "cannot be decoded"),
        ("more free than there is", [*KL, "--free", "9GiB", "--total", "8GiB"],
         "--free is more than --total"),
        ("nothing at all", [], "--vae"),
    ],
)  # fmt: skip
def test_bad_arguments_end_with_2_and_say_what_is_wrong(capsys, sentence, arguments, words):
    assert words in refused(capsys, *arguments)


def test_without_free_the_gpu_is_asked(capsys):
    reading = Reading(total_bytes=24 * GiB, free_bytes=20 * GiB)
    assert with_gpu((GPU, reading), *WAN, "--json") == 0
    got = json.loads(capsys.readouterr().out)
    assert (got["free_bytes"], got["total_bytes"]) == (20 * GiB, 24 * GiB)
    assert got["ram_bytes"] > 0
    assert any("free now on Test GPU" in note for note in got["notes"])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "no NVIDIA GPU was found"),
        ((GPU, Reading(error="lost")), "the GPU does not tell what is free"),
    ],
)
def test_without_free_and_without_a_gpu_it_asks_for_it(capsys, found, words):
    with pytest.raises(SystemExit) as ended:
        with_gpu(found, *WAN)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert "--free 11GiB" in error


def test_where_free_is_given_no_gpu_is_asked(monkeypatch, capsys):
    monkeypatch.setattr(plan_command, "read_first_gpu", lambda: pytest.fail("asked"))
    answer(capsys, *WAN, "--free", "11GiB")


def test_help_explains(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", "-h"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--vae wan2.1 --width 1280 --height 720 --frames 81 --free 11GiB" in shown
    assert "no GPU is needed" in shown


def test_it_works_without_torch():
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from vram_supervisor.supervisor.embedded.__main__ import main\n"
        f"raise SystemExit(main(['plan', *{WAN!r}, '--free', '11GiB', '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plans"]


TABLE = PlanTable(
    (
        Plan("tiled", 4, "because", 512 * MiB, fits=True, tile_size=640, overlap=64,
             temporal_size=16, temporal_overlap=4, predicted_seconds=75.0, tile_width=640,
             tile_height=384, warnings=("careful",), evict_bytes=GiB),
        Plan("whole", 1, "too much", 9 * GiB, fits=False, batch=3),
    )
)  # fmt: skip


def test_a_table_for_people():
    shown = as_text(TABLE, (("Free", GiB), ("RAM", None)), ["A note."], ram_known=True)
    assert shown.splitlines() == [
        "Free:      1.0 GiB",
        "",
        "  plan        peak     time  fits  pieces  tile          overlap  frames          evict",
        "> tiled  512.0 MiB    1 min  yes        4  640 x 384 px    64 px  16, 4 shared  1.0 GiB",
        "  whole    9.0 GiB  unknown  no         1  -                   -  all                 -",
        "",
        "> because",
        "  Warning: careful",
        "",
        "A note.",
    ]


def test_a_table_for_programs():
    got = as_json(TABLE, {"vae": "kl"})
    assert got["chosen"] == 0
    assert got["vae"] == "kl"
    first, second = got["plans"]
    assert (first["tile_width"], first["tile_height"], first["evict_bytes"]) == (640, 384, GiB)
    assert (second["predicted_seconds"], second["batch"]) == (None, 3)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "unknown"), (0.034, "0.03 s"), (3.84, "3.8 s"), (600, "10 min"), (9000, "2.5 h")],
)
def test_seconds_for_people(seconds, shown):
    assert seconds_text(seconds) == shown
