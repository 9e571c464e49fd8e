"""What a dry run found: the moments of a decode that could be its peak. Knows no torch."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of a decode. Bytes.

    Attributes:
        live_bytes: storages alive while the kernel runs, its output included.
        kernel: which kernel runs: "conv2d", "conv3d" or "other".
        input_bytes: what copies of a convolution's input take that are laid out for it.
        output_bytes: the same for its output.
        weight_bytes: the same for its weights.
    """

    live_bytes: int
    kernel: str = "other"
    input_bytes: int = 0
    output_bytes: int = 0
    weight_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """What one dry run found.

    Attributes:
        tensor_peak_bytes: the most bytes in live tensors; no workspace, no rounding.
        steps: the moments that could be the peak, whatever workspace costs.
        operations: how many operations ran.
        seconds: how long the dry run took.
    """

    tensor_peak_bytes: int
    steps: tuple[Step, ...]
    operations: int
    seconds: float

    def to_json(self) -> str:
        """As text, for a cache."""
        steps = [astuple(step) for step in self.steps]
        return json.dumps([self.tensor_peak_bytes, self.operations, self.seconds, steps])


def trace_from_json(text: str) -> Trace | None:
    """What ``to_json`` wrote; None for any other text."""
    try:
        peak_bytes, operations, seconds, steps = json.loads(text)
        trace = Trace(int(peak_bytes), _steps(steps), int(operations), float(seconds))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return trace if _is_sane(trace) else None


def could_be_peak(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps that no other of their kernel exceeds in every figure."""
    kept: list[Step] = []
    for step in sorted(set(steps), key=_sizes, reverse=True):
        if not any(_covers(other, step) for other in kept):
            kept.append(step)
    return tuple(kept)


def _is_sane(trace: Trace) -> bool:
    """Whether the figures can be of one decode; a damaged text must not predict too little."""
    figures = [figure for step in trace.steps for figure in _sizes(step)]
    if not figures or min(figures) < 0 or not isfinite(trace.seconds):
        return False
    return 0 <= trace.tensor_peak_bytes <= max(step.live_bytes for step in trace.steps)


def _sizes(step: Step) -> tuple[int, int, int, int]:
    return (step.live_bytes, step.input_bytes, step.output_bytes, step.weight_bytes)


def _covers(one: Step, other: Step) -> bool:
    return one.kernel == other.kernel and all(
        mine >= theirs for mine, theirs in zip(_sizes(one), _sizes(other), strict=True)
    )


def _steps(rows: list[list[Any]]) -> tuple[Step, ...]:
    return tuple(Step(int(live), str(kernel), *map(int, sizes)) for live, kernel, *sizes in rows)
