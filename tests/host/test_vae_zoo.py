"""Each layout of ``scripts/_host_vae_layouts.py`` is what the installed ComfyUI takes it for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import host_process

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from _host_vae_layouts import ZOO

DECODED = {
    "kl": [1, 64, 64, 3],
    "stage-a": [1, 32, 32, 3],
    "stage-c": [1, 64, 64, 3],
    "taesd": [1, 64, 64, 3],
    "taesd-flux2": [1, 128, 128, 3],
    "pixel": [1, 8, 8, 3],
    "cosmos": [1, 9, 64, 64, 3],
    "taehv": [1, 5, 64, 64, 3],
    "taehv-ltx2": [1, 9, 256, 256, 3],
    "taehv-h3": [1, 5, 128, 128, 3],
}
"""Those that a CPU decodes at once: pixels of an 8 x 8 latent of two frames."""

COUNTED = ("kl", "taesd", "cosmos", "stage-a")
"""Those whose real decode is counted beside the dry run."""

TOLD_WRONG = {"taehv-ltx2", "taesd-flux2"}
"""The host says other scales than its module has; the decoded shape above is the truth."""

UNEVEN = {"h3", "taehv-h3"}
"""Seventeen frames for five latent ones: 3.4 that round to 3, where the patch is 4."""


def existing():
    """Layouts whose class this host knows."""
    path = os.environ.get("COMFYUI_PATH")
    source = Path(path, "comfy", "sd.py").read_text(encoding="utf-8") if path else ""
    return [
        pytest.param(
            name,
            marks=pytest.mark.skipif(layout.class_name not in source, reason="newer than the host"),
        )
        for name, layout in ZOO.items()
    ]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    named = ",".join(DECODED), ",".join(COUNTED)
    return host_process.answers("zoo_answers.py", *named, cwd=tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize("name", existing())
def test_the_host_takes_the_layout_for_what_it_is(name, answers):
    layout, found = ZOO[name], answers["loaded"][name]
    assert "error" not in found, found["error"]
    assert found["class"] == layout.class_name
    assert found["channels"] == layout.latent_channels
    assert found["dimensions"] == (2 if layout.temporal_scale is None else 3)
    assert found["shapeless"] == []


@pytest.mark.parametrize("name", existing())
def test_the_layout_knows_its_scales(name, answers):
    if name in TOLD_WRONG:
        pytest.skip("the host tells other scales than it decodes with")
    layout, found = ZOO[name], answers["loaded"][name]
    time = 3 if name in UNEVEN else layout.temporal_scale
    assert (found["space"], found["time"]) == (layout.spatial_scale, time)


@pytest.mark.parametrize("name", [each for each in existing() if each.values[0] in DECODED])
def test_random_weights_decode_to_pixels(name, answers):
    found = answers["decoded"][name]
    assert "error" not in found, found["error"]
    assert found["shape"] == DECODED[name]
    assert found["finite"]
    assert found["spread"] > 0, "a flat picture says the weights were not drawn"


@pytest.mark.parametrize("name", [each for each in existing() if each.values[0] in COUNTED])
def test_a_dry_run_counts_what_the_real_decode_holds(name, answers):
    found = answers["counted"][name]
    assert "error" not in found, found["error"]
    assert found["dry"] == pytest.approx(found["real"], rel=0.001)
