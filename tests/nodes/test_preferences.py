"""What a user may want of the pack in every workflow."""

import pytest

from vram_supervisor.nodes.host.preferences import Preferences, preferences_from


@pytest.mark.parametrize("text", ["1", "true", "YES", " on "])
def test_the_variable_switches_on(text):
    read = preferences_from({"IAMCCS_PROTECT_VAE_DECODE": text})
    assert read == Preferences(protect_vae_decode=True)


@pytest.mark.parametrize("text", ["", "0", "False", "no", "off"])
def test_the_variable_switches_off(text, caplog):
    assert preferences_from({"IAMCCS_PROTECT_VAE_DECODE": text}) == Preferences()
    assert caplog.text == ""


def test_unset_it_is_off():
    assert preferences_from({}).protect_vae_decode is False


def test_neither_yes_nor_no_is_off_with_a_word(caplog):
    assert preferences_from({"IAMCCS_PROTECT_VAE_DECODE": "2"}) == Preferences()
    assert "IAMCCS_PROTECT_VAE_DECODE is '2'" in caplog.text
