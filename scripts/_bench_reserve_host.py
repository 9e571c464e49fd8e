"""A job that samples in a real ComfyUI while another program takes memory in the middle of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _bench_evict_host import Place, Prompts

STEPS: Final = 8
EASY_STEPS: Final = 3
"""Steps of half the size before the other program grows: a first pass before an upscaled one."""
PIECES: Final = 8
"""A step's activations come in so many tensors."""


@dataclass(frozen=True)
class Outside:
    """What is around the job.

    Attributes:
        grow: has the other program grow; by how much it did.
        used_bytes: what all use of the card now.
    """

    grow: Callable[[], int]
    used_bytes: Callable[[], int]


@dataclass
class Course:
    """What happened in a job.

    Attributes:
        got_bytes: by how much the other program grew.
        oom_step: the step at which memory ran out, None where it did not.
        wishes: the settings in force, at the start of each step.
    """

    got_bytes: int = 0
    oom_step: int | None = None
    used: list[int] = field(default_factory=list[int])
    wishes: list[dict[str, int]] = field(default_factory=list[dict[str, int]])


class Steps:
    """Loads a model as samplers do and runs it; in the middle the other program grows."""

    FUNCTION, CATEGORY, RETURN_TYPES = "run", "bench", ("LATENT",)
    place: ClassVar[Place]
    host: ClassVar[Any]
    course: ClassVar[Course]
    outside: ClassVar[Outside]
    pause_s: ClassVar[float] = 0.2

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The host's name for it."""
        return {"required": {"model": ("MODEL",), "latent": ("LATENT",)}}

    def run(self, model: Any, latent: object) -> tuple[object]:  # noqa: ANN401
        """An error of memory ends the steps and is noted: the job itself goes on."""
        management, course = self.host.management, self.course
        management.load_models_gpu([model], memory_required=self.place.work_bytes)
        for step in range(STEPS):
            if step == EASY_STEPS:
                course.got_bytes = self.outside.grow()
            course.wishes.append(wishes_now())
            try:
                self._step(model, 0.5 if step < EASY_STEPS else 1.0)
            except Exception as problem:
                if not management.is_oom(problem):
                    raise
                course.oom_step = step
                break
            time.sleep(self.pause_s)  # the monitor looks ten times a second
        return (latent,)

    def _step(self, model: Any, share: float) -> None:  # noqa: ANN401
        """One pass beside its activations."""
        import torch  # noqa: PLC0415

        piece_bytes = int(self.place.work_bytes * share) // PIECES
        kept = [self.allocate(piece_bytes) for _ in range(PIECES)]
        values = torch.ones((1, self.place.layer_edge), dtype=torch.bfloat16)
        model.model(values.to(self.place.device))
        self.host.synchronize()
        self.course.used.append(self.outside.used_bytes())
        del kept

    def allocate(self, size_bytes: int) -> object:
        """Memory that is held as long as what this gives."""
        import torch  # noqa: PLC0415

        return torch.zeros(size_bytes, dtype=torch.uint8, device=self.place.device)


def wishes_now() -> dict[str, int]:
    """The memory settings in force, by name."""
    scope = import_module("vram_supervisor.nodes.host.runtime").runtime().scope
    settings = scope.settings
    return {name: int(settings[name].read()) for name in MEMORY if name in settings}


MEMORY: Final = ("reserved_vram", "dynamic_vram_headroom")


def start(prompts: Prompts, outside: Outside) -> None:
    """Give ComfyUI the nodes, and start the pack."""
    prompts.start()
    faces = "vram_supervisor.nodes.faces.hw_supporter_any"
    Steps.place, Steps.host, Steps.outside = prompts.place, prompts.host, outside
    table = import_module("nodes").NODE_CLASS_MAPPINGS
    table |= {"Steps": Steps, "IAMCCS_HwSupporterAny": import_module(faces).HwSupporterAny}


def run(prompts: Prompts, layers: int, seed: int, *, reserve: str) -> tuple[Course, float]:
    """One job with the reserve "off" or in a mode; what happened, and seconds."""
    Steps.course = course = Course()
    _, seconds = prompts.run([workflow(layers, seed, reserve=reserve)])
    return course, seconds


def workflow(layers: int, seed: int, *, reserve: str) -> Mapping[str, Any]:
    """A supporter on the latent, then the steps."""
    widgets = {
        "profile": "auto",
        "apply_reserved_vram": reserve != "off",
        "reserved_vram_mode": "manual" if reserve == "off" else reserve,
        "reserved_vram_gb": 1.0,
        "reserved_vram_auto_headroom_gb": 1.0,
        "reserved_vram_auto_max_gb": 0.0,
        "fp16_accumulation": "off",
        "tf32": "off",
        "clean_gpu_before": False,
        "console_log": False,
        "include_hardware_report": False,
    }
    return {
        "start": {"class_type": "Start", "inputs": {"seed": seed}},
        "load": {"class_type": "Model", "inputs": {"name": "Diffusion", "layers": layers}},
        "support": {
            "class_type": "IAMCCS_HwSupporterAny",
            "inputs": {"input": ["start", 0], **widgets},
        },
        "steps": {
            "class_type": "Steps",
            "inputs": {"model": ["load", 0], "latent": ["support", 0]},
        },
        "end": {"class_type": "End", "inputs": {"latent": ["steps", 0]}},
    }
