"""Photos of any size for ``bench.py decode``, from real ones that are smaller."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES: Final = {".png", ".jpg", ".jpeg", ".webp"}
BUNDLED: Final = ("astronaut", "chelsea", "coffee", "rocket")
"""Of scikit-image."""


def photo(folder: Path | None, height: int, width: int) -> torch.Tensor:
    """One picture ``[1, H, W, 3]`` in 0..1 with the photos beside each other, mirrored until it
    is full: enlarging them would leave nothing that is hard to decode."""
    strip = torch.cat([_filled(each, height, each.shape[1]) for each in _photos(folder)], dim=1)
    return _filled(strip, height, width).unsqueeze(0).contiguous()


def _filled(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Mirrored at its edges up to a size, or cut down to it."""
    rows, columns = _mirrored(picture.shape[0], height), _mirrored(picture.shape[1], width)
    return picture[rows][:, columns]


def _mirrored(length: int, wanted: int) -> torch.Tensor:
    """Indices 0, 1, .., length-1, length-1, .., 1, 0, 0, 1 and so on."""
    index = torch.arange(wanted) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def _photos(folder: Path | None) -> list[torch.Tensor]:
    if folder is None:
        return [_tensor(getattr(import_module("skimage.data"), name)()) for name in BUNDLED]
    from PIL import Image  # noqa: PLC0415

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"no photos in {folder}; nothing was measured")
    return [_tensor(Image.open(path).convert("RGB")) for path in paths]


def _tensor(picture: Any) -> torch.Tensor:  # noqa: ANN401
    """``[H, W, 3]`` in 0..1."""
    import numpy as np  # noqa: PLC0415

    return torch.from_numpy(np.asarray(picture).copy()).float() / 255
