"""How long a decode takes: a few coefficients, scaled to what this key really took. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from statistics import median, median_low
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .calibration import Measurement

PRIOR_WEIGHT: Final = 1e-4
"""Weight of the prior's proportions beside one measurement: what was measured wins, and what
no measurement tells apart (tiles from pixels) stays as the prior has it."""
LEAST_SHARE: Final = 0.05
"""No coefficient falls below this share of the scaled prior: contradicting measurements must
not make tiles or pixels free."""
SANE_SECONDS: Final = (1e-6, 1e7)
"""Outside, a clock went wrong."""
FAR_FROM_PRIOR: Final = 3.0
"""A decode that took so many times longer or shorter than the others, by the prior, is left
out of the first fit."""
FAR_FROM_FIT: Final = 1.5
"""The same for the second fit, by the first one."""
LEAST_FOR_OUTLIERS: Final = 3
"""With fewer, nobody can tell which one is wrong."""

_Features: TypeAlias = tuple[int, int, int]
"""Pixels, tiles and moved bytes of a decode."""
_Point: TypeAlias = tuple[_Features, float]
"""A decode and its seconds."""


@dataclass(frozen=True, slots=True)
class TimeModel:
    """Seconds for each unit of work; none is negative.

    Attributes:
        per_pixel_s: per decoded output pixel and frame, halo and overlap included.
        per_tile_s: per piece, for launching it and copying it out.
        per_moved_byte_s: per byte copied between device and host.
        evict_per_byte_s: per byte of models moved off the device to make room.
        reload_per_byte_s: per byte of models that must come back afterwards.
        cpu_per_pixel_s: like ``per_pixel_s``, on the CPU.
    """

    per_pixel_s: float
    per_tile_s: float
    per_moved_byte_s: float
    evict_per_byte_s: float
    reload_per_byte_s: float
    cpu_per_pixel_s: float

    def decode_s(self, pixels: int, tiles: int = 1, moved_bytes: int = 0) -> float:
        """Seconds on the device.

        Args:
            pixels: decoded output pixels times frames, halo and overlap included.
            tiles: pieces.
            moved_bytes: copied between device and host.
        """
        return _seconds(_coefficients(self), (pixels, tiles, moved_bytes))

    def evict_s(self, evicted_bytes: int) -> float:
        """Seconds for moving models off the device."""
        return evicted_bytes * self.evict_per_byte_s

    def reload_s(self, reloaded_bytes: int) -> float:
        """Seconds for bringing models back."""
        return reloaded_bytes * self.reload_per_byte_s

    def cpu_s(self, pixels: int) -> float:
        """Seconds for the same decode on the CPU."""
        return pixels * self.cpu_per_pixel_s


def fit_time(measurements: Iterable[Measurement], prior: TimeModel) -> TimeModel:
    """The prior, corrected by what decodes of this key took.

    One measurement scales it. Several tell pixels, tiles and copies apart as far as they
    differ in them: least squares of the relative errors, every coefficient above 0. Of repeats
    the median counts, and a decode far from the others (a first run that tries out kernels)
    is left out. Without any usable measurement the prior comes back as it is.

    What was measured says nothing about evicting, reloading and the CPU: those stay.
    """
    points = _points(measurements)
    scales = [_slowness(point, _coefficients(prior)) for point in points]
    if not points or not all(map(_is_usable, scales)):
        return prior
    scaled = _scaled(_coefficients(prior), median(scales))
    found = _fit(_near(points, scaled, FAR_FROM_PRIOR), scaled)
    found = _fit(_near(points, found, FAR_FROM_FIT), scaled)
    per_pixel_s, per_tile_s, per_moved_byte_s = found
    return replace(
        prior,
        per_pixel_s=per_pixel_s,
        per_tile_s=per_tile_s,
        per_moved_byte_s=per_moved_byte_s,
    )


def _points(measurements: Iterable[Measurement]) -> list[_Point]:
    """One for each distinct amount of work. The low median: of two runs the faster one, since
    what disturbs a run makes it slower."""
    same: dict[_Features, list[float]] = {}
    for each in measurements:
        if _has_time(each):
            same.setdefault((each.pixels or 0, each.tiles, each.moved_bytes), []).append(
                each.seconds or 0.0
            )
    return [(work, median_low(seconds)) for work, seconds in same.items()]


def _has_time(measurement: Measurement) -> bool:
    """A decode that failed stopped somewhere; its time means nothing."""
    if measurement.failed or measurement.seconds is None or measurement.pixels is None:
        return False
    work_is_sane = measurement.pixels > 0 and measurement.tiles > 0 and measurement.moved_bytes >= 0
    shortest_s, longest_s = SANE_SECONDS
    return work_is_sane and shortest_s <= measurement.seconds <= longest_s


def _is_usable(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _coefficients(model: TimeModel) -> tuple[float, ...]:
    return model.per_pixel_s, model.per_tile_s, model.per_moved_byte_s


def _scaled(coefficients: Sequence[float], factor: float) -> tuple[float, ...]:
    return tuple(each * factor for each in coefficients)


def _seconds(coefficients: Sequence[float], work: _Features) -> float:
    return sum(each * amount for each, amount in zip(coefficients, work, strict=True))


def _slowness(point: _Point, coefficients: Sequence[float]) -> float:
    """How many times longer a decode took than the coefficients say."""
    work, seconds = point
    expected_s = _seconds(coefficients, work)
    return seconds / expected_s if expected_s > 0 else math.inf


def _near(points: list[_Point], coefficients: Sequence[float], factor: float) -> list[_Point]:
    """Those within ``factor`` of what the coefficients say; all, where most are not."""
    if len(points) < LEAST_FOR_OUTLIERS:
        return points
    near = [each for each in points if 1 / factor <= _slowness(each, coefficients) <= factor]
    return near if 2 * len(near) >= len(points) else points


def _fit(points: Sequence[_Point], expected: Sequence[float]) -> tuple[float, ...]:
    """Coefficients that fit the points, near ``expected`` where the points leave it open.

    Unknowns are multiples of the expected coefficients, so that all are near 1 and relative
    errors count alike; a coefficient that is expected to be 0 stays 0. Three unknowns are few
    enough to try every choice of those that are held at the least they may be.
    """
    rows = [
        [each * amount / seconds for each, amount in zip(expected, work, strict=True)]
        for work, seconds in points
    ]
    pull = math.sqrt(PRIOR_WEIGHT)
    rows += [[pull * (i == j) for j in range(len(expected))] for i in range(len(expected))]
    targets = [1.0] * len(points) + [pull] * len(expected)
    # From here on the unknowns are what is above the least share.
    targets = [t - LEAST_SHARE * sum(row) for row, t in zip(rows, targets, strict=True)]
    candidates = (
        _solved(rows, targets, free) for free in product((True, False), repeat=len(expected))
    )
    allowed = [each for each in candidates if min(each) >= 0]
    best = min(allowed, key=lambda each: _error(rows, targets, each))
    return tuple(each * (LEAST_SHARE + above) for each, above in zip(expected, best, strict=True))


def _error(rows: list[list[float]], targets: list[float], x: Sequence[float]) -> float:
    return sum(
        (sum(a * b for a, b in zip(row, x, strict=True)) - target) ** 2
        for row, target in zip(rows, targets, strict=True)
    )


def _solved(
    rows: list[list[float]], targets: list[float], free: Sequence[bool]
) -> tuple[float, ...]:
    """Least squares in the free unknowns, by the normal equations; the others are 0."""
    columns = [j for j, is_free in enumerate(free) if is_free]
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in columns]
        + [sum(row[i] * target for row, target in zip(rows, targets, strict=True))]
        for i in columns
    ]
    values = iter(_eliminated(matrix))
    return tuple(next(values) if is_free else 0.0 for is_free in free)


def _eliminated(matrix: list[list[float]]) -> list[float]:
    """Gauss-Jordan. The matrix is positive definite (the prior's pull sees to it), so every
    pivot is above 0 and no rows need to be swapped."""
    for i, pivot_row in enumerate(matrix):
        pivot_row[:] = [value / pivot_row[i] for value in pivot_row]
        for j, row in enumerate(matrix):
            if j != i:
                row[:] = [a - row[i] * b for a, b in zip(row, pivot_row, strict=True)]
    return [row[-1] for row in matrix]
