"""Eviction and reserve under DynamicVRAM: real ComfyUI and comfy-aimdo, a driver that counts."""

import subprocess
import sys

import pytest
from fake_cuda.build import build
from support.c_library import find_compiler
from support.host_process import answers, python

GIB = 1 << 30
HAS_AIMDO = "import comfy_aimdo.control as c; c.init('cuda'); assert c.lib is not None"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    compiler = find_compiler()
    if sys.platform != "linux" or compiler is None:
        pytest.skip("the fake driver is built by a C compiler on Linux")
    if subprocess.run([python(), "-c", HAS_AIMDO], capture_output=True, check=False).returncode:
        pytest.skip("this ComfyUI has no comfy-aimdo with a library for this system")
    return build(compiler, tmp_path_factory.mktemp("fake_cuda"))


@pytest.mark.parametrize(("card_gib", "half_can_be_had"), [(12, False), (16, True)])
def test_no_page_comes_back_that_could_have_stayed(driver, card_gib, half_can_be_had):
    found = answers("streamed_eviction_answers.py", driver, card_gib)
    assert found["queue"] <= 1.1 * found["least"]
    assert found["queue"] < found["none"] < found["all"]
    assert (found["queue"] <= found["all"] / 2) is half_can_be_had


def test_a_workflow_that_runs_again_with_another_seed_loads_nothing_again(driver):
    """Nothing waits, so nothing is known to be needed: the text encoder, cached, makes way."""
    found = answers("streamed_again_answers.py", driver, 12)
    assert [name for name, _ in found["first"]] == ["Text", "Model", "VAE"]
    assert [name for name, _ in found["later"]] == ["Model", "VAE"] * 3
    assert sum(loaded_bytes for _, loaded_bytes in found["later"]) == 0


def test_a_reserve_keeps_pages_out_of_what_another_program_wants(driver):
    found = answers("streamed_reserve_answers.py", driver, 12, 0, 3)
    without, reserved = found["0"], found["3"]
    assert (without["oom_step"], reserved["oom_step"]) == (None, None)
    assert without["got"] < 1 * GIB
    assert reserved["got"] == 2 * GIB
    assert reserved["held"]["dynamic_vram_headroom"] == 3 * GIB
    assert reserved["after"] == without["held"] == without["after"], "put back"
