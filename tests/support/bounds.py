"""Policies and measurements to make bounds of."""

from dataclasses import replace

from vram_supervisor.supervisor.planning.calibration import (
    BoundPolicy,
    Measurement,
    PieceShape,
)
from vram_supervisor.supervisor.units import MiB

POLICY = BoundPolicy(margin_first=0.03, margin_many=0.01, small_bytes=8 * MiB, generic_ratio=2.5)
"""Round figures that stay when the shipped ones are tuned."""
PLAIN = replace(POLICY, small_bytes=0)
"""Without the constant, so that the rows show ratios."""


def image(edge, base_bytes, ratio, **more):
    return Measurement(1, None, edge, edge, base_bytes, int(base_bytes * ratio), **more)


def video(frames, height, width, base_bytes, ratio, **more):
    return Measurement(1, frames, height, width, base_bytes, int(base_bytes * ratio), **more)


WIDE = PieceShape(1, 9, 60, 104)
