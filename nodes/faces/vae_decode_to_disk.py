"""VAE Decode -> Disk: frames go to files as they are decoded."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ...supervisor.decode.frames.job import FrameJob
from ...supervisor.decode.frames.names import FORMATS, check_prefix, folder_inside
from ...supervisor.decode.frames.settings import SinkSettings
from ...supervisor.decode.frames.video import FRAME_RATE
from ...supervisor.planning.types import PlanRequest
from ...supervisor.units import from_gib
from ..decoding import Decoded, DecodeWish, check_valid
from ..host.drawing import drawn_from
from ..host.identity import decode_identity
from ..host.latents import save_latent
from ..host.meter import Measured
from ..host.runtime import runtime
from ..ladder import Record
from ..report import Report, decode_facts, hardware_facts
from ..safe_decode import safe_decode
from ..saving import (
    Saved,
    early_failure_kept,
    expected_frames,
    folder_state,
    problem_with,
    releaser,
    save_frames,
)
from ..suggestion import suggestion_of
from .common import CATEGORY, choice, quality_widget, tiling_widgets

if TYPE_CHECKING:
    from ...supervisor.decode.frames.sink import FrameSink

_log = logging.getLogger("vram_supervisor.nodes")


class VaeDecodeToDisk(io.ComfyNode):
    """Face ``IAMCCS_VAEDecodeToDisk``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face. New inputs stay last: saved workflows store values by position."""
        return io.Schema(
            node_id="IAMCCS_VAEDecodeToDisk",
            display_name="VAE Decode -> Disk (frames, low RAM)",
            category=CATEGORY,
            description="Decodes like VAE Decode Tiled (safe) and writes each frame as soon as "
            "it is complete. After a crash the same job goes on where it stopped.",
            is_output_node=True,
            inputs=[
                io.Latent.Input("samples", tooltip="The latent to decode."),
                io.Vae.Input("vae", tooltip="Decodes it."),
                io.String.Input(
                    "output_dir",
                    default="iamccs_vae_frames",
                    tooltip="A folder in the output folder. An absolute path must be inside it.",
                ),
                io.String.Input(
                    "prefix", default="frame", tooltip="File names are prefix_00000.png and so on."
                ),
                choice(
                    "image_format",
                    FORMATS,
                    "png",
                    "png: lossless. jpg: smaller. lossless video: FFV1 in one .mkv, "
                    f"{FRAME_RATE} frames per second.",
                ),
                io.Int.Input(
                    "jpg_quality",
                    default=95,
                    min=1,
                    max=100,
                    step=1,
                    tooltip="Of JPEG files: 100 is the best and the largest.",
                ),
                *tiling_widgets(),
                io.Boolean.Input(
                    "seam_debug_export",
                    default=False,
                    optional=True,
                    tooltip="Also write one PNG that shows the parts that were decoded.",
                ),
                io.String.Input(
                    "seam_debug_dir",
                    default="",
                    optional=True,
                    tooltip="Folder of that picture, in the output folder. Empty: beside the "
                    "frames.",
                ),
                io.Boolean.Input(
                    "cleanup_between_frames",
                    default=True,
                    optional=True,
                    tooltip="Release what Python and torch keep now and then while decoding: less "
                    "RAM, a little slower.",
                ),
                io.Boolean.Input(
                    "clear_existing",
                    default=True,
                    optional=True,
                    tooltip="Delete frames that another job of this node wrote with the same "
                    "prefix. Other files are never touched.",
                ),
                io.Int.Input(
                    "start_number",
                    default=0,
                    min=0,
                    max=1_000_000_000,
                    step=1,
                    optional=True,
                    tooltip="Number of the first file. Link next_start_number here to go on.",
                ),
                quality_widget(optional=True),
                io.Float.Input(
                    "vram_budget_gb",
                    default=0.0,
                    min=0.0,
                    max=1024.0,
                    step=0.25,
                    round=0.01,
                    optional=True,
                    tooltip="The most the decode may add to the card, in GiB. 0: what is free.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=True,
                    optional=True,
                    tooltip="Keep what an earlier run of the same job wrote.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="frames_dir"),
                io.Int.Output(display_name="frames_saved"),
                io.Int.Output(display_name="next_start_number"),
                io.String.Output(display_name="report_json"),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        output_dir: str | None = None,
        prefix: str | None = None,
        image_format: str | None = None,
        seam_debug_dir: str | None = None,
    ) -> bool | str:
        """Refuse before the prompt runs: an hour of sampling may come first. What is linked is
        checked when it is known."""
        folders = [output_dir, seam_debug_dir or None]
        return problem_with(_output_folder(), folders, prefix, image_format) or True

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        """Run again when frames have gone since; what is there need not be decoded again."""
        output_dir, prefix = inputs.get("output_dir"), inputs.get("prefix")
        if not inputs.get("resume", True) or output_dir is None or prefix is None:
            return ""
        return folder_state(folder_inside(_output_folder(), output_dir), prefix)

    @classmethod
    def execute(cls, samples: Any, vae: Any, **widgets: Any) -> io.NodeOutput:
        """Decode into files and report."""
        here = runtime()
        widgets = DEFAULTS | widgets
        report = Report(
            requested=dict(widgets),
            hardware=hardware_facts(here.supervisor.devices, here.primary()),
        )
        latent, wish = samples["samples"], _wish(widgets)
        keep_latent = partial(save_latent, latent)
        with early_failure_kept(keep_latent):
            check_valid(vae)
            job = _job(widgets, decode_identity(latent, vae, wish.request))
            frames = expected_frames(latent, vae)
            settings = _settings(widgets, job.folder, releaser(here.memory.empty_cache))

        def decode(sink: FrameSink) -> Decoded:
            with drawn_from(job.identity, vae.device):
                return safe_decode(latent, vae, wish, sink=sink)

        saved = save_frames(job, settings, frames, decode, keep_latent)
        _tell(report, job, saved)
        _log.info("%s frames, from %s on, are in %s", saved.frames, job.names.frame(0), job.folder)
        next_number = job.start_number + saved.frames
        return io.NodeOutput(str(job.folder), saved.frames, next_number, report.as_json())


DEFAULTS = {
    "seam_debug_export": False,
    "seam_debug_dir": "",
    "cleanup_between_frames": True,
    "clear_existing": True,
    "start_number": 0,
    "quality": "exact",
    "vram_budget_gb": 0.0,
    "resume": True,
}
"""Inputs that API prompts of old workflows lack."""


def _output_folder() -> Path:
    import folder_paths

    return Path(folder_paths.get_output_directory())


def _job(widgets: dict[str, Any], identity: str) -> FrameJob:
    return FrameJob(
        folder_inside(_output_folder(), widgets["output_dir"]),
        check_prefix(widgets["prefix"]),
        widgets["image_format"],
        widgets["start_number"],
        widgets["jpg_quality"],
        identity,
    )


def _settings(widgets: dict[str, Any], folder: Path, release: Any) -> SinkSettings:
    seams = None
    if widgets["seam_debug_export"]:
        wanted = widgets["seam_debug_dir"]
        seams = folder_inside(_output_folder(), wanted) if wanted else folder
    return SinkSettings(
        clear_existing=widgets["clear_existing"],
        resume=widgets["resume"],
        seams_folder=seams,
        between=release if widgets["cleanup_between_frames"] else None,
    )


def _wish(widgets: dict[str, Any]) -> DecodeWish:
    request = PlanRequest(
        tile=widgets["tile"],
        manual=widgets["tiling_mode"] == "manual",
        tile_size=widgets["tile_size"],
        overlap=widgets["overlap"],
        quality=widgets["quality"],
    )
    return DecodeWish(
        request,
        last_frame_fix=False,
        budget_cap_bytes=from_gib(widgets["vram_budget_gb"]),
        keep_latent=True,
    )


def _tell(report: Report, job: FrameJob, saved: Saved) -> None:
    decoded = saved.decoded or Decoded(None, Record(), Measured())
    plan = decoded.record.plan
    report.warnings = [*decoded.warnings, *(plan.warnings if plan else ())]
    report.notes += decoded.notes
    report.vae_tiling_suggestion = suggestion_of(decoded)
    report.decode = decode_facts(decoded)
    report.applied = {
        "kind": None if plan is None else plan.kind,
        "tiles": None if plan is None else plan.tiles,
        "frames_dir": str(job.folder),
        "first_file": job.names.frame(0),
        "frames": saved.frames,
        "frames_found": saved.found,
        "files_cleared": saved.cleared,
        "most_frames_in_memory": saved.most_held,
    }
    if saved.decoded is None:
        report.notes.append("an earlier run of the same job wrote every frame; nothing was decoded")
    elif saved.found:
        report.notes.append(f"{saved.found} frames were there from an earlier run of the same job")
    if job.format == "lossless video":
        report.notes.append(f"the video says {FRAME_RATE} frames per second")
