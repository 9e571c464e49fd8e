"""Every image and video VAE that ComfyUI can load, at full width, with random weights.

    python _host_vaes.py <ComfyUI folder> [--device cuda] [--dtype float32] [names...]

loads each, decodes a small latent and prints what came out. Run by ComfyUI's Python. As a
module: call ``enter_host`` first, then ``load``. ComfyUI skips weight initialisation, so every
tensor is drawn here, with a scale that keeps activations finite.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
import sys
import time
import warnings
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _host_vae_layouts import ZOO, Layout

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from torch import Tensor

__all__ = ["ZOO", "Layout", "enter_host", "latent", "load", "state_dict"]

Weights = Literal["random", "empty"]
Device = torch.device | str


def enter_host(folder: Path | str, *arguments: str) -> None:
    """Make ``comfy`` importable, set up as by ComfyUI's command line ``arguments``."""
    sys.path.insert(0, str(folder))
    ours, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        import_module("comfy.options").enable_args_parsing()
        import_module("comfy.cli_args")  # reads the arguments
    finally:
        sys.argv = ours


def state_dict(
    kind: Layout | str,
    *,
    weights: Weights = "random",
    device: Device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The tensors of a VAE file, at full width.

    Args:
        kind: a layout, or its name in ``ZOO``.
        weights: "random" draws each; "empty" leaves memory as it comes, which costs none until
            somebody writes to it.
        device: where they are drawn.
        dtype: of what is not a whole number, unless ComfyUI tells the layout by its dtype.
        seed: the same seed draws the same weights on the same device.
    """
    layout = ZOO[kind] if isinstance(kind, str) else kind
    if layout.file_dtype:
        dtype = getattr(torch, layout.file_dtype)
    random = None
    if weights == "random":
        random = torch.Generator(device).manual_seed(seed)
    return {
        key: _tensor(key, shape, random, device, dtype) for key, shape in _contents(layout).items()
    }


def load(
    name: str,
    *,
    device: Device | None = None,
    dtype: torch.dtype | None = torch.bfloat16,
    weights: Weights = "random",
    seed: int = 0,
) -> Any:  # noqa: ANN401
    """A ``comfy.sd.VAE`` made from a layout, loaded as from a file.

    Args:
        name: of a layout in ``ZOO``.
        device: to decode on; None leaves it to ComfyUI.
        dtype: of the weights; None leaves it to ComfyUI.
        weights: "empty" is for dry runs: no memory is written, and decoding for real would give
            noise.
        seed: see ``state_dict``.

    Raises:
        RuntimeError: ComfyUI makes another class of it, or misses tensors.
    """
    from comfy.model_management import soft_empty_cache, vae_device  # noqa: PLC0415

    layout = ZOO[name]
    drawn = dtype or torch.bfloat16
    if weights == "random":
        source = vae_device() if device is None else device
        tensors = state_dict(name, device=source, dtype=drawn, seed=seed)
        # To where a file's tensors are: ComfyUI may keep them as they come.
        tensors = {key: tensor.cpu() for key, tensor in tensors.items()}
        soft_empty_cache()
        return _checked(layout, tensors, device, dtype)
    if layout.needs_values:
        return _checked(layout, state_dict(name, weights="empty", dtype=drawn), device, dtype)
    tensors = state_dict(name, weights="empty", device="meta", dtype=drawn)
    with _shapes_only():
        vae = _checked(layout, tensors, device, dtype)
    _untouched(vae.first_stage_model)
    return vae


def latent(
    kind: Layout | str | Any,  # noqa: ANN401
    frames: int | None,
    height: int,
    width: int,
    *,
    batch: int = 1,
    device: Device = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Tensor:
    """A random latent: [B, C, H, W], or [B, C, T, H, W] where there are frames.

    Args:
        kind: a layout, its name, or a loaded VAE.
        frames: latent frames; None for images.
        height: latent pixels.
        width: latent pixels.
        batch: latents.
        device: where it is drawn.
        dtype: of the latent.
        seed: the same seed draws the same latent on the same device.
    """
    layout = ZOO[kind] if isinstance(kind, str) else kind
    sides = (height, width) if frames is None else (frames, height, width)
    random = torch.Generator(device).manual_seed(seed)
    shape = (batch, layout.latent_channels, *sides)
    return torch.randn(shape, generator=random, device=device, dtype=dtype)


def _contents(layout: Layout) -> dict[str, Tensor]:
    """The file's tensors, as the class that ComfyUI builds names and shapes them, on "meta"."""
    place = torch.device("cpu" if layout.needs_values else "meta")
    marks = {key: torch.zeros(shape, device=place) for key, shape in layout.marks.items()}
    with nullcontext() if layout.needs_values else _shapes_only():
        vae, _ = _vae(layout, marks, "cpu", torch.bfloat16)
    tensors = dict(marks)  # what a class is recognised by need not be its own
    for key, tensor in vae.first_stage_model.state_dict().items():
        tensors[_in_file(layout, key)] = tensor
    return {key: tensor.to("meta") for key, tensor in tensors.items()}


def _in_file(layout: Layout, key: str) -> str:
    for module_prefix, file_prefix in layout.prefixes.items():
        if key.startswith(module_prefix):
            return file_prefix + key.removeprefix(module_prefix)
    return key


def _tensor(
    key: str, like: Tensor, random: torch.Generator | None, device: Device, dtype: torch.dtype
) -> Tensor:
    """One tensor of the file; whole numbers are counters, at 0."""
    if not like.is_floating_point():
        return torch.zeros_like(like, device=device)
    tensor = torch.empty(like.shape, device=device, dtype=dtype)
    return tensor if random is None else _drawn(key, tensor, random)


def _drawn(key: str, tensor: Tensor, random: torch.Generator) -> Tensor:
    """Gains around 1, biases small, weights by fan-in: activations keep their size."""
    last = key.rpartition(".")[2]
    if re.fullmatch(r"gamma|\w*scale\d?|running_var|\w*std\S*", last) or (
        last == "weight" and tensor.ndim <= 1
    ):
        return tensor.normal_(1, 0.1, generator=random).abs_()
    if tensor.ndim <= 1:
        return tensor.normal_(0, 0.02, generator=random)
    fan_in = math.prod(tensor.shape[1:])
    return tensor.normal_(0, fan_in**-0.5, generator=random)


def _checked(
    layout: Layout,
    tensors: dict[str, Tensor],
    device: Device | None,
    dtype: torch.dtype | None,
) -> Any:  # noqa: ANN401
    """Load, and see that ComfyUI took it for what it is.

    Raises:
        RuntimeError: it did not.
    """
    vae, missing = _vae(layout, tensors, device, dtype)
    found = type(vae.first_stage_model).__name__
    if missing or found != layout.class_name:
        raise RuntimeError(
            f"ComfyUI made {found} of the layout {layout.name!r} where {layout.class_name} was "
            f"meant{'; ' + missing if missing else ''}. Nothing was kept. This ComfyUI reads "
            "the layout differently: compare its comfy/sd.py with _host_vae_layouts.py."
        )
    return vae


def _vae(
    layout: Layout,
    tensors: Mapping[str, Tensor],
    device: Device | None,
    dtype: torch.dtype | None,
) -> tuple[Any, str]:
    """What ComfyUI makes of the tensors, and what it says is missing from them."""
    import comfy.sd  # noqa: PLC0415

    place = None if device is None else torch.device(device)
    with _missing_keys() as missing:
        vae = comfy.sd.VAE(dict(tensors), device=place, dtype=dtype, metadata=layout.metadata)
    return vae, "".join(missing)


@contextmanager
def _shapes_only() -> Generator[None, None, None]:
    """Modules made here have shapes and no values; loading into them does nothing."""
    import_module("comfy.sd")  # outside, for constants of its modules must have values
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no-op.*")
        yield


def _untouched(module: nn.Module) -> None:
    """Give what has only a shape memory that nobody writes to: it costs none."""
    for part in module.modules():
        for name, tensor in list(part.named_parameters(recurse=False)):
            if tensor.is_meta:
                memory = torch.empty_like(tensor, device="cpu")
                setattr(part, name, nn.Parameter(memory, requires_grad=False))
        for name, tensor in list(part.named_buffers(recurse=False)):
            if tensor.is_meta:
                setattr(part, name, torch.empty_like(tensor, device="cpu"))


@contextmanager
def _missing_keys() -> Generator[list[str], None, None]:
    """What ComfyUI says about missing tensors, which it only logs."""
    said: list[str] = []

    def keep_apart(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if not text.startswith("Missing VAE keys"):
            return True
        said.append(text[:300])
        return False

    root = logging.getLogger()
    root.addFilter(keep_apart)
    try:
        yield said
    finally:
        root.removeFilter(keep_apart)


def report(name: str, device: str, dtype: torch.dtype) -> str:
    """Load one, decode a small latent: a line on what came out."""
    layout = ZOO[name]
    vae = load(name, device=device, dtype=dtype)
    count = sum(each.numel() for each in vae.first_stage_model.parameters())
    sample = latent(layout, SMALL_FRAMES if layout.temporal_scale else None, 8, 8)
    started_s = time.perf_counter()
    with torch.inference_mode():
        pixels = vae.decode(sample)
    took_s = time.perf_counter() - started_s
    finite = "finite" if bool(torch.isfinite(pixels).all()) else "NOT FINITE"
    return (
        f"{name:22} {type(vae.first_stage_model).__name__:30} {count / 1e6:7.1f} M  "
        f"{layout.latent_channels:3} ch  x{layout.spatial_scale} t{layout.temporal_scale or '-'}  "
        f"{list(sample.shape)} -> {list(pixels.shape)} {finite}, "
        f"std {pixels.float().std().item():.3f}, {took_s:.1f} s"
    )


def tried(name: str, device: str, dtype: torch.dtype) -> bool:
    """Print one report, or what went wrong: one must not hide the others."""
    try:
        print(report(name, device, dtype), flush=True)
    except Exception as error:  # noqa: BLE001
        print(f"{name:22} {type(error).__name__}: {error}", flush=True)
        return False
    return True


SMALL_FRAMES = 2
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def main() -> int:
    """Command line: 1 if any of the named failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("host", type=Path, help="the ComfyUI folder")
    parser.add_argument("names", nargs="*", help=f"all, or some of {', '.join(ZOO)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    options = parser.parse_intermixed_args()
    enter_host(options.host, *(["--cpu"] if options.device == "cpu" else []))
    names = options.names or list(ZOO)
    done = [tried(name, options.device, DTYPES[options.dtype]) for name in names]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
