"""SageAttention's override in a real ComfyUI: real sampling, and every way its code calls it."""

from __future__ import annotations

import pytest
from support import host_process

EIGHT_BITS = 0.03
CALLS_OF_A_RUN = 2 * 2 * 2
"""Two layers, each with self- and cross-attention, in two steps; the conditions go as a batch."""


@pytest.fixture(scope="module")
def answers():
    return host_process.answers("attention_answers.py", timeout_s=600)


@pytest.fixture
def samples(answers):
    return answers["samples"]


@pytest.mark.parametrize(("sample", "run"), [("with", "run"), ("clone", "clone_run")])
def test_a_model_samples_with_the_kernel(samples, sample, run):
    assert 0 < samples[sample] < EIGHT_BITS
    counted = samples[run]
    assert counted["calls"] == CALLS_OF_A_RUN
    assert (counted["fallbacks"], counted["turned_off"]) == ({}, None)
    assert 0 < counted["largest_error"] < EIGHT_BITS


@pytest.mark.parametrize("sample", ["plain again", "disabled"])
def test_the_model_without_it_is_as_before_to_the_bit(samples, sample):
    assert samples[sample] == 0


def test_a_wrong_kernel_leaves_no_trace_in_the_picture(samples):
    assert samples["wrong kernel"] == 0
    run = samples["wrong_run"]
    assert run["fallbacks"] == {"turned off": CALLS_OF_A_RUN}
    assert "its error of 1" in run["turned_off"]


def test_every_call_has_the_hosts_shape(answers):
    assert [key for key, error in answers["calls"].items() if error is None] == []


def test_what_the_kernel_takes_is_near_and_the_rest_the_hosts_to_the_bit(answers):
    for key, error in answers["calls"].items():
        if "mask" in key or "precision" in key:
            assert error == 0, key
        else:
            assert 0 < error < EIGHT_BITS, key


def test_containers_are_taken_as_the_host_does(answers):
    if answers["containers"] is None:
        pytest.skip("this ComfyUI has no attention containers")
    assert 0 < answers["containers"]["error"] < EIGHT_BITS
    assert answers["containers"]["taken"] is True


def test_every_mode_of_the_widget_is_known(answers):
    offered, known = answers["modes"]
    assert offered == known
