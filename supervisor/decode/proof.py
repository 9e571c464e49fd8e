"""Whether a family's program does what the network does, tried on a tiny input.

A family recognises a network by its parts. Whether it also puts them together rightly is seen
before the first real use: cut into small parts, the program must give what the network gives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from .engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from .program import Program
    from .running import Hooks

PART: Final = 8
"""Edge of a part in the program's input, or as many times larger as stages are."""
PROOF_VERSION: Final = "1"
"""Goes up whenever families or engine change what they do."""
MOST_ERROR: Final = {torch.float32: 2e-3, torch.float64: 1e-6}
"""Relative L2 (TF32 convolutions differ by 1e-3 from each other)."""
MOST_HALF_ERROR: Final = 0.05
"""For half types: two kernels' roundings lie 0.015 apart, a wrong picture 0.3 and more."""

FAILURES: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""How a program fails that was made for another network."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of it.

    Attributes:
        error: relative L2 against the network itself.
    """

    holds: bool
    error: float | None
    reason: str

    def to_json(self) -> str:
        """As text, for a cache."""
        return json.dumps([self.holds, self.error, self.reason])


def proof_from_json(text: str) -> Proof | None:
    """What ``to_json`` wrote; None for any other text."""
    try:
        holds, error, reason = json.loads(text)
    except (ValueError, TypeError):
        return None
    if not isinstance(holds, bool) or not isinstance(error, float | None):
        return None
    return Proof(holds, error, str(reason))


class _SmallParts:
    def __init__(self, height: int, width: int, edge: int) -> None:
        self._height, self._width, self._edge = height, width, edge

    def part(self, phase: int, stage: int, height: int, width: int) -> tuple[int, int]:
        del phase, stage
        rows = max(1, self._edge * height // self._height)
        return rows, max(1, self._edge * width // self._width)

    def resident_bytes(self) -> int:
        return 1 << 40

    def carried_bytes(self) -> int:
        return 1 << 40


def prove(
    program: Program,
    whole: Callable[[Tensor], Tensor],
    sample: Tensor,
    hooks: Hooks,
    *,
    edge: int = PART,
    seed: int = 0,
) -> Proof:
    """Run a program in small parts and compare.

    Args:
        program: used up by it.
        whole: the network itself.
        sample: a tiny input ``[1, C, (t,) h, w]``.
        hooks: see ``Engine``.
        edge: of the parts.
        seed: of what both draw at random; the caller's generators are left as they are.
    """
    devices = [sample.device] if sample.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        try:
            wanted: Any = whole(sample)
        except FAILURES as problem:
            if hooks.is_oom(problem):
                raise
            why = f"the network itself failed on it ({type(problem).__name__}: {problem})"
            return Proof(False, None, why)
        torch.manual_seed(seed)
        sizer = _SmallParts(sample.shape[-2], sample.shape[-1], edge)
        try:
            made = Engine(program, sizer, sample.device, hooks).run(sample)
        except FAILURES as problem:
            if hooks.is_oom(problem):
                raise
            return Proof(False, None, f"it failed ({type(problem).__name__}: {problem})")
    if made is None or tuple(made.shape) != tuple(wanted.shape):
        shape = None if made is None else tuple(made.shape)
        return Proof(False, None, f"it made {shape} where {tuple(wanted.shape)} was wanted")
    error = relative_error(made, wanted.to(made.device))
    most = MOST_ERROR.get(sample.dtype, MOST_HALF_ERROR)
    # Also false where the error is not a number.
    if not error <= most:
        return Proof(False, error, f"it is off by {error:.3g} (at most {most:.3g})")
    return Proof(True, error, f"relative difference {error:.2g} on a tiny input")


def relative_error(made: Tensor, wanted: Tensor) -> float:
    """Relative L2, in float32."""
    difference = torch.linalg.vector_norm(made.float() - wanted.float())
    return float(difference / torch.linalg.vector_norm(wanted.float()).clamp(min=1e-12))
