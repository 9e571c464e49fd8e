"""From decoded values to bytes, and from bytes to picture files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from ..tiles import Rect

CHANNELS: Final = frozenset({1, 3, 4})
"""Grey, colour, colour with alpha."""
RGBA: Final = 4
PNG_LEVEL: Final = 4
"""As ComfyUI's own saver: a little larger than the smallest, and much faster."""

SEAM_COLOURS: Final = ("#ff4040", "#40c0ff", "#ffd040", "#60ff60")
SHADE: Final = 0.6
"""How bright the picture under the rectangles is."""


def to_bytes(frame: Tensor) -> NDArray[np.uint8]:
    """``[h, w, C]`` in 0..1 as the nearest of 256 steps; NaN is black.

    Nearest, so that a picture that was loaded from 8 bits comes out the same.
    """
    values = torch.nan_to_num(frame.detach().float(), nan=0.0)
    return values.mul_(255).round_().clamp_(0, 255).to(torch.uint8).contiguous().numpy()


def encode(picture: NDArray[np.uint8], jpeg_quality: int | None) -> bytes:
    """The contents of a picture file, PNG without a quality; JPEG leaves alpha out."""
    file = io.BytesIO()
    if jpeg_quality is None:
        _image(picture).save(file, "PNG", compress_level=PNG_LEVEL)
    else:
        opaque = picture[..., :3] if picture.shape[-1] == RGBA else picture
        _image(opaque).save(file, "JPEG", quality=jpeg_quality)
    return file.getvalue()


def draw_parts(
    picture: NDArray[np.uint8] | None, parts: Iterable[Rect], height: int, width: int
) -> bytes:
    """A PNG of ``height`` x ``width`` with the outlines of parts over a frame, or over black."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - the host brings it

    canvas = Image.new("RGB", (width, height))
    if picture is not None:
        canvas = Image.blend(canvas, _image(picture).convert("RGB"), SHADE)
    draw = ImageDraw.Draw(canvas)
    for index, part in enumerate(parts):
        corners = (part.left, part.top, part.right - 1, part.bottom - 1)
        draw.rectangle(corners, outline=SEAM_COLOURS[index % len(SEAM_COLOURS)])
    file = io.BytesIO()
    canvas.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()


def _image(picture: NDArray[np.uint8]) -> Image.Image:
    from PIL import Image  # noqa: PLC0415 - the host brings it

    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
