"""What decodes and encodes in parts share: plans, surveys, proofs, and the engine's set-up."""

from __future__ import annotations

import gc
import json
import logging
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch

from ...supervisor.decode.engine import Engine
from ...supervisor.decode.layout import lay_out, least_bytes, with_halo
from ...supervisor.decode.proof import PROOF_VERSION
from ...supervisor.decode.running import Hooks
from ...supervisor.decode.survey import SMALL_EDGES, survey
from ...supervisor.errors import PartDoesNotFitError
from ...supervisor.planning.plans import TILED_ANYWAY
from ...supervisor.planning.workspace import MODEL_VERSION, workspace_of
from ...supervisor.types import Plan
from ...supervisor.units import format_bytes
from .dry_runs import answered, forget_streaming
from .live_sizer import LiveSizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ...supervisor.decode.layout import Layout
    from ...supervisor.decode.program import Program
    from ...supervisor.decode.proof import Proof
    from ...supervisor.decode.survey import StageNeeds, Survey
    from ...supervisor.planning.calibration import Bound
    from ...supervisor.planning.time_model import TimeModel
    from ...supervisor.planning.types import PlanRequest, Room
    from .exacts import Exacts
    from .memory import HostMemory
    from .vae import Vae, VaeFacts

_log = logging.getLogger(__name__)

HOST_SHARE: Final = 0.7
"""Of the free system memory that results may wait in."""
SHRINK: Final = 0.7
"""Of the budget after a layout ran out of memory for good."""
MOST_RATIO: Final = 2.0
MOST_PROOF_FRAMES: Final = 9
"""Of the inputs that families are proven on, at least."""
PROOF_ROOM_BYTES: Final = 1 << 30
PROOF_TRIES: Final = 2
VIDEO_DIMS: Final = 5


class Bounds(Protocol):
    """What planning asks of a forecast."""

    def bound_exact(self, base_bytes: int) -> Bound:
        """At most what a layout of ``base_bytes`` needs, and why."""
        ...

    @property
    def allocator(self) -> str | None:
        """Which one serves the device."""
        ...


@dataclass(frozen=True)
class Way:
    """A family's program, or the black box."""

    name: str
    build: Callable[[Any], Program]
    exact: bool


@dataclass(frozen=True)
class Settings:
    """What decides how much a program needs beside its input.

    Attributes:
        architecture: hash of the network and of its code.
        fused_attention: whether its attention keeps no scores.
        total_bytes: the answer to networks that ask how much memory the device has.
    """

    architecture: str
    fused_attention: bool
    total_bytes: int | None


class PartsWay(ABC):
    """The ways to run one VAE in parts on one input.

    Args:
        vae: the host's object.
        facts: of the VAE.
        shape: of the program's input, ``[B, C, (T,) h, w]``.
        memory: the host's memory manager.
        shared: surveys, proofs and host memory.
        forecast: of this VAE; bounds what a layout needs.
        settings: what a need depends on.
    """

    def __init__(
        self,
        vae: Vae,
        facts: VaeFacts,
        shape: tuple[int, ...],
        memory: HostMemory,
        shared: Exacts,
        forecast: Bounds,
        settings: Settings,
    ) -> None:
        self._vae, self._facts, self._shape = vae, facts, shape
        self._memory, self._shared, self._forecast = memory, shared, forecast
        self._settings = settings
        self._layouts: dict[tuple[int, int | None, int | None], Layout] = {}
        self._again: dict[tuple[int, int | None, int | None], Callable[[int], Layout | None]] = {}
        """Lays out for another budget what was laid out for a plan."""
        self._fast = False
        """Whether halos are cut, as in the latest plan."""
        self._way: Way | None = None
        self._asked = False
        self.notes: list[str] = []
        """What the report should tell."""

    def plan(self, room: Room, request: PlanRequest, times: TimeModel | None) -> Plan | None:
        """The best way in parts, None where none fits or this VAE tiles itself."""
        way = None if self._facts.tiles_itself else self._laid_out_way()
        if way is None:
            return None
        stay = self._planned(way, room.budget_bytes, room, request, times)
        if room.evictable_bytes <= 0:
            return stay or self._least(way, room, request, times)
        make_room = self._planned(way, room.most_bytes, room, request, times)
        if stay is None or make_room is None:
            return stay or make_room or self._least(way, room, request, times)
        return min(stay, make_room, key=lambda plan: plan.predicted_seconds or 0.0)

    def on_cpu(self, plan: Plan) -> Plan:
        """The same parts on the CPU: what is finished stays."""
        layout = self._layouts[_key_of(plan)]
        reason = f"the remaining parts on the CPU, since they fit nowhere else; {plan.reason}"
        moved = replace(plan, kind="cpu", reason=reason, evict_bytes=0)
        self._layouts[_key_of(moved)] = layout
        return moved

    def shrunk(self, plan: Plan, room: Room, request: PlanRequest) -> Plan | None:
        """After a plan ran out of memory for good: one for less."""
        way = self._chosen()
        if way is None:
            return None
        budget = int(min(plan.predicted_peak_bytes, room.most_bytes) * SHRINK)
        return self._planned(way, budget, room, request, None)

    def knows(self, plan: Plan) -> bool:
        """Whether it made this plan."""
        return _key_of(plan) in self._layouts

    def bound(self, plan: Plan) -> Bound:
        """Where the need of a plan of its own comes from."""
        return self._forecast.bound_exact(self.base_bytes(plan))

    def base_bytes(self, plan: Plan) -> int:
        """Predicted peak before calibration."""
        return self._layouts[_key_of(plan)].peak_bytes

    @property
    def is_known(self) -> bool:
        """Whether there are parts that should equal the whole; they may not have been proven."""
        if self._asked:
            return self._way is not None and self._way.exact
        return not self._facts.tiles_itself and self._found is not None

    @cached_property
    def _found(self) -> tuple[str, Callable[[Any], Program | None]] | None:
        return self._recognised()

    @abstractmethod
    def _recognised(self) -> tuple[str, Callable[[Any], Program | None]] | None:
        """Name and program of the family, None where none knows this VAE."""

    def _chosen(self) -> Way | None:
        """What runs, proven if it claims to be exact; None where there is none."""
        if not self._asked:
            self._way, self._asked = self._found_way(), True
        return self._way

    @abstractmethod
    def _found_way(self) -> Way | None:
        """The same, not looked for before."""

    @abstractmethod
    def _result_bytes(self) -> int:
        """What the finished result takes in the host's memory."""

    @abstractmethod
    def _result_pixels(self) -> int:
        """Pixels of all frames on the picture's side: what times are counted by."""

    @property
    @abstractmethod
    def _pixels_per_input(self) -> int:
        """Pixels along one side that one of the program's input stands for."""

    def _shown(self, found: Survey, layout: Layout) -> tuple[StageNeeds, tuple[int, int]]:
        """The stage whose parts the report tells, and what they own: that of the pictures."""
        return found.phases[-1].stages[-1], layout.largest

    @property
    def _survey_edges(self) -> tuple[int, int]:
        """Of the two small inputs that a survey runs on."""
        return SMALL_EDGES

    def _device_of(self, plan: Plan) -> torch.device:
        return torch.device("cpu") if plan.kind == "cpu" else self._vae.device

    def _engine(self, way: Way, plan: Plan, hooks: Hooks, live: Callable[[], int]) -> Engine:
        """For one item; sizes of parts follow what ``live`` says is free."""
        layout, lay_out_again = self._layouts[_key_of(plan)], self._again[_key_of(plan)]
        ratio = plan.predicted_peak_bytes / max(1, layout.peak_bytes)
        device = self._device_of(plan)
        pages = self._shared.pages if device == self._vae.device else None

        def again(budget_bytes: int) -> Layout | None:
            return lay_out_again(int(budget_bytes / ratio))

        sizer = LiveSizer(layout, ratio, live, again)
        program = way.build(self._vae.first_stage_model)
        program = program.fast() if self._fast else program
        engine = Engine(program, sizer, device, hooks, pages)
        if device == self._vae.device:
            sizer.parking = engine.parking
        return engine

    def _laid_out_way(self) -> Way | None:
        """What runs, if its stages can be dry-run; else it is left to ComfyUI's own tiles."""
        way = self._chosen()
        if way is None:
            return None
        try:
            self._survey(way)
        except Exception as problem:
            if self._memory.is_interrupt(problem):
                raise
            _log.info("The network cannot be taken apart", exc_info=problem)
            self.notes.append(
                f"the network cannot be taken apart ({type(problem).__name__}: {problem}): "
                "ComfyUI's own tiles are used"
            )
            return None
        return way

    def _least(
        self, way: Way, room: Room, request: PlanRequest, times: TimeModel | None
    ) -> Plan | None:
        """Predictions err: the smallest parts are tried even where they should not fit."""
        found = self._survey(way)
        smallest = self._planned(way, 2 * least_bytes(found), room, request, times)
        if smallest is None:
            return None
        warning = "nothing is predicted to fit: the smallest parts are tried all the same"
        return replace(smallest, fits=False, warnings=(*smallest.warnings, warning))

    def _planned(
        self,
        way: Way,
        budget_bytes: int,
        room: Room,
        request: PlanRequest,
        times: TimeModel | None,
    ) -> Plan | None:
        found = self._survey(way)
        self._fast = request.quality != "exact" and way.exact
        if self._fast:
            found = with_halo(found, float(way.build(self._vae.first_stage_model).fast_halo))
        bound = self._forecast.bound_exact(budget_bytes)
        ratio = min(MOST_RATIO, max(1.0, bound.bytes / max(1, budget_bytes)))
        fixed = _owned_edge(request, self._pixels_per_input) if request.manual else None
        host = self._host_bytes(room)
        lay_out_within = partial(lay_out, found, host_bytes=host, fixed=fixed)
        layout = lay_out_within(int(budget_bytes / ratio))
        if layout is None:
            self._tell_of_host(found, int(budget_bytes / ratio), host)
            return None
        peak = ceil(layout.peak_bytes * ratio)
        why = f"{format_bytes(peak)} of {format_bytes(budget_bytes)} ({bound.reason})"
        plan = self._plan_of(way, layout, request, peak, why)
        evict = room.evict_bytes(peak)
        seconds = None if times is None else self._seconds(layout, times, room, evict)
        plan = replace(plan, evict_bytes=evict, predicted_seconds=seconds)
        self._layouts[_key_of(plan)], self._again[_key_of(plan)] = layout, lay_out_within
        return plan

    def _host_bytes(self, room: Room) -> int | None:
        """What may wait in system memory; None where nobody knows how much there is."""
        if room.host_bytes is None:
            return None
        idle = self._shared.pages.idle_bytes
        most = max(idle, int((room.host_bytes + idle) * HOST_SHARE))
        return max(0, most - self._result_bytes())

    def _tell_of_host(self, found: Survey, budget_bytes: int, host_bytes: int | None) -> None:
        """Where more system memory would have made exact parts possible."""
        if host_bytes is None or any("system memory" in note for note in self.notes):
            return
        unbounded = lay_out(found, budget_bytes, host_bytes=None)
        if unbounded is not None:
            self.notes.append(
                f"exact parts need {format_bytes(unbounded.host_bytes)} of system memory for what "
                f"waits, and {format_bytes(host_bytes)} may be used: close other programs, or "
                "give the decode more of the device"
            )

    def _plan_of(
        self, way: Way, layout: Layout, request: PlanRequest, peak_bytes: int, why: str
    ) -> Plan:
        found = self._survey(way)
        stage, (rows, columns) = self._shown(found, layout)
        to_pixels = self._pixels_per_input / stage.scale_in
        size = (int(rows * to_pixels), int(columns * to_pixels))
        streamed = any(phase.chunks > 1 for phase in found.phases)
        does = "exact" if way.exact else "tiles with wide context"
        parked = ""
        if layout.host_bytes:
            parked = f", {format_bytes(layout.host_bytes)} waiting in system memory"
        reason = (
            f"{does} ({way.name}): parts of up to {size[1]} x {size[0]} px "
            f"in {self._steps(layout)} steps{parked}: {why}"
        )
        return Plan(
            "streamed" if streamed else "tiled",
            self._steps(layout),
            reason,
            peak_bytes,
            fits=True,
            quality=request.quality,
            tile_size=max(size),
            overlap=int(2 * stage.halo * to_pixels),
            tile_height=size[0],
            tile_width=size[1],
            warnings=() if request.tile or request.manual else (TILED_ANYWAY,),
        )

    def _seconds(self, layout: Layout, times: TimeModel, room: Room, evict: int) -> float:
        took = times.decode_s(int(self._result_pixels() * layout.overhead), self._steps(layout), 0)
        return took + times.evict_s(evict) + times.reload_s(room.reload_bytes(evict))

    def _steps(self, layout: Layout) -> int:
        """Parts of all items, each of which is run by itself."""
        return layout.pieces * self._shape[0]

    def _survey(self, way: Way) -> Survey:
        return self._shared.survey(self._text(way.name), lambda: self._surveyed(way))

    def _surveyed(self, way: Way) -> Survey:
        def build(stand_in: Any) -> Program:
            forget_streaming(stand_in)
            return way.build(stand_in)

        model: Any = self._vae.first_stage_model
        with answered(self._settings.total_bytes):
            return survey(
                model,
                build,
                (1, *self._shape[1:]),
                self._vae.vae_dtype,
                workspace_of(self._vae.device.type),
                edges=self._survey_edges,
                fused_attention=self._settings.fused_attention,
                check=self._memory.raise_if_interrupted,
            )

    def _text(self, what: str, *, of_input: bool = True) -> str:
        """Under which name something is remembered.

        Args:
            of_input: it holds for inputs of this size only.
        """
        settings = self._settings
        facts: list[object] = [
            what,
            PROOF_VERSION,
            MODEL_VERSION,
            settings.architecture,
            str(self._vae.vae_dtype),
            self._vae.device.type,
            torch.__version__,
        ]
        if of_input:
            facts += [list(self._shape[1:]), settings.fused_attention, settings.total_bytes]
        elif len(self._shape) == VIDEO_DIMS:
            # A single frame says nothing of what is carried from frame to frame.
            facts.append(min(MOST_PROOF_FRAMES, int(self._shape[2])))
        return json.dumps(facts)

    def _tried(self, what: str, prove: Callable[[], Proof]) -> Proof | None:
        """A proof, tried again with room made where it ran out of memory; None where that did
        not help: another decode may find more."""
        for _ in range(PROOF_TRIES):
            try:
                return self._shared.proof(self._text(what, of_input=False), prove)
            except Exception as problem:
                if self._memory.is_interrupt(problem) or not self._is_oom(problem):
                    raise
            # Out of the except block, for the error refers to what was tried with.
            gc.collect()
            self._memory.empty_cache()
            patcher = getattr(self._vae, "patcher", None)
            self._memory.evict(PROOF_ROOM_BYTES, self._vae.device, patcher)
        return None

    def _is_oom(self, problem: BaseException) -> bool:
        return isinstance(problem, PartDoesNotFitError) or self._memory.is_oom(problem)

    @property
    def _proof_hooks(self) -> Hooks:
        return Hooks(check=self._memory.raise_if_interrupted, is_oom=self._memory.is_oom)

    def _weights_there(self) -> None:
        """On the device, with some room beside them."""
        patcher = getattr(self._vae, "patcher", None)
        if patcher is not None:
            self._memory.load(patcher, PROOF_ROOM_BYTES)

    def _device_context(self) -> AbstractContextManager[Any]:
        enter = getattr(self._memory.management, "cuda_device_context", None)
        return nullcontext() if enter is None else enter(self._vae.device)


def built(build: Callable[[Any], Program | None], model: Any) -> Program:
    """The program of a network that was recognised before."""
    program = build(model)
    if program is None:
        message = "the network has changed since it was recognised"
        raise RuntimeError(message)
    return program


def _owned_edge(request: PlanRequest, scale: int) -> int:
    """What a tile given by hand owns: what its overlap leaves, at least half of it."""
    own = max(request.tile_size - request.overlap, request.tile_size // 2)
    return max(1, own // scale)


def _key_of(plan: Plan) -> tuple[int, int | None, int | None]:
    """What stays the same when a plan is explained anew."""
    return (plan.predicted_peak_bytes, plan.tile_height, plan.tile_width)
