"""What a way to decode costs: its time, and the joins that can be seen, counted as time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .time_model import TimeModel

if TYPE_CHECKING:
    from .question import Cut, Question
    from .types import Room

NOMINAL: Final = TimeModel(
    per_pixel_s=1e-7,
    per_tile_s=0.005,
    per_moved_byte_s=1e-10,
    evict_per_byte_s=1e-10,
    reload_per_byte_s=1.5e-10,
    cpu_per_pixel_s=1e-5,
)
"""The order of magnitude on a current card: decodes of an H200 take 0.5e-7 to 2.2e-7 s per
pixel; 10 GB/s over PCIe. Ranks plans where nothing was learned; never shown as a prediction."""

COMFORTABLE_TILE_PX: Final = 256
UNCOMFORTABLE: Final = 8.0
"""A blended join weighs so much more below that edge: there the tiles' own attention and
normalisation statistics rule the picture, and a cut through time is seen less."""
JOIN_S: Final = {"exact": 1e-2, "balanced": 1e-5, "fast": 1e-7}
"""Seconds that avoiding one joined pixel of one frame is worth. At exact quality no time and
no eviction outweighs a join; at balanced quality the joins of a 4096 x 4096 picture in 64
tiles weigh about half a second."""


EVICTION_S: Final = 0.5
"""What any eviction counts beside its bytes: hosts unload more than they are asked for."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What following a cut takes.

    Attributes:
        seconds: predicted.
        avoided_s: what is worth as many seconds to avoid: joins that can be seen, evicting.
    """

    seconds: float
    avoided_s: float

    @property
    def total_s(self) -> float:
        """What is to be kept low."""
        return self.seconds + self.avoided_s


def effort(asked: Question, cut: Cut, room: Room, evict_bytes: int, times: TimeModel) -> Effort:
    """Time and joins of a decode on the device, eviction and reload included."""
    pixels, pieces = asked.decoded_pixels(cut), asked.pieces(cut)
    cut_up = asked.grid(cut) != (1, 1)
    moved = int(pixels * asked.abilities.moved_bytes_per_pixel) if cut_up else 0
    reload_bytes = room.reload_bytes(evict_bytes)
    seconds = times.decode_s(pixels, pieces, moved)
    seconds += times.evict_s(evict_bytes) + times.reload_s(reload_bytes)
    join_s = JOIN_S.get(asked.request.quality, JOIN_S["exact"])
    avoided_s = join_s * joined_pixels(asked, cut)
    return Effort(seconds, avoided_s + (EVICTION_S if evict_bytes > 0 else 0.0))


def cpu_seconds(asked: Question, times: TimeModel) -> float:
    """Time of the whole decode on the CPU."""
    return times.cpu_s(asked.decoded_pixels(asked.whole()))


def joined_pixels(asked: Question, cut: Cut) -> float:
    """Pixels times frames along which blended pieces meet; 0 where every join is exact."""
    shape = asked.shape
    down, across = asked.grid(cut)
    height, width = shape.pixel_height, shape.pixel_width
    in_space = 0.0
    if not asked.abilities.exact_tiles:
        in_space = ((down - 1) * width + (across - 1) * height) * shape.pixel_frames
        if _shorter_edge_px(asked, cut) < COMFORTABLE_TILE_PX:
            in_space *= UNCOMFORTABLE
    in_time = (asked.chunks(cut) - 1) * height * width
    return shape.batch * (in_space + in_time)


def _shorter_edge_px(asked: Question, cut: Cut) -> int:
    return min(cut.rows, cut.columns) * asked.shape.spatial_scale
