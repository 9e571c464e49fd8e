"""First cost estimates: bytes per decoded pixel, from measurements or formulas.

The figures are for half precision and include the decoded output and kernel workspace.
A later calibration replaces them by what this machine measured; until then a family without
a measurement of its own says so in ``source`` and ``measured``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from .types import DecodeShape

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..types import DecodeContext

Growth: TypeAlias = Literal["none", "flat", "linear"]
"""With time: only the output grows; the need is flat after a few frames; it is linear."""

OUTPUT_BYTES_PER_PIXEL_FRAME: Final = 13
"""RGB in half precision, held about twice while frames are joined. Fits both Wan 2.1
measurements: 832x480x33 at 3091 MiB and 1280x720x81 at 7.5 GiB."""


@dataclass(frozen=True, slots=True)
class FamilyCost:
    """What one VAE family needs, as a CostModel over latent sizes.

    Attributes:
        pixel_bytes: bytes per output pixel that do not depend on the number of frames.
        pixel_frame_bytes: bytes per output pixel and frame, the output included.
        least_frames: the need does not fall below that of this many output frames.
        measured: whether a measured decode stands behind the figures.
        source: where they come from, for the notes.
    """

    family: str
    title: str
    channels: int
    spatial_scale: int
    temporal_scale: int
    video: bool
    growth: Growth
    pixel_bytes: float
    pixel_frame_bytes: float
    source: str
    measured: bool = False
    least_frames: int = 1

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Predicted peak of decoding this latent at once, in bytes."""
        pixels = batch * height * width * self.spatial_scale**2
        decoded = 1 if frames is None else 1 + (frames - 1) * self.temporal_scale
        counted = max(decoded, self.least_frames)
        return int(pixels * (self.pixel_bytes + self.pixel_frame_bytes * counted))

    def shape_for(self, context: DecodeContext) -> DecodeShape | None:
        """The latent that decodes to the context's size; None while the size is unknown."""
        if not context.width or not context.height:
            return None
        frames = None
        if self.video:
            frames = 1 + -(-((context.frames or 1) - 1) // self.temporal_scale)
        scale = self.spatial_scale
        height, width = -(-context.height // scale), -(-context.width // scale)
        return DecodeShape(
            1, self.channels, frames, height, width, scale, self.temporal_scale
        )


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
