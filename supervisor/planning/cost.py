"""First cost estimates: bytes per decoded pixel, from measurements and dry runs.

The figures are for half precision and include the decoded output and kernel workspace.
A later calibration replaces them by what this machine measured; until then a family whose
figures no measurement confirms says so in ``source`` and ``measured``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from .types import DecodeShape

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..types import DecodeContext

Growth: TypeAlias = Literal["none", "flat", "linear"]
"""With time: only the output grows; the need is flat after a few frames; it is linear."""


@dataclass(frozen=True, slots=True)
class FamilyCost:
    """What one VAE family needs, as a CostModel over latent sizes.

    Attributes:
        pixel_bytes: bytes per output pixel that do not depend on the number of frames.
        pixel_frame_bytes: bytes per output pixel and frame, the output included.
        still_pixel_bytes: bytes per output pixel of a single frame, where that is cheaper.
        burst_pixel_frame_bytes: bytes per pixel and frame of pieces so small that the
            decoder does not cut them itself, up to ``burst_bytes``.
        fixed_bytes: needed at any size.
        measured: whether a measured decode stands behind the figures.
        source: where they come from, for the notes.
    """

    family: str
    title: str
    channels: int
    spatial_scale: int
    temporal_scale: int
    growth: Growth
    source: str
    measured: bool
    video: bool = True
    pixel_bytes: float = 0.0
    pixel_frame_bytes: float = 0.0
    still_pixel_bytes: float | None = None
    burst_pixel_frame_bytes: float = 0.0
    burst_bytes: int = 0
    fixed_bytes: int = 0

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Predicted peak of decoding this latent at once, in bytes."""
        pixels = batch * height * width * self.spatial_scale**2
        decoded = 1 if frames is None else 1 + (frames - 1) * self.temporal_scale
        if decoded == 1 and self.still_pixel_bytes is not None:
            return int(self.fixed_bytes + pixels * self.still_pixel_bytes)
        steady = pixels * (self.pixel_bytes + self.pixel_frame_bytes * decoded)
        burst = min(self.burst_bytes, pixels * decoded * self.burst_pixel_frame_bytes)
        return int(self.fixed_bytes + max(steady, burst))

    def shape_for(self, context: DecodeContext) -> DecodeShape | None:
        """The latent that decodes to the context's size; None while the size is unknown."""
        if not context.width or not context.height:
            return None
        scale = self.spatial_scale
        height, width = -(-context.height // scale), -(-context.width // scale)
        if not self.video:
            return DecodeShape(1, self.channels, None, height, width, scale, 1)
        frames = 1 + -(-((context.frames or 1) - 1) // self.temporal_scale)
        return DecodeShape(1, self.channels, frames, height, width, scale, self.temporal_scale)


@dataclass(frozen=True, slots=True)
class ScaledCost:
    """A formula that gives bytes, times a factor that covers its known errors.

    Attributes:
        formula: peak bytes for (batch, frames or None, height, width) in latent units.
        factor: what the formula is multiplied by.
    """

    formula: Callable[[int, int | None, int, int], float]
    factor: float = 1.0

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Peak bytes after the factor."""
        return int(self.formula(batch, frames, height, width) * self.factor)
