"""What makes two decodes the same: the latent's values, the decoder's weights, the settings."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from ...supervisor.planning.types import PlanRequest
    from .vae import Vae

SAMPLED_WEIGHTS: Final = 32
"""Parameters looked at, spread over the model: enough to tell a fine-tuned one apart."""
SAMPLED_VALUES: Final = 16
"""Values of each."""


def decode_identity(samples: Any, vae: Vae, request: PlanRequest) -> str:
    """Equal in every process for the same latent, decoder and settings.

    Where the decode runs and how much memory it may use is no part of it: a decode that failed
    may be taken up with less, or on another device.
    """
    digest = hashlib.sha256()
    parts = samples.unbind() if getattr(samples, "is_nested", False) else [samples]
    for part in parts:
        digest.update(_content(part))
    model: Any = vae.first_stage_model
    digest.update(f"{type(model).__module__}.{type(model).__qualname__} {vae.vae_dtype}".encode())
    for name, weight in _sampled(model):
        digest.update(name.encode() + _content(weight))
    digest.update(json.dumps(_settings(request)).encode())
    return digest.hexdigest()


def _settings(request: PlanRequest) -> list[Any]:
    """What the pixels depend on. In auto the sizes follow from the memory, and do not count."""
    if not request.manual:
        return [request.quality]
    sizes = [request.tile_size, request.overlap, request.temporal_size, request.temporal_overlap]
    return [request.quality, *sizes]


def _sampled(model: Any) -> Iterable[tuple[str, torch.Tensor]]:
    """Some values of some weights. Those without values (on the meta device) count by shape."""
    import torch

    weights: list[tuple[str, torch.Tensor]] = list(model.named_parameters())
    step = max(1, len(weights) // SAMPLED_WEIGHTS)
    for name, weight in weights[::step]:
        if weight.device.type == "meta":
            yield f"{name} {tuple(weight.shape)}", torch.empty(0)
        else:
            yield f"{name} {tuple(weight.shape)}", weight.detach().flatten()[:SAMPLED_VALUES]


def _content(tensor: torch.Tensor) -> bytes:
    """Kind, shape and values."""
    import torch

    values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + values.numpy().tobytes()
