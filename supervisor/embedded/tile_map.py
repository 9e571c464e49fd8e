"""Which parts of the picture are decoded how far, as the page shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from typing_extensions import override

from ..decode.output import PixelOutput
from ..decode.store import frames_of
from ..decode.tiles import Rect
from .job_state import TileState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from ..decode.sink import PixelSink


class TileMap:
    """Tiles filling up with decoded frames. Rectangles are in pixels.

    Args:
        tiles: as planned; they cover the picture.
        frames: of the clip.
        show: told of all tiles after every change.
    """

    def __init__(
        self,
        tiles: Iterable[Rect],
        frames: int,
        show: Callable[[tuple[TileState, ...]], None],
    ) -> None:
        self._frames, self._show = frames, show
        self._tiles = {rect: self._empty(rect) for rect in tiles}
        self._tell()

    def fill(self, rect: Rect, frames: int, *, done: bool = False) -> None:
        """So many frames of a rectangle are decoded; with ``done``, for good."""
        if rect not in self._tiles:
            self._cut_out(rect)
        share = round(frames / self._frames, 4)
        self._tiles[rect] = replace(self._tiles[rect], share_done=share, done=done)
        self._tell()

    def _cut_out(self, rect: Rect) -> None:
        """A tile of the plan did not fit: what is decoded instead takes its place."""
        tiles: dict[Rect, TileState] = {}
        for tile, state in self._tiles.items():
            if _is_apart(tile, rect):
                tiles[tile] = state
            else:
                tiles.update((rest, self._empty(rest)) for rest in _around(tile, rect))
        self._tiles = {**tiles, rect: self._empty(rect)}

    def _empty(self, rect: Rect) -> TileState:
        return TileState(rect.left, rect.top, rect.width, rect.height, 0, self._frames)

    def _tell(self) -> None:
        self._show(tuple(self._tiles.values()))


class MappedOutput(PixelOutput):
    """The pixels of a clip on their way to a sink, and on the map."""

    def __init__(self, sink: PixelSink, frames: int, tile_map: TileMap) -> None:
        super().__init__(sink, _as_they_are, 0, frames)
        self._map = tile_map

    @override
    def write(self, first_frame: int, rect: Rect, made: Tensor) -> None:
        """Send them, and show that they are decoded."""
        super().write(first_frame, rect, made)
        self._map.fill(rect, first_frame + frames_of(made))

    @override
    def forget(self, rect: Rect) -> None:
        """It begins again."""
        super().forget(rect)
        self._map.fill(rect, 0)

    @override
    def commit(self, first_frame: int, frames: int, rect: Rect) -> None:
        """It is done."""
        super().commit(first_frame, frames, rect)
        self._map.fill(rect, first_frame + frames, done=True)


def _as_they_are(pixels: Tensor) -> Tensor:
    return pixels


def _is_apart(one: Rect, other: Rect) -> bool:
    return (
        one.bottom <= other.top
        or other.bottom <= one.top
        or one.right <= other.left
        or other.right <= one.left
    )


def _around(tile: Rect, hole: Rect) -> Iterator[Rect]:
    """What of a tile lies outside a rectangle that it has pixels in common with."""
    top, bottom = max(tile.top, hole.top), min(tile.bottom, hole.bottom)
    strips = (
        Rect(tile.top, top, tile.left, tile.right),
        Rect(bottom, tile.bottom, tile.left, tile.right),
        Rect(top, bottom, tile.left, max(tile.left, hole.left)),
        Rect(top, bottom, min(tile.right, hole.right), tile.right),
    )
    return (strip for strip in strips if strip.height > 0 and strip.width > 0)
