"""What real decodes teach about the dry run: a ratio per key, and a bound that errs upwards.

A dry run and the workspace model say how many bytes a piece should take (its base). What the
device really added, divided by that, hardly changes with the shape as long as the key is the
same. Everything here is pure; ``calibration_store`` keeps the measurements.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ..units import MiB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal, TypeAlias

    Source: TypeAlias = Literal["measured", "prior", "extrapolated"]

NO_FIGURE_BYTES: Final = 1 << 62
"""The bound where the dry run gave no usable figure and nothing was measured: fits nowhere."""


@dataclass(frozen=True, slots=True)
class CalibrationKey:
    """What a measured ratio depends on. Measurements of one key say nothing about another.

    Attributes:
        gpu: the device's name.
        driver: its driver's version.
        torch: torch's version.
        cudnn: cuDNN's version; its convolutions choose how much workspace they take.
        allocator: "native", "expandable" or "cudaMallocAsync".
        vae: hash of the VAE's architecture.
        dtype: the decoder's.
        attention: attention backend.
        autotune: whether cuDNN tries out kernels (``torch.backends.cudnn.benchmark``).
        predictor: version of the dry run and workspace model that bases come from: another
            one's ratios would mean something else.
    """

    gpu: str | None
    driver: str | None
    torch: str | None
    cudnn: str | None
    allocator: str | None
    vae: str | None
    dtype: str | None
    attention: str | None
    autotune: bool
    predictor: str | None = None

    @property
    def text(self) -> str:
        """The same text for the same key, in every process and version of Python."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


class PieceShape(NamedTuple):
    """What was decoded at once, in latent units; ``frames`` None for images."""

    batch: int
    frames: int | None
    height: int
    width: int

    def covers(self, other: PieceShape) -> bool:
        """Whether this one is as large as ``other`` or larger in every dimension."""
        if (self.frames is None) != (other.frames is None):
            return False
        return all((a or 0) >= (b or 0) for a, b in zip(self, other, strict=True))


@dataclass(frozen=True, slots=True)
class Measurement:
    """One decode as predicted and as it was.

    Attributes:
        batch, frames, height, width: the largest piece, in latent units.
        base_bytes: what the dry run and the workspace model said for that piece.
        measured_bytes: what the device really added.
        exact: False: ``measured_bytes`` is only a lower bound.
        failed: an allocation failed; the true need is at least ``measured_bytes``.
        seconds: how long the whole decode took, None where that was not measured.
        pixels: decoded output pixels times frames of all pieces, halo and overlap included.
        tiles: pieces decoded.
        moved_bytes: what was copied between device and host.
        time_s: when, seconds since the epoch; 0: the store fills it in.
    """

    batch: int
    frames: int | None
    height: int
    width: int
    base_bytes: int
    measured_bytes: int
    exact: bool = True
    failed: bool = False
    seconds: float | None = None
    pixels: int | None = None
    tiles: int = 1
    moved_bytes: int = 0
    time_s: float = 0.0

    @property
    def shape(self) -> PieceShape:
        """The piece that was measured."""
        return PieceShape(self.batch, self.frames, self.height, self.width)

    @property
    def is_lower_bound(self) -> bool:
        """Whether the piece may need more than was measured."""
        return self.failed or not self.exact

    @property
    def ratio(self) -> float:
        """Measured over predicted bytes."""
        return self.measured_bytes / self.base_bytes


@dataclass(frozen=True, slots=True)
class BoundPolicy:
    """How cautious the bound is.

    Attributes:
        margin_first: added to the prediction, as a share, when one shape was measured.
        margin_many: the same when ``many_shapes`` distinct shapes or more were measured; it
            shrinks evenly in between.
        many_shapes: see ``margin_many``.
        margin_same: for a shape that was itself measured before.
        same_base: two figures for one shape are of the same way of decoding it when their
            bases differ by no more than this share.
        small_bytes: always added; covers the allocator's granularity in small decodes.
        extrapolate_up: a base may be so many times larger than a measured one.
        extrapolate_down: or so many times smaller; beyond, the prior has a say too.
        generic_ratio: for a family nothing is known of.
        nearest: use only so many measured shapes, those whose bases are nearest; None: all.
        least_ratio, most_ratio: an exact ratio outside is a wrong reading, and left out.
    """

    margin_first: float = 0.015
    margin_many: float = 0.01
    many_shapes: int = 8
    margin_same: float = 0.01
    same_base: float = 0.01
    small_bytes: int = 4 * MiB
    extrapolate_up: float = 8.0
    extrapolate_down: float = 16.0
    generic_ratio: float = 1.25
    nearest: int | None = None
    least_ratio: float = 0.2
    most_ratio: float = 20.0

    def margin(self, shapes: int) -> float:
        """What is added, as a share, when so many distinct shapes were measured."""
        if shapes >= self.many_shapes:
            return self.margin_many
        share = max(0, shapes - 1) / max(1, self.many_shapes - 1)
        return self.margin_first + (self.margin_many - self.margin_first) * share

    def reaches(self, measured_base: float, base: float) -> bool:
        """Whether a measurement at one base may speak for another."""
        return measured_base / self.extrapolate_down <= base <= measured_base * self.extrapolate_up


DEFAULT_POLICY: Final = BoundPolicy()


@dataclass(frozen=True, slots=True)
class Bound:
    """What a piece is expected to need at most.

    Attributes:
        bytes: the bound, margins included.
        source: "measured": from this key's own decodes; "prior": from the family's shipped
            ratio; "extrapolated": the larger of both, since the measured shapes are far away.
        ratio: what the base was multiplied with, before the margin.
        reason: one line for the report.
    """

    bytes: int
    source: Source
    ratio: float
    reason: str


def bound_bytes(
    base_bytes: int,
    measurements: Iterable[Measurement],
    prior_ratio: float | None,
    *,
    shape: PieceShape | None = None,
    policy: BoundPolicy = DEFAULT_POLICY,
) -> Bound:
    """Bound one piece; ``Calibration`` does the same for many pieces of one key.

    Args:
        base_bytes: what the dry run and the workspace model say for the piece.
        measurements: what was measured under the same key.
        prior_ratio: the family's shipped one-sided ratio, None for an unknown family.
        shape: the piece, so that what is known of this very shape counts; None: unknown.
        policy: how cautious to be.
    """
    return Calibration(measurements, prior_ratio, policy).bound(base_bytes, shape)


class Calibration:
    """All that is known under one key, prepared for the many questions of one plan."""

    def __init__(
        self,
        measurements: Iterable[Measurement] = (),
        prior_ratio: float | None = None,
        policy: BoundPolicy = DEFAULT_POLICY,
    ) -> None:
        faults: Counter[str] = Counter()
        exact: list[Measurement] = []
        odd: list[Measurement] = []
        self._policy = policy
        at_least: list[Measurement] = []
        for each in measurements:
            fault = unusable_because(each, policy)
            if fault is not None:
                faults[fault] += 1
                if _has_figures(each):
                    odd.append(each)
            elif each.is_lower_bound:
                at_least.append(each)
            else:
                exact.append(each)
        # Largest first: only those above a prediction are of interest.
        failed = [*at_least, *(each for each in odd if each.is_lower_bound)]
        failed = [each for each in failed if not self._is_refuted(each, exact)]
        at_least = [each for each in at_least if each in failed]
        self._at_least = sorted(failed, key=lambda each: each.measured_bytes, reverse=True)
        self._failed_ratios = _largest_first(at_least)
        self._same = _by_shape(exact)
        # A ratio that is not believed elsewhere still holds where it was measured.
        self._odd = _by_shape(each for each in odd if not each.is_lower_bound)
        self._ratios = [_largest_first(same)[0] for same in self._same.values()]
        self._highest = max((ratio for _, ratio in self._ratios), default=0.0)
        self._bases = sorted(each.base_bytes for each in exact)
        self._prior, self._prior_name, prior_fault = _prior(prior_ratio, policy)
        if prior_fault is not None:
            faults[prior_fault] += 1
        self.left_out = tuple(f"{count} x {fault}" for fault, count in faults.items())
        """Why figures were left out, one line for each reason."""

    def _is_refuted(self, bound: Measurement, exact: Iterable[Measurement]) -> bool:
        """Whether as much, or more, was decoded in less memory afterwards: then something else
        was in the way."""
        least_base = bound.base_bytes * (1 - self._policy.same_base)
        return any(
            each.time_s > bound.time_s
            and each.measured_bytes < bound.measured_bytes
            and each.base_bytes >= least_base
            and each.shape.covers(bound.shape)
            for each in exact
        )

    @property
    def is_warm(self) -> bool:
        """Whether any decode of this key was measured exactly."""
        return bool(self._bases)

    def bound(self, base_bytes: int, shape: PieceShape | None = None) -> Bound:
        """What the piece is expected to need at most; see ``bound_bytes``."""
        if not _is_positive(base_bytes):
            found = self._without_base(shape)
        else:
            found = (
                self._at_same_shape(base_bytes, shape) if shape is not None else None
            ) or self._by_ratio(base_bytes)
            found = self._above_failures(found, base_bytes, shape)
        if not self.left_out:
            return found
        reason = f"{found.reason}; left out: {', '.join(self.left_out)}"
        return Bound(found.bytes, found.source, found.ratio, reason)

    def _at_same_shape(self, base_bytes: int, shape: PieceShape) -> Bound | None:
        """From decodes of this very shape in the same way, which their base tells."""
        nearness = self._policy.same_base * base_bytes
        ratios = [
            each.ratio
            for each in (*self._same.get(shape, ()), *self._odd.get(shape, ()))
            if abs(each.base_bytes - base_bytes) <= nearness
        ]
        if not ratios:
            return None
        need = base_bytes * max(ratios)
        reason = f"measured at this size: {format_bytes(round(need))}"
        return self._with_margin(need, self._policy.margin_same, "measured", max(ratios), reason)

    def _by_ratio(self, base_bytes: int) -> Bound:
        if not self.is_warm:
            return self._cold(base_bytes)
        warm = self._warm(base_bytes)
        if self._is_reached(base_bytes):
            return warm
        larger = max(warm, self._cold(base_bytes), key=lambda each: each.bytes)
        reason = f"{larger.reason}; far from every measured size"
        return Bound(larger.bytes, "extrapolated", larger.ratio, reason)

    def _warm(self, base_bytes: int) -> Bound:
        highest, count = self._highest, len(self._same)
        if self._policy.nearest is not None:
            highest, count = self._highest_near(base_bytes, max(1, self._policy.nearest))
        ratio = max(highest, self._failed_ratio(base_bytes))
        margin = self._policy.margin(len(self._same))
        name = f"the largest of {count} measured size(s)"
        if ratio > highest:
            name = "what a decode is known to exceed"
        reason = f"{ratio:.3g} x the dry run, {name}, + {margin:.1%}"
        return self._with_margin(base_bytes * ratio, margin, "measured", ratio, reason)

    def _highest_near(self, base_bytes: int, count: int) -> tuple[float, int]:
        """The largest ratio of the ``count`` measured shapes nearest in base."""
        by_distance = sorted(self._ratios, key=lambda known: _distance(known[0], base_bytes))
        near = [ratio for _, ratio in by_distance[:count]]
        return max(near), len(near)

    def _cold(self, base_bytes: int) -> Bound:
        failed = self._failed_ratio(base_bytes)
        if failed > self._prior:
            margin = self._policy.margin_first
            reason = f"{failed:.3g} x the dry run, what a decode is known to exceed, + {margin:.1%}"
            return self._with_margin(base_bytes * failed, margin, "prior", failed, reason)
        reason = f"{self._prior:.3g} x the dry run, {self._prior_name}"
        return self._with_margin(base_bytes * self._prior, 0.0, "prior", self._prior, reason)

    def _failed_ratio(self, base_bytes: int) -> float:
        """The largest ratio that decodes of about this size are known to exceed."""
        for measured_base, ratio in self._failed_ratios:
            if self._policy.reaches(measured_base, base_bytes):
                return ratio
        return 0.0

    def _above_failures(self, found: Bound, base_bytes: int, shape: PieceShape | None) -> Bound:
        """Above what this shape, or a smaller one, is known to exceed.

        A smaller base means another way to decode the same latent (in streams, in parts), of
        which the failure says nothing.
        """
        if shape is None:
            return found
        for each in self._at_least:
            if each.measured_bytes < found.bytes:
                return found
            if each.base_bytes <= base_bytes * (1 + self._policy.same_base) and shape.covers(
                each.shape
            ):
                return self._exceeding(each.measured_bytes, base_bytes, found.source)
        return found

    def _exceeding(self, need: int, base_bytes: int, source: Source) -> Bound:
        reason = f"this size is known to need more than {format_bytes(need)}"
        ratio = need / base_bytes
        return self._with_margin(need, self._policy.margin_first, source, ratio, reason)

    def _without_base(self, shape: PieceShape | None) -> Bound:
        """The dry run said nothing usable: only a measured decode of the shape can help."""
        known = self._same.get(shape, ()) if shape is not None else ()
        if not known:
            reason = "the dry run gave no usable figure and this size was never measured"
            return Bound(NO_FIGURE_BYTES, "prior", self._prior, reason)
        need = max(each.measured_bytes for each in known)
        ratio = max(each.ratio for each in known)
        reason = f"measured at this size: {format_bytes(need)}; the dry run gave no usable figure"
        return self._with_margin(need, self._policy.margin_first, "measured", ratio, reason)

    def _is_reached(self, base_bytes: int) -> bool:
        """Whether any exact measurement is near enough."""
        index = bisect_left(self._bases, base_bytes)
        around = self._bases[max(0, index - 1) : index + 1]
        return any(self._policy.reaches(measured, base_bytes) for measured in around)

    def _with_margin(
        self, need: float, margin: float, source: Source, ratio: float, reason: str
    ) -> Bound:
        total = math.ceil(need * (1 + margin)) + self._policy.small_bytes
        return Bound(min(total, NO_FIGURE_BYTES), source, ratio, reason)


def unusable_because(measurement: Measurement, policy: BoundPolicy = DEFAULT_POLICY) -> str | None:
    """Why the bound leaves a measurement out; None when it is used."""
    if not _is_positive(measurement.base_bytes):
        return "no dry run figure"
    if not 0 <= measurement.measured_bytes < NO_FIGURE_BYTES:
        return "no measured figure"
    if measurement.ratio > policy.most_ratio:
        return f"a ratio above {policy.most_ratio:g}"
    # A lower bound may be as low as it likes.
    if measurement.ratio < policy.least_ratio and not measurement.is_lower_bound:
        return f"a ratio below {policy.least_ratio:g}"
    return None


def _has_figures(measurement: Measurement) -> bool:
    return _is_positive(measurement.base_bytes) and _is_positive(measurement.measured_bytes)


def _is_positive(value: float) -> bool:
    """False for NaN and for numbers too large to reckon with, too."""
    return 0 < value < NO_FIGURE_BYTES


def _prior(ratio: float | None, policy: BoundPolicy) -> tuple[float, str, str | None]:
    """The ratio for a cold key, what it is called, and why the given one was not used."""
    generic = (policy.generic_ratio, "the ratio for unknown families")
    if ratio is None:
        return (*generic, None)
    if not policy.least_ratio <= ratio <= policy.most_ratio:
        return (*generic, f"a prior ratio of {ratio:g}")
    return ratio, "the family's prior", None


def _by_shape(exact: Iterable[Measurement]) -> dict[PieceShape, list[Measurement]]:
    found: dict[PieceShape, list[Measurement]] = {}
    for each in exact:
        found.setdefault(each.shape, []).append(each)
    return found


def _largest_first(measurements: Iterable[Measurement]) -> list[tuple[int, float]]:
    """Bases and ratios, the largest ratio first."""
    found = [(each.base_bytes, each.ratio) for each in measurements]
    return sorted(found, key=lambda known: known[1], reverse=True)


def _distance(measured_base: float, base: float) -> float:
    return abs(math.log(measured_base / base))
