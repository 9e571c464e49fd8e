"""The safe decode: ComfyUI's own decoders under a plan, with recovery and a kept latent."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..supervisor.decode.sink import pour
from ..supervisor.errors import DecodeFailedError
from ..supervisor.planning.question import SMALLEST_TILE_PX
from .executing import Forecast, HostExecutor
from .host.latents import save_latent
from .host.vae import (
    VIDEO_DIMS,
    Vae,
    VaeFacts,
    as_images,
    picture_latent,
    read_facts,
    repeat_last_frame,
    shape_of,
)
from .ladder import Ladder, LadderExhausted, Question, RanOut, Record
from .watching import begun, telling, told

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import torch

    from ..supervisor.decode.sink import PixelSink
    from ..supervisor.jobs.decodes import DecodeBoard
    from ..supervisor.planning.types import DecodeShape, PlanRequest
    from .host.forecast import Prediction
    from .host.memory import HostMemory
    from .host.meter import Measured, PeakMeter

    class Forecasts(Protocol):
        """Makes forecasts; the forecaster, or what a test puts in its place."""

        def __call__(self, vae: Vae, latent_shape: tuple[int, ...]) -> Forecast:
            """Of one VAE for one latent."""
            ...


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodeWish:
    """What the node's widgets ask for beside the plan request.

    Attributes:
        budget_cap_bytes: the most a decode may add, 0 for what is free.
    """

    request: PlanRequest
    last_frame_fix: bool
    budget_cap_bytes: int
    keep_latent: bool


@dataclass
class Decoded:
    """A finished decode: images [N, H, W, C] in 0..1 and what the report tells of it.

    Attributes:
        images: None where a sink took them.
        shape: of the latent, None where it was no picture.
        prediction: of the largest piece, None where it was not predicted.
        seconds: how long the decode alone took.
        notes: how the prediction came about.
    """

    images: torch.Tensor | None
    record: Record
    measured: Measured
    shape: DecodeShape | None = None
    prediction: Prediction | None = None
    seconds: float | None = None
    warnings: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


def decode_safely(
    samples: Any,
    vae: Vae,
    wish: DecodeWish,
    memory: HostMemory,
    meter: PeakMeter,
    forecasts: Forecasts,
    *,
    sink: PixelSink | None = None,
    board: DecodeBoard | None = None,
) -> Decoded:
    """Decode a latent ([B, C, H, W], [B, C, T, H, W] or nested) to images.

    Args:
        samples: the latent.
        vae: decodes it.
        wish: what the node's widgets ask for.
        memory: the host's memory manager.
        meter: measures.
        forecasts: predicts.
        sink: takes the pixels as they are done, however they are decoded.
        board: told how the decode goes on.

    Raises:
        DecodeFailedError: every rung ran out of memory, or the decoder failed; the latent
            was saved if the wish says so. An interrupt passes through after saving.
    """
    record = Record()
    warnings: list[str] = []
    with _kept_on_failure(samples, wish, memory, record):
        check_valid(vae)
        facts = read_facts(vae)
        latent = picture_latent(samples, facts)
        fixed = _wants_fix(wish, latent, facts, warnings)
        if fixed:
            latent = repeat_last_frame(latent)
        forecast = forecasts(vae, tuple(latent.shape)) if facts.pictures else None
        shape = shape_of(latent, facts) if facts.pictures else None
        watch = begun(board, "decode", vae, shape)
        executor = HostExecutor(
            vae,
            latent,
            facts,
            memory,
            meter,
            forecast,
            cap_bytes=wish.budget_cap_bytes,
            sink=sink,
            tell=telling(record, watch),
            progress=memory.progress_bar,
            watch=watch,
        )
        record.free_bytes = executor.free_bytes()
        is_clip = shape is not None and shape.frames is not None
        in_parts = sink is not None and is_clip and executor.has_exact_parts
        with told(watch, executor, record, memory):
            pixels = _decode(executor, forecast, shape, facts, wish, record, in_parts=in_parts)
        images = None if pixels is None else as_images(_trimmed(pixels, facts, fixed=fixed))
        if sink is not None and images is not None:
            pour(images, sink)
            images = None
        return Decoded(
            images,
            record,
            executor.measured,
            shape,
            executor.prediction,
            executor.seconds,
            warnings,
            [*([] if forecast is None else forecast.notes), *executor.notes],
        )


def _trimmed(pixels: torch.Tensor, facts: VaeFacts, *, fixed: bool) -> torch.Tensor:
    """Without the frames that the repeated last latent frame made."""
    return pixels[:, : -(facts.temporal_scale or 1)] if fixed else pixels


def check_valid(vae: Vae) -> None:
    """Raise ComfyUI's own error for a VAE that it could not load."""
    check = getattr(vae, "throw_exception_if_invalid", None)
    if check is not None:
        check()


def _decode(
    executor: HostExecutor,
    forecast: Forecast | None,
    shape: DecodeShape | None,
    facts: VaeFacts,
    wish: DecodeWish,
    record: Record,
    *,
    in_parts: bool,
) -> torch.Tensor | None:
    if forecast is None or shape is None:
        record.tried.append("not a picture latent: core's decode, unplanned")
        return executor.run_unplanned()
    question = Question(
        shape,
        forecast,
        wish.request,
        temporal_tiling=facts.cuts_time(manual=wish.request.manual),
        exact_need=executor.exact_need,
        times=forecast.time_model(),
        in_parts=in_parts,
    )
    if forecast.wants_probe():
        _probe(executor, max(1, SMALLEST_TILE_PX // shape.spatial_scale), record)
    return Ladder(executor, question, record).climb()


def _probe(executor: HostExecutor, edge: int, record: Record) -> None:
    """Decode a corner of the latent to see how far off the host's formula is."""
    try:
        executor.probe(edge)
    except RanOut:
        executor.ran_out()
        record.tried.append("a small corner, to measure: ran out of memory")
    except Exception as problem:
        if executor.is_interrupt(problem):
            raise
        # It may be too small for this decoder; what is really wrong shows in the decode.
        _log.info("The corner of a latent cannot be decoded", exc_info=problem)
        record.tried.append(f"a small corner, to measure: {type(problem).__name__}")
    else:
        record.tried.append("a small corner, to measure: done")


def _wants_fix(
    wish: DecodeWish, latent: torch.Tensor, facts: VaeFacts, warnings: list[str]
) -> bool:
    if not wish.last_frame_fix:
        return False
    if latent.ndim != VIDEO_DIMS or facts.temporal_scale is None:
        warnings.append("last_frame_fix does nothing for images")
        return False
    if facts.tiles_itself:
        warnings.append("last_frame_fix is ignored: this VAE tiles itself")
        return False
    return True


@contextmanager
def _kept_on_failure(
    samples: Any, wish: DecodeWish, memory: HostMemory, record: Record
) -> Generator[None]:
    """Save the latent when the decode ends in any error or interrupt, and name the file."""
    try:
        yield
    except BaseException as problem:
        path = _save(samples, record) if wish.keep_latent else None
        if not isinstance(problem, Exception) or memory.is_interrupt(problem):
            _log.warning("The decode was interrupted. %s", _where(path))
            raise
        if not isinstance(problem, LadderExhausted):
            record.tried.append(f"failed: {type(problem).__name__}: {problem}")
        began = record.plan is not None
        raise DecodeFailedError(record.tried, path, began=began) from problem


def _save(samples: Any, record: Record) -> Path | None:
    try:
        return save_latent(samples)
    except Exception as problem:  # noqa: BLE001 - must not replace the error that led here
        _log.exception("The latent could not be saved")
        record.tried.append(f"saving the latent failed: {problem}")
        return None


def _where(path: Path | None) -> str:
    if path is None:
        return "The latent was not saved."
    return f"The latent was saved to {path}."
