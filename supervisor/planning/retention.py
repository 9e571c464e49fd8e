"""Which measurements of a key are worth keeping when there are too many. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from .calibration import unusable_because

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .calibration import Measurement, PieceShape

_GroupT = TypeVar("_GroupT")


def retained(measurements: Sequence[Measurement], limit: int) -> list[Measurement]:
    """The ``limit`` measurements most worth keeping, in the order given.

    First the largest ratio and the largest that was only a lower bound, since the bound rests
    on them; then the largest of each shape, newest shapes first; then repeats, newest first.
    """
    if len(measurements) <= limit:
        return list(measurements)
    newest_first = sorted(
        range(len(measurements)), key=lambda i: (measurements[i].time_s, i), reverse=True
    )
    extremes: dict[bool, int] = {}
    largest: dict[tuple[PieceShape, bool], int] = {}
    for index in newest_first:
        each = measurements[index]
        _keep_larger(extremes, each.is_lower_bound, index, measurements)
        _keep_larger(largest, (each.shape, each.is_lower_bound), index, measurements)
    wanted = dict.fromkeys((*extremes.values(), *largest.values(), *newest_first))
    kept = list(wanted)[: max(0, limit)]
    return [measurements[index] for index in sorted(kept)]


def _keep_larger(
    best: dict[_GroupT, int], group: _GroupT, index: int, measurements: Sequence[Measurement]
) -> None:
    known = best.get(group)
    if known is None or _usable_ratio(measurements[index]) > _usable_ratio(measurements[known]):
        best[group] = index


def _usable_ratio(measurement: Measurement) -> float:
    """For comparing; what the bound leaves out counts least."""
    return -1.0 if unusable_because(measurement) is not None else measurement.ratio
