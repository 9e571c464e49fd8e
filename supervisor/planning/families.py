"""The VAE families the probe endpoint and the recommendations know by name.

Every figure is an upper fit in bf16. Where no real decode was measured, the host's decoder
was dry-run on fake tensors (which gives the tensors' peak exactly) and the result multiplied
by the highest ratio of measured to dry-run peak seen for that family.
"""

from __future__ import annotations

from typing import Final

from ..units import GiB
from .cost import FamilyCost

_MEASURED: Final = "measured on an H200 in bf16"
_DRY_RUN: Final = "dry run of ComfyUI's decoder in bf16 times the measured workspace ratio"

_ALL: Final = (
    FamilyCost(
        family="kl",
        title="image KL",
        channels=4,
        spatial_scale=8,
        temporal_scale=1,
        video=False,
        growth="none",
        pixel_bytes=2202,
        measured=True,
        source=f"{_MEASURED}, 4096x4096 peaks at 34.4 GiB; exact in height times width",
    ),
    FamilyCost(
        family="flux2",
        title="Flux 2",
        channels=128,
        spatial_scale=16,
        temporal_scale=1,
        video=False,
        growth="none",
        pixel_bytes=2205,
        measured=False,
        source=f"{_DRY_RUN} of image KL (1.70), whose decoder it shares",
    ),
    FamilyCost(
        family="wan2.1",
        title="Wan 2.1",
        channels=16,
        spatial_scale=8,
        temporal_scale=4,
        growth="none",
        pixel_bytes=7920,
        pixel_frame_bytes=10.2,
        still_pixel_bytes=1211,
        measured=True,
        source=f"{_MEASURED}, 1280x720x81 peaks at 7.5 GiB and 832x480x33 at 3.0 GiB",
    ),
    FamilyCost(
        family="wan2.2",
        title="Wan 2.2",
        channels=48,
        spatial_scale=16,
        temporal_scale=4,
        growth="none",
        pixel_bytes=9820,
        pixel_frame_bytes=7.8,
        still_pixel_bytes=2892,
        measured=False,
        source=f"{_DRY_RUN} (1.28)",
    ),
    FamilyCost(
        family="hunyuan",
        title="Hunyuan video",
        channels=16,
        spatial_scale=8,
        temporal_scale=4,
        growth="flat",
        pixel_bytes=32280,
        pixel_frame_bytes=14.3,
        still_pixel_bytes=3830,
        burst_pixel_frame_bytes=1340,
        burst_bytes=int(18.3 * GiB),
        measured=True,
        source=f"{_MEASURED}, 1280x720x65 peaks at 28.5 GiB; long clips in small tiles by dry run",
    ),
    FamilyCost(
        family="hunyuan1.5",
        title="Hunyuan video 1.5",
        channels=32,
        spatial_scale=16,
        temporal_scale=4,
        growth="flat",
        pixel_bytes=18950,
        pixel_frame_bytes=10.1,
        still_pixel_bytes=1628,
        measured=False,
        source=f"{_DRY_RUN} (1.26)",
    ),
    FamilyCost(
        family="ltx",
        title="LTX",
        channels=128,
        spatial_scale=32,
        temporal_scale=8,
        growth="linear",
        pixel_frame_bytes=77,
        still_pixel_bytes=215,
        burst_pixel_frame_bytes=160,
        burst_bytes=int(8.5 * GiB),
        measured=True,
        source=f"{_MEASURED}, 1280x768x121 peaks at 8.5 GiB; stepped, its own chunks count",
    ),
    FamilyCost(
        family="mochi",
        title="Mochi",
        channels=12,
        spatial_scale=8,
        temporal_scale=6,
        growth="linear",
        pixel_bytes=1380,
        pixel_frame_bytes=2065,
        measured=False,
        source=f"{_DRY_RUN} (1.34)",
    ),
    FamilyCost(
        family="cosmos",
        title="Cosmos",
        channels=16,
        spatial_scale=8,
        temporal_scale=8,
        growth="linear",
        pixel_bytes=1200,
        pixel_frame_bytes=172,
        measured=False,
        source=f"{_DRY_RUN} (1.30)",
    ),
    FamilyCost(
        family="cogvideo",
        title="CogVideoX",
        channels=16,
        spatial_scale=8,
        temporal_scale=4,
        growth="linear",
        pixel_bytes=22930,
        pixel_frame_bytes=222,
        still_pixel_bytes=2952,
        measured=False,
        source=f"{_DRY_RUN} (1.14); a large part does not depend on the frames",
    ),
    FamilyCost(
        family="h3",
        title="MiniMax H3",
        channels=24,
        spatial_scale=16,
        temporal_scale=4,
        growth="none",
        pixel_bytes=590,
        fixed_bytes=560_000_000,
        measured=False,
        source="ComfyUI's own formula for one of the chunks it cuts itself",
    ),
)

BY_FAMILY: Final = {cost.family: cost for cost in _ALL}
FAMILIES: Final = frozenset(BY_FAMILY)
