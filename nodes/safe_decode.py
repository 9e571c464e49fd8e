"""The safe decode with this process's own parts, for the nodes; and for core's nodes."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..supervisor.errors import DecodeFailedError, LatentNotDecodableError
from .decoding import DecodeWish, decode_safely
from .host.meter import PeakMeter
from .host.protection import Protection, executing_class, host_classes
from .host.runtime import runtime
from .ladder import LadderExhausted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from ..supervisor.decode.sink import PixelSink
    from ..supervisor.planning.types import PlanRequest
    from .decoding import Decoded
    from .host.preferences import Quality
    from .host.vae import Vae

    class Decode(Protocol):
        """The safe decode of one VAE."""

        def __call__(
            self, samples: Any, wish: DecodeWish, *, sink: PixelSink | None = None
        ) -> Decoded:
            """Of one latent."""
            ...


_log = logging.getLogger(__name__)


def safe_decode(
    samples: Any, vae: Vae, wish: DecodeWish, *, sink: PixelSink | None = None
) -> Decoded:
    """``decode_safely`` with the memory, meter and forecasts of this process."""
    return decoder_here(vae)(samples, wish, sink=sink)


def decoder_here(vae: Vae) -> Decode:
    """The safe decode of a VAE in this process; nothing is done yet."""
    here = runtime()
    watched = here.supervisor
    meter = PeakMeter(str(vae.device), watched.counter, watched.peaks)

    def decode(samples: Any, wish: DecodeWish, *, sink: PixelSink | None = None) -> Decoded:
        forecasts = here.forecaster.forecast
        decoded = decode_safely(
            samples,
            vae,
            wish,
            here.memory,
            meter,
            forecasts,
            sink=sink,
            board=watched.decodes,
        )
        decoded.warnings.extend(here.spill.warnings(watched.jobs.position().job_id))
        return decoded

    return decode


def _is_interrupt(problem: BaseException) -> bool:
    return runtime().memory.is_interrupt(problem)


def _wanted_quality() -> Quality:
    return runtime().preferences.now.default_quality


def protected_decode(
    latent: torch.Tensor,
    vae: Vae,
    request: PlanRequest,
    core: Callable[[], torch.Tensor],
    *,
    decoder_of: Callable[[Vae], Decode] = decoder_here,
    is_interrupt: Callable[[BaseException], bool] = _is_interrupt,
    quality: Callable[[], Quality] = _wanted_quality,
) -> torch.Tensor:
    """What a protected core node decodes with; images [N, H, W, C]. It tells no quality, so the
    user's standard one holds where sizes are chosen here.

    Whatever fails but for want of memory, core decodes as ever, and the latent kept meanwhile
    goes once that worked: a mistake of ours costs time only, and an error of the decoder's own
    is core's to tell.

    Raises:
        DecodeFailedError: it ran out of memory everywhere, core failed too, or the latent cannot
            be decoded by anybody. It names the kept latent.
    """
    try:
        decode = decoder_of(vae)
        request = request if request.manual else replace(request, quality=quality())
    except Exception:  # noqa: BLE001 - whatever it is, nothing was decoded yet
        _log.exception("No safe decode of this VAE; core decodes as ever")
        return core()
    wish = DecodeWish(request, last_frame_fix=False, budget_cap_bytes=0, keep_latent=True)
    try:
        decoded = decode(latent, wish)
    except DecodeFailedError as failure:
        if isinstance(failure.__cause__, (LadderExhausted, LatentNotDecodableError)):
            raise
        kept, tried = failure.latent_path, failure.tried
        _log.warning("The safe decode failed; core decodes as ever", exc_info=failure)
    else:
        _log.info("Protected decode: %s", "; ".join(decoded.record.tried))
        return cast("torch.Tensor", decoded.images)  # no sink took them
    # Out of the except block, for the error refers to what was tried with.
    try:
        images = core()
    except Exception as problem:
        if is_interrupt(problem):
            raise
        tried = [*tried, f"core's own decode: {type(problem).__name__}: {problem}"]
        raise DecodeFailedError(tried, kept, began=True) from problem
    _remove(kept)
    return images


def _remove(kept: Path | None) -> None:
    """The latent of a decode that worked after all need not be kept."""
    if kept is None:
        return
    try:
        kept.unlink(missing_ok=True)
    except OSError as problem:
        _log.info("The latent kept in %s is not needed, but stays: %s", kept, problem)


@lru_cache(maxsize=1)
def protection() -> Protection:
    """The one switch of this process, off at first."""
    return Protection(host_classes, executing_class, protected_decode)
