"""What decodes and encodes share: room on the device, attempts that are measured, and learning."""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from ..supervisor.decode.running import Hooks
from ..supervisor.errors import PartDoesNotFitError
from ..supervisor.planning.allocator import capacity_ratio, usable_bytes
from .host.forecast import Outcome, Prediction
from .host.meter import Measured
from .host.vae import WholeDecodeRanOut, piece_of, pieces_of
from .ladder import RanOut

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..supervisor.decode.running import Progress
    from ..supervisor.jobs.decodes import DecodeWatch
    from ..supervisor.planning.time_model import TimeModel
    from ..supervisor.planning.traced_cost import Piece
    from ..supervisor.planning.types import PlanRequest, Room
    from ..supervisor.types import Plan
    from .expectation import Expectation
    from .host.exact_shared import PartsWay
    from .host.memory import HostMemory
    from .host.meter import PeakMeter
    from .host.vae import Vae, VaeFacts

_ResultT = TypeVar("_ResultT")
_WayT = TypeVar("_WayT", bound="PartsWay")
_MadeT = TypeVar("_MadeT")

PICTURE_COPIES: Final = 2
PIXEL_BYTES: Final = 3 * 4
EVERYTHING_BYTES: Final = 1 << 60
BELIEVED_FAILURE: Final = 1.5
"""A run that ran out is taken to need at most so many times what was predicted."""


@dataclass
class Attempt:
    """What one attempt did, piece by piece.

    Attributes:
        free_bytes: what could be added when it began, its weights loaded.
        shapes: latents of the pieces, in order.
        seconds: how long it took; None until it is done.
    """

    free_bytes: int
    shapes: list[tuple[int, ...]] = field(default_factory=list["tuple[int, ...]"])
    seconds: float | None = None

    @property
    def pieces(self) -> list[Piece]:
        """Every size once, in order."""
        return list(dict.fromkeys(piece_of(shape) for shape in self.shapes))

    def pixels(self, facts: VaeFacts) -> int:
        """Pixels of all frames, overlaps counted."""
        return sum(pixels_of(piece_of(shape), facts) for shape in self.shapes)


def say_nothing(_line: str) -> None:
    """For callers that do not listen."""


class DeviceExecutor(ABC, Generic[_WayT, _MadeT]):
    """Runs attempts on the VAE's own device.

    Args:
        vae: the host's object.
        latent_shape: ``[B, C, H, W]`` or ``[B, C, T, H, W]`` of what goes in or comes out.
        facts: of the VAE.
        memory: the host's memory manager.
        meter: measures what attempts take.
        forecast: predicts what they need; None for what is no picture.
        exact: the ways to run it in parts that equal the whole; None: there are none.
        cap_bytes: the most that may be added, 0 for what is free.
        tell: takes lines for the report.
        progress: makes a progress bar for so many steps, and is what advances it.
        watch: told how the decode goes on.
        clock: seconds.
    """

    def __init__(
        self,
        vae: Vae,
        latent_shape: tuple[int, ...],
        facts: VaeFacts,
        memory: HostMemory,
        meter: PeakMeter,
        forecast: Expectation | None,
        exact: _WayT | None,
        *,
        cap_bytes: int,
        tell: Callable[[str], None] = say_nothing,
        progress: Callable[[int], Callable[[], None]] | None = None,
        watch: DecodeWatch | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._vae, self._latent_shape, self._facts = vae, latent_shape, facts
        self._memory, self._meter, self._cap_bytes = memory, meter, cap_bytes
        self._forecast, self._exact, self._clock = forecast, exact, clock
        self._patcher = getattr(vae, "patcher", None)
        self._allocator = None if forecast is None else forecast.allocator
        self._attempt: Attempt | None = None
        self._tell, self._progress, self._watch = tell, progress, watch
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

    def next_use_bytes(self) -> int:
        """Of what can be evicted, what the queue needs again: it would leave last."""
        needed = self._usable(self._memory.next_use_bytes(self._vae.device, self._patcher))
        return min(needed, self.evictable_bytes())

    def host_free_bytes(self) -> int:
        """Free system memory, for work on the CPU."""
        return self._memory.host_free_bytes()

    def evict(self, needed_bytes: int) -> int:
        """Unload other models until ``needed_bytes`` can be added."""
        target = int(needed_bytes * self._capacity_ratio()) + 1 + self._held_back_bytes()
        done = self._memory.make_room(target, self._vae.device, self._patcher)
        if not done.reached:
            self._tell(done.line())
        return done.freed_bytes

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

    def exact_plan(self, room: Room, request: PlanRequest, times: TimeModel | None) -> Plan | None:
        """The best plan in parts that equal the whole, None where there is none."""
        return None if self._exact is None else self._exact.plan(room, request, times)

    def exact_smaller(self, plan: Plan, room: Room, request: PlanRequest) -> Plan | None:
        """After such a plan ran out of memory for good: one that needs less."""
        if self._exact is None or not self._exact.knows(plan):
            return None
        return self._exact.shrunk(plan, room, request)

    def on_cpu(self, plan: Plan) -> Plan | None:
        """What is left of a plan in exact parts, on the CPU; None where it is there already."""
        if self._exact is None or not self._exact.knows(plan) or self._vae.device.type == "cpu":
            return None
        return None if plan.kind == "cpu" else self._exact.on_cpu(plan)

    def is_exact(self, plan: Plan) -> bool:
        """Whether it is such a plan."""
        return self._exact is not None and self._exact.knows(plan)

    @property
    def notes(self) -> list[str]:
        """What the report should tell of how parts are run."""
        return [] if self._exact is None else list(self._exact.notes)

    def run(self, plan: Plan) -> _MadeT:
        """One attempt. The error is left behind before ``RanOut`` is raised, for it refers to
        every tensor of the failed attempt.
        """
        if self._exact is not None and self._exact.knows(plan):
            exact = self._exact
            self.prediction = self._prediction_of(exact, plan)
            self._follows(plan)
            return self._survived(lambda: self._follow_exact(exact, plan))
        if self._forecast is not None:
            self.prediction = self._predicted(self._forecast, plan, exact=False)
        self._follows(plan)
        return self._survived(lambda: self._follow(plan))

    def _follows(self, plan: Plan) -> None:
        if self._watch is not None:
            known = self.prediction
            self._watch.planned(plan, predicted_bytes=None if known is None else known.peak_bytes)

    def _advanced(self) -> None:
        if self._watch is not None:
            self._watch.advanced()

    @abstractmethod
    def _follow(self, plan: Plan) -> _MadeT:
        """Do as planned, with the host's own functions."""

    @abstractmethod
    def _follow_exact(self, exact: _WayT, plan: Plan) -> _MadeT:
        """Do as planned, in exact parts."""

    def _prediction_of(self, exact: _WayT, plan: Plan) -> Prediction:
        bound, piece = exact.bound(plan), piece_of(self._latent_shape)
        base_bytes, peak_bytes = exact.base_bytes(plan), plan.predicted_peak_bytes
        return Prediction(piece, peak_bytes, base_bytes, bound.source, bound.reason, "run")

    def _in_parts(self, exact: _WayT, plan: Plan, work: Callable[[Hooks], _ResultT]) -> _ResultT:
        """Do exact parts with their weights at hand, measured."""
        needed_bytes = int(plan.predicted_peak_bytes * self._capacity_ratio()) + 1
        step = None if self._progress is None else self._progress(plan.tiles)

        def advance(_progress: Progress) -> None:
            if step is not None:
                step()
            self._advanced()

        hooks = Hooks(
            progress=advance,
            check=self.check_interrupt,
            is_oom=self._memory.is_oom,
            empty_cache=self._let_go,
            make_room=self._evict_all,
            ran_out=lambda name: self._tell(f"{name}: ran out of memory"),
        )
        if plan.kind == "cpu":
            # Its weights go to system memory, from where they serve the CPU.
            self._memory.evict(EVERYTHING_BYTES, self._vae.device, None)
        else:
            self._loaded(needed_bytes)
        with self._meter as metered:
            started_s = self._clock()
            made = work(hooks)
            self.seconds = self._clock() - started_s
        self.measured = metered.measured
        self._learn_exact(exact.base_bytes(plan), plan)
        return made

    def _let_go(self) -> None:
        gc.collect()
        self._memory.empty_cache()

    def _evict_all(self) -> None:
        self._memory.evict(EVERYTHING_BYTES, self._vae.device, self._patcher)

    def _learn_exact(self, base_bytes: int, plan: Plan) -> None:
        measured = self.measured
        known_bytes = measured.peak_bytes or measured.least_bytes
        if known_bytes is None or self._forecast is None or self._keeps_results():
            return
        if plan.kind == "cpu":
            return
        pixels = pixels_of(piece_of(self._latent_shape), self._facts)
        outcome = Outcome(
            known_bytes,
            exact=bool(measured.peak_bytes),
            seconds=self.seconds,
            pixels=pixels,
            tiles=plan.tiles,
        )
        self._forecast.learn_exact(base_bytes, outcome)

    def _survived(self, attempt: Callable[[], _ResultT]) -> _ResultT:
        try:
            return attempt()
        except (WholeDecodeRanOut, PartDoesNotFitError):
            pass
        except Exception as problem:
            if not self._memory.is_oom(problem):
                raise
        raise RanOut

    def _begins(self, latent_shape: tuple[int, ...]) -> None:
        """Before each piece."""
        self.check_interrupt()
        if self._attempt is not None:
            if self._attempt.shapes:
                self._advanced()
            self._attempt.shapes.append(latent_shape)

    def _measured(self, needed_bytes: int, work: Callable[[], _ResultT]) -> _ResultT:
        """Measure the work alone: core would evict and load the weights as its first act, so
        that is asked of it before the meter starts."""
        self._loaded(needed_bytes)
        self._attempt = Attempt(self.free_bytes())
        with self._meter as metered:
            started_s = self._clock()
            made = work()
            self.seconds = self._attempt.seconds = self._clock() - started_s
        self.measured = metered.measured
        self._learn_success(self._attempt)
        return made

    def _loaded(self, needed_bytes: int) -> None:
        """Weights on the device, with room beside them."""
        self._attempt = None
        if self._patcher is not None:
            entirely = bool(getattr(self._vae, "disable_offload", False))
            self._memory.load(self._patcher, needed_bytes, entirely=entirely)
        self._memory.settle(self._vae.device)

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
        where results stay on the device: they are no part of a piece's need."""
        if self._forecast is None or self._vae.device.type == "cpu" or self._keeps_results():
            return
        self._forecast.learn(piece, outcome)

    def _keeps_results(self) -> bool:
        """Whether ComfyUI keeps results where it makes them (``--gpu-only``)."""
        kept = getattr(self._vae, "output_device", None)
        return self._vae.device.type != "cpu" and kept == self._vae.device

    @abstractmethod
    def _result_bytes(self) -> int:
        """What results take there, as they are collected and as they are put out."""

    def _predicted(self, forecast: Expectation, plan: Plan, *, exact: bool) -> Prediction:
        pieces = pieces_of(self._latent_shape, self._facts, plan)
        return forecast.hungriest(pieces, exact=exact)

    def _capacity_ratio(self) -> float:
        return capacity_ratio(self._allocator, tight=self._is_tight)

    def _usable(self, size_bytes: int) -> int:
        return usable_bytes(size_bytes, self._allocator, tight=self._is_tight)

    @property
    def has_exact_parts(self) -> bool:
        """Whether there are parts that should equal the whole."""
        return self._exact is not None and self._exact.is_known

    @property
    def _is_tight(self) -> bool:
        """Nothing that equals the whole is at hand for what does not fit whole."""
        return not self.has_exact_parts

    def _held_back_bytes(self) -> int:
        if self._vae.device.type == "cpu":
            return 0
        results = self._result_bytes() if self._keeps_results() else 0
        weights = self._memory.missing_weights_bytes(self._patcher)
        return self._memory.kept_free_bytes() + weights + results


def pixels_of(piece: Piece, facts: VaeFacts) -> int:
    """Of all frames that a piece of a latent stands for."""
    batch, frames, height, width = piece
    decoded = 1 if frames is None else 1 + (frames - 1) * (facts.temporal_scale or 1)
    return batch * decoded * height * width * facts.spatial_scale**2
