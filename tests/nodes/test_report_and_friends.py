"""Small parts: duplicates, profiles, purge, the report's shape."""

import json
import sys
from types import SimpleNamespace

import pytest

from vram_supervisor.nodes.host import purge
from vram_supervisor.nodes.host.duplicates import duplicate_line, foreign_ids
from vram_supervisor.nodes.host.memory import HostMemory
from vram_supervisor.nodes.profiles import profile_reserve_gb
from vram_supervisor.supervisor.planning.types import Recommendation

OURS, THEIRS = object(), object()


@pytest.mark.parametrize(
    ("sentence", "mappings", "foreign"),
    [
        ("alone, nothing is foreign", {"A": OURS}, []),
        ("before registration nothing is foreign", {}, []),
        ("another class under our id is foreign", {"A": THEIRS, "B": THEIRS}, ["A"]),
    ],
)
def test_foreign_ids(sentence, mappings, foreign):
    assert foreign_ids({"A": OURS}, mappings) == foreign, sentence


@pytest.mark.parametrize(
    ("foreign", "literal_route", "says"),
    [
        ([], False, None),
        (["A"], False, "nodes A"),
        ([], True, "/api/iamccs/hw_probe"),
        (["B", "A"], True, "nodes A, B and the route"),
    ],
)
def test_one_clear_line(foreign, literal_route, says):
    line = duplicate_line(foreign, literal_route=literal_route)
    assert line is None if says is None else says in line


@pytest.mark.parametrize(("profile", "gib"), [("low_vram", 1.5), ("auto", 0.75), ("odd", 0.75)])
def test_a_profiles_reserve(profile, gib):
    advice = Recommendation("balanced", reserved_vram_gb=1.0, reserved_vram_effective_gb=0.75)
    assert profile_reserve_gb(profile, advice) == gib


class Management:
    """A memory manager of an old ComfyUI, without the newer names."""

    class OOM_EXCEPTION(Exception):
        pass

    current_loaded_models = ()

    def __init__(self):
        self.done = []

    def get_torch_device(self):
        return SimpleNamespace(type="cpu", __str__=lambda self: "cpu")

    def get_free_memory(self, device):
        return 1000.0

    def unload_all_models(self):
        self.done.append("unload")

    def soft_empty_cache(self):
        self.done.append("empty")


def test_an_old_hosts_oom_is_recognised():
    memory = HostMemory(Management())
    assert memory.is_oom(Management.OOM_EXCEPTION())
    assert not memory.is_oom(ValueError())


def test_missing_names_on_the_host_are_zero_or_nothing():
    memory = HostMemory(Management())
    assert memory.reserve_bytes() == 0
    assert memory.missing_weights_bytes(None) == 0
    assert memory.loaded_models() == 0


class Windows(Management):
    """A card of 1000 bytes with ComfyUI's reserve."""

    EXTRA_RESERVED_VRAM = 40

    def get_torch_device(self):
        return "cuda:0"

    def get_total_memory(self, device):
        return 1000


@pytest.mark.parametrize(
    ("sentence", "share", "kept"),
    [
        ("the driver fails at once", 0, 40),
        ("it would spill before the reserve is reached", 10, 100),
        ("the reserve keeps it away already", 30, 40),
    ],
)
def test_plans_keep_to_the_reserve_and_away_from_a_spill(sentence, share, kept):
    memory = HostMemory(Windows(), spill_margin=lambda total: total // share if share else 0)
    assert memory.kept_free_bytes() == kept, sentence


def loaded(patcher, device, size):
    return SimpleNamespace(model=patcher, device=device, model_loaded_memory=lambda: size)


def test_only_other_models_on_the_same_device_can_be_evicted():
    mine = SimpleNamespace(model="weights")
    clone_of_mine = SimpleNamespace(model=mine.model)
    other = SimpleNamespace(model="other weights")
    management = Management()
    management.current_loaded_models = [
        loaded(clone_of_mine, "cuda:0", 10), loaded(other, "cuda:0", 20), loaded(other, "cpu", 40)
    ]  # fmt: skip
    assert HostMemory(management).evictable_bytes("cuda:0", mine) == 20


def test_weights_still_to_load_count_against_the_budget():
    patcher = SimpleNamespace(model_size=lambda: 100, loaded_size=lambda: 30)
    assert HostMemory(Management()).missing_weights_bytes(patcher) == 70


def test_cleaning_does_what_was_asked_and_measures_around_it():
    management = Management()
    memory = HostMemory(management)
    freed = purge.measure(
        memory, lambda: purge.clean(memory, unload_all=True, empty_cache=False)
    ).as_dict()
    assert management.done == ["unload"]
    assert freed["freed_bytes"] == 0
    assert freed["rss_after_bytes"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc_trim is Linux's")
def test_trimming_says_which_call_it_made():
    _, note = purge.trim_working_set()
    assert "malloc_trim" in note


def test_trimming_where_there_is_no_call_says_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert purge.trim_working_set() == (False, "there is no such call on darwin")


def test_trimming_on_windows_without_the_library_says_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert purge.trim_working_set()[0] is False


def test_a_report_is_json_with_every_key_even_when_nothing_is_known():
    pytest.importorskip("torch")
    from vram_supervisor.nodes.report import Report

    report = json.loads(Report().as_json())
    assert report.keys() == {
        "profile", "requested", "applied", "effective", "warnings", "notes", "recommendations",
        "hardware_probe", "vae_tiling_suggestion", "hardware", "platform", "timing_ms",
    }  # fmt: skip
    assert report["profile"] is None


@pytest.mark.parametrize(
    ("set_to", "said"), [("", "not set"), ("backend:cudaMallocAsync", "backend:cudaMallocAsync")]
)
def test_a_report_tells_what_the_allocator_was_told(set_to, said, monkeypatch):
    pytest.importorskip("torch")
    from vram_supervisor.nodes.report import platform_facts

    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", set_to)
    assert platform_facts()["pytorch_cuda_alloc_conf"] == said


def test_a_report_refuses_what_json_cannot_say():
    pytest.importorskip("torch")
    from vram_supervisor.nodes.report import Report

    with pytest.raises(ValueError, match="JSON compliant"):
        Report(applied={"x": float("nan")}).as_json()
