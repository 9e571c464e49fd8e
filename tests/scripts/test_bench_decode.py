"""``bench.py decode``: what it says of rows, how it compares, and how a card is made smaller."""

import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from _bench_decode import passed_on
from _bench_decode_ballast import Ballast, BallastFailedError, Emulation
from _bench_decode_cases import CASES, GIB, WAYS, table_tiling
from _bench_decode_host import Said
from _bench_decode_page import page
from _bench_decode_rows import Cell, Rows, Setting, Whole, read

torch = pytest.importorskip("torch")

from _bench_decode_measure import RamWatch, difference  # noqa: E402
from _bench_decode_photos import photo  # noqa: E402

SCRIPTS = Path(__file__).parents[2] / "scripts"
WAN = Setting("wan2.1", "full", "bf16", "cudaMallocAsync", dynamic=True)
WHOLE = Whole(WAN, [4.2, 4.0], [7 * GIB, 7 * GIB], 0.0, None, GIB, [81, 720, 1280, 3], "whole")


def cell(way="exact", card=12.0, state="ok", **others):
    known = {"seconds": 4.4, "whole_s": 4.0, "relative": 1e-4, "plan": "whole: done"}
    return Cell(WAN, card, way, state, **(known | others))


def paged(*cells, whole=WHOLE):
    rows = Rows()
    for row in (whole, *cells):
        rows.add(row)
    return page(rows)


def goal(text, name):
    line = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
    return line.strip("| ").split(" | ")[-1]


TIGHT = {"budget_bytes": 10 * GIB, "report": {"plan": {"kind": "tiled"}}, "peak_is_exact": True}
RAM = {"output_bytes": GIB}


@pytest.mark.parametrize(
    ("sentence", "cells", "name", "met"),
    [
        ("all went well", [cell()], "every decode of ours", "yes"),
        ("core may fail", [cell(), cell("core", state="OOM")], "every decode of ours", "yes"),
        ("ours may not", [cell(), cell("balanced", state="OOM")], "every decode", "**no**"),
        ("close to whole", [cell(relative=0.001)], "exact: rel", "yes"),
        ("far from whole", [cell(relative=0.003)], "exact: rel", "**no**"),
        (
            "no farther than core's whole decode on that card",
            [cell(relative=0.003), cell("core", relative=0.007, plan="whole")],
            "exact: rel",
            "yes",
        ),
        (
            "core's whole decode of another card says nothing",
            [cell(relative=0.003), cell("core", 6.0, relative=0.007, plan="whole")],
            "exact: rel",
            "**no**",
        ),
        (
            "nor one that core tiled",
            [cell(relative=0.003), cell("core", relative=0.4, plan="whole: OOM; tiled")],
            "exact: rel",
            "**no**",
        ),
        ("balanced may be farther", [cell(), cell("balanced", relative=0.01)], "exact: rel", "yes"),
        ("fast enough", [cell(seconds=4.6)], "exact at 12 GiB", "yes"),
        ("too slow", [cell(seconds=4.7)], "exact at 12 GiB", "**no**"),
        ("slower on a smaller card", [cell(card=6.0, seconds=5.9)], "exact at 6 GiB", "yes"),
        ("within budget", [cell(peak_bytes=9 * GIB, **TIGHT)], "no peak above", "yes"),
        ("above budget", [cell(peak_bytes=11 * GIB, **TIGHT)], "no peak above", "**no**"),
        ("tiles fill it", [cell(peak_bytes=8 * GIB, **TIGHT)], "tiled plans use", "yes"),
        ("tiles too small", [cell(peak_bytes=7 * GIB, **TIGHT)], "tiled plans use", "**no**"),
        ("little RAM", [cell(ram_bytes=int(1.2 * GIB), **RAM)], "RAM at most", "yes"),
        ("much RAM", [cell(ram_bytes=2 * GIB, **RAM)], "RAM at most", "**no**"),
    ],
)
def test_goals(sentence, cells, name, met):
    assert goal(paged(*cells), name) == met, sentence


def test_photos_must_look_the_same():
    whole = Whole(WAN, [1.0], [None], 0.0, 32.0, GIB, [1, 8, 8, 3], "whole")
    assert goal(paged(cell(psnr_db=31.995), whole=whole), "PSNR") == "yes"
    assert goal(paged(cell(psnr_db=31.9), whole=whole), "PSNR") == "**no**"


def test_every_way_has_a_column_and_every_card_a_line():
    text = paged(
        *(cell(way, card) for way in WAYS for card in (6.0, 24.0)),
        cell("core", 6.0, "OOM", seconds=9.0),
        cell("table", 6.0, plan="tiles 256/64/32/8: OOM; tiles 128/64/16/8"),
        cell("tiled", 24.0, "error", note="ValueError: a | b"),
    )
    header, _, six, twenty_four = text[text.index("| card |") :].splitlines()[:4]
    assert header.count("|") == six.count("|") == twenty_four.count("|") == len(WAYS) + 2
    assert six.endswith("| 4.40 s (1.10x), rel 1.0e-04 after an OOM | OOM |")
    assert "error: ValueError: a / b" in twenty_four


def test_equal_pictures_are_told_from_close_ones():
    text = paged(cell(relative=0.0), cell("balanced", relative=1e-9))
    assert "rel = |" in text
    assert "rel 1.0e-09 |" in text


def test_the_page_without_rows_says_so():
    assert "Nothing was measured yet" in page(Rows())


def test_files_are_merged_and_the_later_replaces_the_earlier(tmp_path):
    early, late = Rows(), Rows()
    for row in (WHOLE, cell(state="OOM"), cell("core")):
        early.add(row)
    for row in (WHOLE, cell(seconds=5.0, report={"plan": {"kind": "whole"}})):
        late.add(row)
    early.write(tmp_path / "early.json")
    late.write(tmp_path / "late.json")
    merged = read([tmp_path / "early.json", tmp_path / "late.json"])
    assert merged.wholes == {WAN: WHOLE}
    assert {(row.way, row.state, row.seconds) for row in merged.cells.values()} == {
        ("exact", "ok", 5.0),
        ("core", "ok", 4.4),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["early.json", "late.json"]


def test_the_command_line_merges_without_comfyui(tmp_path):
    rows = Rows()
    rows.add(WHOLE)
    rows.add(cell())
    rows.write(tmp_path / "rows.json")
    out = tmp_path / "page.md"
    command = [sys.executable, SCRIPTS / "bench.py", "decode", "--merge", tmp_path / "rows.json"]
    subprocess.run([*command, "--out", out], check=True)
    assert out.read_text(encoding="utf-8") == page(rows)


def test_processes_get_all_options_but_the_ones_dealt_with():
    asked = "--comfyui X --cases kl ltx --ways core --cards 6 --once --limit-s 9 --isolate"
    passed = passed_on([*asked.split(), "--json", "f"])
    assert passed == ["--comfyui", "X", "--cards", "6", "--once"]


@pytest.mark.parametrize(
    ("card", "sizes"), [(6, "256/64/32/8"), (8, "256/64/32/8"), (9, "384/64/48/8")]
)
def test_a_table_looks_at_the_card_only(card, sizes):
    assert str(table_tiling(card)) == sizes


def test_a_table_has_an_answer_for_any_card():
    assert table_tiling(141).tile_size == 1024
    assert str(table_tiling(6).halved()) == "128/64/16/8"


def test_all_cases_have_all_sizes():
    for case in CASES.values():
        assert set(case.latents) == {"full", "small", "tiny"}


def test_difference_is_relative_to_the_reference():
    reference = torch.full((3, 4, 5, 3), 0.5)
    found = difference(reference + 0.25, reference)
    assert found.relative == pytest.approx(0.5)
    assert found.largest == pytest.approx(0.25)
    assert found.psnr_db == pytest.approx(-20 * math.log10(0.25))


def test_equal_pictures_have_no_difference():
    pictures = torch.rand((2, 3, 3, 3)).movedim(1, -1)
    found = difference(pictures, pictures.contiguous())
    assert (found.relative, found.largest, found.psnr_db) == (0.0, 0.0, math.inf)


def test_one_differing_picture_of_many_counts():
    reference = torch.ones((4, 2, 2, 3))
    pictures = reference.clone()
    pictures[3] = 0
    assert difference(pictures, reference).relative == pytest.approx(0.5)


def test_ram_that_is_still_held_at_the_end_counts():
    size_bytes = 256 << 20
    with RamWatch(lambda: 0) as watch:
        held = torch.ones(size_bytes, dtype=torch.uint8)
    assert watch.growth_bytes > size_bytes // 2
    assert held.numel() == size_bytes


def test_weights_that_the_host_pins_meanwhile_are_taken_off():
    size_bytes, pinned = 256 << 20, [0]
    with RamWatch(lambda: sum(pinned)) as watch:
        pinned.append(size_bytes)
        held = torch.ones(size_bytes, dtype=torch.uint8)
    assert watch.growth_bytes < size_bytes // 2
    assert held.numel() == size_bytes


def test_photos_are_mirrored_until_the_picture_is_full(tmp_path):
    from PIL import Image

    Image.new("RGB", (3, 2)).save(tmp_path / "black.png")
    Image.new("RGB", (2, 5), "white").save(tmp_path / "white.png")
    picture = photo(tmp_path, 4, 12)
    assert picture.shape == (1, 4, 12, 3)
    row = picture[0, 3, :, 0].tolist()
    assert row == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_an_empty_folder_of_photos_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="no photos"):
        photo(tmp_path, 8, 8)


CONTEXT = 1 * GIB
DEVICE = """
import sys
total, others = map(int, sys.argv[1:3])
print("left", total - others, 0, flush=True)
for line in sys.stdin:
    asked = int(line.split()[1])
    held = max(0, total - others - asked)
    print("left", total - others - held, held, flush=True)
"""


def device(total, others, script=DEVICE):
    return Ballast((sys.executable, "-c", script, str(total), str(others)))


def test_a_card_is_what_is_free_and_what_we_hold_ourselves():
    total, ours = 140 * GIB, 2 * GIB
    ballast = device(total, ours + CONTEXT)

    def memory():
        return total - ours - CONTEXT - ballast.held_bytes, total

    emulation = Emulation(ballast, memory, CONTEXT)
    assert emulation.become(6 * GIB) == (4 * GIB, ours)
    assert emulation.become(24 * GIB) == (22 * GIB, ours)
    assert emulation.become(24 * GIB, beside_held=True) == (24 * GIB, ours)
    emulation.end()


def test_retries_that_core_only_logs_are_heard():
    with Said() as lines:
        logging.getLogger("comfy").warning("Ran out of %s", "memory")
    logging.getLogger("comfy").warning("later")
    assert lines == ["Ran out of memory"]


def test_a_ballast_that_cannot_leave_what_it_should_is_an_error():
    ballast = device(8 * GIB, 4 * GIB)
    with pytest.raises(BallastFailedError, match="left"):
        ballast.leave(6 * GIB)
    ballast.close()


def test_a_ballast_that_ends_is_an_error():
    ballast = device(8 * GIB, 0, 'print("left 8 0")')
    with pytest.raises(BallastFailedError, match="it ended"):
        ballast.leave(1)
    with pytest.raises(BallastFailedError, match="it ended"):
        Ballast((sys.executable, "-c", ""))


@pytest.mark.host
@pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason="no COMFYUI_PATH")
def test_the_bench_runs_in_a_real_comfyui(tmp_path):
    command = [sys.executable, SCRIPTS / "bench.py", "decode", "--cpu", "--cases", "ltx"]
    command += ["--ways", "exact", "core", "--cards", "1", "--json", tmp_path / "rows.json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Torch already imported" not in done.stderr  # DynamicVRAM would be beside it
    rows = read([tmp_path / "rows.json"])
    (whole,) = rows.wholes.values()
    assert whole.shape == [9, 128, 192, 3]
    assert whole.spread == 0  # the noise is drawn alike
    assert {row.way: row.relative for row in rows.cells.values()} == {"exact": 0, "core": 0}
    exact = next(row for row in rows.cells.values() if row.way == "exact")
    assert exact.cold_seconds is not None
    assert exact.report["plan"]["kind"] == "whole"
    assert page(rows).strip() == done.stdout.strip()
