"""ComfyUI's memory manager behind our questions, with a stand-in for the module."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from vram_supervisor.nodes.host.memory import HostMemory

torch = pytest.importorskip("torch")

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class LoadedModel:
    """As the host's: its patcher may be gone before the host cleans up."""

    def __init__(self, patcher, device):
        self.model, self.device = patcher, device

    def model_loaded_memory(self):
        return self.model.loaded_size()


def patcher(size):
    return SimpleNamespace(model=object(), loaded_size=lambda: size)


def host(**names):
    names = {"current_loaded_models": [], "is_oom": lambda problem: False, **names}
    return HostMemory(SimpleNamespace(**names))


def test_a_loaded_model_whose_patcher_is_gone_counts_nothing_and_breaks_nothing():
    mine = patcher(10)
    models = [LoadedModel(None, GPU), LoadedModel(patcher(30), GPU), LoadedModel(mine, GPU)]
    assert host(current_loaded_models=models).evictable_bytes(GPU, mine) == 30


def test_loading_leaves_room_and_asks_for_all_weights_only_where_the_vae_does():
    calls = []
    memory = host(load_models_gpu=lambda models, **options: calls.append((models, options)))
    memory.load("patcher", 7)
    memory.load("patcher", 8, entirely=True)
    assert calls == [
        (["patcher"], {"memory_required": 7}),
        (["patcher"], {"memory_required": 8, "force_full_load": True}),
    ]


LINUX = (
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 9 bytes."
)
CUDNN_HOST = "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"
CUDNN_ENGINES = "GET was unable to find an engine to execute this computation"
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
WINDOWS = "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."


@pytest.mark.parametrize(
    ("sentence", "problem", "oom"),
    [
        ("torch on a POSIX CPU", RuntimeError(LINUX), True),
        ("torch on a Windows CPU", RuntimeError(WINDOWS), True),
        ("Python itself", MemoryError(), True),
        ("cuDNN", RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        ("cuDNN on the host", RuntimeError(CUDNN_HOST), True),
        ("cuDNN, refused room for every kernel", RuntimeError(CUDNN_ENGINES), True),
        ("cuBLAS", RuntimeError(CUBLAS), True),
        ("the driver, late", RuntimeError("CUDA driver error: out of memory"), True),
        ("Triton", RuntimeError("Triton Error [CUDA]: out of memory"), True),
        ("any other error", RuntimeError("shapes differ"), False),
        ("the words in an error of another kind", ValueError(WINDOWS), False),
    ],
)  # fmt: skip
def test_what_counts_as_running_out_though_the_host_does_not_know_it(sentence, problem, oom):
    assert host().is_oom(problem) is oom, sentence


def test_what_torchs_cpu_allocator_really_says_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert host().is_oom(caught.value)


@pytest.mark.parametrize(
    ("sentence", "allocator", "expected", "seen"),
    [
        ("the driver's pool: live tensors were counted", "cudaMallocAsync", 60, True),
        ("torch's own pool: whole segments were", "native", 30, True),
        ("expandable segments were not", "expandable", 100, False),
    ],
)
def test_streamed_weights_are_what_the_hooks_counted_beside_torch(
    monkeypatch, sentence, allocator, expected, seen
):
    import vram_supervisor.nodes.host.device_facts as facts

    control = ModuleType("comfy_aimdo.control")
    control.devctxs, control.get_total_vram_usage = [1], lambda: 100
    aimdo, comfy = ModuleType("comfy_aimdo"), ModuleType("comfy")
    aimdo.control, comfy.memory_management = control, SimpleNamespace(aimdo_enabled=True)
    for module in (control, aimdo, comfy):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(facts, "allocator_name", lambda device: allocator)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 40)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    memory = host()
    assert memory.outside_torch_bytes("cuda:0") == expected
    assert memory.pages_leave_for_tensors(GPU) is seen
    assert memory.outside_torch_bytes("cpu") is None
    control.devctxs = [1, 2]
    assert memory.outside_torch_bytes("cuda:0") is None
    comfy.memory_management.aimdo_enabled = False
    assert memory.outside_torch_bytes("cuda:0") is None
    assert memory.pages_leave_for_tensors(GPU) is False
