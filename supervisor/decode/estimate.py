"""What a streamed decode will need, by dry run, and the plan that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from ..errors import NothingFitsError
from ..planning.dry_run import TensorSpec, dry_run_peak
from ..planning.planner import plan_decode, smallest_need_bytes
from ..planning.types import Abilities, DecodeShape, PlanRequest, Room
from ..types import Plan
from ..units import format_bytes
from .executor import StreamedDecoder, Watch, allocate_frames, decode_tile, decode_whole
from .tiles import Rect, Tile, tiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

STEADY_CHUNKS: Final = 3
"""The first chunk is short, the second has no history of its doubling; from the third on
every chunk needs the same."""


class StreamedCost:
    """CostModel of one tile streamed through time, the mid block on the whole latent included.

    Attributes:
        latent: the whole latent ``[B, C, T, H, W]`` and where it lies.
        ratio: measured peak over dry-run peak of this decoder's kernels on this device.
    """

    def __init__(self, decoder: StreamedDecoder, latent: TensorSpec, ratio: float = 1.0) -> None:
        self.latent = latent
        self.ratio = ratio
        self._decoder = decoder
        self._known: dict[tuple[int, int], int] = {}

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Peak bytes for a tile whose context is ``height`` x ``width`` latents."""
        del batch, frames  # Part of the latent; a streamed tile always holds all of both.
        key = (height, width)
        if key not in self._known:
            self._known[key] = self._dry_run(partial(_stream_one, height=height, width=width))
        return self._known[key]

    def whole_bytes(self) -> int:
        """Peak bytes of decoding everything at once."""
        return self._dry_run(_decode_all)

    def _dry_run(self, run: Callable[..., None]) -> int:
        module = cast("nn.Module", self._decoder)
        return int(dry_run_peak(module, run, self.latent) * self.ratio)


@dataclass(frozen=True, slots=True)
class StreamedPlan:
    """A plan, and what the whole decode would have needed."""

    plan: Plan
    whole_bytes: int


def plan_streamed(
    decoder: StreamedDecoder, cost: StreamedCost, budget_bytes: int, request: PlanRequest
) -> StreamedPlan:
    """Whole if it fits, else streamed through time in the largest tiles that fit.

    Raises:
        NothingFitsError: not even the smallest tile fits.
    """
    whole = cost.whole_bytes()
    if whole <= budget_bytes:
        reason = f"whole: needs {format_bytes(whole)} of {format_bytes(budget_bytes)}"
        return StreamedPlan(Plan("whole", 1, reason, whole, fits=True), whole)
    shape = _shape(decoder, cost.latent)
    abilities = Abilities(
        square_tiles=False,
        carves_time=False,
        exact_tiles=True,
        least_overlap_px=2 * decoder.halo * decoder.spatial_scale,
        batches=False,
    )
    plan = plan_decode(shape, cost, Room(budget_bytes), request, abilities)
    if not plan.fits:
        smallest = smallest_need_bytes(shape, cost, request, abilities)
        raise NothingFitsError(budget_bytes, smallest)
    need = max(_tile_needs(decoder, cost, plan))
    streamed = replace(plan, kind="streamed", predicted_peak_bytes=need)
    return StreamedPlan(_explained(streamed, whole, budget_bytes), whole)


def _tile_needs(decoder: StreamedDecoder, cost: StreamedCost, plan: Plan) -> Iterator[int]:
    """What the plan's tiles really need; at the picture's edges they look less far."""
    batch, _, frames, height, width = cost.latent.shape
    for tile in tiles_of(plan, height, width, decoder.spatial_scale):
        yield cost.need_bytes(batch, frames, tile.context.height, tile.context.width)


def _explained(plan: Plan, whole_bytes: int, budget_bytes: int) -> Plan:
    size = f"{plan.tile_width} x {plan.tile_height} px"
    tiles = "1 tile" if plan.tiles == 1 else f"{plan.tiles} tiles of {size}"
    reason = (
        f"{tiles} streamed through time: {format_bytes(plan.predicted_peak_bytes)}; whole needs "
        f"{format_bytes(whole_bytes)} of {format_bytes(budget_bytes)}"
    )
    return replace(plan, reason=reason)


def _shape(decoder: StreamedDecoder, latent: TensorSpec) -> DecodeShape:
    batch, channels, frames, height, width = latent.shape
    space, time = decoder.spatial_scale, decoder.temporal_scale
    return DecodeShape(batch, channels, frames, height, width, space, time)


def _decode_all(decoder: StreamedDecoder, latent: Tensor) -> None:
    """What the executor holds while it decodes at once."""
    decode_whole(decoder, latent, allocate_frames(decoder, latent))


def _stream_one(decoder: StreamedDecoder, latent: Tensor, height: int, width: int) -> None:
    """What the executor holds while it decodes a tile of this size."""
    output = allocate_frames(decoder, latent)
    features = decoder.mid(latent)
    everything = Rect(0, height, 0, width)
    chunks = features[:, :, :STEADY_CHUNKS]
    decode_tile(decoder, chunks, Tile(everything, everything), output, Watch())
