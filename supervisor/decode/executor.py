"""Decodes a latent tile by tile through time, into host memory, losing no finished work.

A tile is committed only after all of its frames have been copied. Running out of memory voids
the tile at hand with its feature cache, splits it, and leaves everything committed alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from textwrap import shorten
from typing import TYPE_CHECKING, Final, Protocol

import torch

from ..errors import DecodeFailedError
from .memory import empty_cache, is_out_of_memory
from .tiles import Tile, cover, split, tiles_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..types import Plan
    from .cache import FeatureCache

_log = logging.getLogger(__name__)

LONGEST_PROBLEM: Final = 120
"""Characters of an allocator's message that go to the log; it goes on for a paragraph."""


class StreamedDecoder(Protocol):
    """A decoder in two parts: a cheap one over everything, a dear one over tiles of time."""

    @property
    def spatial_scale(self) -> int:
        """Pixels per latent."""
        ...

    @property
    def temporal_scale(self) -> int:
        """Frames per latent frame after the first."""
        ...

    @property
    def halo(self) -> int:
        """Latents around a tile that it must look at."""
        ...

    def mid(self, latent: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` to features ``[B, D, T, H, W]``."""
        ...

    def up(self, features: Tensor, cache: FeatureCache | None, *, first: bool) -> Tensor:
        """Features of a chunk to frames; ``cache`` None decodes all of time at once."""
        ...

    def open_cache(self) -> FeatureCache:
        """A fresh memory of time."""
        ...


def _nothing(_progress: TileProgress) -> None:
    """For callers that do not watch."""


def _go_on() -> None:
    """For callers that never interrupt."""


@dataclass(frozen=True, slots=True)
class TileProgress:
    """How far one tile is.

    Attributes:
        frames_done: latent frames decoded and copied.
        committed: all frames are in the output; the tile will not be touched again.
        replaced_by: tiles that take its place after it ran out of memory.
    """

    tile: Tile
    frames_done: int
    committed: bool = False
    replaced_by: tuple[Tile, ...] = ()


@dataclass(slots=True)
class Watch:
    """What the caller wants to hear, on the decoding thread.

    Attributes:
        progress: after every chunk of a tile, its commit, and its replacement.
        check: before every chunk; raises to interrupt.
        free: called after running out of memory, with nothing of the tile held any more.
    """

    progress: Callable[[TileProgress], None] = _nothing
    check: Callable[[], None] = _go_on
    free: Callable[[], None] = empty_cache


@dataclass(slots=True)
class Outcome:
    """The frames ``[B, 3, F, 8H, 8W]`` on the host, and one line for each failed attempt."""

    frames: Tensor
    tried: list[str] = field(default_factory=list)


def decode(
    decoder: StreamedDecoder, latent: Tensor, plan: Plan, watch: Watch | None = None
) -> Outcome:
    """Decode as planned; on running out of memory, smaller than planned.

    Raises:
        DecodeFailedError: even single positions do not fit, or ``mid`` does not.
    """
    run = _Run(decoder, latent, watch or Watch())
    with torch.inference_mode():
        if plan.kind not in {"whole", "evict"} or not run.whole():
            run.tiles(plan)
    return Outcome(run.output, run.tried)


def allocate_frames(decoder: StreamedDecoder, latent: Tensor) -> Tensor:
    """Host memory for the decoded frames of ``latent``."""
    batch, _, frames, height, width = latent.shape
    decoded = 1 + (frames - 1) * decoder.temporal_scale
    scale = decoder.spatial_scale
    return torch.empty((batch, 3, decoded, height * scale, width * scale), dtype=latent.dtype)


def decode_whole(decoder: StreamedDecoder, latent: Tensor, output: Tensor) -> None:
    """Decode at once on the latent's device and copy to ``output``."""
    output.copy_(decoder.up(decoder.mid(latent), None, first=True))


def decode_tile(
    decoder: StreamedDecoder, features: Tensor, tile: Tile, output: Tensor, watch: Watch
) -> None:
    """Stream one tile through time into the rectangle of ``output`` it owns."""
    scale, cache = decoder.spatial_scale, decoder.open_cache()
    context, owned = tile.context, tile.owned.scaled(scale)
    inside = tile.owned.relative_to(context).scaled(scale)
    written = 0
    for index in range(features.shape[2]):
        watch.check()
        chunk = features[:, :, index : index + 1, context.top : context.bottom]
        frames = decoder.up(chunk[..., context.left : context.right], cache, first=index == 0)
        target = output[:, :, written : written + frames.shape[2], owned.top : owned.bottom]
        target[..., owned.left : owned.right].copy_(
            frames[..., inside.top : inside.bottom, inside.left : inside.right]
        )
        written += frames.shape[2]
        del frames, chunk, target
        watch.progress(TileProgress(tile, index + 1))


class _Run:
    """One decode: what is finished, what failed."""

    def __init__(self, decoder: StreamedDecoder, latent: Tensor, watch: Watch) -> None:
        self.decoder = decoder
        self.latent = latent
        self.watch = watch
        self.output = allocate_frames(decoder, latent)
        self.tried: list[str] = []

    def whole(self) -> bool:
        """Decode at once; False when that ran out of memory."""
        self.watch.check()
        height, width = self.latent.shape[-2:]
        if not self._attempt("whole", self._decode_whole):
            return False
        (everything,) = cover(height, width, None, 0)
        self.watch.progress(TileProgress(everything, self.latent.shape[2], committed=True))
        return True

    def tiles(self, plan: Plan) -> None:
        """Decode tile by tile, splitting those that do not fit."""
        features = self._mid()
        height, width = self.latent.shape[-2:]
        waiting = list(tiles_of(plan, height, width, self.decoder.spatial_scale))
        waiting.reverse()
        while waiting:
            tile = waiting.pop()
            if self._attempt(_name(tile), lambda tile=tile: self._decode_tile(features, tile)):
                self.watch.progress(TileProgress(tile, self.latent.shape[2], committed=True))
                continue
            parts = split(tile, height, width, self.decoder.halo)
            if parts is None:
                raise DecodeFailedError(self.tried, None)
            self.watch.progress(TileProgress(tile, 0, replaced_by=parts))
            waiting.extend(reversed(parts))

    def _mid(self) -> Tensor:
        held: list[Tensor] = []
        for _ in range(2):
            if self._attempt("mid", lambda: held.append(self.decoder.mid(self.latent))):
                return held.pop()
        raise DecodeFailedError(self.tried, None)

    def _decode_whole(self) -> None:
        decode_whole(self.decoder, self.latent, self.output)

    def _decode_tile(self, features: Tensor, tile: Tile) -> None:
        decode_tile(self.decoder, features, tile, self.output, self.watch)

    def _attempt(self, name: str, work: Callable[[], object]) -> bool:
        """Do the work; after running out of memory, free what can be freed and say False."""
        problem = _out_of_memory_in(work)
        if problem is None:
            return True
        # Outside the except block: its traceback would keep the failed tile's tensors alive.
        self.tried.append(f"{name}: out of memory")
        _log.warning("decode: %s ran out of memory (%s); going on smaller", name, problem)
        self.watch.free()
        return False


def _out_of_memory_in(work: Callable[[], object]) -> str | None:
    """Run ``work``; what it said when it ran out of memory, None when all went well."""
    try:
        work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return shorten(str(error), LONGEST_PROBLEM)
    return None


def _name(tile: Tile) -> str:
    return f"tile {tile.owned.width}x{tile.owned.height} at ({tile.owned.left}, {tile.owned.top})"
