"""Samples a clip whole where it fits, else in the host's context windows; never changes a caller's
guider. Core's own node does the sampling either way."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..supervisor.units import format_bytes
from .host.sampling_forecast import VIDEO_DIMS, Watch
from .host.windows import TIME_DIM, context_windows, copied, has_windows, put_windows
from .windowing import Clip, Windows, Wish, by_hand, to_fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..supervisor.planning.calibration import Bound
    from .host.memory import HostMemory
    from .host.meter import Measured, PeakMeter
    from .host.sampling_forecast import Seen
    from .report import Report

    class Forecast(Protocol):
        """What is known of sampling one latent; ``SamplingForecast``, or a test's."""

        def bound(self, latent_frames: int) -> Bound:
            """At most what so many frames at once add."""
            ...

        def need_bytes(self, latent_frames: int) -> int:
            """The same as one figure."""
            ...

        def learn(self, seen: Seen, measured: Measured) -> None:
            """Keep what it took."""
            ...

        def learn_failure(self, seen: Seen, latent_frames: int, least_bytes: int) -> None:
            """Keep that it did not fit."""
            ...


NO_WINDOWS: Final = "this ComfyUI has no context windows: the clip is sampled whole"
OWN_WINDOWS: Final = "the model brings context windows of its own, which stay as they are"
NO_CLIP: Final = "no video latent: there is no time to cut into windows"
AUDIO_TOO: Final = (
    "this latent has more than video in it, and this model cannot cut the rest into windows: the "
    "clip is sampled whole"
)


class Core(Protocol):
    """Core's own node with a guider, everything else as it came."""

    def __call__(self, guider: Any) -> tuple[Any, Any]:
        """Sample: latent and denoised latent."""
        ...


@dataclass
class WindowedSampling:
    """One run of the node.

    Attributes:
        guider: the caller's.
        latent: ``samples`` of the caller's latent, a tensor or nested.
        wish: the node's widgets.
        core: samples.
        memory: the host's memory manager.
        meter: measures the model's device.
        forecast_of: predicts, for a model's latent shape.
        report: takes what was done.
    """

    guider: Any
    latent: Any
    wish: Wish
    core: Core
    memory: HostMemory
    meter: PeakMeter
    forecast_of: Callable[[tuple[int, ...]], Forecast]
    report: Report
    _forecast: Forecast | None = field(default=None)

    def run(self) -> tuple[Any, Any]:
        """Sample.

        Raises:
            Exception: whatever core raises; running out of memory only where not even the
                shortest windows help, or the widgets leave no choice.
        """
        clip = self._clip()
        if self.wish.windowing == "off" or clip is None:
            self._tell(None, clip)
            return self.core(self.guider)
        if self.wish.windowing == "manual":
            return self._sampled(clip, by_hand(self.wish, clip))
        return self._automatic(clip)

    def _clip(self) -> Clip | None:
        """None where there is nothing to cut, or no way to."""
        shape = _video_shape(self.latent)
        if self.wish.windowing == "off":
            return None
        why = self._uncuttable(shape)
        if why is None and shape is not None:
            return Clip(shape[TIME_DIM], _temporal_scale(self.guider.model_patcher.model))
        said = self.report.warnings if self.wish.windowing == "manual" else self.report.notes
        said.append(why or NO_CLIP)
        return None

    def _uncuttable(self, shape: Sequence[int] | None) -> str | None:
        if shape is None or shape[TIME_DIM] == 1:
            return NO_CLIP
        if has_windows(self.guider):
            return OWN_WINDOWS
        if context_windows() is None:
            return NO_WINDOWS
        model = self.guider.model_patcher.model
        nested = bool(getattr(self.latent, "is_nested", False))
        knows = hasattr(model, "map_context_window_to_modalities")
        return AUDIO_TOO if nested and not knows else None

    def _automatic(self, clip: Clip) -> tuple[Any, Any]:
        """Whole if that fits; shorter windows as often as memory runs out."""
        shape = _video_shape(self.latent) or ()
        forecast = self._forecast = self.forecast_of(tuple(shape))
        windows = None
        room_bytes, need = self._room_bytes(), forecast.bound(clip.latent_frames)
        self.report.effective["sampling"] = {
            "room_bytes": room_bytes,
            "predicted_peak_bytes": need.bytes,
            "prediction": need.reason,
        }
        if need.bytes > room_bytes:
            windows = to_fit(
                self.wish, clip, forecast.need_bytes, room_bytes, below=clip.latent_frames
            )
        while True:
            ran_out_at = self._try(clip, windows)
            if not isinstance(ran_out_at, int):
                return ran_out_at
            # Out of the except block: the error refers to every tensor of the failed attempt.
            gc.collect()
            self.memory.empty_cache()
            windows = to_fit(
                self.wish, clip, forecast.need_bytes, self._room_bytes(), below=ran_out_at
            )

    def _try(self, clip: Clip, windows: Windows | None) -> tuple[Any, Any] | int:
        """What core made, or the frames that did not fit at once where fewer are left to try."""
        at_once = clip.latent_frames if windows is None else windows.length
        try:
            return self._sampled(clip, windows)
        except Exception as problem:
            if at_once <= 1 or not self.memory.is_oom(problem):
                raise
        words = (
            "the whole clip" if windows is None else f"windows of {clip.video_of(at_once)} frames"
        )
        self.report.warnings.append(
            f"sampling ran out of memory with {words}; it began again with shorter windows"
        )
        return at_once

    def _sampled(self, clip: Clip, windows: Windows | None) -> tuple[Any, Any]:
        """With a guider of its own that is measured, in windows if there are any."""
        self._tell(windows, clip)
        own, module = copied(self.guider), context_windows()
        watch = Watch(self.meter, self._free_bytes)
        watched = self._forecast is not None and watch.put_on(own.model_patcher)
        if windows is not None and module is not None:
            put_windows(module, own, windows)
        try:
            made = self.core(own)
        except Exception as problem:
            if watched and self._forecast is not None and self.memory.is_oom(problem):
                at_once = clip.latent_frames if windows is None else windows.length
                self._forecast.learn_failure(watch.seen, at_once, watch.free_bytes or 0)
            raise
        if watched and self._forecast is not None:
            self._forecast.learn(watch.seen, watch.measured)
            self._measured(watch.measured)
        return made

    def _room_bytes(self) -> int:
        """What activations may use: weights make way for them, the model's own last."""
        device = self.guider.model_patcher.load_device
        free = self._free_bytes() + self.memory.evictable_bytes(device, None)
        return max(0, free - self.memory.kept_free_bytes())

    def _free_bytes(self) -> int:
        return self.memory.free_bytes(self.guider.model_patcher.load_device)

    def _tell(self, windows: Windows | None, clip: Clip | None) -> None:
        report = self.report
        report.applied["windowing"] = "off" if windows is None else "windows"
        report.effective["windows"] = None
        if windows is None or clip is None:
            return
        report.effective["windows"] = {
            "count": windows.count(clip),
            "frames": clip.video_of(windows.length),
            "overlap_frames": windows.overlap * clip.temporal_scale,
            "latent_frames": windows.length,
            "overlap_latent_frames": windows.overlap,
        }
        report.notes.append(windows.why)
        if not windows.fits:
            report.warnings.append(
                "not even the shortest windows are expected to fit; sampling is tried all the "
                "same. Fewer pixels, or less kept free for others, would help."
            )

    def _measured(self, measured: Measured) -> None:
        facts = self.report.effective.setdefault("sampling", {})
        facts["measured_peak_bytes"] = measured.peak_bytes
        if measured.peak_bytes:
            self.report.notes.append(f"sampling took {format_bytes(measured.peak_bytes)}")


def _video_shape(latent: Any) -> tuple[int, ...] | None:
    """``[B, C, T, H, W]`` of a latent's video, None where it has none."""
    first = latent.unbind()[0] if getattr(latent, "is_nested", False) else latent
    shape = tuple(int(size) for size in first.shape)
    return shape if len(shape) == VIDEO_DIMS else None


def _temporal_scale(model: Any) -> int:
    """Video frames per latent frame after the first."""
    latent_format = getattr(model, "latent_format", None)
    return max(1, int(getattr(latent_format, "temporal_downscale_ratio", 1) or 1))
