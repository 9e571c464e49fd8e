"""The families' programs against the real networks: small parts equal the whole in float32."""

from __future__ import annotations

import pytest
from support import host_process

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
    return host_process.answers("part_answers.py", ",".join(FAMILIES), timeout_s=900)


@pytest.mark.parametrize("name", FAMILIES)
def test_small_parts_equal_the_whole(answers, name):
    answer = answers[name]
    assert answer["error"] < EXACT
    assert FAMILIES[name] in {None, answer["family"]}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_knows_how_many_pixels_a_latent_makes(answers, name):
    assert answers[name]["rows"] == answers["latent rows"] * answers[name]["scale"]
