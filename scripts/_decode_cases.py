"""Real decodes of ComfyUI's VAEs on a CUDA GPU: which, and what each took.

    python _decode_cases.py --comfyui <folder> --out rows.json [names...]

Run by ComfyUI's Python; ``calibrate.py`` and ``bench.py predict`` start it, once for each
allocator, since torch chooses that when it starts. Weights are random: neither memory nor time
depends on them.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _host_vaes import ZOO, enter_host, latent, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Size: TypeAlias = "tuple[int | None, int, int]"
"""Latent frames (None for images), rows and columns."""

SIZES: Final[dict[str, tuple[Size, ...]]] = {
    "kl": (
        (None, 64, 64), (None, 96, 72), (None, 128, 128), (None, 157, 111), (None, 256, 256),
        (None, 512, 512),
    ),
    "kl16": ((None, 64, 64), (None, 157, 111)),
    "flux2": ((None, 32, 32), (None, 64, 64), (None, 79, 55), (None, 128, 128)),
    "wan2.1": (
        (1, 60, 104), (3, 60, 104), (9, 60, 104), (21, 60, 104), (9, 45, 83), (9, 32, 32),
        (13, 128, 128), (21, 90, 160),
    ),
    "wan2.2": ((1, 44, 80), (3, 44, 80), (5, 22, 40), (9, 44, 80), (7, 33, 47), (31, 44, 80)),
    "hunyuan": (
        (1, 60, 104), (3, 32, 32), (5, 60, 104), (9, 45, 83), (33, 32, 32), (17, 90, 160),
    ),
    "hunyuan1.5": ((1, 45, 80), (5, 16, 16), (5, 30, 52), (9, 23, 41), (9, 30, 52), (16, 45, 80)),
    "ltx": ((1, 24, 40), (7, 16, 24), (13, 16, 24), (9, 17, 23), (16, 24, 40)),
    "ltx2": ((7, 16, 24), (13, 16, 24), (9, 17, 23), (16, 24, 40)),
    "mochi": ((1, 60, 106), (4, 32, 32), (4, 60, 106), (5, 45, 83), (7, 60, 106), (14, 30, 53)),
    "cosmos": ((1, 88, 160), (4, 32, 32), (4, 60, 104), (5, 45, 83), (8, 60, 104), (16, 88, 160)),
    "cogvideo": ((1, 60, 90), (5, 32, 32), (5, 60, 90), (7, 45, 83), (13, 32, 32), (13, 60, 90)),
}  # fmt: skip
"""Odd ones included, growing, so that a run cut short has measured something of each."""

TILED: Final[dict[str, tuple[Size, int, int | None]]] = {
    "kl": ((None, 157, 111), 64, None),
    "wan2.1": ((9, 60, 104), 40, None),
    "wan2.2": ((9, 44, 80), 24, None),
    "hunyuan": ((9, 60, 104), 32, None),
    "hunyuan1.5": ((9, 30, 52), 20, None),
    "ltx": ((16, 24, 40), 16, 8),
    "mochi": ((7, 60, 106), 40, 4),
    "cosmos": ((16, 88, 160), 64, 8),
    "cogvideo": ((13, 60, 90), 40, 6),
}
"""A latent, the edge of its tiles and, where time is cut too, their frames."""


@dataclass(frozen=True)
class Row:
    """One decode.

    Attributes:
        shape: of the latent.
        piece: of the largest part decoded at once; equal to ``shape`` when it was whole.
        measured_bytes: the most it added to what torch's allocator held before.
        core_bytes: what ComfyUI's ``memory_used_decode`` says for that part.
        seconds: of the second run, for the first one may load kernels.
        pixels: decoded output pixels times frames, overlap included.
        is_first: the process decoded nothing with this VAE before.
    """

    name: str
    shape: tuple[int, ...]
    piece: tuple[int, ...]
    measured_bytes: int
    core_bytes: int
    seconds: float
    pixels: int
    tiles: int
    is_first: bool = False


def main() -> int:
    """Measure, print a line for each, write all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--autotune", action="store_true")
    parser.add_argument("--limit-s", type=float, default=float("inf"))
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    enter_host(options.comfyui)
    torch.backends.cudnn.benchmark = options.autotune
    rows: list[Row] = []
    deadline = time.monotonic() + options.limit_s
    for name in options.names or SIZES:
        for row in measured(name, getattr(torch, options.dtype), deadline):
            rows.append(row)
            share = row.core_bytes / row.measured_bytes
            print(
                f"{name:12} {row.piece!s:26} {row.measured_bytes / 2**20:9.1f} MiB, core x "
                f"{share:.2f}, {row.seconds:.2f} s",
                flush=True,
            )
            document = {"machine": machine(options.dtype), "rows": [asdict(each) for each in rows]}
            options.out.write_text(json.dumps(document), encoding="utf-8")
    return 0


def machine(dtype: str) -> dict[str, Any]:
    """What the figures depend on."""
    configured = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": str(torch.backends.cudnn.version()),
        "allocator": torch.cuda.get_allocator_backend(),
        "configured": configured,
        "autotune": torch.backends.cudnn.benchmark,
        "dtype": dtype,
    }


def measured(name: str, dtype: torch.dtype, deadline: float) -> Iterator[Row]:
    """Decode every size of one VAE, and one latent in tiles."""
    from comfy import model_management  # noqa: PLC0415

    vae = load(name, device="cuda", dtype=dtype)
    full = bool(getattr(vae, "disable_offload", False))
    model_management.load_models_gpu([vae.patcher], memory_required=0, force_full_load=full)
    with torch.inference_mode():
        _matrix_product(dtype)
        for number, size in enumerate(SIZES[name]):
            if time.monotonic() > deadline:
                break
            if number == 0:
                yield whole(name, vae, size, is_first=True)
            yield whole(name, vae, size)
        if name in TILED and time.monotonic() < deadline:
            yield tiled(name, vae, *TILED[name])
    model_management.unload_all_models()
    _let_go()


def whole(name: str, vae: Any, size: Size, *, is_first: bool = False) -> Row:  # noqa: ANN401
    """Decode at once."""
    sample = latent(ZOO[name], *size)
    peak, seconds, pixels = _run(lambda: vae.decode(sample), repeat=not is_first)
    core = int(vae.memory_used_decode(sample.shape, vae.vae_dtype))
    shape = tuple(sample.shape)
    return Row(name, shape, shape, peak, core, seconds, pixels, 1, is_first)


def tiled(name: str, vae: Any, size: Size, edge: int, frames: int | None) -> Row:  # noqa: ANN401
    """Decode with ComfyUI's tiled decode; pictures in tiles of three proportions."""
    sample = latent(ZOO[name], *size)
    sizes = {"tile_x": edge, "tile_y": edge, "overlap": max(1, edge // 4)}
    if frames is not None:
        sizes |= {"tile_t": frames, "overlap_t": 1}
    peak, seconds, pixels = _run(lambda: vae.decode_tiled(sample, **sizes), repeat=True)
    bounded = vae._tile_bounded_shape(sample.shape, edge, edge, frames)
    core = int(vae.memory_used_decode(bounded, vae.vae_dtype))
    return Row(name, tuple(sample.shape), tuple(bounded), peak, core, seconds, pixels, 2)


def _run(decode: Callable[[], torch.Tensor], *, repeat: bool) -> tuple[int, float, int]:
    """Bytes added at the peak, seconds, and pixels times frames."""
    if repeat:
        decode()
    _let_go()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    result = decode()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    pixels = result.numel() // result.shape[-1]
    return torch.cuda.max_memory_allocated() - before, seconds, pixels


def _matrix_product(dtype: torch.dtype) -> None:
    """The first one of a process makes cuBLAS take its workspace (32 MiB on an H200) for good.
    Sampling has done that long before any decode."""
    values = torch.ones((16, 16), device="cuda", dtype=dtype)
    torch.mm(values, values)


def _let_go() -> None:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
