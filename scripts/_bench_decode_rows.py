"""Rows of ``bench.py decode`` and the files they are kept in. Standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from _bench_decode_cases import Size, Way


@dataclass(frozen=True)
class Setting:
    """What rows must have in common to stand in one table.

    Attributes:
        case: its name.
        size: of its latent.
        dtype: of the VAE.
        allocator: torch's, "cpu" without a GPU.
        dynamic: whether ComfyUI's DynamicVRAM is on.
        beside_held: the card's size was free, whatever the process held before.
    """

    case: str
    size: Size
    dtype: str
    allocator: str
    dynamic: bool
    beside_held: bool = False


@dataclass
class Whole:
    """Core's whole decode on the real card, nothing else on it, more than once.

    Attributes:
        seconds: of each.
        peak_bytes: of each, weights not counted; None on a CPU.
        spread: relative L2 of the last against the first.
        psnr_db: of the first against the photo; None for random weights.
        output_bytes: of the pictures.
        plan: what core did.
    """

    setting: Setting
    seconds: list[float]
    peak_bytes: list[int | None]
    spread: float
    psnr_db: float | None
    output_bytes: int
    shape: list[int]
    plan: str
    machine: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def best_s(self) -> float:
        """The faster one: the first of a process loads kernels."""
        return min(self.seconds)


@dataclass
class Cell:
    """One way on one card.

    Attributes:
        state: how it ended.
        note: the error's first line.
        whole_s: what whole took in the same process.
        cold_seconds: of the decode before this one, which also did dry runs and self-proofs;
            None where there was none.
        is_cold: that decode began with empty stores.
        relative: L2 against the whole decode; None where it failed.
        largest: difference of one value.
        psnr_db: against the photo.
        budget_bytes: what our node planned with.
        peak_bytes: what it measured.
        peak_is_exact: else it is the least it can have been.
        torch_bytes: added to torch's allocator by all of it, loaded weights included.
        ram_bytes: what system memory grew by.
        free_bytes: of the card when the decode began.
        held_bytes: by this process before anything was loaded: its context.
        resident_bytes: of the card, taken by the resident model.
        plan: what was done, in one line.
        report: our node's own words.
    """

    setting: Setting
    card_gib: float
    way: Way
    state: Literal["ok", "OOM", "error"]
    note: str = ""
    seconds: float | None = None
    whole_s: float | None = None
    cold_seconds: float | None = None
    is_cold: bool = False
    relative: float | None = None
    largest: float | None = None
    psnr_db: float | None = None
    budget_bytes: int | None = None
    peak_bytes: int | None = None
    peak_is_exact: bool = False
    torch_bytes: int | None = None
    ram_bytes: int | None = None
    output_bytes: int | None = None
    free_bytes: int | None = None
    held_bytes: int | None = None
    resident_bytes: int | None = None
    plan: str = ""
    report: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Rows:
    """All that was measured; a later row replaces an earlier one of the same place."""

    wholes: dict[Setting, Whole] = field(default_factory=dict[Setting, Whole])
    cells: dict[tuple[Setting, float, Way], Cell] = field(
        default_factory=dict["tuple[Setting, float, Way]", Cell]
    )

    def add(self, row: Whole | Cell) -> None:
        """Keep a row."""
        if isinstance(row, Whole):
            self.wholes[row.setting] = row
        else:
            self.cells[row.setting, row.card_gib, row.way] = row

    def settings(self) -> list[Setting]:
        """Each once."""
        return list(dict.fromkeys((*self.wholes, *(place[0] for place in self.cells))))

    def write(self, path: Path) -> None:
        """All of them, at once: a run that is cut short leaves a file that can be read."""
        document = {
            "wholes": [asdict(row) for row in self.wholes.values()],
            "cells": [asdict(row) for row in self.cells.values()],
        }
        new = path.with_suffix(path.suffix + ".new")
        new.write_text(json.dumps(document), encoding="utf-8")
        new.replace(path)


def read(paths: Iterable[Path]) -> Rows:
    """Rows of several files, the later before the earlier."""
    rows = Rows()
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        for row in document["wholes"]:
            rows.add(Whole(**_with_setting(row)))
        for row in document["cells"]:
            rows.add(Cell(**_with_setting(row)))
    return rows


def _with_setting(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"setting": Setting(**row["setting"])}
