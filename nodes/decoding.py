"""The safe decode: ComfyUI's own decoders under a plan, with recovery and a kept latent."""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..supervisor.errors import DecodeFailedError
from .host.latents import save_latent
from .host.meter import Measured
from .host.vae import (
    VIDEO_DIMS,
    Vae,
    VaeFacts,
    WholeDecodeRanOut,
    as_images,
    asked_of_host,
    cost_of,
    decode_in_tiles,
    decode_whole,
    picture_latent,
    read_facts,
    repeat_last_frame,
    shape_of,
)
from .ladder import Ladder, LadderExhausted, Question, RanOut, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    import torch

    from ..supervisor.planning.types import CostModel, DecodeShape, PlanRequest
    from ..supervisor.types import Plan
    from .host.memory import HostMemory
    from .host.meter import PeakMeter

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
    """A finished decode: images [N, H, W, C] in 0..1 and what the report tells of it."""

    images: torch.Tensor
    record: Record
    measured: Measured
    warnings: list[str] = field(default_factory=list)


class HostExecutor:
    """Runs attempts with ComfyUI's decoders on the VAE's own device."""

    def __init__(
        self,
        vae: Vae,
        latent: torch.Tensor,
        facts: VaeFacts,
        memory: HostMemory,
        meter: PeakMeter,
        *,
        cap_bytes: int,
    ) -> None:
        self._vae, self._latent, self._facts = vae, latent, facts
        self._memory, self._meter, self._cap_bytes = memory, meter, cap_bytes
        self._patcher = getattr(vae, "patcher", None)
        self.measured = Measured()
        """What the attempt that succeeded added to the device."""

    def free_bytes(self) -> int:
        """What this process may still allocate on the VAE's device."""
        return self._memory.free_bytes(self._vae.device)

    def budget_bytes(self) -> int:
        """Free memory less the host's reserve and weights still to load, capped by the wish."""
        budget = self.free_bytes() - self._held_back_bytes()
        capped = min(budget, self._cap_bytes) if self._cap_bytes else budget
        return max(0, capped)

    def evictable_bytes(self) -> int:
        """Nothing where the wish caps the budget: room made would not be used."""
        if self._cap_bytes and self._cap_bytes <= self.free_bytes() - self._held_back_bytes():
            return 0
        return self._memory.evictable_bytes(self._vae.device, self._patcher)

    def evict(self, needed_bytes: int) -> int:
        """Unload other models until ``needed_bytes`` can be added."""
        gc.collect()
        target = needed_bytes + self._held_back_bytes()
        return self._memory.evict(target, self._vae.device, self._patcher)

    def empty_cache(self) -> None:
        """After an attempt ran out: drop what Python still refers to, then torch's cache."""
        gc.collect()
        self._memory.empty_cache()

    def check_interrupt(self) -> None:
        """Raise ComfyUI's interrupt."""
        self._memory.raise_if_interrupted()

    def run(self, plan: Plan) -> torch.Tensor:
        """One attempt. The error is left behind before ``RanOut`` is raised, for it refers to
        every tensor of the failed attempt."""
        try:
            return self._tiled(plan) if plan.tile_size is not None else self._whole(plan)
        except WholeDecodeRanOut:
            pass
        except Exception as problem:
            if not self._memory.is_oom(problem, self._vae.device):
                raise
        raise RanOut

    def run_unplanned(self) -> torch.Tensor:
        """Core's own decode, for latents that are no pictures."""
        vae, latent = self._vae, self._latent
        needed_bytes = int(vae.memory_used_decode(tuple(latent.shape), vae.vae_dtype))
        return self._measured(needed_bytes, lambda: vae.decode(latent))

    def _tiled(self, plan: Plan) -> torch.Tensor:
        vae, latent, facts = self._vae, self._latent, self._facts
        return self._measured(
            asked_of_host(vae, latent, facts, plan),
            lambda: decode_in_tiles(vae, latent, facts, plan, self.check_interrupt),
        )

    def _whole(self, plan: Plan) -> torch.Tensor:
        """As many items at once as fit; core decodes a batch in one go where it believes in it."""
        fitting = max(1, self.budget_bytes() // max(1, plan.predicted_peak_bytes))
        pieces = self._latent.split(int(fitting))
        needed_bytes = asked_of_host(self._vae, pieces[0], self._facts, plan)
        return self._measured(needed_bytes, lambda: self._each(pieces))

    def _each(self, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        if len(pieces) == 1:
            return decode_whole(self._vae, pieces[0])
        parts: list[torch.Tensor] = []
        for items in pieces:
            self.check_interrupt()
            parts.append(decode_whole(self._vae, items))
        return torch.cat(parts)

    def _measured(self, needed_bytes: int, decode: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Measure a decode alone: core would evict and load the weights as its first act, so
        that is asked of it before the meter starts."""
        if self._patcher is not None:
            entirely = bool(getattr(self._vae, "disable_offload", False))
            self._memory.load(self._patcher, needed_bytes, entirely=entirely)
        with self._meter as metered:
            pixels = decode()
        self.measured = metered.measured
        return pixels

    def _held_back_bytes(self) -> int:
        if self._vae.device.type == "cpu":
            return 0
        return self._memory.reserve_bytes() + self._memory.missing_weights_bytes(self._patcher)


def decode_safely(
    samples: Any, vae: Vae, wish: DecodeWish, memory: HostMemory, meter: PeakMeter
) -> Decoded:
    """Decode a latent ([B, C, H, W], [B, C, T, H, W] or nested) to images.

    Raises:
        DecodeFailedError: every rung ran out of memory, or the decoder failed; the latent
            was saved if the wish says so. An interrupt passes through after saving.
    """
    record = Record()
    warnings: list[str] = []
    with _kept_on_failure(samples, wish, memory, record):
        _check_valid(vae)
        facts = read_facts(vae)
        latent = picture_latent(samples, facts)
        fixed = _wants_fix(wish, latent, facts, warnings)
        if fixed:
            latent = repeat_last_frame(latent)
        cap_bytes = wish.budget_cap_bytes
        executor = HostExecutor(vae, latent, facts, memory, meter, cap_bytes=cap_bytes)
        record.free_bytes = executor.free_bytes()
        pixels = _decode(executor, _question(latent, vae, facts, wish), record)
        if fixed:
            pixels = pixels[:, : -(facts.temporal_scale or 1)]
        return Decoded(as_images(pixels), record, executor.measured, warnings)


def _check_valid(vae: Vae) -> None:
    check = getattr(vae, "throw_exception_if_invalid", None)
    if check is not None:
        check()


def _decode(executor: HostExecutor, question: Question | None, record: Record) -> torch.Tensor:
    if question is None:
        record.tried.append("not a picture latent: core's decode, unplanned")
        return executor.run_unplanned()
    return Ladder(executor, question, record).climb()


def _question(latent: torch.Tensor, vae: Vae, facts: VaeFacts, wish: DecodeWish) -> Question | None:
    """None for latents that are no pictures."""
    if not facts.pictures:
        return None
    shape, cost = question_of(latent, vae, facts)
    cuts_time = facts.cuts_time(manual=wish.request.manual)
    return Question(shape, cost, wish.request, temporal_tiling=cuts_time)


def question_of(latent: torch.Tensor, vae: Vae, facts: VaeFacts) -> tuple[DecodeShape, CostModel]:
    """Shape and cost model of a picture latent."""
    return shape_of(latent, facts), cost_of(vae, facts, int(latent.shape[1]))


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
        raise DecodeFailedError(record.tried, path) from problem


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
