"""A queue of prompts in a real ComfyUI within the bench's process, and what its models load.

The host's own executor and queue run them; nothing is sent to a browser.
"""

from __future__ import annotations

import gc
import time
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import torch
    from _bench_decode_host import Host

MADE: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Every model of the bench that is still there."""
WEIGHTS: Final[dict[str, list[Any]]] = {}
"""By model, kept for the next queue: making them takes longer than moving them. No two models
share any: the host pins them in memory."""
LOADS: Final[list[tuple[str, int]]] = []
"""Bytes of weights each run of a node brought onto the card, by model."""
LAYER_EDGE: Final = 4096
"""Rows and columns of a layer's weight on a GPU."""
GPU_STREAMS: Final = 2
"""Through so many the host streams layers that did not fit, on NVIDIA GPUs."""


@dataclass(frozen=True)
class Place:
    """Where models run.

    Attributes:
        layer_edge: rows and columns of a layer's weight, in bf16.
        work_bytes: what a run allocates beside the weights.
    """

    device: torch.device
    layer_edge: int
    work_bytes: int

    @property
    def layer_bytes(self) -> int:
        """The least that can leave."""
        return self.layer_edge * self.layer_edge * 2

    def layers(self, size_bytes: int) -> int:
        """Of a model of that size; at least one."""
        return max(1, size_bytes // self.layer_bytes)


class Server:
    """As much of ComfyUI's server as its executor, its queue and the pack ask for."""

    client_id: str | None = None
    last_node_id: str | None = None

    def __init__(self) -> None:
        self.sockets_metadata: dict[str, object] = {}
        self.routes = import_module("aiohttp.web").RouteTableDef()
        self.prompt_queue: Any = import_module("execution").PromptQueue(self)

    def send_sync(self, *_event: object) -> None:
        """Nobody listens."""

    def queue_updated(self) -> None:
        """Nobody listens."""

    def add_on_prompt_handler(self, _handler: object) -> None:
        """Prompts are put straight into the queue."""


@dataclass
class Prompts:
    """Runs queues of prompts, each queue with an empty cache."""

    host: Host
    place: Place
    server: Server = field(default_factory=Server)

    def start(self) -> None:
        """Give ComfyUI the nodes of the bench and of the pack, and start the pack."""
        import_module("server").PromptServer.instance = self.server
        face = import_module("vram_supervisor.nodes.faces.vram_cleanup").VramCleanup
        Model.place = Run.place = self.place
        Run.host = self.host
        table = import_module("nodes").NODE_CLASS_MAPPINGS
        table |= {each.__name__: each for each in (Start, Model, Run, End)}
        table["IAMCCS_VRAMCleanup"] = face
        import_module("vram_supervisor.nodes.host.runtime").runtime()

    def run(
        self, prompts: Sequence[Mapping[str, Any]], *, at_once: bool = True
    ) -> tuple[list[tuple[str, int]], float]:
        """Queue them, ``at_once`` or each after the one before has ended, and run them; what was
        loaded, and seconds."""
        execution, queue = import_module("execution"), self.server.prompt_queue
        self.host.clean()
        LOADS.clear()
        arguments = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
        executor = execution.PromptExecutor(self.server, execution.CacheType.CLASSIC, arguments)
        waiting = [(i, f"prompt {i}", each, {}, ["end"], {}) for i, each in enumerate(prompts)]
        for each in waiting if at_once else ():
            queue.put(each)
        started_s = time.perf_counter()
        for each in waiting:
            if not at_once:
                queue.put(each)
            item, item_id = queue.get()
            executor.execute(item[2], item[1], item[3], item[4])
            queue.task_done(item_id, executor.history_result, None)
            if not executor.success:
                raise PromptFailedError(executor.status_messages)
        seconds = time.perf_counter() - started_s
        del executor
        gc.collect()
        return list(LOADS), seconds


class PromptFailedError(Exception):
    """A prompt of the bench ended in an error."""

    def __init__(self, messages: object) -> None:
        super().__init__(f"A prompt failed; the cells before are kept. ComfyUI says: {messages}")


def workflow(phases: Sequence[str], layers: Mapping[str, int], seed: int, *, cleanup: str) -> Any:  # noqa: ANN401
    """Models that run one after the other.

    Args:
        phases: names of models.
        layers: of each.
        seed: new for every prompt, so that nothing but the loaders is cached.
        cleanup: before each phase: "all" unloads all models, "queue" makes room as the queue
            needs it, "none" has no cleanup.
    """
    nodes: dict[str, Any] = {
        f"load {name}": {"class_type": "Model", "inputs": {"name": name, "layers": count}}
        for name, count in layers.items()
    }
    nodes["start"] = {"class_type": "Start", "inputs": {"seed": seed}}
    latent: list[object] = ["start", 0]
    for place, name in enumerate(phases):
        if cleanup != "none":
            widgets = {"unload_all_models": cleanup == "all", "soft_empty_cache": True}
            inputs = {**widgets, "passthrough": latent}
            nodes[f"clean {place}"] = {"class_type": "IAMCCS_VRAMCleanup", "inputs": inputs}
            latent = [f"clean {place}", 3]
        inputs = {"model": [f"load {name}", 0], "latent": latent}
        nodes[f"run {place}"] = {"class_type": "Run", "inputs": inputs}
        latent = [f"run {place}", 0]
    nodes["end"] = {"class_type": "End", "inputs": {"latent": latent}}
    return nodes


class Start:
    """A latent that is new with every seed."""

    FUNCTION, CATEGORY, RETURN_TYPES = "run", "bench", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The host's name for it."""
        return {"required": {"seed": ("INT", {})}}

    def run(self, seed: int) -> tuple[object]:
        """Its values do not matter."""
        import torch  # noqa: PLC0415

        return ({"samples": torch.full((1, 4, 8, 8), float(seed))},)


class Model:
    """A model of equal layers, in a patcher as loaders make them."""

    FUNCTION, CATEGORY, RETURN_TYPES = "run", "bench", ("MODEL",)
    place: ClassVar[Place]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The host's name for it."""
        return {"required": {"name": ("STRING", {}), "layers": ("INT", {})}}

    def run(self, name: str, layers: int) -> tuple[object]:
        """Weights have been written to, as those read from a disk."""
        import torch  # noqa: PLC0415

        edge, work_bytes = self.place.layer_edge, self.place.work_bytes
        linear = import_module("comfy.ops").disable_weight_init.Linear

        def needed(_base: object, input_shape: object) -> int:  # noqa: ARG001, the host's name
            return work_bytes

        # The name a report shows, and what the host's models tell of their work.
        model = type(name, (torch.nn.Sequential,), {"memory_required": needed})()
        weights = WEIGHTS.setdefault(name, [])
        while len(weights) < layers:
            weights.append(torch.empty((edge, edge), dtype=torch.bfloat16).fill_(0.001))
        for weight in weights[:layers]:
            layer = linear(edge, edge, bias=False, dtype=torch.bfloat16)
            layer.weight = torch.nn.Parameter(weight, requires_grad=False)
            model.append(layer)
        patcher = import_module("comfy.model_patcher").CoreModelPatcher
        made = patcher(model, load_device=self.place.device, offload_device=torch.device("cpu"))
        MADE.add(model)
        return (made,)


class Run:
    """Loads a model as samplers do, runs it, and counts what came onto the card."""

    FUNCTION, CATEGORY, RETURN_TYPES = "run", "bench", ("LATENT",)
    place: ClassVar[Place]
    host: ClassVar[Any]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The host's name for it."""
        return {"required": {"model": ("MODEL",), "latent": ("LATENT",)}}

    def run(self, model: Any, latent: object) -> tuple[object]:  # noqa: ANN401
        """One pass, so that streamed weights arrive, too."""
        import torch  # noqa: PLC0415

        before = model.loaded_size()
        work_bytes = self.place.work_bytes
        self.host.management.load_models_gpu([model], memory_required=work_bytes)
        work = self.allocate(work_bytes)
        values = torch.ones((1, self.place.layer_edge), dtype=torch.bfloat16)
        model.model(values.to(self.place.device))
        self.host.synchronize()
        del work
        LOADS.append((type(model.model).__name__, max(0, model.loaded_size() - before)))
        return (latent,)

    def allocate(self, size_bytes: int) -> object:
        """Memory that is held as long as what this gives."""
        import torch  # noqa: PLC0415

        return torch.empty(size_bytes, dtype=torch.uint8, device=self.place.device)


class End:
    """The output node."""

    FUNCTION, CATEGORY, RETURN_TYPES, OUTPUT_NODE = "run", "bench", (), True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """The host's name for it."""
        return {"required": {"latent": ("LATENT",)}}

    def run(self, latent: object) -> dict[str, object]:  # noqa: ARG002, the host's name
        """Shows nothing."""
        return {"ui": {}}


@contextmanager
def made_up_card(management: Any, device: torch.device, free_bytes: int) -> Generator[None]:  # noqa: ANN401
    """To try the bench without a GPU: ``device`` is system memory under another name, and what is
    free there is ``free_bytes`` less what the bench's models hold. Buffers are counted as for a
    GPU's streams.

    The host's list of loaded models does not do: a model is not in it while it is loaded again.
    """
    known_free, known_unload = management.get_free_memory, management.unload_all_models

    def free_memory(dev: Any = None, torch_free_too: bool = False) -> Any:  # noqa: ANN401, FBT001
        if dev != device:
            return known_free(dev, torch_free_too)
        held = sum(each.model_loaded_weight_memory for each in MADE)
        return (free_bytes - held, 0) if torch_free_too else free_bytes - held

    def unload_all() -> None:
        known_unload()
        management.free_memory(1e30, device)

    with (
        mock.patch.object(management, "get_free_memory", free_memory),
        mock.patch.object(management, "unload_all_models", unload_all),
        mock.patch.object(management, "NUM_STREAMS", GPU_STREAMS, create=True),
    ):
        yield


def card(host: Host, place: Place, free_bytes: int) -> AbstractContextManager[None]:
    """The made-up card where there is no other."""
    if place.device.type == "cuda":
        return nullcontext()
    return made_up_card(host.management, place.device, free_bytes)
