"""The safe encode with this process's own parts, for the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .encoding import encode_safely
from .host.encode_forecast import EncodeForecast
from .host.meter import PeakMeter
from .host.runtime import runtime

if TYPE_CHECKING:
    import torch

    from .encoding import Encoded, EncodeWish
    from .host.vae import VaeFacts
    from .host.vae_encoding import EncodingVae


def safe_encode(pixels: torch.Tensor, vae: EncodingVae, wish: EncodeWish) -> Encoded:
    """``encode_safely`` with the memory, meter and forecasts of this process."""
    here = runtime()
    watched = here.supervisor
    meter = PeakMeter(str(vae.device), watched.counter, watched.peaks)

    def forecast(vae: EncodingVae, facts: VaeFacts, pixels: torch.Tensor) -> EncodeForecast:
        return EncodeForecast(here.forecaster, vae, facts, pixels, here.memory)

    return encode_safely(pixels, vae, wish, here.memory, meter, forecast, board=watched.decodes)
