"""Predicts what sampling a clip needs on its device, and learns from what it took.

The base is the host's own formula; what was measured on this machine is kept beside it in the
calibration store, by diffusion model, and raises or lowers the next prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch

from ...supervisor.planning.calibration import (
    Calibration,
    CalibrationKey,
    Measurement,
    PieceShape,
)
from .bases import architecture_of
from .device_facts import allocator_name, cudnn_version
from .forecast import FORMULA_POLICY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ...supervisor.planning.calibration import Bound
    from ...supervisor.planning.calibration_store import CalibrationStore
    from ...supervisor.types import DeviceInfo
    from .meter import Measured, PeakMeter

PREDICTOR: Final = "sampling 1, the host's formula"
PRIOR_RATIO: Final = 1.0
"""The host evicts by its own formula, so that is what counts until something was measured."""
VIDEO_DIMS: Final = 5
KEY: Final = "vram_supervisor_sampling"


@dataclass
class Seen:
    """What the model was really given: the largest input ``[B, C, T, H, W]`` at once."""

    shape: tuple[int, ...] | None = None

    def look(self, shape: Sequence[int]) -> None:
        """One call of the model."""
        found = tuple(int(size) for size in shape)
        if self.shape is None or _size(found) > _size(self.shape):
            self.shape = found


@dataclass
class SamplingForecast:
    """What sampling one latent with one model needs.

    Attributes:
        store: what was measured before, by any process.
        patcher: the host's model.
        conds: the guider's conditions, by name.
        latent_shape: ``[B, C, T, H, W]``.
        key: what measurements are kept under.
    """

    store: CalibrationStore
    patcher: Any
    conds: Mapping[str, Sequence[Mapping[str, Any]]]
    latent_shape: tuple[int, ...]
    key: CalibrationKey
    _calibration: Calibration | None = field(default=None)

    def bound(self, latent_frames: int) -> Bound:
        """At most what sampling so many frames at once adds to the device, and why."""
        shape = self._shape(latent_frames)
        if self._calibration is None:
            found = self.store.measurements(self.key)
            self._calibration = Calibration(found, PRIOR_RATIO, FORMULA_POLICY)
        return self._calibration.bound(self._base_bytes(shape), _piece(shape))

    def need_bytes(self, latent_frames: int) -> int:
        """The same as one figure."""
        return self.bound(latent_frames).bytes

    def learn(self, seen: Seen, measured: Measured) -> None:
        """Keep what sampling took, beside the formula for what the model was really given."""
        known_bytes = measured.peak_bytes or measured.least_bytes
        if known_bytes:
            self._keep(seen.shape, known_bytes, exact=bool(measured.peak_bytes))

    def learn_failure(self, seen: Seen, latent_frames: int, least_bytes: int) -> None:
        """It ran out of memory with so much to be had."""
        self._keep(seen.shape or self._shape(latent_frames), least_bytes, failed=True)

    def _keep(
        self,
        shape: tuple[int, ...] | None,
        known_bytes: int,
        *,
        exact: bool = False,
        failed: bool = False,
    ) -> None:
        if shape is None or len(shape) != VIDEO_DIMS or not known_bytes:
            return
        base_bytes = self._base_bytes(shape)
        measurement = Measurement(*_piece(shape), base_bytes, known_bytes, exact, failed)
        self.store.add(self.key, measurement)
        self._calibration = None

    def _shape(self, latent_frames: int) -> tuple[int, ...]:
        return (*self.latent_shape[:2], latent_frames, *self.latent_shape[3:])

    def _base_bytes(self, shape: tuple[int, ...]) -> int:
        """The host's formula for the model being given this at once."""
        model = self.patcher.model
        shapes = _largest_of_each(model, self.conds.values())
        return int(model.memory_required(list(shape), cond_shapes=shapes))


class Watch:
    """Meters a model from its pre-run, when its weights are loaded, to its clean-up.

    Args:
        meter: of the model's device.
        free: what can be allocated there.

    Attributes:
        seen: what it was given meanwhile.
    """

    def __init__(self, meter: PeakMeter, free: Callable[[], int]) -> None:
        self._meter, self._free, self._running = meter, free, False
        self.seen = Seen()
        self.free_bytes: int | None = None
        """What activations could take, the weights loaded; None before that."""

    @property
    def measured(self) -> Measured:
        """What that added to the device."""
        return self._meter.measured

    def put_on(self, patcher: Any) -> bool:
        """Put it on a clone of a model; False where the host takes no such callbacks."""
        from comfy import patcher_extension

        calls, wraps = patcher_extension.CallbacksMP, patcher_extension.WrappersMP
        if not hasattr(wraps, "APPLY_MODEL"):
            return False
        patcher.add_callback_with_key(calls.ON_PRE_RUN, KEY, self._begin)
        patcher.add_callback_with_key(calls.ON_CLEANUP, KEY, self._end)
        patcher.add_wrapper_with_key(wraps.APPLY_MODEL, KEY, self._apply)
        return True

    def _begin(self, _patcher: object) -> None:
        if not self._running:
            self._running = True
            self.free_bytes = self._free()
            self._meter.__enter__()

    def _end(self, _patcher: object) -> None:
        if self._running:
            self._running = False
            self._meter.__exit__(None, None, None)

    def _apply(self, executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.seen.look(x.shape)
        return executor(x, *args, **kwargs)


def key_of(patcher: Any, devices: Iterable[DeviceInfo]) -> CalibrationKey:
    """What measurements of a diffusion model on its device are kept under."""
    device = patcher.load_device
    known = next((each for each in devices if each.key == str(device)), None)
    model = patcher.model
    return CalibrationKey(
        gpu=None if known is None else known.name,
        driver=None if known is None else known.driver,
        torch=torch.__version__,
        cudnn=cudnn_version(),
        allocator=allocator_name(device),
        vae=architecture_of(getattr(model, "diffusion_model", model)),
        dtype=str(patcher.model_dtype()),
        attention=_attention(patcher),
        autotune=bool(torch.backends.cudnn.benchmark),
        predictor=PREDICTOR,
    )


def _attention(patcher: Any) -> str:
    """The host's, or that of an override on the model."""
    from comfy.ldm.modules import attention

    options: dict[str, Any] = patcher.model_options.get("transformer_options", {})
    override = options.get("optimized_attention_override")
    return getattr(attention.optimized_attention if override is None else override, "__name__", "?")


def _largest_of_each(
    model: Any, conds: Iterable[Sequence[Mapping[str, Any]]]
) -> dict[str, list[Any]]:
    """As the host counts conditions that are run one at a time."""
    largest: dict[str, list[Any]] = {}
    for cond in (each for some in conds for each in some):
        for name, shape in model.extra_conds_shapes(**cond).items():
            if name not in largest or _size(shape) > _size(largest[name][0]):
                largest[name] = [shape]
    return largest


def _size(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= int(size)
    return product


def _piece(shape: tuple[int, ...]) -> PieceShape:
    return PieceShape(shape[0], shape[2], shape[3], shape[4])
