"""Allocator and attention as torch and ComfyUI name them."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from vram_supervisor.nodes.host import device_facts  # noqa: E402
from vram_supervisor.nodes.host.device_facts import allocator_name, attention_name  # noqa: E402

GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in device_facts._SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("backend", "settings", "platform", "name"),
    [
        ("cudaMallocAsync", "", "linux", "cudaMallocAsync"),
        ("native", "", "linux", "native"),
        ("native", "expandable_segments:True", "linux", "expandable"),
        ("native", "max_split_size_mb:128, expandable_segments: True", "linux", "expandable"),
        ("native", "expandable_segments:False", "linux", "native"),
        ("native", "expandable_segments:True", "win32", "native"),
    ],
)
def test_the_allocator_of_a_cuda_device(monkeypatch, backend, settings, platform, name):
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: backend)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", settings)
    assert allocator_name(GPU) == name


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_other_devices_allocators_are_called_as_the_device(device):
    assert allocator_name(torch.device(device)) == device


class Part(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.optimized_attention = named(name)


def named(name):
    def attend():
        raise AssertionError("nobody attends")

    attend.__name__ = name
    return attend


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("pytorch_attention", "pytorch"),
        ("xformers_attention", "xformers"),
        ("normal_attention", "split"),
    ],
)
def test_attention_is_what_the_parts_were_made_with(function, name):
    assert attention_name(nn.Sequential(nn.Identity(), Part(function))) == name


def test_attention_that_a_part_imports_counts_where_none_is_bound(monkeypatch):
    source = ModuleType("imports_attention")
    source.optimized_attention = named("attention_pytorch")
    monkeypatch.setitem(sys.modules, source.__name__, source)
    part = type("Importing", (nn.Module,), {"__module__": source.__name__})
    assert attention_name(part()) == "pytorch"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ({"xformers_enabled_vae": True, "pytorch_attention_enabled_vae": True}, "xformers"),
        ({"xformers_enabled_vae": False, "pytorch_attention_enabled_vae": True}, "pytorch"),
        ({"xformers_enabled_vae": False, "pytorch_attention_enabled_vae": False}, "split"),
        ({"xformers_enabled_vae": False, "pytorch_attention_enabled": True}, "pytorch"),
    ],
)
def test_else_the_host_chooses(monkeypatch, host, name):
    management = SimpleNamespace(**{ask: lambda answer=a: answer for ask, a in host.items()})
    comfy = ModuleType("comfy")
    comfy.model_management = management
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    assert attention_name(nn.Identity()) == name


def test_without_a_host_it_is_taken_for_the_hungriest():
    assert attention_name(nn.Identity()) == "split"
