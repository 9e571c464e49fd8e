"""Eviction under DynamicVRAM: the real ComfyUI and comfy-aimdo over a driver that only counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_cuda.build import build
from support.c_library import find_compiler

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from _host_process import pack_environment  # noqa: E402

PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)
HAS_AIMDO = "import comfy_aimdo.control as c; c.init('cuda'); assert c.lib is not None"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    compiler = find_compiler()
    if sys.platform != "linux" or compiler is None:
        pytest.skip("the fake driver is built by a C compiler on Linux")
    if subprocess.run([PYTHON, "-c", HAS_AIMDO], capture_output=True, check=False).returncode:
        pytest.skip("this ComfyUI has no comfy-aimdo with a library for this system")
    return build(compiler, tmp_path_factory.mktemp("fake_cuda"))


@pytest.mark.parametrize(("card_gib", "half_can_be_had"), [(12, False), (16, True)])
def test_no_page_comes_back_that_could_have_stayed(driver, card_gib, half_can_be_had):
    script = [PYTHON, HERE / "streamed_answers.py", os.environ["COMFYUI_PATH"], driver]
    with pack_environment() as environment:
        done = subprocess.run(
            [*script, str(card_gib)], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["queue"] <= 1.1 * found["least"]
    assert found["queue"] < found["none"] < found["all"]
    assert (found["queue"] <= found["all"] / 2) is half_can_be_had
