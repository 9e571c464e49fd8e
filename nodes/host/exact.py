"""Decodes of a host VAE in parts that together equal the whole: planned, proven, run."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

from ...supervisor.decode.families import blackbox
from ...supervisor.decode.families.registry import decoder_of
from ...supervisor.decode.output import PixelOutput
from ...supervisor.decode.proof import Proof, prove
from ...supervisor.decode.running import Hooks
from ...supervisor.decode.tiles import Rect
from .exact_shared import VIDEO_DIMS, PartsWay, Settings, Way, built

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from ...supervisor.decode.program import Program
    from ...supervisor.decode.sink import PixelSink
    from ...supervisor.types import Plan
    from .exact_shared import Bounds
    from .exacts import Exacts
    from .memory import HostMemory
    from .vae import Vae, VaeFacts

PROOF_EDGES: Final = {"cuda": (40, 24), "cpu": (28, 8)}
"""Latents of the tiny input a family is proven on: on a CPU a larger one takes too long."""
PROOF_FRAMES: Final = 5


class ExactWay(PartsWay):
    """The ways to decode one latent in parts.

    Args:
        vae: the host's object.
        latent: ``[B, C, (T,) h, w]``.
        facts: of the VAE.
        memory: the host's memory manager.
        shared: surveys, proofs and host memory.
        forecast: of this VAE; bounds what a layout needs.
        architecture: hash of the decoder and of its code.
        fused_attention: whether its attention keeps no scores.
        total_bytes: the answer to decoders that ask how much memory the device has.
    """

    def __init__(
        self,
        vae: Vae,
        latent: torch.Tensor,
        facts: VaeFacts,
        memory: HostMemory,
        shared: Exacts,
        forecast: Bounds,
        *,
        architecture: str,
        fused_attention: bool,
        total_bytes: int | None,
    ) -> None:
        settings = Settings(architecture, fused_attention, total_bytes)
        super().__init__(vae, facts, tuple(latent.shape), memory, shared, forecast, settings)
        self._latent = latent
        self._way: Way | None = None

    def decode(self, plan: Plan, sink: PixelSink, hooks: Hooks, live: Callable[[], int]) -> None:
        """Follow a plan of its own.

        Args:
            plan: made by ``plan`` or ``shrunk``.
            sink: takes the pixels.
            hooks: see ``Engine``.
            live: what the decode may add to the device now, asked while it runs.

        Raises:
            PartDoesNotFitError: out of memory whatever was tried.
        """
        way, device = self._chosen(), self._device_of(plan)
        for source, output in self._items(sink, device):
            engine = self._engine(way, plan, hooks, live)
            with self._device_context(), _flushed(output):
                engine.run(source, output)

    def decode_whole(self, sink: PixelSink, begins: Callable[[tuple[int, ...]], None]) -> None:
        """The network's own decode of each item. Core's would hold its pictures twice, and once
        more in the network's dtype, in system memory.

        Args:
            sink: takes the pixels.
            begins: told the shape of each item before it is decoded; may raise.
        """
        model: Any = self._vae.first_stage_model
        for source, output in self._items(sink, self._vae.device):
            begins(tuple(source.shape))
            with self._device_context(), _flushed(output):
                made = model.decode(source)
                everything = Rect(0, int(made.shape[-2]), 0, int(made.shape[-1]))
                output.write(0, everything, made)
                output.commit(0, self._pixel_frames(), everything)

    def _items(
        self, sink: PixelSink, device: torch.device
    ) -> Iterator[tuple[torch.Tensor, PixelOutput]]:
        """Each item of the batch on the device, and where its pixels go."""
        batch, frames = int(self._latent.shape[0]), self._pixel_frames()
        scale = self._facts.spatial_scale
        height, width = self._latent.shape[-2] * scale, self._latent.shape[-1] * scale
        sink.begin(batch * frames, height, width, int(getattr(self._vae, "output_channels", 3)))
        finish = getattr(self._vae, "process_output", _as_it_is)
        for item in range(batch):
            source = self._latent[item : item + 1].to(device, self._vae.vae_dtype)
            yield source, PixelOutput(sink, finish, item * frames, frames)

    def _chosen(self) -> Way:
        if self._way is None:
            self._way = self._proven() or self._black_box()
        return self._way

    def _proven(self) -> Way | None:
        """The family's way, if it has one and it holds."""
        found = self._found
        if found is None:
            self.notes.append(
                "this decoder is of no family that is known: decoded in tiles with wide context, "
                "which is not exact where it normalises over the whole picture"
            )
            return None
        name, build = found
        way = Way(name, lambda model: built(build, model), exact=True)
        key = self._text("proof", of_input=False)
        proof = self._shared.proof(key, lambda: self._prove(way))
        if proof.holds:
            self.notes.append(f"exact decode ({name}): {proof.reason}")
            return way
        self.notes.append(
            f"the exact decode of {name} does not hold for this VAE ({proof.reason}): decoded in "
            "tiles with wide context"
        )
        return None

    def _prove(self, way: Way) -> Proof:
        vae = self._vae
        model: Any = vae.first_stage_model
        self._weights_there()
        rows, columns = PROOF_EDGES.get(vae.device.type, PROOF_EDGES["cuda"])
        lead = [1, int(self._latent.shape[1])]
        if self._latent.ndim == VIDEO_DIMS:
            lead.append(min(PROOF_FRAMES, int(self._latent.shape[2])))
        draw = torch.Generator().manual_seed(0)
        sample = torch.randn((*lead, rows, columns), generator=draw)
        sample = sample.to(vae.device, vae.vae_dtype)
        hooks = Hooks(check=self._memory.raise_if_interrupted)
        with self._device_context():
            return prove(way.build(model), model.decode, sample, hooks)

    def _recognised(self) -> tuple[str, Callable[[Any], Program | None]] | None:
        return decoder_of(self._vae.first_stage_model)

    def _black_box(self) -> Way:
        scale = self._facts.spatial_scale
        return Way(blackbox.NAME, lambda model: blackbox.decoder(model.decode, scale), exact=False)

    def _result_bytes(self) -> int:
        return self._result_pixels() * 3 * 4

    def _result_pixels(self) -> int:
        area = self._latent.shape[-2] * self._latent.shape[-1] * self._facts.spatial_scale**2
        return int(self._latent.shape[0]) * self._pixel_frames() * area

    @property
    def _pixels_per_input(self) -> int:
        return self._facts.spatial_scale

    def _pixel_frames(self) -> int:
        if self._latent.ndim != VIDEO_DIMS:
            return 1
        ratio: Any = getattr(self._vae, "upscale_ratio", None)
        if isinstance(ratio, (tuple, list)) and callable(ratio[0]):
            told: Any = ratio[0](int(self._latent.shape[2]))
            return int(told)
        return 1 + (int(self._latent.shape[2]) - 1) * (self._facts.temporal_scale or 1)


@contextmanager
def _flushed(output: PixelOutput) -> Generator[None]:
    """What is finished is kept, whatever ends it."""
    try:
        yield
    finally:
        output.flush()


def _as_it_is(pixels: torch.Tensor) -> torch.Tensor:
    return pixels
