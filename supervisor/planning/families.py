"""The VAE families the probe endpoint and the recommendations know by name."""

from __future__ import annotations

from typing import Final

from .cost import OUTPUT_BYTES_PER_PIXEL_FRAME, FamilyCost

_MEASURED: Final = "measured on one H200 in bf16"

_ALL: Final = (
    FamilyCost(
        "kl", "image KL", 4, 8, 1, video=False, growth="none",
        pixel_bytes=2202, pixel_frame_bytes=0, measured=True,
        source=f"{_MEASURED}: 4096x4096 peaks at 34.4 GiB, exact in height times width",
    ),
    FamilyCost(
        "wan2.1", "Wan 2.1", 16, 8, 4, video=True, growth="none",
        pixel_bytes=7690, pixel_frame_bytes=OUTPUT_BYTES_PER_PIXEL_FRAME, measured=True,
        source=f"{_MEASURED}: 1280x720x81 peaks at 7.5 GiB, 832x480x33 at 3091 MiB",
    ),
)

BY_FAMILY: Final = {cost.family: cost for cost in _ALL}
FAMILIES: Final = frozenset(BY_FAMILY)
