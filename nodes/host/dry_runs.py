"""Dry runs of a host VAE's decoder: what to run, and what the host must answer meanwhile."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

from ...supervisor.planning.dry_run import TensorSpec, trace_decode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ...supervisor.planning.trace import Trace
    from .vae import Vae

_STREAMED: Final = ("_v", "_v_signature", "_prefetch")
"""Where DynamicVRAM hangs its handles on a layer: of no use to fakes."""

_answering: Final = threading.Lock()
"""One dry run at a time replaces the host's answers."""


def trace_vae(
    vae: Vae,
    shape: tuple[int, ...],
    *,
    tiled: bool = False,
    fused_attention: bool = True,
    total_bytes: int | None = None,
    check: Callable[[], None] | None = None,
) -> Trace:
    """Dry-run ``vae``'s decoder for a latent of ``shape`` decoded at once.

    Args:
        vae: the live object; nothing of it is changed or copied, nothing is loaded.
        shape: [B, C, H, W] or [B, C, T, H, W] in latent units.
        tiled: as one tile of the host's tiled decode, which converts each on the device.
        fused_attention: whether the decoder's attention runs in a fused kernel.
        total_bytes: the answer to decoders that ask how much memory the device has.
        check: called now and then; may raise to stop the run.
    """
    module: Any = vae.first_stage_model
    inputs = [TensorSpec(shape)]
    if getattr(module, "comfy_has_chunked_io", False):
        inputs.append(TensorSpec(tuple(module.decode_output_shape(shape))))
    dtype = vae.vae_dtype

    def run(stand_in: Any, latent: torch.Tensor, *buffer: torch.Tensor) -> object:
        forget_streaming(stand_in)
        samples = latent.to(dtype, copy=True)
        if buffer:
            return stand_in.decode(samples, output_buffer=buffer[0])
        pixels = stand_in.decode(samples)
        return pixels.to(torch.float32) if tiled else pixels

    with answered(total_bytes):
        return trace_decode(
            module,
            run,
            *inputs,
            fused_attention=fused_attention,
            check=check,
        )


def forget_streaming(stand_in: Any) -> None:
    """The copy's weights are fakes, and there: nothing is to be streamed for it."""
    for part in stand_in.modules():
        for name in _STREAMED:
            vars(part).pop(name, None)


@contextmanager
def answered(total_bytes: int | None) -> Generator[None]:
    """Answer what decoders ask the host, for this thread; others get the host's own answers.

    The copy lies on the CPU, and would be told the system's memory for the device's. What it
    moves to where results are kept must leave the device: fakes on "meta" do not count.
    """
    import comfy.model_management as management

    asked_by = threading.get_ident()

    def total(dev: object = None, torch_total_too: bool = False) -> Any:  # noqa: FBT001
        if threading.get_ident() != asked_by or total_bytes is None:
            return own["get_total_memory"](dev, torch_total_too)
        return (total_bytes, total_bytes) if torch_total_too else total_bytes

    def results_device() -> torch.device:
        if threading.get_ident() != asked_by:
            return own["intermediate_device"]()
        return torch.device("meta")

    answers = {"get_total_memory": total, "intermediate_device": results_device}
    with _answering:
        own = {name: getattr(management, name) for name in answers}
        try:
            for name, answer in answers.items():
                setattr(management, name, answer)
            yield
        finally:
            for name, function in own.items():
                setattr(management, name, function)
