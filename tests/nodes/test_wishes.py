"""What widgets come to on a machine, and what a prompt asks for before it runs."""

import pytest

from vram_supervisor.nodes.host.torch_settings import FP16_ACCUMULATION, RESERVE, TF32
from vram_supervisor.nodes.host.wishes import (
    Machine,
    reserve_bytes,
    resolve_switch,
    wishes_of_node,
    wishes_of_prompt,
)
from vram_supervisor.supervisor.units import GiB

ALL = frozenset({RESERVE, TF32, FP16_ACCUMULATION})
CPU = Machine("cpu", None, ALL)
AMPERE = Machine("cuda", (8, 0), ALL)
TURING = Machine("cuda", (7, 5), ALL)
ROCM = Machine("hip", None, ALL)
OLD_TORCH = Machine("cuda", (9, 0), frozenset({TF32, RESERVE}))


def profile_gb(profile):
    return {"low_vram": 1.5}.get(profile, 1.0)


@pytest.mark.parametrize(
    ("sentence", "name", "wish", "machine", "value", "effective", "warns"),
    [
        ("auto turns TF32 on where Ampere has it", TF32, "auto", AMPERE, True, True, False),
        ("auto leaves TF32 alone on Turing", TF32, "auto", TURING, None, False, False),
        ("auto leaves TF32 alone on a CPU", TF32, "auto", CPU, None, False, False),
        ("on is set on a CPU too, without effect, and says so", TF32, "on", CPU, True, False, True),
        ("on has no effect on ROCm and says so", TF32, "on", ROCM, True, False, True),
        ("off is set everywhere", TF32, "off", AMPERE, False, False, False),
        ("fp16 accumulation gains from Turing on", FP16_ACCUMULATION, "auto", TURING, True, True,
         False),
        ("a torch without the flag says so when asked", FP16_ACCUMULATION, "on", OLD_TORCH, None,
         False, True),
        ("a torch without the flag is silent on auto", FP16_ACCUMULATION, "auto", OLD_TORCH, None,
         False, False),
    ],
)  # fmt: skip
def test_a_switch_comes_out(sentence, name, wish, machine, value, effective, warns):
    switch = resolve_switch(name, wish, machine)
    assert (switch.value, switch.effective) == (value, effective), sentence
    assert (switch.warning is not None) == warns, sentence


@pytest.mark.parametrize(
    ("sentence", "inputs", "expected"),
    [
        ("the widget's figure wins over the profile's",
         {"reserved_vram_gb": 2.5, "profile": "low_vram"}, 2.5),
        ("0 takes the profile's", {"reserved_vram_gb": 0, "profile": "low_vram"}, 1.5),
        ("0 without a profile takes auto's", {"reserved_vram_gb": 0}, 1.0),
        ("switched off, nothing is reserved",
         {"reserved_vram_gb": 2, "apply_reserved_vram": False}, None),
        ("a figure not known yet reserves nothing", {}, None),
        ("a figure that is no number reserves nothing", {"reserved_vram_gb": "2"}, None),
    ],
)  # fmt: skip
def test_the_reserve_asked_for(sentence, inputs, expected):
    wanted = None if expected is None else int(expected * GiB)
    assert reserve_bytes(inputs, profile_gb) == wanted, sentence


WIDGETS = {"apply_reserved_vram": True, "reserved_vram_gb": 2, "tf32": "on",
           "fp16_accumulation": "off"}  # fmt: skip


def test_the_any_node_holds_its_switches_for_the_job_and_the_model_node_does_not():
    any_node = wishes_of_node("IAMCCS_HwSupporterAny", WIDGETS, CPU, profile_gb)
    assert any_node == {RESERVE: 2 * GiB, TF32: True, FP16_ACCUMULATION: False}
    model_node = wishes_of_node("IAMCCS_HwSupporter", WIDGETS, CPU, profile_gb)
    assert model_node == {RESERVE: 2 * GiB}


def prompt(**extra):
    return {
        "1": {"class_type": "Loader", "inputs": {}},
        "2": {"class_type": "IAMCCS_HwSupporter", "inputs": {"model": ["1", 0], **WIDGETS}},
        "3": {"class_type": "Sampler", "inputs": {"model": ["2", 0]}},
        "4": {"class_type": "Save", "inputs": {"images": ["3", 0]}},
        "5": {"class_type": "IAMCCS_HwSupporterAny", "inputs": {"input": ["1", 0], **WIDGETS}},
        **extra,
    }


@pytest.mark.parametrize(
    ("sentence", "nodes", "outputs", "expected"),
    [
        ("only nodes that lead to the outputs count", prompt(), ["4"], {"2"}),
        ("an output of its own counts", prompt(), ["4", "5"], {"2", "5"}),
        ("outputs that do not exist count for nothing", prompt(), ["99"], set()),
        ("no outputs, no wishes", prompt(), [], set()),
        ("a loop does not hang",
         prompt(**{"1": {"class_type": "Loader", "inputs": {"x": ["4", 0]}}}), ["4"], {"2"}),
        ("a link to a missing node is ignored",
         prompt(**{"1": {"class_type": "Loader", "inputs": {"x": ["77", 0]}}}), ["4"], {"2"}),
        ("broken nodes are ignored", prompt(**{"1": None}), ["4"], {"2"}),
    ],
)  # fmt: skip
def test_a_prompts_wishes(sentence, nodes, outputs, expected):
    assert wishes_of_prompt(nodes, outputs, CPU, profile_gb).keys() == expected, sentence


def test_a_reserve_fed_by_a_link_waits_for_its_node():
    linked = {**WIDGETS, "reserved_vram_gb": ["1", 0], "input": ["1", 0]}
    nodes = prompt(**{"5": {"class_type": "IAMCCS_HwSupporterAny", "inputs": linked}})
    found = wishes_of_prompt(nodes, ["5"], CPU, profile_gb)
    assert found["5"] == {TF32: True, FP16_ACCUMULATION: False}
