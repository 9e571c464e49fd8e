"""The safe encode: ComfyUI's own encoders under a plan, or their parts, with recovery."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..supervisor.errors import EncodeFailedError, PicturesNotEncodableError
from ..supervisor.planning.types import DecodeShape, PlanRequest
from .encode_executing import EncodeExecutor
from .host.vae import VIDEO_DIMS
from .host.vae_encoding import encoding_facts, latent_shape_of, prepared
from .ladder import Ladder, LadderExhausted, Question, Record
from .watching import begun, telling, told

if TYPE_CHECKING:
    from collections.abc import Generator

    import torch

    from ..supervisor.jobs.decodes import DecodeBoard
    from .encode_executing import EncodeExpectation
    from .host.forecast import Prediction
    from .host.memory import HostMemory
    from .host.meter import Measured, PeakMeter
    from .host.vae import VaeFacts
    from .host.vae_encoding import EncodingVae

    class EncodeForecasts(Protocol):
        """Makes forecasts of encodes, or what a test puts in its place."""

        def __call__(
            self, vae: EncodingVae, facts: VaeFacts, pixels: torch.Tensor
        ) -> EncodeExpectation:
            """Of one VAE for pictures as core arranges them."""
            ...


@dataclass(frozen=True)
class EncodeWish:
    """What the node's widgets ask for.

    Attributes:
        quality: "exact", "balanced" or "fast".
        budget_cap_bytes: the most an encode may add, 0 for what is free.
    """

    quality: str = "exact"
    budget_cap_bytes: int = 0


@dataclass
class Encoded:
    """A finished encode: latents as core makes them, and what the report tells of it.

    Attributes:
        shape: of the latents as planned, None where the VAE makes no pictures.
        prediction: of the largest piece, None where it was not predicted.
        seconds: how long the encode alone took.
        notes: how the prediction came about.
    """

    samples: torch.Tensor
    record: Record
    measured: Measured
    shape: DecodeShape | None = None
    prediction: Prediction | None = None
    seconds: float | None = None
    notes: list[str] = field(default_factory=list[str])


def encode_safely(
    pixels: torch.Tensor,
    vae: EncodingVae,
    wish: EncodeWish,
    memory: HostMemory,
    meter: PeakMeter,
    forecasts: EncodeForecasts,
    *,
    board: DecodeBoard | None = None,
) -> Encoded:
    """Encode pictures [N, H, W, C] in 0..1 to what core's ``encode`` would give.

    Args:
        pixels: frames of one video for VAEs of videos.
        vae: encodes them.
        wish: what the node's widgets ask for.
        memory: the host's memory manager.
        meter: measures.
        forecasts: predicts.
        board: told how the encode goes on.

    Raises:
        EncodeFailedError: every rung ran out of memory, or the encoder failed. An interrupt
            passes through.
        PicturesNotEncodableError: there is nothing to encode.
    """
    record = Record()
    with _told_on_failure(memory, record):
        check = getattr(vae, "throw_exception_if_invalid", None)
        if check is not None:
            check()
        facts = encoding_facts(vae)
        arranged = prepared(vae, pixels) if facts.pictures else pixels.movedim(-1, 1)
        _check_sizes(pixels, tuple(arranged.shape), facts)
        forecast = forecasts(vae, facts, arranged) if facts.pictures else None
        shape = _shape_of(vae, facts, tuple(arranged.shape)) if facts.pictures else None
        watch = begun(board, "encode", vae, shape)
        executor = EncodeExecutor(
            vae,
            pixels,
            tuple(arranged.shape),
            facts,
            memory,
            meter,
            forecast,
            cap_bytes=wish.budget_cap_bytes,
            tell=telling(record, watch),
            progress=memory.progress_bar,
            watch=watch,
        )
        record.free_bytes = executor.free_bytes()
        with told(watch, executor, record, memory):
            samples = _encode(executor, forecast, shape, facts, wish, record)
    return Encoded(
        samples,
        record,
        executor.measured,
        shape,
        executor.prediction,
        executor.seconds,
        [*([] if forecast is None else forecast.notes), *executor.notes],
    )


def _encode(
    executor: EncodeExecutor,
    forecast: EncodeExpectation | None,
    shape: DecodeShape | None,
    facts: VaeFacts,
    wish: EncodeWish,
    record: Record,
) -> torch.Tensor:
    if forecast is None or shape is None:
        record.tried.append("no pictures: core's encode, unplanned")
        return executor.run_unplanned()
    forecast.has_room(executor.budget_bytes())
    question = Question(
        shape,
        forecast,
        PlanRequest(quality=wish.quality),
        temporal_tiling=facts.cuts_time(manual=False),
    )
    return Ladder(executor, question, record).climb()


def _check_sizes(pixels: torch.Tensor, arranged: tuple[int, ...], facts: VaeFacts) -> None:
    """Refuse what nobody can encode.

    Raises:
        PicturesNotEncodableError: none, or none that gives a pixel of a latent.
    """
    sizes = " x ".join(map(str, pixels.shape))
    if 0 in pixels.shape:
        raise PicturesNotEncodableError(sizes, "there are none")
    if facts.pictures and min(arranged[-2:]) < facts.spatial_scale:
        least = facts.spatial_scale
        raise PicturesNotEncodableError(sizes, f"this VAE needs {least} x {least} pixels at least")


def _shape_of(vae: EncodingVae, facts: VaeFacts, arranged: tuple[int, ...]) -> DecodeShape:
    latent = latent_shape_of(vae, arranged)
    return DecodeShape(
        batch=latent[0],
        channels=latent[1],
        frames=latent[2] if len(latent) == VIDEO_DIMS else None,
        height=latent[-2],
        width=latent[-1],
        spatial_scale=facts.spatial_scale,
        temporal_scale=facts.temporal_scale or 1,
    )


@contextmanager
def _told_on_failure(memory: HostMemory, record: Record) -> Generator[None]:
    """Any error names what was tried; the user's interrupt passes through."""
    try:
        yield
    except PicturesNotEncodableError:
        raise
    except Exception as problem:
        if memory.is_interrupt(problem):
            raise
        if not isinstance(problem, LadderExhausted):
            record.tried.append(f"failed: {type(problem).__name__}: {problem}")
        raise EncodeFailedError(record.tried) from problem
