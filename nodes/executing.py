"""Runs decode attempts with ComfyUI's decoders, measures them, and hands on what they teach."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from ..supervisor.decode.sink import TensorSink
from .attempting import (
    PICTURE_COPIES,
    PIXEL_BYTES,
    DeviceExecutor,
    pixels_of,
    say_nothing,
)
from .expectation import Expectation
from .host.vae import (
    VIDEO_DIMS,
    Vae,
    VaeFacts,
    asked_of_host,
    decode_in_tiles,
    decode_whole,
    dtype_of_pictures,
    expecting,
    piece_of,
)
from .watching import WatchedSink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from ..supervisor.decode.running import Hooks
    from ..supervisor.decode.sink import PixelSink
    from ..supervisor.jobs.decodes import DecodeWatch
    from ..supervisor.planning.time_model import TimeModel
    from ..supervisor.types import Plan
    from .host.exact import ExactWay
    from .host.memory import HostMemory
    from .host.meter import PeakMeter


FULL_BYTES: Final = 4


class Forecast(Expectation, Protocol):
    """What decoding asks of a forecast; a test can stand in for it."""

    def time_model(self) -> TimeModel | None:
        """How long decodes take here."""
        ...

    def wants_probe(self) -> bool:
        """Whether a small piece should be decoded before the first plan."""
        ...

    def exact_way(
        self, latent: torch.Tensor, facts: VaeFacts, memory: HostMemory
    ) -> ExactWay | None:
        """The ways to decode a latent in parts that equal the whole."""
        ...


class HostExecutor(DeviceExecutor["ExactWay", "torch.Tensor | None"]):
    """Runs decode attempts on the VAE's own device; gives pixels with channels last, or None
    where they went to the sink.

    Args:
        vae: the host's object.
        latent: ``[B, C, H, W]`` or ``[B, C, T, H, W]``.
        facts: of the VAE.
        memory: the host's memory manager.
        meter: measures what attempts take.
        forecast: predicts what they need; None for latents that are no pictures.
        cap_bytes: the most a decode may add, 0 for what is free.
        sink: takes pixels as parts are done; None: they are returned.
        tell: takes lines for the report.
        progress: makes a progress bar for so many steps, and is what advances it.
        watch: told how the decode goes on.
        clock: seconds.
    """

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
        sink: PixelSink | None = None,
        tell: Callable[[str], None] = say_nothing,
        progress: Callable[[int], Callable[[], None]] | None = None,
        watch: DecodeWatch | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(
            vae,
            tuple(latent.shape),
            facts,
            memory,
            meter,
            forecast,
            None if forecast is None else forecast.exact_way(latent, facts, memory),
            cap_bytes=cap_bytes,
            tell=tell,
            progress=progress,
            watch=watch,
            clock=clock,
        )
        self._latent, self._sink = latent, sink
        self._own_sink = TensorSink(dtype_of_pictures(vae))

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

    def _follow_exact(self, exact: ExactWay, plan: Plan) -> torch.Tensor | None:
        sink = self._watched(self._sink or self._own_sink)

        def decode(hooks: Hooks) -> None:
            exact.decode(plan, sink, hooks, self.budget_bytes)

        self._in_parts(exact, plan, decode)
        return None if self._sink is not None else self._shaped(self._own_sink.pixels)

    def _watched(self, sink: PixelSink) -> PixelSink:
        return sink if self._watch is None else WatchedSink(sink, self._watch)

    def _shaped(self, pixels: torch.Tensor) -> torch.Tensor:
        """[B * T, H, W, C] as core gives it."""
        batch = int(self._latent.shape[0])
        if self._latent.ndim == VIDEO_DIMS:
            return pixels.view(batch, -1, *pixels.shape[1:])
        return pixels

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
        video = self._plain_video(parts)
        if video is not None:
            return self._measured(needed_bytes, lambda: self._streamed_out(video))
        vae = self._expecting(needed_bytes // max(1, parts[0].shape[0]))
        return self._measured(needed_bytes, lambda: self._each(vae, parts))

    def _plain_video(self, parts: Sequence[torch.Tensor]) -> ExactWay | None:
        """How to decode video whole, item by item, with its pictures held once.

        Decoders that write into a buffer do so already, and pictures alone are small.
        """
        exact, facts = self._exact, self._facts
        if exact is None or not exact.is_known or facts.streams_output:
            return None
        is_video = self._latent.ndim == VIDEO_DIMS and not self._keeps_results()
        # Core finishes pictures of a smaller type in that type.
        is_plain = self._own_sink.dtype.itemsize == FULL_BYTES
        return exact if is_video and is_plain and all(len(part) == 1 for part in parts) else None

    def _streamed_out(self, exact: ExactWay) -> torch.Tensor:
        exact.decode_whole(self._watched(self._own_sink), self._begins)
        return self._shaped(self._own_sink.pixels)

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

    def _result_bytes(self) -> int:
        """Pictures in float32: as they are collected and as they are put out."""
        pixels = pixels_of(piece_of(tuple(self._latent.shape)), self._facts)
        return PICTURE_COPIES * pixels * PIXEL_BYTES
