"""The families' programs against the real networks: small parts equal the whole in float32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from _host_process import pack_environment  # noqa: E402

FAMILIES = {
    "kl": "image KL",
    "kl16": "image KL",
    "hunyuan": "Hunyuan video",
    "wan2.1": "Wan 2.1",
    "ltx": "LTX",
    "mochi": "Mochi",
    "cosmos": "Cosmos",
    "cogvideo": "CogVideoX",
    "taesd": None,
    "taesd-flux2": None,
}
"""Layouts that a CPU decodes in seconds, and the family each belongs to, where one is named."""
EXACT = 5e-5
"""Relative L2: the halos of long up paths leave out what weighs less."""


@pytest.fixture(scope="module")
def answers():
    host = os.environ["COMFYUI_PATH"]
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    script = [python, HERE / "part_answers.py", Path(host).resolve(), ",".join(FAMILIES)]
    with pack_environment() as environment:
        done = subprocess.run(
            script, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_small_parts_equal_the_whole(answers, name):
    answer = answers[name]
    assert answer["error"] < EXACT
    assert FAMILIES[name] in {None, answer["family"]}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_knows_how_many_pixels_a_latent_makes(answers, name):
    assert answers[name]["rows"] == answers["latent rows"] * answers[name]["scale"]
