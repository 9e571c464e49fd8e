"""Runs encode attempts with ComfyUI's encoders, or with their parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .attempting import PICTURE_COPIES, DeviceExecutor
from .expectation import Expectation
from .host.vae_encoding import (
    encode_in_tiles,
    encode_whole,
    expecting_encode,
    finished,
    given_to_core,
    latent_shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from ..supervisor.decode.running import Hooks
    from ..supervisor.jobs.decodes import DecodeWatch
    from ..supervisor.types import Plan
    from .host.exact_encode import EncodeWay
    from .host.memory import HostMemory
    from .host.meter import PeakMeter
    from .host.vae import VaeFacts
    from .host.vae_encoding import EncodingVae


class EncodeExpectation(Expectation, Protocol):
    """What encoding asks of a forecast; a test can stand in for it."""

    def has_room(self, budget_bytes: int) -> None:
        """Said before the first question."""
        ...

    def exact_way(self) -> EncodeWay | None:
        """The ways to encode the pictures in parts that equal the whole."""
        ...


class EncodeExecutor(DeviceExecutor["EncodeWay", "torch.Tensor"]):
    """Runs encode attempts on the VAE's own device.

    Args:
        vae: the host's object.
        pixels: [N, H, W, C] in 0..1, as the node got them.
        shape: of the same as core arranges them, ``[B, C, (T,) H, W]``.
        facts: of the VAE's encoder.
        memory: the host's memory manager.
        meter: measures what attempts take.
        forecast: predicts what they need; None for what is no picture.
        cap_bytes: the most an encode may add, 0 for what is free.
        tell: takes lines for the report.
        progress: makes a progress bar for so many steps, and is what advances it.
        watch: told how the encode goes on.
    """

    def __init__(
        self,
        vae: EncodingVae,
        pixels: torch.Tensor,
        shape: tuple[int, ...],
        facts: VaeFacts,
        memory: HostMemory,
        meter: PeakMeter,
        forecast: EncodeExpectation | None,
        *,
        cap_bytes: int,
        tell: Callable[[str], None],
        progress: Callable[[int], Callable[[], None]] | None = None,
        watch: DecodeWatch | None = None,
    ) -> None:
        super().__init__(
            vae,
            latent_shape_of(vae, shape),
            facts,
            memory,
            meter,
            forecast,
            None if forecast is None else forecast.exact_way(),
            cap_bytes=cap_bytes,
            tell=tell,
            progress=progress,
            watch=watch,
        )
        self._encoding_vae, self._pixels, self._shape = vae, pixels, shape

    def run_unplanned(self) -> torch.Tensor:
        """Core's own encode, for VAEs that do not make pictures."""
        vae, pixels = self._encoding_vae, given_to_core(self._encoding_vae, self._pixels)
        needed_bytes = int(vae.memory_used_encode(self._shape, vae.vae_dtype))
        return self._measured(needed_bytes, lambda: vae.encode(pixels))

    def _follow_exact(self, exact: EncodeWay, plan: Plan) -> torch.Tensor:
        def encode(hooks: Hooks) -> torch.Tensor:
            return exact.encode(plan, hooks, self.budget_bytes)

        return finished(self._encoding_vae, self._in_parts(exact, plan, encode))

    def _follow(self, plan: Plan) -> torch.Tensor:
        pixels, facts, needed_bytes = self._pixels, self._facts, self._asked(plan)
        if plan.tile_size is not None:
            tiling = expecting_encode(self._encoding_vae, needed_bytes)
            return self._measured(
                needed_bytes,
                lambda: encode_in_tiles(tiling, pixels, facts, plan, self._piece_begins),
            )
        items = self._latent_shape[0]
        at_once = min(items, plan.batch or items)
        # Of video all frames are one item.
        parts = pixels.split(at_once) if items > 1 else (pixels,)
        vae = expecting_encode(self._encoding_vae, needed_bytes // max(1, at_once))
        return self._measured(needed_bytes, lambda: self._each(vae, parts))

    def _each(self, vae: EncodingVae, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        encoded = [encode_whole(vae, items, self._piece_begins) for items in parts]
        return encoded[0] if len(encoded) == 1 else torch.cat(encoded)

    def _asked(self, plan: Plan) -> int:
        """What core is to have free for a piece: what was predicted."""
        told = self.prediction
        peak_bytes = plan.predicted_peak_bytes if told is None else told.peak_bytes
        return int(peak_bytes * self._capacity_ratio()) + 1

    def _piece_begins(self, shape: tuple[int, ...]) -> None:
        """Before each piece of prepared pixels."""
        self._begins(latent_shape_of(self._encoding_vae, shape))

    def _result_bytes(self) -> int:
        """Latents in float32: as they are collected and as they are put out."""
        size = 4 * PICTURE_COPIES
        for extent in self._latent_shape:
            size *= extent
        return size
