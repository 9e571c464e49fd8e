"""The real flags of torch and a stand-in for ComfyUI's reserve, in a process of their own."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from vram_supervisor.nodes.host.settings import SettingsScope
from vram_supervisor.nodes.host.torch_settings import Reserve

pytest.importorskip("torch")

START = """
import torch
from vram_supervisor.nodes.host.settings import SettingsScope
from vram_supervisor.nodes.host.torch_settings import fp16_accumulation_flag, tf32_flag
matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
flags = {f.name: f for f in (tf32_flag(), fp16_accumulation_flag()) if f is not None}
scope = SettingsScope(flags)
def words():
    parts = (matmul, cudnn, getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None))
    return [getattr(part, "fp32_precision", None) for part in parts]
"""


def in_fresh_process(code):
    """Torch remembers which API touched the flags, so each case starts a Python of its own."""
    command = [sys.executable, "-c", START + code]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tf32_is_switched_and_put_back_to_the_word():
    in_fresh_process("""
before = (matmul.allow_tf32, cudnn.allow_tf32, words())
for wish in (True, False):
    assert scope.hold("a", {"tf32": wish}) == {}
    assert (matmul.allow_tf32, cudnn.allow_tf32) == (wish, wish)
    scope.release_all()
    assert (matmul.allow_tf32, cudnn.allow_tf32, words()) == before
""")


def test_tf32_nested_both_ways_is_put_back():
    in_fresh_process("""
before = (matmul.allow_tf32, cudnn.allow_tf32, words())
scope.hold("job", {"tf32": True})
scope.hold("run", {"tf32": False})
assert not matmul.allow_tf32 and not cudnn.allow_tf32
scope.release("run")
assert matmul.allow_tf32 and cudnn.allow_tf32
scope.release("job")
assert (matmul.allow_tf32, cudnn.allow_tf32, words()) == before
""")


def test_tf32_works_after_somebody_mixed_the_two_apis():
    in_fresh_process("""
if hasattr(matmul, "fp32_precision"):
    matmul.fp32_precision = "ieee"
    cudnn.conv.fp32_precision = "none"
    before = words()
    assert scope.hold("a", {"tf32": True}) == {}
    assert matmul.fp32_precision == "tf32" and cudnn.conv.fp32_precision == "tf32"
    scope.release_all()
    assert words() == before
""")


def test_fp16_accumulation_is_switched_and_put_back():
    in_fresh_process("""
if "fp16_accumulation" in flags:
    for before in (False, True):
        matmul.allow_fp16_accumulation = before
        scope.hold("a", {"fp16_accumulation": not before})
        assert matmul.allow_fp16_accumulation is (not before)
        scope.release_all()
        assert matmul.allow_fp16_accumulation is before
""")


def test_of_two_reserves_the_larger_holds():
    management = SimpleNamespace(EXTRA_RESERVED_VRAM=400)
    scope = SettingsScope({"reserved_vram": Reserve(management)})
    scope.hold("a", {"reserved_vram": 1000})
    scope.hold("b", {"reserved_vram": 600})
    assert management.EXTRA_RESERVED_VRAM == 1000
    scope.release_all()
    assert management.EXTRA_RESERVED_VRAM == 400
