"""Encodes of a host VAE in parts that together equal the whole: planned, proven, run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from ...supervisor.decode.families.registry import encoder_of
from ...supervisor.decode.proof import Proof, prove
from ...supervisor.decode.survey import SMALL_EDGES
from .exact_shared import VIDEO_DIMS, PartsWay, Settings, Way, built
from .vae import is_plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...supervisor.decode.layout import Layout
    from ...supervisor.decode.program import Program
    from ...supervisor.decode.running import Hooks
    from ...supervisor.decode.survey import StageNeeds, Survey
    from ...supervisor.types import Plan
    from .exact_shared import Bounds
    from .exacts import Exacts
    from .memory import HostMemory
    from .vae import VaeFacts
    from .vae_encoding import EncodingVae

PROOF_EDGES: Final = {"cuda": (24, 16), "cpu": (12, 8)}
"""Of the tiny picture a family is proven on, in latents."""
PROOF_PARTS: Final = {"cuda": 8, "cpu": 4}
"""Latents that one of its parts owns along one side."""
PROOF_FRAMES: Final = 3
"""In latents."""


class EncodeWay(PartsWay):
    """The ways to encode pictures in parts.

    Args:
        vae: the host's object.
        pixels: as core arranges them, ``[B, C, (T,) H, W]`` in 0..1.
        facts: of the VAE's encoder.
        memory: the host's memory manager.
        shared: surveys, proofs and host memory.
        forecast: of this VAE; bounds what a layout needs.
        settings: what a need depends on.
    """

    def __init__(
        self,
        vae: EncodingVae,
        pixels: torch.Tensor,
        facts: VaeFacts,
        memory: HostMemory,
        shared: Exacts,
        forecast: Bounds,
        settings: Settings,
    ) -> None:
        super().__init__(vae, facts, tuple(pixels.shape), memory, shared, forecast, settings)
        self._encoding_vae, self._pixels = vae, pixels
        self._done: dict[int, torch.Tensor] = {}

    def encode(self, plan: Plan, hooks: Hooks, live: Callable[[], int]) -> torch.Tensor:
        """Follow a plan of its own; items that an earlier one finished are not made again.

        Args:
            plan: made by ``plan`` or ``shrunk``.
            hooks: see ``Engine``.
            live: what the encode may add to the device now, asked while it runs.

        Returns:
            ``[B, C, (t,) h, w]`` on the host, in the encoder's dtype.

        Raises:
            PartDoesNotFitError: out of memory whatever was tried.
        """
        count = int(self._pixels.shape[0])
        for item in range(count):
            if item not in self._done:
                self._done[item] = self._one(item, plan, hooks, live).to("cpu")
        return torch.cat([self._done[item] for item in range(count)])

    def _one(self, item: int, plan: Plan, hooks: Hooks, live: Callable[[], int]) -> torch.Tensor:
        way = self._chosen()
        if way is None:
            message = "a plan in parts was followed without a program"
            raise RuntimeError(message)
        vae = self._encoding_vae
        source = vae.process_input(self._pixels[item : item + 1]).to(vae.vae_dtype)
        engine = self._engine(way, plan, hooks, live)
        with self._device_context():
            made = engine.run(source.to(self._device_of(plan)))
        assert made is not None  # noqa: S101 - without an output it is returned
        return made

    def _found_way(self) -> Way | None:
        """Where no family knows the encoder there is none: its tiles are left to core."""
        found = self._found
        if found is None:
            self.notes.append(
                "this encoder is of no family that is known: encoded in ComfyUI's own tiles, "
                "which blend where they overlap"
            )
            return None
        name, build = found
        way = Way(f"{name} encoder", lambda model: built(build, model), exact=True)
        proof = self._tried("proof of the encoder", lambda: self._prove(way))
        if proof is None:
            self.notes.append(
                f"there was no memory to try the exact encode of {name}: ComfyUI's own tiles are "
                "used this time"
            )
            return None
        if proof.holds:
            self.notes.append(f"exact encode ({name}): {proof.reason}")
            return way
        self.notes.append(
            f"the exact encode of {name} does not hold for this VAE ({proof.reason}): encoded in "
            "ComfyUI's own tiles"
        )
        return None

    def _prove(self, way: Way) -> Proof:
        vae = self._encoding_vae
        model: Any = vae.first_stage_model
        self._weights_there()
        kind = vae.device.type if vae.device.type in PROOF_EDGES else "cuda"
        scale = self._facts.spatial_scale
        sides = (edge * scale for edge in PROOF_EDGES[kind])
        draw = torch.Generator().manual_seed(0)
        sample = torch.rand((*self._proof_lead(), *sides), generator=draw)
        sample = vae.process_input(sample).to(vae.device, vae.vae_dtype)
        edge = PROOF_PARTS[kind] * scale
        with self._device_context():
            return prove(way.build(model), model.encode, sample, self._proof_hooks, edge=edge)

    def _recognised(self) -> tuple[str, Callable[[Any], Program | None]] | None:
        return encoder_of(self._vae.first_stage_model) if is_plain(self._vae, "encode") else None

    def _proof_lead(self) -> tuple[int, ...]:
        """Item, channels and, of video, frames."""
        if len(self._shape) < VIDEO_DIMS:
            return (1, self._shape[1])
        most = 1 + (PROOF_FRAMES - 1) * (self._facts.temporal_scale or 1)
        return (1, self._shape[1], min(most, self._shape[2]))

    def _result_bytes(self) -> int:
        """Less than the pictures take, which are there already."""
        return 0

    def _result_pixels(self) -> int:
        return self._pixels.numel() // int(self._shape[1])

    @property
    def _pixels_per_input(self) -> int:
        return 1

    def _shown(self, found: Survey, layout: Layout) -> tuple[StageNeeds, tuple[int, int]]:
        return found.phases[0].stages[0], layout.parts[(0, 0)]

    @property
    def _survey_edges(self) -> tuple[int, int]:
        small, larger = (edge * self._facts.spatial_scale for edge in SMALL_EDGES)
        return small, larger
