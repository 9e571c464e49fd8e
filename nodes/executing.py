"""Runs decode attempts with ComfyUI's decoders, measures them, and hands on what they teach."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from ..supervisor.planning.allocator import CAPACITY_RATIO, UNKNOWN_RATIO, usable_bytes
from .host.forecast import Outcome
from .host.meter import Measured
from .host.vae import (
    Vae,
    VaeFacts,
    WholeDecodeRanOut,
    asked_of_host,
    decode_in_tiles,
    decode_whole,
    expecting,
    piece_of,
    pieces_of,
)
from .ladder import RanOut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch

    from ..supervisor.planning.time_model import TimeModel
    from ..supervisor.planning.traced_cost import Piece
    from ..supervisor.types import Plan
    from .host.forecast import Prediction
    from .host.memory import HostMemory
    from .host.meter import PeakMeter


PICTURE_COPIES: Final = 2
PIXEL_BYTES: Final = 3 * 4
BELIEVED_FAILURE: Final = 1.5
"""A decode that ran out is taken to need at most so many times what was predicted."""


class Forecast(Protocol):
    """What decoding asks of a forecast; a test can stand in for it."""

    @property
    def allocator(self) -> str | None:
        """Which one serves the VAE's device."""
        ...

    @property
    def notes(self) -> list[str]:
        """What the report should tell."""
        ...

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Predicted peak of a piece."""
        ...

    def hungriest(self, pieces: Iterable[Piece], *, exact: bool = False) -> Prediction:
        """The prediction of the piece that needs most."""
        ...

    def time_model(self) -> TimeModel | None:
        """How long decodes take here."""
        ...

    def wants_probe(self) -> bool:
        """Whether a small piece should be decoded before the first plan."""
        ...

    def learn(self, piece: Piece, outcome: Outcome) -> None:
        """Keep what decoding a piece took."""
        ...


@dataclass
class Attempt:
    """What one attempt decoded, piece by piece.

    Attributes:
        free_bytes: what could be added when it began, its weights loaded.
        shapes: latents decoded at once, in order.
        seconds: how long the decode took; None until it is done.
    """

    free_bytes: int
    shapes: list[tuple[int, ...]] = field(default_factory=list["tuple[int, ...]"])
    seconds: float | None = None

    @property
    def pieces(self) -> list[Piece]:
        """Every size once, in order."""
        return list(dict.fromkeys(piece_of(shape) for shape in self.shapes))

    def pixels(self, facts: VaeFacts) -> int:
        """Decoded pixels of all frames, overlaps counted."""
        return sum(_pixels(piece_of(shape), facts) for shape in self.shapes)


class HostExecutor:
    """Runs attempts on the VAE's own device."""

    def __init__(
        self,
        vae: Vae,
        latent: torch.Tensor,
        facts: VaeFacts,
        memory: HostMemory,
        meter: PeakMeter,
        forecast: Forecast | None,
        *,
        cap_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._vae, self._latent, self._facts = vae, latent, facts
        self._memory, self._meter, self._cap_bytes = memory, meter, cap_bytes
        self._forecast, self._clock = forecast, clock
        self._patcher = getattr(vae, "patcher", None)
        self._allocator = None if forecast is None else forecast.allocator
        self._attempt: Attempt | None = None
        self.measured = Measured()
        """What the attempt that succeeded added to the device."""
        self.seconds: float | None = None
        """How long that took."""
        self.prediction: Prediction | None = None
        """What the attempt in hand was expected to need."""

    def free_bytes(self) -> int:
        """What this process may still allocate on the VAE's device."""
        return self._memory.free_bytes(self._vae.device)

    def budget_bytes(self) -> int:
        """What live tensors can fill of the free memory less the host's reserve and weights
        still to load, capped by the wish."""
        budget = self._usable(self.free_bytes() - self._held_back_bytes())
        return min(budget, self._cap_bytes) if self._cap_bytes else budget

    def evictable_bytes(self) -> int:
        """No more than up to the wish's cap: room made beyond it would not be used."""
        evictable = self._usable(self._memory.evictable_bytes(self._vae.device, self._patcher))
        if not self._cap_bytes:
            return evictable
        free = self._usable(self.free_bytes() - self._held_back_bytes())
        return min(evictable, max(0, self._cap_bytes - free))

    def host_free_bytes(self) -> int:
        """Free system memory, for a decode on the CPU."""
        return self._memory.host_free_bytes()

    def evict(self, needed_bytes: int) -> int:
        """Unload other models until ``needed_bytes`` can be added."""
        gc.collect()
        target = int(needed_bytes * self._capacity_ratio()) + 1 + self._held_back_bytes()
        return self._memory.evict(target, self._vae.device, self._patcher)

    def ran_out(self) -> None:
        """Drop what Python still refers to, then torch's cache; remember that it did not fit.

        What is free afterwards counts too: another process may have taken memory meanwhile.
        """
        gc.collect()
        self._memory.empty_cache()
        attempt, self._attempt = self._attempt, None
        if attempt is None or not attempt.shapes:
            return
        free = min(attempt.free_bytes, self.free_bytes())
        least = self._usable(free)
        if self.prediction is not None:
            # Far more was free than it should need: somebody else took it for a moment.
            least = min(least, int(self.prediction.peak_bytes * BELIEVED_FAILURE))
        least = max(least, self._meter.measured.least_bytes or 0)
        self._learn(piece_of(attempt.shapes[-1]), Outcome(least, exact=False, failed=True))

    def check_interrupt(self) -> None:
        """Raise ComfyUI's interrupt."""
        self._memory.raise_if_interrupted()

    def is_interrupt(self, problem: BaseException) -> bool:
        """Whether an error is the user's interrupt."""
        return self._memory.is_interrupt(problem)

    def exact_need(self, plan: Plan) -> int:
        """What the largest piece of a plan needs, after a dry run of it."""
        if self._forecast is None:
            return plan.predicted_peak_bytes
        return self._predicted(self._forecast, plan, exact=True).peak_bytes

    def run(self, plan: Plan) -> torch.Tensor:
        """One attempt. The error is left behind before ``RanOut`` is raised, for it refers to
        every tensor of the failed attempt."""
        if self._forecast is not None:
            self.prediction = self._predicted(self._forecast, plan, exact=False)
        return self._survived(lambda: self._follow(plan))

    def run_unplanned(self) -> torch.Tensor:
        """Core's own decode, for latents that are no pictures."""
        vae, latent = self._vae, self._latent
        needed_bytes = int(vae.memory_used_decode(tuple(latent.shape), vae.vae_dtype))
        return self._measured(needed_bytes, lambda: vae.decode(latent))

    def probe(self, edge: int) -> None:
        """Decode a corner of the first item, ``edge`` latents square, to learn from it.

        Raises:
            RanOut: not even that fitted.
        """
        corner = self._latent[:1, ..., :edge, :edge]
        vae = self._vae
        needed_bytes = int(vae.memory_used_decode(tuple(corner.shape), vae.vae_dtype))

        def decode() -> torch.Tensor:
            return self._measured(needed_bytes, lambda: decode_whole(vae, corner, self._begins))

        self._survived(decode)

    def _survived(self, attempt: Callable[[], torch.Tensor]) -> torch.Tensor:
        try:
            return attempt()
        except WholeDecodeRanOut:
            pass
        except Exception as problem:
            if not self._memory.is_oom(problem, self._vae.device):
                raise
        raise RanOut

    def _follow(self, plan: Plan) -> torch.Tensor:
        latent, facts = self._latent, self._facts
        if plan.tile_size is not None:
            needed_bytes = self._asked(latent, plan)
            tiling = self._expecting(needed_bytes)
            return self._measured(
                needed_bytes, lambda: decode_in_tiles(tiling, latent, facts, plan, self._begins)
            )
        parts = latent.split(plan.batch or max(1, latent.shape[0]))
        needed_bytes = self._asked(parts[0], plan)
        vae = self._expecting(needed_bytes // max(1, parts[0].shape[0]))
        return self._measured(needed_bytes, lambda: self._each(vae, parts))

    def _each(self, vae: Vae, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        decoded = [decode_whole(vae, items, self._begins) for items in parts]
        return decoded[0] if len(decoded) == 1 else torch.cat(decoded)

    def _asked(self, latent: torch.Tensor, plan: Plan) -> int:
        """What core is to have free for a piece: what was predicted, where anything was."""
        if self.prediction is None:
            return asked_of_host(self._vae, latent, self._facts, plan)
        return int(self.prediction.peak_bytes * self._capacity_ratio()) + 1

    def _expecting(self, needed_bytes: int) -> Vae:
        return self._vae if self.prediction is None else expecting(self._vae, needed_bytes)

    def _begins(self, shape: tuple[int, ...]) -> None:
        """Before each piece."""
        self.check_interrupt()
        if self._attempt is not None:
            self._attempt.shapes.append(shape)

    def _measured(self, needed_bytes: int, decode: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Measure a decode alone: core would evict and load the weights as its first act, so
        that is asked of it before the meter starts."""
        self._attempt = None
        if self._patcher is not None:
            entirely = bool(getattr(self._vae, "disable_offload", False))
            self._memory.load(self._patcher, needed_bytes, entirely=entirely)
        self._memory.settle(self._vae.device)
        self._attempt = Attempt(self.free_bytes())
        with self._meter as metered:
            started_s = self._clock()
            pixels = decode()
            self.seconds = self._attempt.seconds = self._clock() - started_s
        self.measured = metered.measured
        self._learn_success(self._attempt)
        return pixels

    def _learn_success(self, attempt: Attempt) -> None:
        measured = self.measured
        exact = bool(measured.peak_bytes)
        known_bytes = measured.peak_bytes if exact else measured.least_bytes
        if known_bytes is None or not attempt.shapes or self._forecast is None:
            return
        outcome = Outcome(
            known_bytes,
            exact=exact,
            seconds=attempt.seconds,
            pixels=attempt.pixels(self._facts),
            tiles=len(attempt.shapes),
        )
        self._learn(self._forecast.hungriest(attempt.pieces).piece, outcome)

    def _learn(self, piece: Piece, outcome: Outcome) -> None:
        """Nothing on a CPU: what it allocates is not counted, and the system lends more. Nor
        where the pictures stay on the device: they are no part of a piece's need."""
        if self._forecast is None or self._vae.device.type == "cpu" or self._keeps_pictures():
            return
        self._forecast.learn(piece, outcome)

    def _keeps_pictures(self) -> bool:
        """Whether ComfyUI keeps results where it decodes (``--gpu-only``)."""
        kept = getattr(self._vae, "output_device", None)
        return self._vae.device.type != "cpu" and kept == self._vae.device

    def _picture_bytes(self) -> int:
        """What the pictures take, in float32: as they are collected and as they are put out."""
        pixels = _pixels(piece_of(tuple(self._latent.shape)), self._facts)
        return PICTURE_COPIES * pixels * PIXEL_BYTES

    def _predicted(self, forecast: Forecast, plan: Plan, *, exact: bool) -> Prediction:
        pieces = pieces_of(tuple(self._latent.shape), self._facts, plan)
        return forecast.hungriest(pieces, exact=exact)

    def _capacity_ratio(self) -> float:
        return CAPACITY_RATIO.get(self._allocator or "", UNKNOWN_RATIO)

    def _usable(self, size_bytes: int) -> int:
        return usable_bytes(size_bytes, self._allocator)

    def _held_back_bytes(self) -> int:
        if self._vae.device.type == "cpu":
            return 0
        pictures = self._picture_bytes() if self._keeps_pictures() else 0
        weights = self._memory.missing_weights_bytes(self._patcher)
        return self._memory.reserve_bytes() + weights + pictures


def _pixels(piece: Piece, facts: VaeFacts) -> int:
    batch, frames, height, width = piece
    decoded = 1 if frames is None else 1 + (frames - 1) * (facts.temporal_scale or 1)
    return batch * decoded * height * width * facts.spatial_scale**2
