"""Candidates become plans: ranked, safety first, each with its reason in one line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ..types import Plan, PlanKind
from ..units import format_bytes
from .candidates import Candidate, Search, grows
from .objective import NOMINAL, cpu_seconds, effort
from .question import SMALLEST_CHUNK_LATENTS, Cut, Question

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .time_model import TimeModel
    from .types import Room

CPU_RATIO: Final = 2
"""The CPU decodes in float32; costs are for the two bytes a value of a GPU."""
TILED_ANYWAY: Final = "tiled although tile is off: whole would not fit"
EVICTED_FIRST: Final = "models are evicted first, to have room for tiles"


@dataclass(frozen=True, slots=True)
class Planning:
    """One planning.

    Attributes:
        times: None: plans are ranked by nominal speeds and predict no time.
    """

    asked: Question
    room: Room
    times: TimeModel | None

    @property
    def search(self) -> Search:
        """Finds the candidates."""
        return Search(self.asked, self.room, self.times or NOMINAL)

    def best(self) -> Plan:
        """The plan to follow; whether whole fits is asked first, and often all."""
        request = self.asked.request
        if request.manual and request.tile:
            return self._manual()
        whole = self._whole()
        return whole if whole.fits else self.ranked()[0]

    def ranked(self) -> tuple[Plan, ...]:
        """Manual sizes first where they are asked for; then safety, then what costs least."""
        request = self.asked.request
        found = [pair for pair in self._device_plans() if pair is not None]
        found.sort(key=lambda pair: self._rank(*pair))
        fitting = [plan for plan, _ in found if plan.fits]
        others = [plan for plan, _ in found if not plan.fits]
        ranked = [*fitting, self._on_cpu(nothing_fits=not fitting), *others]
        if request.manual and request.tile:
            ranked.insert(0, self._manual())
        return tuple(ranked)

    def _rank(self, plan: Plan, candidate: Candidate) -> tuple[bool, bool, bool, float]:
        """A decode in one piece that fits as things are wins outright."""
        at_once = plan.kind == "whole" and plan.fits
        unwished = plan.tile_size is not None and not self.asked.request.tile
        last = self.search.total_s(candidate) if plan.fits else float(candidate.need_bytes)
        return (not plan.fits, not at_once, unwished, last)

    def _device_plans(self) -> Iterator[tuple[Plan, Candidate] | None]:
        search = self.search
        whole = search.whole()
        fits = whole.need_bytes <= self.room.budget_bytes
        yield self._whole(), whole
        if not fits and self.room.evictable_bytes > 0:
            yield self._evicting(whole), whole
        part = None if fits else search.part_of_batch()
        if part is not None:
            yield self.plan(part, self._whole_needs()), part
        yield self._cut_up(streamed=False)
        if self.asked.abilities.streams_time and self.asked.shape.frames is not None:
            yield self._cut_up(streamed=True)

    def _cut_up(self, *, streamed: bool) -> tuple[Plan, Candidate] | None:
        """Tiles, or a stream: the best that fit, else the smallest there are."""
        found = self.search.tiled(streamed=streamed)
        if found is not None:
            return self.plan(found, self._whole_needs()), found
        smallest = self.search.smallest(streamed=streamed)
        if self.asked.is_one_picture(smallest.cut):
            return None
        why = f"not even that fits {format_bytes(self.room.most_bytes)}"
        return self.plan(smallest, why), smallest

    def _whole(self) -> Plan:
        whole = self.search.whole()
        need, budget = whole.need_bytes, self.room.budget_bytes
        if need <= budget:
            reason = f"whole: needs {format_bytes(need)} of {format_bytes(budget)}"
        else:
            missing = format_bytes(need - budget)
            reason = f"whole: needs {format_bytes(need)}, {missing} more than may be used"
        plan = Plan("whole", 1, reason, need, need <= budget, self.asked.request.quality)
        return self._timed(replace(plan, batch=self._items(whole.cut)), whole.cut)

    def _evicting(self, whole: Candidate) -> Plan:
        need, room = whole.need_bytes, self.room
        missing = room.evict_bytes(need)
        reason = (
            f"whole after evicting {format_bytes(missing)}: needs {format_bytes(need)}, "
            f"{format_bytes(room.budget_bytes)} free and {format_bytes(room.evictable_bytes)} "
            "to evict"
        )
        fits = need <= room.most_bytes
        plan = Plan("evict", 1, reason, need, fits, self.asked.request.quality)
        evict = missing if fits else 0
        plan = replace(plan, batch=self._items(whole.cut), evict_bytes=evict)
        return self._timed(plan, whole.cut)

    def _items(self, cut: Cut) -> int | None:
        """Items decoded together, None where there is just one."""
        return cut.batch if self.asked.shape.batch > 1 else None

    def plan(
        self,
        found: Candidate,
        why: str,
        *,
        fits: bool | None = None,
        warnings: tuple[str, ...] = (),
    ) -> Plan:
        """A candidate as a plan."""
        asked, cut, need = self.asked, found.cut, found.need_bytes
        fits = need <= self.room.most_bytes if fits is None else fits
        evict = self.room.evict_bytes(need) if fits else 0
        if evict > 0:
            warnings = (*warnings, EVICTED_FIRST)
        count = asked.pieces(cut)
        plan = Plan(
            _kind(asked, cut, evict),
            count,
            f"{self._described(cut, count)}: {format_bytes(need)} each; {why}",
            need,
            fits,
            asked.request.quality,
            batch=self._items(cut),
            evict_bytes=evict,
        )
        if not asked.is_one_picture(cut):
            if not asked.request.tile:
                warnings = (TILED_ANYWAY, *warnings)
            plan = self._with_tiles(plan, cut)
        return self._timed(replace(plan, warnings=warnings), cut)

    def _with_tiles(self, plan: Plan, cut: Cut) -> Plan:
        asked, scale = self.asked, self.asked.shape.spatial_scale
        frames = asked.shape.temporal_scale
        tiled = replace(
            plan, tile_size=max(cut.rows, cut.columns) * scale, overlap=cut.overlap * scale
        )
        if not asked.abilities.square_tiles:
            height, width = cut.rows * scale, cut.columns * scale
            tiled = replace(tiled, tile_height=height, tile_width=width)
        if cut.chunk is None:
            return tiled
        chunk, shared = cut.chunk * frames, cut.chunk_overlap * frames
        return replace(tiled, temporal_size=chunk, temporal_overlap=shared)

    def _described(self, cut: Cut, count: int) -> str:
        asked, scale = self.asked, self.asked.shape.spatial_scale
        if asked.is_one_picture(cut):
            return f"whole, {cut.batch} of {asked.shape.batch} items at a time"
        size = f"{cut.columns * scale}"
        if cut.rows != cut.columns:
            size += f" x {cut.rows * scale}"
        tiles = "1 tile" if count == 1 else f"{count} tiles"
        in_passes = f" in {asked.abilities.passes} passes" if asked.abilities.passes > 1 else ""
        text = f"{tiles} of {size} px{in_passes}"
        if cut.streamed:
            text += " streamed through time"
        if cut.chunk is not None:
            text += f", {cut.chunk * asked.shape.temporal_scale} frames at a time"
        return text

    def _whole_needs(self) -> str:
        need = self.asked.whole_need()
        if need <= self.room.budget_bytes:
            return "not needed, for whole fits"
        return f"whole needs {format_bytes(need)} of {format_bytes(self.room.budget_bytes)}"

    def _timed(self, plan: Plan, cut: Cut) -> Plan:
        if self.times is None:
            return plan
        spent = effort(self.asked, cut, self.room, plan.evict_bytes, self.times)
        return replace(plan, predicted_seconds=round(spent.seconds, 3))

    def _on_cpu(self, *, nothing_fits: bool) -> Plan:
        need, host = self.asked.whole_need() * CPU_RATIO, self.room.host_bytes
        fits = host is not None and need <= host
        warnings: tuple[str, ...] = ()
        reason = f"cpu: the whole decode needs about {format_bytes(need)} of system memory, "
        reason += "and how much is free there is unknown"
        if host is not None:
            reason = reason.removesuffix("and how much is free there is unknown")
            reason += f"{format_bytes(host)} is free"
        if nothing_fits:
            smallest = format_bytes(self.search.smallest().need_bytes)
            most = format_bytes(self.room.most_bytes)
            reason += f"; on the device the smallest tile needs {smallest} of {most}"
            warnings = ("nothing fits on the device: decoding on the CPU is slow",)
            if host is not None and not fits:
                warnings += ("system memory does not suffice either: decode at a smaller size",)
        plan = Plan("cpu", 1, reason, need, fits, self.asked.request.quality, warnings=warnings)
        if self.times is None:
            return plan
        return replace(plan, predicted_seconds=round(cpu_seconds(self.asked, self.times), 3))

    def _manual(self) -> Plan:
        """The sizes as given, with an honest word where they do not fit or do not help."""
        asked = self.asked
        edge = max(asked.smallest, asked.request.tile_size // asked.shape.spatial_scale)
        chunk = _manual_chunk(asked)
        cut = asked.square(edge, chunk)
        need = asked.need(cut)
        warnings: list[str] = []
        fits = need <= self.room.most_bytes
        if not fits:
            free = format_bytes(self.room.budget_bytes)
            warnings.append(f"the given sizes need {format_bytes(need)} and {free} is free")
        if chunk is not None and not grows(asked):
            warnings.append(
                "this VAE's memory does not grow with time: temporal_size saves nothing"
            )
        if not asked.is_one_picture(cut):
            found = Candidate(cut, need)
            return self.plan(found, "sizes as given", fits=fits, warnings=tuple(warnings))
        reason = f"the given sizes cover everything: needs {format_bytes(need)}"
        evict = self.room.evict_bytes(need) if fits else 0
        plan = Plan(
            _kind(asked, cut, evict),
            asked.pieces(cut),
            reason,
            need,
            fits,
            asked.request.quality,
            warnings=tuple(warnings),
            batch=self._items(cut),
            evict_bytes=evict,
        )
        return self._timed(plan, cut)


def _kind(asked: Question, cut: Cut, evict_bytes: int) -> PlanKind:
    if cut.streamed:
        return "streamed"
    if not asked.is_one_picture(cut):
        return "tiled"
    return "evict" if evict_bytes else "whole"


def _manual_chunk(asked: Question) -> int | None:
    frames = asked.shape.frames
    if frames is None or not asked.abilities.carves_time:
        return None
    chunk = max(SMALLEST_CHUNK_LATENTS, asked.request.temporal_size // asked.shape.temporal_scale)
    return chunk if chunk < frames else None
