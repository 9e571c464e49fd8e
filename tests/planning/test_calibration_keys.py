"""Keys of measurements: one text for each, another for another."""

import json
from dataclasses import replace

import pytest

from vram_supervisor.supervisor.planning.calibration import (
    CalibrationKey,
)

KEY = CalibrationKey(
    "NVIDIA X", "570.1", "2.9", "91002", "native", "a1", "bf16", "pytorch", autotune=False
)


def test_a_key_has_one_text():
    assert KEY.text == replace(KEY).text
    assert json.loads(KEY.text) == {
        "allocator": "native",
        "attention": "pytorch",
        "autotune": False,
        "cudnn": "91002",
        "driver": "570.1",
        "dtype": "bf16",
        "gpu": "NVIDIA X",
        "predictor": None,
        "torch": "2.9",
        "vae": "a1",
    }


@pytest.mark.parametrize(
    "change",
    [{"gpu": "Y"}, {"gpu": None}, {"autotune": True}, {"cudnn": "9"}, {"predictor": "2"}],
    ids=str,
)
def test_keys_that_differ_have_different_texts(change):
    assert replace(KEY, **change).text != KEY.text
