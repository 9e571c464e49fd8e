"""Predicts what decodes of a host VAE need on its device, and learns from what they took."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from ...supervisor.planning.calibration import (
    DEFAULT_POLICY,
    Bound,
    Calibration,
    CalibrationKey,
    Measurement,
    PieceShape,
)
from ...supervisor.planning.time_model import fit_time
from ...supervisor.planning.workspace import MODEL_VERSION, workspace_of
from .bases import Base, Bases, Decoder, architecture_of, code_of
from .device_facts import FUSED, allocator_name, attention_name, cudnn_version
from .exact import ExactWay
from .traces import Allowance
from .vae import piece_of, read_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ...supervisor.planning.calibration_store import CalibrationStore
    from ...supervisor.planning.cost import FamilyCost
    from ...supervisor.planning.time_model import TimeModel
    from ...supervisor.planning.traced_cost import Piece
    from ...supervisor.types import DeviceInfo
    from .bases import Origin
    from .exacts import Exacts
    from .idle import IdleWorker
    from .memory import HostMemory
    from .traces import DryRun, Traces
    from .vae import Vae, VaeFacts

INLINE_S: Final = 0.3
"""The longest a decode waits for dry runs where something stands in for them; those that take
longer are made while nothing runs."""
CPU_RATIO: Final = 1.0
"""Beside its tensors a CPU decode takes next to nothing that counts."""
FORMULA_RATIO: Final = 2.5
"""Measured decodes took up to 1.8 times what ComfyUI's formulas say."""
FORMULA_POLICY: Final = replace(DEFAULT_POLICY, most_ratio=200.0)
"""They may be far off (SeedVR2 takes 50 times its formula), which a measured piece tells."""
EXACT_MARGIN: Final = 1.04
"""On a family's ratio, which comes from whole decodes, until parts were measured: an H200 showed
1.06 of the layout for LTX, where whole decodes stay under 1.01."""
EXACT: Final = "exact parts"
"""Predictor of measurements beside the layout of a decode in exact parts."""
FORMULA: Final = "formula"
"""Predictor of measurements beside ComfyUI's own formula: they say nothing of dry runs."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one piece is expected to need, and where that comes from.

    Attributes:
        peak_bytes: at most, margins included.
        base_bytes: tensors and workspace before what calibration adds.
        source: "measured", "prior" or "extrapolated".
        reason: one line.
        dry_run: where the base comes from.
    """

    piece: Piece
    peak_bytes: int
    base_bytes: int
    source: str
    reason: str
    dry_run: Origin


@dataclass(frozen=True, slots=True)
class Outcome:
    """What decoding took; see ``Measurement``."""

    measured_bytes: int
    exact: bool = True
    failed: bool = False
    seconds: float | None = None
    pixels: int | None = None
    tiles: int = 1


@dataclass
class Forecaster:
    """What all forecasts of this process share.

    Attributes:
        store: what was measured and dry-run before, by any process.
        traces: dry runs.
        idle: does what can wait while no job runs.
        devices: those that are known, for the names of GPU and driver.
        total_bytes: all the memory a device has, as the host would tell a decoder.
        family_of: the shipped table for an architecture.
    """

    store: CalibrationStore
    traces: Traces
    idle: IdleWorker
    devices: Callable[[], Iterable[DeviceInfo]]
    total_bytes: Callable[[torch.device], int | None]
    family_of: Callable[[str], FamilyCost | None]
    exacts: Exacts | None = None
    """What decodes in exact parts share; None: there are none."""
    times: dict[str, TimeModel] = field(default_factory=dict[str, "TimeModel"])
    """How long decodes take here, by family, as of the latest decode of each."""
    _untraceable: dict[str, str] = field(default_factory=dict[str, str])

    def forecast(
        self, vae: Vae, latent_shape: tuple[int, ...], *, patient: bool = True
    ) -> Forecast:
        """Prepare to predict decodes of a latent ``latent_shape`` by this VAE.

        Args:
            patient: on a CPU, wait for dry runs whatever they take where no table stands in:
                its decodes take far longer.
        """
        key, decoder = self.key_of(vae), self.decoder_of(vae)
        family = self.family_of(decoder.architecture)
        # The tables were made with attention that keeps no scores.
        table = family if decoder.fused_attention or vae.device.type == "cpu" else None
        waits = patient and table is None and vae.device.type == "cpu"
        allowance = Allowance(None if waits else INLINE_S)
        # With the latent's kind: one that does not belong to the decoder says nothing of others.
        kind = f"{len(latent_shape)}-D, {latent_shape[1]} channels"
        named = f"{_class_of(vae.first_stage_model)} {decoder.architecture} {kind}"

        def gave_up(why: str) -> None:
            self._untraceable[named] = why

        bases = Bases(
            decoder,
            latent_shape,
            self.traces,
            lambda dry_run: self._later(vae, dry_run),
            workspace_of(vae.device.type),
            table,
            allowance,
            gave_up,
            self._untraceable.get(named),
        )
        return Forecast(self, vae, bases, family, replace(key, vae=decoder.architecture))

    def exact_way(
        self, vae: Vae, latent: torch.Tensor, facts: VaeFacts, memory: HostMemory, own: Forecast
    ) -> ExactWay | None:
        """The ways to decode this latent in parts that equal the whole."""
        if self.exacts is None:
            return None
        decoder = self.decoder_of(vae)
        return ExactWay(
            vae,
            latent,
            facts,
            memory,
            self.exacts,
            own,
            architecture=f"{decoder.architecture} {code_of(vae.first_stage_model)}",
            fused_attention=decoder.fused_attention,
            total_bytes=decoder.total_bytes,
        )

    def tell_times(self, key: CalibrationKey, family: FamilyCost | None) -> None:
        """Keep what the decodes of a key say about its family's times, for the probe."""
        if family is not None:
            self.times[family.family] = fit_time(self.store.measurements(key), family.time)

    def _later(self, vae: Vae, dry_run: DryRun) -> None:
        def work(owner: Any, check: Callable[[], None]) -> None:
            self.traces.make_unhurried(owner, dry_run, check)

        self.idle.later(vae, dry_run.text, work)

    def decoder_of(self, vae: Vae) -> Decoder:
        """What dry runs of a VAE depend on."""
        model: Any = vae.first_stage_model
        attention = attention_name(model)
        on_gpu = vae.device.type != "cpu"
        return Decoder(
            vae,
            read_facts(vae),
            architecture_of(model),
            _dtype_of(vae),
            on_gpu and attention in FUSED,
            self.total_bytes(vae.device),
            (code_of(model), torch.__version__),
        )

    def key_of(self, vae: Vae) -> CalibrationKey:
        """What its measurements are kept under, but for the architecture."""
        name = str(vae.device)
        device = next((each for each in self.devices() if each.key == name), None)
        return CalibrationKey(
            gpu=None if device is None else device.name,
            driver=None if device is None else device.driver,
            torch=torch.__version__,
            cudnn=cudnn_version(),
            allocator=allocator_name(vae.device),
            vae=None,
            dtype=_dtype_of(vae),
            attention=attention_name(vae.first_stage_model),
            autotune=bool(torch.backends.cudnn.benchmark),
            predictor=MODEL_VERSION,
        )


class Forecast:
    """CostModel of one VAE on its device for one latent, and what is learned from decoding it.

    Attributes:
        key: what measurements beside dry runs are kept under.
    """

    def __init__(
        self,
        shared: Forecaster,
        vae: Vae,
        bases: Bases,
        family: FamilyCost | None,
        key: CalibrationKey,
    ) -> None:
        self.key = key
        self._family = family
        self._shared, self._vae, self._bases = shared, vae, bases
        self._calibrations: dict[CalibrationKey, Calibration] = {}
        self._measured: dict[CalibrationKey, Sequence[Measurement]] = {}

    @property
    def allocator(self) -> str | None:
        """Which one serves the VAE's device."""
        return self.key.allocator

    @property
    def notes(self) -> list[str]:
        """What the report should tell of how the figures came about."""
        notes, waited_s = list(self._bases.notes), self._bases.waited_s
        if waited_s > INLINE_S:
            notes.append(
                f"{waited_s:.1f} s went into dry runs of a decoder that no table was shipped for; "
                "they are kept for the next time"
            )
        problem = self._shared.store.problem()
        return notes if problem is None else [*notes, problem]

    @property
    def whole(self) -> Piece:
        """Everything at once."""
        return piece_of(self._bases.latent_shape)

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Predicted peak of decoding such a piece at once, in bytes."""
        return self.predict((batch, frames, height, width)).peak_bytes

    def exact_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """The same after a dry run of this very piece, as far as that may be waited for."""
        return self.predict((batch, frames, height, width), exact=True).peak_bytes

    def predict(self, piece: Piece, *, exact: bool = False) -> Prediction:
        """The same with its reasons."""
        base = self._bases.base(piece, exact=exact)
        bound = self._calibration(base).bound(base.bytes, PieceShape(*piece))
        return Prediction(piece, bound.bytes, base.bytes, bound.source, bound.reason, base.origin)

    def hungriest(self, pieces: Iterable[Piece], *, exact: bool = False) -> Prediction:
        """The prediction of the piece that needs most."""
        predictions = [self.predict(piece, exact=exact) for piece in pieces]
        return max(predictions, key=lambda each: each.peak_bytes)

    def time_model(self) -> TimeModel | None:
        """How long decodes take here; None for families nobody has timed."""
        if self._family is None or self._on_cpu():
            return None
        return fit_time(self._measurements(self.key), self._family.time)

    def wants_probe(self) -> bool:
        """Whether nothing is known of this decoder but the host's formula: a small piece is to
        be decoded first, to see how far off that is."""
        base = self._bases.base(self.whole)
        return not base.is_traced and not self._calibration(base).is_warm and not self._on_cpu()

    def exact_way(
        self, latent: torch.Tensor, facts: VaeFacts, memory: HostMemory
    ) -> ExactWay | None:
        """The ways to decode a latent in parts that equal the whole."""
        return self._shared.exact_way(self._vae, latent, facts, memory, self)

    def bound_exact(self, base_bytes: int) -> Bound:
        """At most what a decode in exact parts needs whose layout says ``base_bytes``, and why."""
        if self._on_cpu():
            return Bound(base_bytes, "prior", 1.0, "a CPU takes its tensors only")
        prior = None if self._family is None else self._family.ratio * EXACT_MARGIN
        calibration = Calibration(self._measurements(self._exact_key), prior, DEFAULT_POLICY)
        return calibration.bound(base_bytes, PieceShape(*self.whole))

    def learn_exact(self, base_bytes: int, outcome: Outcome) -> None:
        """Keep what a decode in exact parts took, beside what its layout said."""
        if self._on_cpu():
            return
        self._shared.store.add(self._exact_key, measurement_of(self.whole, base_bytes, outcome))
        self._measured.pop(self._exact_key, None)

    @property
    def _exact_key(self) -> CalibrationKey:
        return replace(self.key, predictor=f"{MODEL_VERSION}, {EXACT}")

    def learn(self, piece: Piece, outcome: Outcome) -> None:
        """Keep what decoding ``piece`` really took, beside a dry run of that very piece.

        Where there is none yet it is made while no job runs; a failure is kept at once all the
        same, for the next decode must not repeat it.
        """
        base = self._bases.base(piece, exact=True)
        if base.is_exact or outcome.failed:
            key = self._key_of(base)
            self._shared.store.add(key, measurement_of(piece, base.bytes, outcome))
            self._calibrations.pop(key, None)
            self._measured.pop(key, None)
            self._shared.tell_times(self.key, self._family)
        if not base.is_exact and self._bases.can_be_made_exact:
            self._learn_later(piece, outcome)

    def _learn_later(self, piece: Piece, outcome: Outcome) -> None:
        dry_run = self._bases.dry_run_of(piece)
        traces, store = self._shared.traces, self._shared.store
        key, workspace = self.key, self._bases.workspace
        tell_times, family = self._shared.tell_times, self._family

        def work(owner: Any, check: Callable[[], None]) -> None:
            trace = traces.make_unhurried(owner, dry_run, check)
            store.add(key, measurement_of(piece, workspace.peak_bytes(trace), outcome))
            tell_times(key, family)

        self._shared.idle.later(self._vae, f"learn {outcome} {dry_run.text}", work)

    def _calibration(self, base: Base) -> Calibration:
        key = self._key_of(base)
        if key not in self._calibrations:
            prior = self._prior(base)
            policy = DEFAULT_POLICY if base.is_traced else FORMULA_POLICY
            self._calibrations[key] = Calibration(self._measurements(key), prior, policy)
        return self._calibrations[key]

    def _prior(self, base: Base) -> float | None:
        """None: the ratio for decoders that nobody has measured."""
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
        return self.key if base.is_traced else replace(self.key, predictor=FORMULA)

    def _on_cpu(self) -> bool:
        return self._vae.device.type == "cpu"


def measurement_of(piece: Piece, base_bytes: int, outcome: Outcome) -> Measurement:
    """An outcome as the store keeps it."""
    return Measurement(
        *piece,
        base_bytes=base_bytes,
        measured_bytes=outcome.measured_bytes,
        exact=outcome.exact,
        failed=outcome.failed,
        seconds=outcome.seconds,
        pixels=outcome.pixels,
        tiles=outcome.tiles,
    )


def _dtype_of(vae: Vae) -> str:
    return str(vae.vae_dtype).removeprefix("torch.")


def _class_of(model: object) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"
