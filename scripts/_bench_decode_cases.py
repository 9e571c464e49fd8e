"""What ``bench.py decode`` decodes, on which cards and in which ways. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Size: TypeAlias = Literal["full", "small", "tiny"]
Way: TypeAlias = Literal["exact", "balanced", "tiled", "table", "core"]
Latent: TypeAlias = "tuple[int | None, int, int]"
"""Latent frames (None for pictures), rows and columns."""

GIB: Final = 1 << 30
SIZES: Final[tuple[Size, ...]] = ("full", "small", "tiny")
CARDS_GIB: Final = (6.0, 8.0, 10.0, 12.0, 16.0, 24.0)
WAYS: Final[dict[Way, str]] = {
    "exact": "ours, exact",
    "balanced": "ours, balanced",
    "tiled": "core VAEDecodeTiled",
    "table": "table-driven pack",
    "core": "core VAEDecode",
}
"""With the headings of the table; in the order they run: those that drive a card out of memory
come last, since cuDNN keeps the slower kernels it falls back to for as long as a process lives."""
OURS: Final[tuple[Way, ...]] = ("exact", "balanced")
REAL: Final = "taef2"
"""The case with real weights: a photo, encoded and decoded."""


@dataclass(frozen=True, slots=True)
class Case:
    """One latent of one VAE.

    Attributes:
        vae: name of its layout in the zoo.
        title: of the full size, for the table.
        latents: shape by size.
        most_error: relative L2 against whole that an exact decode may have, in bfloat16.
        most_ratio: seconds over whole that an exact decode may take, by card in GiB.
        balanced_ratio: the same for a balanced one.
        streams: time goes through the decoder's own cache, so RAM holds little but the output.
    """

    vae: str
    title: str
    latents: dict[Size, Latent]
    most_error: float
    most_ratio: dict[float, float]
    balanced_ratio: dict[float, float]
    streams: bool = False


STREAMING: Final = {6.0: 1.5, 12.0: 1.15}
CASES: Final[dict[str, Case]] = {
    "wan2.1": Case(
        "wan2.1",
        "Wan 2.1 1280x720x81",
        {"full": (21, 90, 160), "small": (5, 60, 104), "tiny": (2, 12, 20)},
        0.002,
        STREAMING,
        {},
        streams=True,
    ),
    "hunyuan": Case(
        "hunyuan",
        "Hunyuan video 1280x720x65",
        {"full": (17, 90, 160), "small": (5, 60, 104), "tiny": (2, 12, 20)},
        0.002,
        {12.0: 3.0},
        {12.0: 1.5},
    ),
    "ltx": Case(
        "ltx",
        "LTX 1280x768x121",
        {"full": (16, 24, 40), "small": (7, 16, 24), "tiny": (2, 4, 6)},
        0.002,
        STREAMING,
        {},
        streams=True,
    ),
    "kl": Case(
        "kl",
        "image KL 4096x4096",
        {"full": (None, 512, 512), "small": (None, 256, 256), "tiny": (None, 24, 24)},
        0.005,
        {12.0: 2.0},
        {12.0: 1.5},
    ),
    REAL: Case(
        REAL,
        "taef2 (real weights), photo 4096x4096",
        {"full": (None, 256, 256), "small": (None, 128, 128), "tiny": (None, 16, 16)},
        1e-5,
        {},
        {},
    ),
}
FLOAT32_ERROR: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Tiling:
    """Arguments of core's ``VAEDecodeTiled``: pixels, pixels, frames, frames."""

    tile_size: int
    overlap: int
    temporal_size: int
    temporal_overlap: int

    def halved(self) -> Tiling:
        """The next try of a pack that ran out of memory."""
        return Tiling(self.tile_size // 2, 64, max(16, self.temporal_size // 2), 8)

    def __str__(self) -> str:
        return f"{self.tile_size}/{self.overlap}/{self.temporal_size}/{self.temporal_overlap}"


CORE_TILING: Final = Tiling(512, 64, 64, 8)
"""The defaults of core's node."""
TABLE: Final = (
    (8.0, Tiling(256, 64, 32, 8)),
    (12.0, Tiling(384, 64, 48, 8)),
    (16.0, Tiling(512, 64, 64, 8)),
    (24.0, Tiling(768, 96, 128, 16)),
    (float("inf"), Tiling(1024, 128, 256, 32)),
)
"""What packs with a table do: sizes by the card's total memory in GiB, whatever is free and
whichever VAE it is, through core's tiled decode; after running out, the same halved, once."""


def table_tiling(card_gib: float) -> Tiling:
    """The table's answer for a card."""
    return next(tiling for most_gib, tiling in TABLE if card_gib <= most_gib)
