"""The ways to run a host VAE's encoder, and what it makes of pictures first."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from .vae import VIDEO_DIMS, Vae, VaeFacts, WholeDecodeRanOut, read_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from ...supervisor.types import Plan
    from .vae import BeforePiece

COLOURS: Final = 3
_FALLBACKS: Final = (
    "encode_tiled_",
    "encode_tiled_1d",
    "encode_tiled_3d",
    "_encode_tiled_owned",
)


class EncodingVae(Vae, Protocol):
    """The part of ``comfy.sd.VAE`` that encoding uses. Pixels are [N, H, W, C] in 0..1."""

    latent_dim: int | None
    latent_channels: int
    output_device: torch.device
    memory_used_encode: Callable[[tuple[int, ...], torch.dtype], float]
    process_input: Callable[[torch.Tensor], torch.Tensor]

    def encode(self, pixel_samples: torch.Tensor) -> torch.Tensor:
        """Whole; silently tiled on an OOM."""
        ...

    def encode_tiled(
        self,
        pixel_samples: torch.Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        tile_t: int | None = None,
        overlap_t: int | None = None,
    ) -> torch.Tensor:
        """In tiles; sizes in pixels and frames."""
        ...

    def vae_encode_crop_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """To what the encoder can divide; newer hosts also cut or fill up channels."""
        ...

    def spacial_compression_encode(self) -> int:
        """Pixels per latent row and column."""
        ...


def encoding_facts(vae: EncodingVae) -> VaeFacts:
    """As ``read_facts``; the scale is the encoder's."""
    from ...supervisor.decode.families.registry import encoder_scale

    known = encoder_scale(getattr(vae, "first_stage_model", None))
    scale = known or int(vae.spacial_compression_encode())
    return replace(read_facts(vae), spatial_scale=scale)


def given_to_core(vae: EncodingVae, pixels: torch.Tensor) -> torch.Tensor:
    """What core's node gives to ``encode``: hosts whose VAEs do not see to channels themselves
    cut them off there."""
    return pixels if hasattr(vae, "pad_channel_value") else pixels[..., :COLOURS]


def prepared(vae: EncodingVae, pixels: torch.Tensor) -> torch.Tensor:
    """As core's ``encode`` arranges [N, H, W, C]: [N, C, H, W]; for video [1, C, T, H, W]; for
    VAEs of pictures with a dimension of time [N, C, 1, H, W]. Cropped, still in 0..1."""
    arranged = vae.vae_encode_crop_pixels(given_to_core(vae, pixels)).movedim(-1, 1)
    if vae.latent_dim != VIDEO_DIMS - 2 or arranged.ndim >= VIDEO_DIMS:
        return arranged
    if getattr(vae, "not_video", False):
        return arranged.unsqueeze(2)
    return arranged.movedim(1, 0).unsqueeze(0)


def latent_shape_of(vae: EncodingVae, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What becomes of prepared pixels of this shape; for planning."""
    scale = int(vae.spacial_compression_encode())
    height, width = shape[-2] // scale, shape[-1] // scale
    if len(shape) < VIDEO_DIMS:
        return (shape[0], vae.latent_channels, height, width)
    return (shape[0], vae.latent_channels, _latent_frames(vae, shape[2]), height, width)


def pixel_shape_of(
    vae: EncodingVae, facts: VaeFacts, shape: tuple[int, ...], piece: tuple[int, int | None]
) -> tuple[int, ...]:
    """Prepared pixels that become ``piece`` items and latent frames, of rows and columns as in
    ``shape``; never more frames than there."""
    batch, frames = piece
    if len(shape) < VIDEO_DIMS or frames is None:
        return (batch, *shape[1:])
    if frames >= _latent_frames(vae, shape[2]):
        return (batch, *shape[1:])
    return (batch, shape[1], 1 + (frames - 1) * (facts.temporal_scale or 1), *shape[3:])


def _latent_frames(vae: EncodingVae, frames: int) -> int:
    ratio: Any = getattr(vae, "downscale_ratio", None)
    if isinstance(ratio, (tuple, list)) and callable(ratio[0]):
        told: Any = ratio[0](frames)
        return max(1, int(told))
    return frames


def encode_whole(vae: EncodingVae, pixels: torch.Tensor, before_piece: BeforePiece) -> torch.Tensor:
    """Core's own encode of [N, H, W, C]; no quiet retry in tiles.

    Args:
        vae: the host's object; a copy of it does the work.
        pixels: as core's node gets them.
        before_piece: told the shape of prepared pixels before they are encoded; may raise.

    Raises:
        WholeDecodeRanOut: out of memory. Core would now retry in small tiles without a word;
            the copy raises there instead.
    """
    honest = _watched(vae, before_piece)
    for name in _FALLBACKS:
        if hasattr(honest, name):
            setattr(honest, name, _raise_instead)
    return honest.encode(given_to_core(vae, pixels))


def encode_in_tiles(
    vae: EncodingVae,
    pixels: torch.Tensor,
    facts: VaeFacts,
    plan: Plan,
    before_piece: BeforePiece,
) -> torch.Tensor:
    """Core's tiled encode with the plan's sizes.

    Args:
        before_piece: told the shape of each tile before it is encoded; may raise, since core
            never asks for an interrupt there. Not called for VAEs that tile themselves.
    """
    watched = vae if facts.tiles_itself else _watched(vae, before_piece)
    return watched.encode_tiled(
        given_to_core(vae, pixels),
        tile_x=plan.tile_size,
        tile_y=plan.tile_size,
        overlap=plan.overlap,
        tile_t=plan.temporal_size,
        overlap_t=plan.temporal_overlap,
    )


def expecting_encode(vae: EncodingVae, needed_bytes: int) -> EncodingVae:
    """A copy of the object, sharing model and patcher, that believes to need ``needed_bytes``
    whatever it is given: core then evicts for that, not for its own formula."""

    def memory_used_encode(_shape: tuple[int, ...], _dtype: torch.dtype) -> float:
        return max(1, needed_bytes)

    believing = copy.copy(vae)
    believing.memory_used_encode = memory_used_encode
    return believing


def finished(vae: EncodingVae, latents: torch.Tensor) -> torch.Tensor:
    """Latents of all items as core's ``encode`` puts them out."""
    import torch

    dtype_of: Any = getattr(vae, "vae_output_dtype", None)
    dtype = torch.float32 if dtype_of is None else dtype_of()
    latents = latents.to(vae.output_device).to(dtype)
    format_encoded: Any = getattr(vae, "format_encoded", None)
    return latents if format_encoded is None else format_encoded(latents)


class _WatchedEncoder:
    """An encoder that tells of each piece first; in all else the network it stands for."""

    def __init__(self, model: Any, before_piece: BeforePiece) -> None:
        self._model, self._before_piece = model, before_piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, pixels: Any, *others: Any, **options: Any) -> Any:
        self._before_piece(tuple(pixels.shape))
        return self._model.encode(pixels, *others, **options)


def _watched(vae: EncodingVae, before_piece: BeforePiece) -> EncodingVae:
    """A copy of the object, sharing model and patcher, with its encoder watched."""
    watched: EncodingVae = copy.copy(vae)
    watched.first_stage_model = _WatchedEncoder(vae.first_stage_model, before_piece)
    return watched


def _raise_instead(*_args: object, **_kwargs: object) -> torch.Tensor:
    raise WholeDecodeRanOut
