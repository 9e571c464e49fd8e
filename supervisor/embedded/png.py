"""A PNG writer for one picture, so that the preview needs no imaging library."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB_8_BIT = (8, 2, 0, 0, 0)
_NO_FILTER = b"\x00"


def encode_png(picture: Tensor) -> bytes:
    """Encode ``[3, H, W]`` in [-1, 1] as an 8-bit RGB PNG."""
    levels = ((picture.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    rows = levels.permute(1, 2, 0).contiguous()
    height, width = rows.shape[:2]
    raw = b"".join(_NO_FILTER + bytes(row.flatten().tolist()) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, *_RGB_8_BIT)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 6)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)
