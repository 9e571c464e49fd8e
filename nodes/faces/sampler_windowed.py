"""Sampler Custom Advanced (windowed): core's node that samples long clips in windows of time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..cleaning import clean_for_next, tell
from ..host.meter import PeakMeter
from ..host.protection import host_classes
from ..host.runtime import runtime
from ..host.sampling_forecast import SamplingForecast, key_of
from ..report import Report, hardware_facts
from ..sampling import WindowedSampling
from ..windowing import WINDOWING, Wish
from .common import CATEGORY

if TYPE_CHECKING:
    from ..host.runtime import Runtime

MOST_FRAMES = 100_000


class SamplerCustomAdvancedWindowed(io.ComfyNode):
    """Face ``IAMCCS_SamplerCustomAdvancedWindowed``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face."""
        return io.Schema(
            node_id="IAMCCS_SamplerCustomAdvancedWindowed",
            display_name="Sampler Custom Advanced (windowed)",
            category=CATEGORY,
            description="Core's SamplerCustomAdvanced. Where a clip is expected not to fit, it is "
            "sampled in ComfyUI's context windows; else the result is core's to the bit.",
            inputs=[
                io.Noise.Input("noise", tooltip="As for core's SamplerCustomAdvanced."),
                io.Guider.Input("guider", tooltip="As for core's; it is never changed."),
                io.Sampler.Input("sampler", tooltip="As for core's SamplerCustomAdvanced."),
                io.Sigmas.Input("sigmas", tooltip="As for core's SamplerCustomAdvanced."),
                io.Latent.Input(
                    "latent_image", tooltip="What is sampled. Only a video can be cut in windows."
                ),
                io.Combo.Input(
                    "windowing",
                    options=list(WINDOWING),
                    default="auto",
                    tooltip="auto: windows only where the whole clip would not fit. off: as core. "
                    "manual: always windows of window_frames.",
                ),
                io.Int.Input(
                    "window_frames",
                    default=0,
                    min=0,
                    max=MOST_FRAMES,
                    tooltip="Video frames of a window. 0: as many as fit; else with auto the most "
                    "a window may have.",
                ),
                io.Int.Input(
                    "window_overlap",
                    default=0,
                    min=0,
                    max=MOST_FRAMES,
                    tooltip="Video frames that a window shares with the one before. 0: a quarter "
                    "of a window. More blends better and takes longer.",
                ),
                io.Boolean.Input(
                    "cleanup_after",
                    default=False,
                    tooltip="After sampling, free what the next model needs: usually the VAE and "
                    "its decode.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="output"),
                io.Latent.Output(display_name="denoised_output"),
                io.String.Output(display_name="report_json"),
            ],
        )

    @classmethod
    def execute(
        cls,
        noise: Any,
        guider: Any,
        sampler: Any,
        sigmas: Any,
        latent_image: Any,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Sample, and make room for what comes next if asked to."""
        here = runtime()
        report = Report(
            requested=dict(widgets),
            hardware=hardware_facts(here.supervisor.devices, here.primary()),
        )
        given = {"noise": noise, "sampler": sampler, "sigmas": sigmas, "latent_image": latent_image}
        wish = Wish(widgets["windowing"], widgets["window_frames"], widgets["window_overlap"])
        patcher = guider.model_patcher
        watched = here.supervisor
        sampling = WindowedSampling(
            guider,
            latent_image["samples"],
            wish,
            partial(core_sample, given),
            here.memory,
            PeakMeter(str(patcher.load_device), watched.counter, watched.peaks),
            partial(_forecast, here, guider),
            report,
        )
        output, denoised = sampling.run()
        if widgets["cleanup_after"]:
            tell(report, clean_for_next(here.memory, latent=output))
        report.warnings.extend(here.spill.warnings(watched.jobs.position().job_id))
        return io.NodeOutput(output, denoised, report.as_json())


def core_sample(given: dict[str, Any], guider: Any) -> tuple[Any, Any]:
    """Core's own node: of the newer kind, or of the older one."""
    node: Any = host_classes()["SamplerCustomAdvanced"]
    if hasattr(node, "define_schema"):
        return tuple(node.execute(guider=guider, **given).result)
    return getattr(node(), node.FUNCTION)(guider=guider, **given)


def _forecast(here: Runtime, guider: Any, shape: tuple[int, ...]) -> SamplingForecast:
    patcher = guider.model_patcher
    key = key_of(patcher, here.supervisor.devices)
    conds: dict[str, Any] = getattr(guider, "original_conds", {})
    return SamplingForecast(here.forecaster.store, patcher, conds, shape, key)
