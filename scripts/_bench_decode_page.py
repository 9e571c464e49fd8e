"""The page that ``bench.py decode`` writes from its rows. Standard library only."""

from __future__ import annotations

import math
from textwrap import fill
from typing import TYPE_CHECKING, Final

from _bench_decode_cases import CASES, CORE_TILING, FLOAT32_ERROR, GIB, OURS, TABLE, WAYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from _bench_decode_cases import Case, Way
    from _bench_decode_rows import Cell, Rows, Setting, Whole

HEAD: Final = """\
# Decoding on small cards

    python scripts/bench.py decode --comfyui /path/to/ComfyUI --json rows.json
    python scripts/bench.py decode --merge rows.json --out docs/benchmarks/decode.md

on a CUDA GPU. Each case runs in a ComfyUI in the bench's own process (its own `main` imported,
without the server), so with its default memory management. Weights are random unless the case
says otherwise.

"""
TERMS: Final = """\
*whole*: core's `VAEDecode` with all of the real card, twice; *spread* is the relative L2 of the
second against the first, *peak* what it added to torch's allocator, weights not counted.

*card*: a second process holds so much of the GPU's memory that this process can have that many
GiB, its own CUDA context included (not where the heading says that it is beside). A model of
half the card, loaded through ComfyUI's memory management and run once, is on it when a decode
begins. Its eviction, the loading of the VAE and every retry count as time of the decode.

*x*: seconds over the faster of the whole decodes of the same process.

*rel*: relative L2 against the first of those; `=` where every value is equal.

*first*: seconds of the decode before: ours decodes twice in each cell, and the second counts.
*cold* is said of one that began with empty stores (dry runs and self-proofs).

*peak / budget*: what our node measured over what it planned with; `>` where torch's counter gave
a lower bound only.

*RAM / output*: the most by which system memory grew, the pictures included, over the pictures;
what an eviction copies back to RAM is in it, copies of weights that ComfyUI pins are not.

Core's tiled decode runs with {core} (tile, overlap, frames, overlap). The table-driven pack is
imitated: sizes by the card's total memory through the same node ({table}), and after running out
of memory once more with tile and frames halved.

Core and decoders that look at the card's *total* memory see the real card's unless the bench was
given `--told-total`.

Latents and, before each decode, torch's generator are seeded, so that decoders that draw noise
draw the same.

A page may join several runs: the newest figure of each cell, *x* by the whole decodes of its own
run.

What is left of *rel* where a decode is cut is cuDNN's: it chooses kernels by size, and the same
convolution on a crop gave other values in 0.01 to 0.4 % of its bfloat16 results (in float32 parts
are within 1e-6 of the whole). Rounded to bfloat16, a whole decode is 9e-3 from its own float32.
LTX's whole decode picks its chunks by the card's total memory: core's own, told 6 GiB, was 6.1e-3
from the one told 140 GiB.
"""
LEAST_SHARE: Final = 0.8
MOST_RAM: Final = 1.3
MOST_PSNR_DB: Final = 0.01
MOST_NOTE: Final = 80
"""Characters of an error; the file of rows has more."""
EMPTY: Final = "\nNothing was measured yet.\n"


def page(rows: Rows) -> str:
    """All of it."""
    table = ", ".join(_table_step(most, str(tiling)) for most, tiling in TABLE)
    terms = TERMS.format(core=CORE_TILING, table=table).split("\n\n")
    head = HEAD + "".join(map(_bullet, terms))
    parts = [head, *(part for setting in rows.settings() for part in _section(rows, setting))]
    return "".join(parts) if len(parts) > 1 else head + EMPTY


def _bullet(text: str) -> str:
    return fill(text, 98, initial_indent="- ", subsequent_indent="  ") + "\n"


def _table_step(most_gib: float, tiling: str) -> str:
    return f"above {tiling}" if math.isinf(most_gib) else f"up to {most_gib:g} GiB {tiling}"


def _section(rows: Rows, setting: Setting) -> Iterator[str]:
    cells = [cell for cell in rows.cells.values() if cell.setting == setting]
    whole = rows.wholes.get(setting)
    yield f"\n## {_title(setting)}\n\n{_whole_line(whole)}\n"
    if not cells:
        return
    yield "\n" + _lines(_overview(cells))
    yield "\n" + _lines(_ours(cells))
    yield "\n" + _lines(_goals(setting, cells, whole))


def _title(setting: Setting) -> str:
    case = CASES[setting.case]
    sized = case.title
    if setting.size != "full":
        sides = " x ".join(str(side) for side in case.latents[setting.size] if side is not None)
        sized = f"{setting.case}, {sides} latents"
    vram = "DynamicVRAM" if setting.dynamic else "no DynamicVRAM"
    context = ", context beside the card" if setting.beside_held else ""
    return f"{sized}, {setting.dtype}, {setting.allocator}, {vram}{context}"


def _whole_line(whole: Whole | None) -> str:
    if whole is None:
        return "The whole decode was not measured."
    machine = whole.machine
    seconds = " and ".join(f"{each:.2f} s" for each in whole.seconds)
    peaks = " and ".join(_gib(each) for each in whole.peak_bytes)
    real = "" if whole.psnr_db is None else f", PSNR {whole.psnr_db:.2f} dB"
    return (
        f"{machine.get('gpu')}, torch {machine.get('torch')}, cuDNN {machine.get('cudnn')}. "
        f"Whole: {seconds}, peak {peaks}, spread {whole.spread:.1e}, "
        f"output {_gib(whole.output_bytes)}{real}."
    )


def _overview(cells: Sequence[Cell]) -> Iterator[Sequence[str]]:
    measured = {cell.way for cell in cells}
    ways = {way: heading for way, heading in WAYS.items() if way in measured}
    yield "card", *ways.values()
    found = {(cell.card_gib, cell.way): cell for cell in cells}
    for card in sorted({cell.card_gib for cell in cells}):
        briefs = [_brief(found.get((card, way))) for way in ways]
        yield f"{card:g} GiB", *briefs


def _brief(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    if cell.state != "ok":
        return "OOM" if cell.state == "OOM" else f"error: {_cell_text(cell.note)[:MOST_NOTE]}"
    after = " after an OOM" if "OOM" in cell.plan or "ran out" in cell.plan else ""
    psnr = "" if cell.psnr_db is None else f", {cell.psnr_db:.2f} dB"
    return f"{_seconds(cell.seconds)} ({_ratio(cell)}), rel {_relative(cell)}{psnr}{after}"


def _ours(cells: Sequence[Cell]) -> Iterator[Sequence[str]]:
    yield "card", "quality", "s", "x", "first", "rel", "peak / budget", "RAM / output", "plan"
    ours = [cell for cell in cells if cell.way in OURS]
    for cell in sorted(ours, key=lambda cell: (cell.card_gib, OURS.index(cell.way))):
        yield (
            f"{cell.card_gib:g} GiB",
            cell.way,
            _seconds(cell.seconds),
            _ratio(cell),
            _seconds(cell.cold_seconds) + (", cold" if cell.is_cold else ""),
            _relative(cell) if cell.state == "ok" else cell.state,
            _share(cell),
            _over(cell.ram_bytes, cell.output_bytes),
            _cell_text(cell.plan or cell.note[:MOST_NOTE]),
        )


def _goals(setting: Setting, cells: Sequence[Cell], whole: Whole | None) -> Iterator[Sequence[str]]:
    yield "goal", "found", "met"
    ours = [cell for cell in cells if cell.way in OURS]
    done = [cell for cell in ours if cell.state == "ok"]
    yield "every decode of ours succeeds", f"{len(done)} of {len(ours)}", _met(done == ours)
    yield from _error_goal(setting, cells, whole)
    case = CASES[setting.case]
    if setting.size == "full":
        yield from _time_goals("exact", case.most_ratio, done)
        yield from _time_goals("balanced", case.balanced_ratio, done)
        yield from _ram_goal(case, done)
    yield from _peak_goals(done)
    yield from _photo_goal(done, whole)


def _error_goal(
    setting: Setting, cells: Sequence[Cell], whole: Whole | None
) -> Iterator[Sequence[str]]:
    """Or what two whole decodes differ by on that card, where that is more."""
    least = FLOAT32_ERROR if setting.dtype == "fp32" else CASES[setting.case].most_error
    least = max(least, 0.0 if whole is None else whole.spread)
    known = [cell for cell in cells if cell.way == "exact" and cell.relative is not None]
    if not known:
        return
    over = [
        cell for cell in known if (cell.relative or 0.0) > max(least, _core_spread(cell, cells))
    ]
    worst = max(cell.relative or 0.0 for cell in known)
    yield f"exact: rel at most {least:.1e}, or whole's own there", f"{worst:.1e}", _met(not over)


def _core_spread(cell: Cell, cells: Iterable[Cell]) -> float:
    """How far core's whole decode is on that card, 0 where it made none."""
    wholes = [
        each.relative or 0.0
        for each in cells
        if each.way == "core" and each.card_gib == cell.card_gib and each.plan == "whole"
    ]
    return max(wholes, default=0.0)


def _time_goals(
    way: Way, most: dict[float, float], done: Sequence[Cell]
) -> Iterator[Sequence[str]]:
    for card, limit in sorted(most.items()):
        found = [cell for cell in done if cell.way == way and cell.card_gib == card]
        for cell in found:
            ratio = _ratio_of(cell)
            if ratio is not None:
                goal = f"{way} at {card:g} GiB: at most {limit:g}x"
                yield goal, f"{ratio:.2f}x", _met(ratio <= limit)


def _peak_goals(done: Sequence[Cell]) -> Iterator[Sequence[str]]:
    known = [share for share in map(_share_of, done) if share is not None]
    if known:
        yield "no peak above its budget", f"at most {max(known):.2f}", _met(max(known) <= 1)
    tiled = [share for share in map(_share_of, filter(_in_parts, done)) if share is not None]
    if tiled:
        goal = f"tiled plans use at least {LEAST_SHARE:.0%} of the budget"
        yield goal, f"at least {min(tiled):.2f}", _met(min(tiled) >= LEAST_SHARE)


def _ram_goal(case: Case, done: Sequence[Cell]) -> Iterator[Sequence[str]]:
    known = [(cell.ram_bytes, cell.output_bytes) for cell in done]
    grown = [ram / output for ram, output in known if ram is not None and output]
    if case.streams and grown:
        goal = f"RAM at most {MOST_RAM:g}x the output"
        yield goal, f"at most {max(grown):.2f}x", _met(max(grown) <= MOST_RAM)


def _photo_goal(done: Sequence[Cell], whole: Whole | None) -> Iterator[Sequence[str]]:
    if whole is None or whole.psnr_db is None:
        return
    apart = [abs(cell.psnr_db - whole.psnr_db) for cell in done if cell.psnr_db is not None]
    if apart:
        goal = f"PSNR against the photo within {MOST_PSNR_DB:g} dB of whole's"
        yield goal, f"{max(apart):.3f} dB", _met(max(apart) <= MOST_PSNR_DB)


def _in_parts(cell: Cell) -> bool:
    plan = cell.report.get("plan") or {}
    return plan.get("kind") not in {None, "whole", "evict"}


def _met(is_so: bool) -> str:  # noqa: FBT001
    return "yes" if is_so else "**no**"


def _lines(table: Iterator[Sequence[str]]) -> str:
    head, *rest = table
    lines = [head, ["---"] * len(head), *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"


def _ratio_of(cell: Cell) -> float | None:
    return None if cell.seconds is None or not cell.whole_s else cell.seconds / cell.whole_s


def _ratio(cell: Cell) -> str:
    ratio = _ratio_of(cell)
    return "-" if ratio is None else f"{ratio:.2f}x"


def _relative(cell: Cell) -> str:
    if cell.relative is None:
        return "-"
    return f"{cell.relative:.1e}" if cell.relative else "="


def _share_of(cell: Cell) -> float | None:
    if cell.peak_bytes is None or not cell.budget_bytes:
        return None
    return cell.peak_bytes / cell.budget_bytes


def _share(cell: Cell) -> str:
    share = _share_of(cell)
    return "-" if share is None else f"{'' if cell.peak_is_exact else '>'}{share:.2f}"


def _over(part_bytes: int | None, whole_bytes: int | None) -> str:
    return "-" if part_bytes is None or not whole_bytes else f"{part_bytes / whole_bytes:.2f}x"


def _gib(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{size_bytes / GIB:.2f} GiB"


def _cell_text(text: str) -> str:
    """A bar would end the cell."""
    return text.replace("|", "/").replace("\n", " ")
