"""Predicts what encodes of a host VAE need on its device, and learns from what they took."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any, Final

from ...supervisor.planning.calibration import (
    DEFAULT_POLICY,
    Bound,
    Calibration,
    CalibrationKey,
    Measurement,
    PieceShape,
)
from ...supervisor.planning.dry_run import TensorSpec, trace_decode
from ...supervisor.planning.workspace import MODEL_VERSION, workspace_of
from .bases import Base
from .dry_runs import answered, forget_streaming
from .exact_encode import EncodeWay
from .exact_shared import Settings
from .forecast import CPU_RATIO, FORMULA_POLICY, INLINE_S, Forecaster, Outcome, Prediction
from .forecast import measurement_of as _measurement
from .vae import piece_of
from .vae_encoding import latent_shape_of, pixel_shape_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from ...supervisor.planning.cost import FamilyCost
    from ...supervisor.planning.traced_cost import Piece
    from .bases import Decoder
    from .memory import HostMemory
    from .vae import VaeFacts
    from .vae_encoding import EncodingVae

FORMULA_RATIO: Final = 1.5
"""ComfyUI's formulas for encoders say 0.8 to 10 times what dry runs do, for all of its VAEs but
SeedVR2, which tiles itself."""
FEW_FRAMES: Final = (5, 9)
"""Latent frames: longer clips are predicted from dry runs of these two, for what is needed grows
in a straight line (or hardly) from there."""
ENCODE: Final = "encode"
"""Predictor of measurements beside dry runs of encoders."""
ENCODE_FORMULA: Final = "encode, formula"
ENCODE_EXACT: Final = "encode, exact parts"

_log = logging.getLogger(__name__)


class EncodeForecast:
    """CostModel of one VAE's encoder on its device for some pictures, and what it learns.

    Args:
        shared: of this process.
        vae: encodes.
        facts: of its encoder.
        pixels: as core arranges them, ``[B, C, (T,) H, W]``.
        memory: the host's memory manager.
    """

    def __init__(
        self,
        shared: Forecaster,
        vae: EncodingVae,
        facts: VaeFacts,
        pixels: torch.Tensor,
        memory: HostMemory,
    ) -> None:
        self._shared, self._vae, self._facts, self._memory = shared, vae, facts, memory
        self._pixels, self._shape = pixels, tuple(pixels.shape)
        self._decoder: Decoder = shared.decoder_of(vae)
        self._family: FamilyCost | None = shared.family_of(self._decoder.architecture)
        self._key = replace(shared.key_of(vae), vae=self._decoder.architecture)
        self._measured: dict[CalibrationKey, Sequence[Measurement]] = {}
        self._whole_base: Base | None = None
        self.notes: list[str] = []
        """What the report should tell of how the figures came about."""

    def has_room(self, budget_bytes: int) -> None:
        """Said before the first question. Where ComfyUI's own formula fits with a wide margin,
        nobody waits for a dry run."""
        base = self._by_formula(self.whole)
        needs = self._predicted(self.whole, base).peak_bytes
        if not self._facts.tiles_itself and base.bytes > 0 and needs <= budget_bytes:
            self._whole_base = base

    @property
    def allocator(self) -> str | None:
        """Which one serves the VAE's device."""
        return self._key.allocator

    @property
    def whole(self) -> Piece:
        """Everything at once, in latents."""
        return piece_of(latent_shape_of(self._vae, self._shape))

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Predicted peak of encoding at once what becomes such latents, in bytes."""
        return self.predict((batch, frames, height, width)).peak_bytes

    def hungriest(self, pieces: Iterable[Piece], *, exact: bool = False) -> Prediction:
        """The prediction of the piece that needs most."""
        del exact
        return max(map(self.predict, pieces), key=lambda each: each.peak_bytes)

    def predict(self, piece: Piece) -> Prediction:
        """The same of one piece, with its reasons."""
        return self._predicted(piece, self._base(piece))

    def _predicted(self, piece: Piece, base: Base) -> Prediction:
        policy = DEFAULT_POLICY if base.is_traced else FORMULA_POLICY
        measured = self._measurements(self._key_of(base))
        calibration = Calibration(measured, self._prior(base), policy)
        told = calibration.bound(base.bytes, PieceShape(*piece))
        return Prediction(piece, told.bytes, base.bytes, told.source, told.reason, base.origin)

    def learn(self, piece: Piece, outcome: Outcome) -> None:
        """Keep what encoding ``piece`` really took, if its base is its own; and any failure."""
        base = self._base(piece)
        if base.is_exact or outcome.failed:
            self._keep(self._key_of(base), piece, base.bytes, outcome)

    def bound_exact(self, base_bytes: int) -> Bound:
        """At most what exact parts need whose layout says ``base_bytes``, and why."""
        if self._on_cpu():
            return Bound(base_bytes, "prior", 1.0, "a CPU takes its tensors only")
        prior = None if self._family is None else self._family.ratio
        measured = self._measurements(self._named(ENCODE_EXACT))
        return Calibration(measured, prior, DEFAULT_POLICY).bound(
            base_bytes, PieceShape(*self.whole)
        )

    def learn_exact(self, base_bytes: int, outcome: Outcome) -> None:
        """Keep what an encode in exact parts took, beside what its layout said."""
        if not self._on_cpu():
            self._keep(self._named(ENCODE_EXACT), self.whole, base_bytes, outcome)

    def exact_way(self) -> EncodeWay | None:
        """The ways to encode these pictures in parts that equal the whole."""
        exacts = self._shared.exacts
        if exacts is None:
            return None
        return EncodeWay(
            self._vae, self._pixels, self._facts, self._memory, exacts, self, self._settings()
        )

    def _settings(self) -> Settings:
        decoder = self._decoder
        code = decoder.settings[0]
        architecture = f"{decoder.architecture} {code}"
        return Settings(architecture, decoder.fused_attention, decoder.total_bytes)

    def _base(self, piece: Piece) -> Base:
        """Of the whole, or a share of it as ComfyUI's formula has it."""
        if self._whole_base is None:
            self._whole_base = self._traced() or self._by_formula(self.whole)
        whole = self._whole_base
        if piece == self.whole:
            return whole
        share = self._formula_bytes(piece) / max(1, self._formula_bytes(self.whole))
        is_exact = not whole.is_traced
        return Base(ceil(whole.bytes * share), whole.origin, is_exact=is_exact)

    def _by_formula(self, piece: Piece) -> Base:
        return Base(self._formula_bytes(piece), "formula", is_exact=True)

    def _traced(self) -> Base | None:
        """By dry run of the whole; None where the encoder does what fake tensors cannot."""
        exacts = self._shared.exacts
        if exacts is None:
            return None
        started_s = time.perf_counter()
        try:
            one, found = exacts.need_bytes(self._text(), self._dry_run_bytes)
        except Exception as problem:
            if self._memory.is_interrupt(problem):
                raise
            _log.info("The encoder cannot be dry-run", exc_info=problem)
            self.notes.append(
                f"this encoder cannot be dry-run ({type(problem).__name__}: {problem}): ComfyUI's "
                "own formula is used"
            )
            return None
        waited_s = time.perf_counter() - started_s
        if found == "run" and waited_s > INLINE_S:
            self.notes.append(
                f"{waited_s:.1f} s went into a dry run of the encoder; it is kept for the next time"
            )
        return Base(one * self._shape[0], found, is_exact=True)

    def _dry_run_bytes(self) -> int:
        """Peak of one item."""
        frames = self.whole[1]
        few, more = FEW_FRAMES
        if frames is None or frames <= more:
            return self._peak_bytes(frames)
        short, long = self._peak_bytes(few), self._peak_bytes(more)
        each = max(0, long - short) / (more - few)
        return long + ceil(each * (frames - more))

    def _peak_bytes(self, latent_frames: int | None) -> int:
        shape = pixel_shape_of(self._vae, self._facts, self._shape, (1, latent_frames))
        module: Any = self._vae.first_stage_model
        dtype = self._vae.vae_dtype
        streams = bool(getattr(module, "comfy_has_chunked_io", False))

        def run(stand_in: Any, pixels: torch.Tensor) -> object:
            forget_streaming(stand_in)
            if streams:
                return stand_in.encode(pixels, device=pixels.device)
            return stand_in.encode(pixels.to(dtype, copy=True))

        with answered(self._decoder.total_bytes):
            trace = trace_decode(
                module,
                run,
                TensorSpec(shape, dtype),
                fused_attention=self._decoder.fused_attention,
                check=self._memory.raise_if_interrupted,
            )
        return workspace_of(self._vae.device.type).peak_bytes(trace)

    def _text(self) -> str:
        decoder = self._decoder
        return json.dumps(
            [
                ENCODE,
                MODEL_VERSION,
                decoder.architecture,
                decoder.dtype,
                self._vae.device.type,
                list(self._shape[1:]),
                decoder.fused_attention,
                decoder.total_bytes,
                *decoder.settings,
            ]
        )

    def _formula_bytes(self, piece: Piece) -> int:
        """0 where the formula fails: the bound then knows nothing, and says so."""
        batch, frames, height, width = piece
        scale = self._facts.spatial_scale
        one = pixel_shape_of(self._vae, self._facts, self._shape, (1, frames))
        rows, columns = min(height * scale, one[-2]), min(width * scale, one[-1])
        vae = self._vae
        try:
            size_bytes = float(vae.memory_used_encode((*one[:-2], rows, columns), vae.vae_dtype))
        except Exception:  # noqa: BLE001 - a foreign VAE's formula must not fail the encode
            _log.info("The VAE's own memory formula failed", exc_info=True)
            return 0
        return int(size_bytes * batch) if isfinite(size_bytes) else 0

    def _keep(self, key: CalibrationKey, piece: Piece, base_bytes: int, outcome: Outcome) -> None:
        self._shared.store.add(key, _measurement(piece, base_bytes, outcome))
        self._measured.pop(key, None)

    def _prior(self, base: Base) -> float | None:
        """None: the ratio for networks that nobody has measured."""
        if not base.is_traced:
            return FORMULA_RATIO
        if self._on_cpu():
            return CPU_RATIO
        return None if self._family is None else self._family.ratio

    def _measurements(self, key: CalibrationKey) -> Sequence[Measurement]:
        if key not in self._measured:
            self._measured[key] = self._shared.store.measurements(key)
        return self._measured[key]

    def _key_of(self, base: Base) -> CalibrationKey:
        return self._named(ENCODE if base.is_traced else ENCODE_FORMULA)

    def _named(self, predictor: str) -> CalibrationKey:
        return replace(self._key, predictor=f"{MODEL_VERSION}, {predictor}")

    def _on_cpu(self) -> bool:
        return self._vae.device.type == "cpu"
