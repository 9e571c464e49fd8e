"""Decodes of a host VAE in parts that together equal the whole: planned, proven, run."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import torch

from ...supervisor.decode.families import blackbox
from ...supervisor.decode.families.registry import decoder_of
from ...supervisor.decode.output import PixelOutput
from ...supervisor.decode.proof import Proof, prove
from ...supervisor.decode.tiles import Rect
from .drawing import Drawn
from .exact_shared import VIDEO_DIMS, PartsWay, Settings, Way, built
from .vae import is_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ...supervisor.decode.program import Program
    from ...supervisor.decode.running import Hooks
    from ...supervisor.decode.sink import PixelSink
    from ...supervisor.types import Plan
    from .exact_shared import Bounds
    from .exacts import Exacts
    from .memory import HostMemory
    from .vae import Vae, VaeFacts

_log = logging.getLogger(__name__)

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
        self._drawn = Drawn(vae.device)

    def decode(self, plan: Plan, sink: PixelSink, hooks: Hooks, live: Callable[[], int]) -> None:
        """Follow a plan of its own; what the sink has of an earlier one is not made again.

        Args:
            plan: made by ``plan`` or ``shrunk``.
            sink: takes the pixels.
            hooks: see ``Engine``.
            live: what the decode may add to the device now, asked while it runs.

        Raises:
            PartDoesNotFitError: out of memory whatever was tried.
            DecodedOtherwiseError: what came out is not of the size that was expected.
        """
        way = self._chosen()
        if way is None:
            message = "a plan in parts was followed without a program"
            raise RuntimeError(message)
        batch, frames, device = int(self._latent.shape[0]), self._frames, self._device_of(plan)
        scale = int(way.build(self._vae.first_stage_model).scale)
        picture = Rect(0, self._latent.shape[-2] * scale, 0, self._latent.shape[-1] * scale)
        sink.begin(batch * frames, picture.height, picture.width, self._survey(way).channels)
        for item in range(batch):
            output = self._output(sink, item, frames)
            if output.has(picture):
                continue
            source = self._source(item, device)
            with self._device_context(), self._drawn.again(item), _flushed(output):
                self._engine(way, plan, hooks, live).run(source, output)
            output.check_complete()

    def decode_whole(self, sink: PixelSink, begins: Callable[[tuple[int, ...]], None]) -> None:
        """The network's own decode of each item. Core's would hold its pictures twice, and once
        more in the network's dtype, in system memory.

        Args:
            sink: takes the pixels.
            begins: told the shape of each item before it is decoded; may raise.
        """
        model: Any = self._vae.first_stage_model
        batch = int(self._latent.shape[0])
        for item in range(batch):
            source = self._source(item, self._vae.device)
            begins(tuple(source.shape))
            with self._device_context():
                made = model.decode(source)
                channels, frames, height, width = map(int, made.shape[1:])
                picture = Rect(0, height, 0, width)
                if item == 0:
                    sink.begin(batch * frames, height, width, channels)
                output = self._output(sink, item, frames)
                with _flushed(output):
                    output.write(0, picture, made)
                    output.commit(0, frames, picture)
            # Not beside the next one.
            del made

    def _source(self, item: int, device: torch.device) -> torch.Tensor:
        return self._latent[item : item + 1].to(device, self._vae.vae_dtype)

    def _output(self, sink: PixelSink, item: int, frames: int) -> PixelOutput:
        finish = getattr(self._vae, "process_output", _as_it_is)
        return PixelOutput(sink, finish, item * frames, frames)

    def _found_way(self) -> Way | None:
        """The black box where no family is known or its program does not hold; None where parts
        would leave out what the VAE does itself, or nothing could be tried."""
        if not is_plain(self._vae, "decode"):
            self.notes.append(
                "this VAE decodes in a way of its own, which parts would leave out: ComfyUI's "
                "own tiles are used"
            )
            return None
        if self._found is None:
            self.notes.append(
                "this decoder is of no family that is known: decoded in tiles with wide context, "
                "which is not exact where it normalises over the whole picture"
            )
            return self._black_box()
        name, build = self._found
        way = Way(name, lambda model: built(build, model), exact=True)
        proof = self._tried("proof", lambda: self._prove(way))
        if proof is None:
            self.notes.append(
                f"there was no memory to try the exact decode of {name}: ComfyUI's own tiles are "
                "used this time"
            )
            return None
        if proof.holds:
            self.notes.append(f"exact decode ({name}): {proof.reason}")
            return way
        self.notes.append(
            f"the exact decode of {name} does not hold for this VAE ({proof.reason}): decoded in "
            "tiles with wide context"
        )
        return self._black_box()

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
        with self._device_context():
            return prove(way.build(model), model.decode, sample, self._proof_hooks)

    def _recognised(self) -> tuple[str, Callable[[Any], Program | None]] | None:
        return decoder_of(self._vae.first_stage_model) if is_plain(self._vae, "decode") else None

    def _black_box(self) -> Way:
        scale = self._facts.spatial_scale
        return Way(blackbox.NAME, lambda model: blackbox.decoder(model.decode, scale), exact=False)

    def _result_bytes(self) -> int:
        return self._result_pixels() * 3 * 4

    def _result_pixels(self) -> int:
        area = self._latent.shape[-2] * self._latent.shape[-1] * self._facts.spatial_scale**2
        return int(self._latent.shape[0]) * self._frames * area

    @property
    def _pixels_per_input(self) -> int:
        return self._facts.spatial_scale

    @cached_property
    def _frames(self) -> int:
        """Pictures of one item: as the family knows; of a black box as a dry run made; else as
        ComfyUI tells."""
        if self._latent.ndim != VIDEO_DIMS:
            return 1
        given, way = int(self._latent.shape[2]), self._chosen()
        if way is not None:
            known = way.build(self._vae.first_stage_model).frames
            if known is not None:
                return known(given)
            made = self._survey(way).frames
            if made is not None:
                return made
        ratio: Any = getattr(self._vae, "upscale_ratio", None)
        if isinstance(ratio, (tuple, list)) and callable(ratio[0]):
            told: Any = ratio[0](given)
            return int(told)
        return 1 + (given - 1) * (self._facts.temporal_scale or 1)


@contextmanager
def _flushed(output: PixelOutput) -> Generator[None]:
    """What is finished is kept, whatever ends it; that comes before what keeping it meets."""
    try:
        yield
    except BaseException:
        try:
            output.flush()
        except Exception:  # noqa: BLE001 - must not replace the error that led here
            _log.exception("What was finished could not be kept")
        raise
    output.flush()


def _as_it_is(pixels: torch.Tensor) -> torch.Tensor:
    return pixels
