"""Facts read off a host VAE object, and the ways to run its decoder.

The object is ``comfy.sd.VAE`` or something shaped like it; what it does not tell is None.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from ...supervisor.planning.types import DecodeShape

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from ...supervisor.planning.traced_cost import Piece
    from ...supervisor.types import Plan

    BeforePiece: TypeAlias = Callable[[tuple[int, ...]], None]

IMAGE_DIMS: Final = 4
VIDEO_DIMS: Final = 5
LEAST_CHUNK: Final = 2
"""Latent frames: core never decodes fewer at once."""

FLAT_IN_TIME: Final = frozenset({"comfy.ldm.wan.vae", "comfy.ldm.wan.vae2_2"})
"""Decoders whose memory does not grow with time (measured), though core's formula for Wan 2.1
jumps at 5 latent frames: cutting their time saves nothing and spoils the joins."""

_FALLBACKS: Final = ("decode_tiled_", "decode_tiled_1d", "decode_tiled_3d", "_decode_tiled_owned")


class Vae(Protocol):
    """The part of ``comfy.sd.VAE`` that decoding uses. Latents are [B, C, H, W] or
    [B, C, T, H, W]; pixels come back with channels last, in 0..1."""

    device: torch.device
    patcher: object
    vae_dtype: torch.dtype
    first_stage_model: object
    memory_used_decode: Callable[[tuple[int, ...], torch.dtype], float]

    def decode(self, samples_in: torch.Tensor) -> torch.Tensor:
        """Whole; silently tiled on an OOM."""
        ...

    def decode_tiled(
        self,
        samples: torch.Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        tile_t: int | None = None,
        overlap_t: int | None = None,
    ) -> torch.Tensor:
        """In tiles; sizes in latent units."""
        ...

    def spacial_compression_decode(self) -> int:
        """Pixels per latent row and column."""
        ...

    def temporal_compression_decode(self) -> int | None:
        """Frames per latent frame, None for images."""
        ...


class WholeDecodeRanOut(Exception):  # noqa: N818
    """Raised inside ``decode_whole`` only, in place of core's silent tiled retry."""


@dataclass(frozen=True, slots=True)
class VaeFacts:
    """What planning needs to know of a VAE.

    Attributes:
        spatial_scale: pixels per latent row and column.
        temporal_scale: frames per latent frame after the first, None for image VAEs.
        tiles_itself: it has its own tiling; ours would fight it.
        streams_output: it writes finished parts into a buffer it is given.
        pictures: it decodes to pictures (not audio or 1-D latents).
    """

    spatial_scale: int
    temporal_scale: int | None
    tiles_itself: bool
    streams_output: bool
    pictures: bool
    image_only: bool
    family_module: str

    def cuts_time(self, *, manual: bool) -> bool:
        """Whether the executor may cut through time; by hand it may wherever core can."""
        return not self.tiles_itself and (manual or self.family_module not in FLAT_IN_TIME)


def dtype_of_pictures(vae: Any) -> torch.dtype:
    """What ComfyUI gives pictures in: float32 but for ``--fp16-intermediates``."""
    import torch

    told: Callable[[], torch.dtype] | None = getattr(vae, "vae_output_dtype", None)
    return torch.float32 if told is None else told()


def is_plain(vae: Any, what: str) -> bool:
    """Whether ``decode`` or ``encode`` of this object is ComfyUI's own: other packs' classes may
    do more than run the network. Without ComfyUI everything is."""
    host: Any = sys.modules.get("comfy.sd")
    if host is None:
        return True
    own = getattr(type(vae), what, None) is getattr(host.VAE, what)
    return own and what not in vars(vae)


def read_facts(vae: Vae) -> VaeFacts:
    """Read what the object tells, by feature."""
    model = getattr(vae, "first_stage_model", None)
    latent_dim = getattr(vae, "latent_dim", None)
    return VaeFacts(
        spatial_scale=_spatial_scale(vae),
        temporal_scale=vae.temporal_compression_decode(),
        tiles_itself=bool(getattr(vae, "handles_tiling", False)),
        streams_output=bool(getattr(model, "comfy_has_chunked_io", False)),
        pictures=latent_dim != 1 and getattr(vae, "extra_1d_channel", None) is None,
        image_only=latent_dim == IMAGE_DIMS - 2,
        family_module=type(model).__module__,
    )


def _spatial_scale(vae: Vae) -> int:
    """What the network itself does, where a family knows it: ComfyUI takes Flux 2's TAESD, whose
    latents are packed twice as tightly, for one of 8 pixels."""
    from ...supervisor.decode.families.registry import decoder_scale

    known = decoder_scale(getattr(vae, "first_stage_model", None))
    return known or int(vae.spacial_compression_decode())


def picture_latent(samples: Any, facts: VaeFacts) -> torch.Tensor:
    """The tensor to decode, as core picks it.

    Of a nested latent (video with audio) the first; of a 5-D latent for an image VAE the
    first frame.
    """
    latent: torch.Tensor = samples.unbind()[0] if getattr(samples, "is_nested", False) else samples
    if facts.image_only and latent.ndim == VIDEO_DIMS:
        return latent[:, :, 0]
    return latent


def repeat_last_frame(latent: torch.Tensor) -> torch.Tensor:
    """[B, C, T, H, W] with the last frame once more, for VAEs that spoil the last one."""
    import torch

    return torch.cat([latent, latent[:, :, -1:]], dim=2)


def shape_of(latent: torch.Tensor, facts: VaeFacts) -> DecodeShape:
    """Sizes of a picture latent."""
    frames = latent.shape[2] if latent.ndim == VIDEO_DIMS else None
    return DecodeShape(
        batch=int(latent.shape[0]),
        channels=int(latent.shape[1]),
        frames=frames,
        height=int(latent.shape[-2]),
        width=int(latent.shape[-1]),
        spatial_scale=facts.spatial_scale,
        temporal_scale=facts.temporal_scale or 1,
    )


def piece_of(latent_shape: tuple[int, ...]) -> Piece:
    """[B, C, H, W] or [B, C, T, H, W] as batch, frames, height and width."""
    frames = latent_shape[2] if len(latent_shape) == VIDEO_DIMS else None
    return (latent_shape[0], frames, latent_shape[-2], latent_shape[-1])


def pieces_of(latent_shape: tuple[int, ...], facts: VaeFacts, plan: Plan) -> list[Piece]:
    """Every size of piece that following a plan decodes at once, cut to the latent."""
    batch, frames, height, width = piece_of(latent_shape)
    if plan.tile_size is None:
        return [(min(batch, plan.batch or batch), frames, height, width)]
    sizes = _tile_sizes(latent_shape, facts, plan)
    rows, columns, chunk = sizes["tile_y"], sizes["tile_x"], sizes["tile_t"]
    if rows is None or columns is None:
        return [(1, frames, height, width)]
    if frames is not None:
        chunk = frames if chunk is None else min(frames, chunk)
    passes = [(rows, columns)]
    if frames is None and not facts.tiles_itself:
        passes += [(rows // 2, columns * 2), (rows * 2, columns // 2)]
    cut = dict.fromkeys((min(height, down), min(width, across)) for down, across in passes)
    return [(1, chunk, *edges) for edges in cut]


def decode_whole(
    vae: Vae, latent: torch.Tensor, before_piece: BeforePiece | None = None
) -> torch.Tensor:
    """Core's decode in one piece.

    Args:
        before_piece: told the shape of each part that is decoded at once, for core may take a
            batch apart; may raise.

    Raises:
        WholeDecodeRanOut: it ran out of memory. Core would now retry in small tiles without
            a word; a copy of the object, sharing model and patcher, raises there instead.
    """
    honest = copy.copy(vae) if before_piece is None else _watched(vae, before_piece)
    for name in _FALLBACKS:
        if hasattr(honest, name):
            setattr(honest, name, _raise_instead)
    return honest.decode(latent)


def _raise_instead(*_args: object, **_kwargs: object) -> torch.Tensor:
    raise WholeDecodeRanOut


def decode_in_tiles(
    vae: Vae, latent: torch.Tensor, facts: VaeFacts, plan: Plan, before_piece: BeforePiece
) -> torch.Tensor:
    """Core's tiled decode with the plan's sizes.

    Args:
        before_piece: told the shape of each tile before it is decoded; may raise, since core's
            tiled video decode never asks for an interrupt. Not called for VAEs that tile
            themselves.
    """
    watched = vae if facts.tiles_itself else _watched(vae, before_piece)
    return watched.decode_tiled(latent, **_tile_sizes(tuple(latent.shape), facts, plan))


def expecting(vae: Vae, needed_bytes: int) -> Vae:
    """A copy of the object, sharing model and patcher, that believes one item to need
    ``needed_bytes`` whatever its size: core then evicts for that, not for its own formula."""

    def memory_used_decode(_shape: tuple[int, ...], _dtype: torch.dtype) -> float:
        return max(1, needed_bytes)

    believing = copy.copy(vae)
    believing.memory_used_decode = memory_used_decode
    return believing


def asked_of_host(vae: Vae, latent: torch.Tensor, facts: VaeFacts, plan: Plan) -> int:
    """Bytes that core will want free for a planned decode: for one tile, or on hosts that do
    not know that yet for the whole latent."""
    shape = tuple(latent.shape)
    bounded = getattr(vae, "_tile_bounded_shape", None)
    if plan.tile_size is not None and bounded is not None:
        sizes = _tile_sizes(shape, facts, plan)
        shape = bounded(shape, sizes["tile_x"], sizes["tile_y"], sizes["tile_t"])
    return int(vae.memory_used_decode(shape, vae.vae_dtype))


def _tile_sizes(
    latent_shape: tuple[int, ...], facts: VaeFacts, plan: Plan
) -> dict[str, int | None]:
    """The plan's sizes, turned from pixels and frames to latents."""
    scale = facts.spatial_scale
    tile = None if plan.tile_size is None else max(1, plan.tile_size // scale)
    overlap = None if plan.overlap is None else plan.overlap // scale
    tile_t, overlap_t = None, None
    if len(latent_shape) == VIDEO_DIMS and facts.temporal_scale is not None:
        tile_t, overlap_t = _chunk(latent_shape[2], facts.temporal_scale, plan)
    return {
        "tile_x": tile,
        "tile_y": tile,
        "overlap": overlap,
        "tile_t": tile_t,
        "overlap_t": overlap_t,
    }


class _WatchedDecoder:
    """A decoder that tells of each piece first; in all else the decoder it stands for."""

    def __init__(self, model: Any, before_piece: BeforePiece) -> None:
        self._model, self._before_piece = model, before_piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def decode(self, latent: Any, *others: Any, **options: Any) -> Any:
        self._before_piece(tuple(latent.shape))
        return self._model.decode(latent, *others, **options)


def _watched(vae: Vae, before_piece: BeforePiece) -> Vae:
    """A copy of the object, sharing model and patcher, with its decoder watched."""
    watched: Vae = copy.copy(vae)
    watched.first_stage_model = _WatchedDecoder(vae.first_stage_model, before_piece)
    return watched


def _chunk(frames: int, scale: int, plan: Plan) -> tuple[int, int]:
    """Latent frames per chunk and shared by two; all frames in one where the plan has none."""
    if plan.temporal_size is None:
        return max(LEAST_CHUNK, frames), 1
    chunk = max(LEAST_CHUNK, plan.temporal_size // scale)
    shared = (plan.temporal_overlap or 0) // scale
    return chunk, max(1, min(chunk // 2, shared))


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    """[B, T, H, W, C] to [B * T, H, W, C], as core's node does; images pass through."""
    if pixels.ndim == VIDEO_DIMS:
        return pixels.reshape(-1, *pixels.shape[-3:])
    return pixels
