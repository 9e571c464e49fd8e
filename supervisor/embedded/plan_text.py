"""A plan table for people and for programs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..planning.types import PlanTable
    from ..types import Plan

COLUMNS: Final = ("plan", "peak", "time", "fits", "pieces", "tile", "overlap", "frames", "evict")
RIGHT: Final = frozenset({"peak", "time", "pieces", "overlap", "evict"})
MARK: Final = ">"
NOTHING: Final = "-"
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


def as_json(table: PlanTable, facts: Mapping[str, object]) -> dict[str, object]:
    """``plans`` and ``chosen``, then what it rests on. Bytes, seconds, pixels, frames."""
    return {"plans": [_plan_json(plan) for plan in table.plans], "chosen": table.chosen, **facts}


def as_text(
    table: PlanTable,
    heading: Sequence[tuple[str, str | int | None]],
    notes: Sequence[str],
    *,
    ram_known: bool,
) -> str:
    """Heading, table, the reason of the chosen plan, warnings and notes; ends with a newline.

    Args:
        heading: names with texts or bytes; None is left out.
        ram_known: whether the CPU's plan could be held against free system memory.
    """
    lines = [f"{name + ':':<11}{_text(value)}" for name, value in heading if value is not None]
    lines += ["", *_rows(table, ram_known=ram_known), "", f"{MARK} {table.best.reason}"]
    lines += [f"  Warning: {warning}" for warning in table.best.warnings]
    lines += ["", *notes]
    return "\n".join(lines) + "\n"


def seconds_text(seconds: float | None) -> str:
    """Seconds for people: ``3.84`` -> ``"3.8 s"``, ``600`` -> ``"10 min"``."""
    if seconds is None:
        return "unknown"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"


def _text(value: str | int | None) -> str:
    return value if isinstance(value, str) else format_bytes(value)


def _rows(table: PlanTable, *, ram_known: bool) -> list[str]:
    cells = [COLUMNS, *(_cells(plan, ram_known=ram_known) for plan in table.plans)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(COLUMNS))]
    lines: list[str] = []
    for number, row in enumerate(cells):
        mark = MARK if number == table.chosen + 1 else " "
        aligned = (
            cell.rjust(width) if name in RIGHT else cell.ljust(width)
            for name, cell, width in zip(COLUMNS, row, widths, strict=True)
        )
        lines.append(f"{mark} {'  '.join(aligned)}".rstrip())
    return lines


def _cells(plan: Plan, *, ram_known: bool) -> tuple[str, ...]:
    return (
        plan.kind,
        format_bytes(plan.predicted_peak_bytes),
        seconds_text(plan.predicted_seconds),
        _fits(plan, ram_known=ram_known),
        str(plan.tiles),
        _tile(plan),
        NOTHING if plan.overlap is None else f"{plan.overlap} px",
        _frames(plan),
        format_bytes(plan.evict_bytes) if plan.evict_bytes else NOTHING,
    )


def _fits(plan: Plan, *, ram_known: bool) -> str:
    if plan.kind == "cpu" and not ram_known:
        return "unknown"
    return "yes" if plan.fits else "no"


def _tile(plan: Plan) -> str:
    if plan.tile_width is not None and plan.tile_height is not None:
        return f"{plan.tile_width} x {plan.tile_height} px"
    return NOTHING if plan.tile_size is None else f"{plan.tile_size} px"


def _frames(plan: Plan) -> str:
    if plan.temporal_size is None:
        return "all"
    return f"{plan.temporal_size}, {plan.temporal_overlap} shared"


def _plan_json(plan: Plan) -> dict[str, object]:
    return {
        "kind": plan.kind,
        "tile_size": plan.tile_size,
        "overlap": plan.overlap,
        "temporal_size": plan.temporal_size,
        "temporal_overlap": plan.temporal_overlap,
        "predicted_peak_bytes": plan.predicted_peak_bytes,
        "predicted_seconds": plan.predicted_seconds,
        "fits": plan.fits,
        "reason": plan.reason,
        "tiles": plan.tiles,
        "tile_width": plan.tile_width,
        "tile_height": plan.tile_height,
        "batch": plan.batch,
        "evict_bytes": plan.evict_bytes,
        "quality": plan.quality,
        "warnings": list(plan.warnings),
    }
