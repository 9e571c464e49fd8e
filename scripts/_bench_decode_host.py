"""A real ComfyUI within the bench's process, and a model that sits on its card.

``enter`` must come before torch is imported: comfy-aimdo, which streams weights under
DynamicVRAM, puts itself beneath it.
"""

from __future__ import annotations

import gc
import logging
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import torch

LAYER_EDGE: Final = 4096
LAYER_BYTES: Final = LAYER_EDGE * LAYER_EDGE * 2
IDLE_PATIENCE_S: Final = 120.0


def enter(comfyui: Path, base: Path, *arguments: str) -> None:
    """Start ComfyUI as far as its own ``main`` does when it is imported: memory management with
    DynamicVRAM, nodes, no server. Models, outputs and user data lie in ``base``."""
    sys.path.insert(0, str(comfyui))
    ours = sys.argv
    sys.argv = [
        ours[0], "--base-directory", str(base), "--disable-all-custom-nodes",
        "--disable-api-nodes", "--verbose", "WARNING", *arguments,
    ]  # fmt: skip
    try:
        import_module("comfy.options").enable_args_parsing()
        import_module("comfy.cli_args")
        import_module("main")
    finally:
        sys.argv = ours


def real_vae(base: Path, data: Path) -> Any:  # noqa: ANN401
    """The tiny FLUX.2 autoencoder, loaded by ComfyUI's own node from copies of its files."""
    folder = base / "models" / "vae_approx"
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("encoder", "decoder"):
        shutil.copy(data / f"taef2_{part}.pth", folder)
    (vae,) = import_module("nodes").VAELoader().load_vae("taef2")
    return vae


@dataclass
class Host:
    """Its memory management, from the outside."""

    management: Any
    device: torch.device
    _layers: list[torch.Tensor] = field(default_factory=list["torch.Tensor"])
    _resident: Any = None

    @classmethod
    def entered(cls) -> Host:
        """The one that was entered."""
        management = import_module("comfy.model_management")
        return cls(management, management.get_torch_device())

    @property
    def is_dynamic(self) -> bool:
        """Whether DynamicVRAM is on."""
        return bool(import_module("comfy.memory_management").aimdo_enabled)

    def pinned_bytes(self) -> int:
        """Of system memory, for copies of weights; 0 on hosts that do not count them."""
        return int(getattr(self.management, "TOTAL_PINNED_MEMORY", 0))

    def clean(self) -> None:
        """Unload everything, drop what Python still holds, give the cache back."""
        self._resident = None
        gc.collect()
        self.management.unload_all_models()
        self.management.cleanup_models()
        reset = getattr(self.management, "reset_cast_buffers", None)
        if reset is not None:
            reset()
        gc.collect()
        self.synchronize()
        self.management.soft_empty_cache()
        if self.device.type == "cuda":
            _empty_host_cache()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            import torch  # noqa: PLC0415

            torch.cuda.synchronize(self.device)

    def load_resident(self, size_bytes: int) -> int:
        """Load a model of that size as samplers load theirs, and run it once so that streamed
        weights arrive, too. Its weights in RAM have been written to.

        Returns:
            What it took of the device.
        """
        import torch  # noqa: PLC0415

        ops = import_module("comfy.ops").disable_weight_init
        patcher = import_module("comfy.model_patcher").CoreModelPatcher
        count = max(1, size_bytes // LAYER_BYTES)
        while len(self._layers) < count:
            shape = (LAYER_EDGE, LAYER_EDGE)
            self._layers.append(torch.zeros(shape, dtype=torch.bfloat16).fill_(0.001))
        model = torch.nn.Sequential()
        for weight in self._layers[:count]:
            layer = ops.Linear(LAYER_EDGE, LAYER_EDGE, bias=False, dtype=torch.bfloat16)
            layer.weight = torch.nn.Parameter(weight, requires_grad=False)
            model.append(layer)
        cpu = torch.device("cpu")
        self._resident = patcher(model, load_device=self.device, offload_device=cpu)
        before = self.management.get_free_memory(self.device)
        self.management.load_models_gpu([self._resident])
        with torch.inference_mode():
            model(torch.ones((1, LAYER_EDGE), dtype=torch.bfloat16, device=self.device))
        self.synchronize()
        self.management.soft_empty_cache()
        return int(before - self.management.get_free_memory(self.device))

    @contextmanager
    def total(self, card_bytes: int) -> Generator[None]:
        """Have decoders that ask be told a card of that size."""
        known = self.management.get_total_memory

        def told(dev: Any = None, torch_total_too: bool = False) -> Any:  # noqa: ANN401, FBT001
            answer = known(dev, torch_total_too)
            if torch_total_too:
                return tuple(min(each, card_bytes) for each in answer)
            return min(answer, card_bytes)

        with mock.patch.object(self.management, "get_total_memory", told):
            yield

    def is_oom(self, problem: BaseException) -> bool:
        """Whether an error, or what it came from, is the device running out of memory."""
        from vram_supervisor.nodes.host.memory import HostMemory  # noqa: PLC0415

        memory = HostMemory(self.management)
        seen: BaseException | None = problem
        while seen is not None:
            if memory.is_oom(seen) or type(seen).__name__ in OURS_OUT_OF_MEMORY:
                return True
            seen = seen.__cause__ or seen.__context__
        return False


def _empty_host_cache() -> None:
    """Give back pinned memory that torch keeps for the next time, where this version can."""
    empty = getattr(import_module("torch._C"), "_host_emptyCache", None)
    if empty is not None:
        empty()


OURS_OUT_OF_MEMORY: Final = {"LadderExhausted", "PartDoesNotFitError"}


class Pack:
    """The pack's own runtime in this process: what it learned and what runs between jobs."""

    def __init__(self, base: Path) -> None:
        self._base, self._stores = base, 0

    def job_begins(self) -> None:
        """As when a prompt starts: dry runs that wait for idle time stop."""
        self._runtime().prompt_started(None)

    def job_ends(self) -> None:
        """As when a prompt has ended; waits until what it left to idle time is done."""
        here = self._runtime()
        here.prompt_ended()
        here.forecaster.idle.wait_until_done(IDLE_PATIENCE_S)

    def forget(self) -> None:
        """Begin with empty stores, as after installing the pack."""
        module = import_module("vram_supervisor.nodes.host.runtime")
        if module.runtime.cache_info().currsize:
            here = module.runtime()
            here.forecaster.idle.close()
            here.supervisor.stop()
            module.runtime.cache_clear()
        self._stores += 1
        user = self._base / f"user_{self._stores}"
        user.mkdir()
        import_module("folder_paths").set_user_directory(str(user))

    def _runtime(self) -> Any:  # noqa: ANN401
        return import_module("vram_supervisor.nodes.host.runtime").runtime()


class Said:
    """What ComfyUI warns of while something runs: it hides its retries in its log."""

    def __enter__(self) -> list[str]:
        lines: list[str] = []

        class Keep(logging.Handler):
            """Keeps warnings."""

            def emit(self, record: logging.LogRecord) -> None:
                lines.append(record.getMessage())

        self._handler = Keep(logging.WARNING)
        logging.getLogger().addHandler(self._handler)
        return lines

    def __exit__(self, *_problem: object) -> None:
        logging.getLogger().removeHandler(self._handler)
