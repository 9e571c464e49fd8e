"""HW Supporter: reserve, switches and advice for the model that passes through."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..attention.applying import apply_attention
from ..cleaning import clean_gpu_before
from ..compiling import CompileWorld, compile_model
from ..host.model_hooks import bind
from ..host.runtime import runtime
from ..reserving import hold_for_job, hold_reserve
from ..suggestion import tiling_suggestion
from ..supporting import new_report, resolve_switches
from .common import (
    CATEGORY,
    COMPILE_MODES,
    SAGE_MODES,
    auto_reserve_widgets,
    choice,
    closing_widgets,
    current_node_id,
    log_report,
    profile_widget,
    reserve_widgets,
    switch_widgets,
)

if TYPE_CHECKING:
    from ..host.runtime import Runtime
    from ..report import Report

_log = logging.getLogger("vram_supervisor.nodes")


class HwSupporter(io.ComfyNode):
    """Face ``IAMCCS_HwSupporter``; place it right after the model loader."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The face. New inputs stay last: saved workflows store values by position."""
        return io.Schema(
            node_id="IAMCCS_HwSupporter",
            display_name="HW Supporter (auto VRAM/attention/torch knobs)",
            category=CATEGORY,
            description="Holds a VRAM reserve and torch switches while the job runs, and puts "
            "them back when it ends. Place it right after the model loader.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="Straight from its loader, before LoRA and sampling."
                ),
                profile_widget(),
                *reserve_widgets(),
                choice(
                    "sage_attention",
                    SAGE_MODES,
                    "auto",
                    "Faster attention for this model, if SageAttention is installed. auto: the "
                    "kernel that suits the card, never Triton's on Windows. disabled: ComfyUI's.",
                ),
                io.Boolean.Input(
                    "allow_sageattention_torch_compile",
                    default=False,
                    tooltip="Let torch.compile trace SageAttention too. Off: a compiled model "
                    "leaves its graph for attention, which is safer.",
                ),
                choice(
                    "torch_compile_mode",
                    COMPILE_MODES,
                    "off",
                    "Compile the model. The first run of each size takes minutes, and more memory "
                    "where weights are offloaded. On Windows it may crash. off is safest.",
                ),
                *switch_widgets(),
                *closing_widgets(),
                *auto_reserve_widgets(optional=True),
                io.Clip.Input("clip", optional=True, tooltip="Passes through unchanged."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="Passes through unchanged; with it the report suggests decode sizes.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
                io.String.Output(display_name="report_json"),
            ],
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_widgets: Any) -> str:
        """Always the same. The host asks at the start of every job, cached or not, and some
        hosts give no other sign of it."""
        runtime().look_at_queue()
        return ""

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any = None,
        vae: Any = None,
        reserved_vram_auto_headroom_gb: float = 1.0,
        reserved_vram_auto_max_gb: float = 0.0,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Hold the settings; the switches ride on a clone of the model."""
        here = runtime()
        widgets["reserved_vram_auto_headroom_gb"] = reserved_vram_auto_headroom_gb
        widgets["reserved_vram_auto_max_gb"] = reserved_vram_auto_max_gb
        report = new_report(here, widgets)
        clean_gpu_before(
            here.memory, report, asked=widgets["clean_gpu_before"], values=(model, clip, vae)
        )
        node_id = current_node_id()
        for_job = hold_reserve(here, widgets, report)
        switches = resolve_switches(here, widgets, report)
        machine = here.machine()
        model = apply_attention(model, widgets, machine, report)
        world = CompileWorld(machine.kind, partial(_offloads, here))
        model = compile_model(model, widgets["torch_compile_mode"], world, report)
        bound = bind(model, here.scope, switches) if switches else model
        if bound is None:
            report.warnings.append("this model takes no callbacks: switches hold for the whole job")
            for_job |= switches
        hold_for_job(here, node_id, for_job, report)
        if vae is not None:
            report.vae_tiling_suggestion = _suggestion(vae, here, report)
        if widgets["console_log"]:
            log_report("HW Supporter", report)
        return io.NodeOutput(model if bound is None else bound, clip, vae, report.as_json())


def _offloads(here: Runtime, model: Any) -> bool:
    """Whether ComfyUI would have to keep part of the weights off the device."""
    device = model.load_device
    if device.type == "cpu":
        return False
    others = here.memory.evictable_bytes(device, model)
    missing = here.memory.missing_weights_bytes(model)
    return missing + here.memory.kept_free_bytes() > here.memory.free_bytes(device) + others


def _suggestion(vae: Any, here: Runtime, report: Report) -> dict[str, Any] | None:
    """Advice must not fail the node, for the VAE may be anything; nor hold it up."""
    forecasts = partial(here.forecaster.forecast, patient=False)
    try:
        return tiling_suggestion(vae, here.memory, forecasts)
    except Exception as problem:
        if here.memory.is_interrupt(problem):
            raise
        _log.info("No tiling suggestion", exc_info=problem)
        report.warnings.append(f"no tiling suggestion for this VAE: {problem}")
        return None
