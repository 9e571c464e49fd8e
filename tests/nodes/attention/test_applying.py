"""What HW Supporter makes of its widget: the model, and what the report says."""

import copy
import sys
import types

import pytest
from support.toy_sage import ON_CPU, FakePackages, host, sageattn

torch = pytest.importorskip("torch")

from vram_supervisor.nodes.attention.applying import KEY, World, apply_attention  # noqa: E402
from vram_supervisor.nodes.attention.override import carried_by  # noqa: E402
from vram_supervisor.nodes.attention.usage import RecentRuns, Run  # noqa: E402
from vram_supervisor.nodes.host.wishes import Machine  # noqa: E402
from vram_supervisor.nodes.report import Report  # noqa: E402

CPU = Machine("cpu", None, frozenset())
TRITON = "sageattn_qk_int8_pv_fp16_triton"
NAME = "optimized_attention_override"


class Callbacks:
    ON_PRE_RUN = "on_pre_run"
    ON_CLEANUP = "on_cleanup"


@pytest.fixture(autouse=True)
def comfy(monkeypatch):
    """The parts of ComfyUI that are asked for; answers the attention module."""
    attention = types.SimpleNamespace(wrap_attn=lambda function: function)
    for name in ("comfy", "comfy.ldm"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    extension = types.SimpleNamespace(CallbacksMP=Callbacks)
    monkeypatch.setitem(sys.modules, "comfy.patcher_extension", extension)
    modules = types.SimpleNamespace(attention=attention)
    monkeypatch.setitem(sys.modules, "comfy.ldm.modules", modules)
    return attention


class Patcher:
    """A model as far as it is touched: options, callbacks, clones."""

    load_device = torch.device("cpu")

    def __init__(self):
        self.model_options = {"transformer_options": {}}
        self.callbacks = {}

    def clone(self):
        clone = Patcher()
        clone.model_options = copy.deepcopy(self.model_options)
        clone.callbacks = {
            moment: {key: list(found) for key, found in keyed.items()}
            for moment, keyed in self.callbacks.items()
        }
        return clone

    def add_callback_with_key(self, moment, key, callback):
        self.callbacks.setdefault(moment, {}).setdefault(key, []).append(callback)

    def remove_callbacks_with_key(self, moment, key):
        self.callbacks.get(moment, {}).pop(key, None)

    def override(self):
        return self.model_options["transformer_options"].get(NAME)

    def sample(self, calls=1, **more):
        """What a sampling run does: callbacks around attention calls."""
        for callback in self.callbacks.get("on_pre_run", {}).get(KEY, []):
            callback(self)
        override = self.override() or (lambda function, *args, **more: function(*args, **more))
        q = torch.randn(1, 2, 256, 64, generator=torch.Generator().manual_seed(1))
        outs = [override(host, q, q, q, 2, skip_reshape=True, **more) for _ in range(calls)]
        for callback in self.callbacks.get("on_cleanup", {}).get(KEY, []):
            callback(self)
        return outs


def around(function=sageattn, **changes):
    found = {"packages": FakePackages(sageattention={"sageattn": function}), "kernels": (ON_CPU,)}
    return World(os_name="Linux", recent=RecentRuns(), **{**found, **changes})


def applied(model, mode=TRITON, world=None, machine=CPU, **widgets):
    report = Report()
    asked = {"sage_attention": mode, **widgets}
    return apply_attention(model, asked, machine, report, world or around()), report


def theirs(function, *args, **more):
    """Another pack's override."""
    return function(*args, **more) + 1


def test_a_clone_carries_the_kernel_and_the_model_stays_as_it_was():
    model = Patcher()
    bound, report = applied(model)
    assert bound is not model
    assert model.override() is None
    assert not model.callbacks
    assert carried_by(bound.override()) is not None
    assert report.applied["sage_attention"] == TRITON
    assert report.effective["sage_attention"] == "sageattention.sageattn"
    assert (report.warnings, report.notes) == ([], [])


def test_disabled_leaves_everything():
    model = Patcher()
    bound, report = applied(model, "disabled")
    assert bound is model
    assert report.applied["sage_attention"] is None
    assert report.effective["sage_attention"] == "host's attention"
    assert (report.warnings, report.notes) == ([], [])


@pytest.mark.parametrize(
    ("sentence", "mode", "says", "place"),
    [
        ("a wish that fails is a warning", TRITON, "is not installed", "warnings"),
        ("auto has nothing to miss", "auto", "jobs run on cpu", "notes"),
    ],
)
def test_what_is_not_available_is_said(sentence, mode, says, place):
    model = Patcher()
    bound, report = applied(model, mode, around(packages=FakePackages()))
    assert bound is model
    (line,) = getattr(report, place)
    assert says in line, sentence
    assert "the host's attention stays" in line
    assert len(report.warnings) + len(report.notes) == 1


def test_a_host_without_overrides(comfy):
    del comfy.wrap_attn
    model = Patcher()
    bound, report = applied(model)
    assert bound is model
    assert "lets no model override its attention" in report.warnings[0]


def test_an_object_that_is_no_patcher():
    model = object()
    bound, report = applied(model)
    assert bound is model
    assert "takes neither options nor callbacks" in report.warnings[0]


def test_the_counts_of_a_run_are_in_the_log_and_in_the_next_report(caplog):
    world = around()
    bound, report = applied(Patcher(), world=world)
    assert report.effective["sage_attention_last_run"] is None
    caplog.set_level("INFO")
    bound.sample(3)
    _, report = applied(bound, world=world)
    last = report.effective["sage_attention_last_run"]
    assert (last["calls"], last["fallbacks"], last["turned_off"]) == (3, {}, None)
    assert 0 < last["largest_error"] < 0.03
    assert report.notes[0].startswith(f"Last sampling run: {TRITON} computed 3 of 3")
    assert any("computed 3 of 3 attention calls" in line for line in caplog.messages)


def test_fallbacks_are_counted_by_reason_run_by_run():
    world = around()
    bound, _ = applied(Patcher(), world=world)
    bound.sample(2, mask=torch.zeros(256, 256))
    assert world.recent.newest().fallbacks == {"mask": 2}
    bound.sample(1)
    run = world.recent.newest()
    assert run == Run(TRITON, 1, {}, None, run.largest_error)


def test_a_turned_off_kernel_is_said_in_the_next_report():
    world = around(lambda q, k, v, **_options: torch.zeros_like(q))
    bound, _ = applied(Patcher(), world=world)
    bound.sample()
    _, report = applied(Patcher(), world=world)
    assert "turned off: its error of 1" in report.notes[0]
    assert "its error of 1" in report.effective["sage_attention_last_run"]["turned_off"]


def test_clones_of_the_clone_keep_it():
    world = around()
    bound, _ = applied(Patcher(), world=world)
    bound.clone().sample(2)
    assert world.recent.newest().calls == 2


class TestTwoInARow:
    def test_the_later_replaces_the_earlier(self):
        first, _ = applied(Patcher())
        second, report = applied(first)
        assert carried_by(second.override()).before is None
        assert len(second.callbacks["on_cleanup"][KEY]) == 1
        assert report.warnings == []
        assert carried_by(first.override()) is not carried_by(second.override())

    @pytest.mark.parametrize("mode", ["disabled", "auto"])
    def test_a_later_one_that_wants_none_takes_it_off(self, mode):
        first, _ = applied(Patcher())
        second, _ = applied(first, mode)
        assert second.override() is None
        assert not second.callbacks["on_cleanup"]
        assert carried_by(first.override()) is not None, "the earlier model keeps its own"


class TestBesideAnotherPack:
    def model(self):
        model = Patcher()
        model.model_options["transformer_options"][NAME] = theirs
        return model

    def test_a_wish_comes_first_and_theirs_computes_the_rest(self):
        bound, report = applied(self.model())
        assert "another pack's attention override" in report.warnings[0]
        assert carried_by(bound.override()).before is theirs
        plain = Patcher().sample(mask=torch.zeros(256, 256))
        (out,) = bound.sample(mask=torch.zeros(256, 256))
        assert torch.equal(out, plain[0] + 1)

    def test_auto_leaves_theirs(self):
        model = self.model()
        on_gpu = Machine("cuda", (8, 9), frozenset())
        kernels = (ON_CPU.__class__(TRITON, "sageattention", "sageattn"),)
        bound, report = applied(model, "auto", around(kernels=kernels), on_gpu)
        assert bound is model
        assert "auto leaves as it is" in report.notes[0]

    def test_disabled_leaves_theirs(self):
        bound, report = applied(self.model(), "disabled")
        assert bound.override() is theirs
        assert report.warnings == []

    def test_when_ours_goes_theirs_is_back(self):
        first, _ = applied(self.model())
        second, _ = applied(first, "disabled")
        assert second.override() is theirs


def test_auto_races_and_a_wish_does_not():
    on_gpu = Machine("cuda", (8, 9), frozenset())
    kernels = (ON_CPU.__class__(TRITON, "sageattention", "sageattn", device_type="cpu"),)
    for mode, races in (("auto", True), (TRITON, False)):
        bound, _ = applied(Patcher(), mode, around(kernels=kernels), on_gpu)
        assert carried_by(bound.override())._races is races


def test_a_kernel_that_may_be_compiled_is_rehearsed_before_the_run():
    zeros = around(lambda q, k, v, **_options: torch.zeros_like(q))
    bound, _ = applied(Patcher(), world=zeros, allow_sageattention_torch_compile=True)
    bound.sample()
    assert zeros.recent.newest().fallbacks == {"turned off": 1}
    careful = around(lambda q, k, v, **_options: torch.zeros_like(q))
    bound, _ = applied(Patcher(), world=careful)
    assert carried_by(bound.override())._rehearsed is False


def test_triton_on_windows_is_warned_of():
    on_gpu = Machine("cuda", (8, 9), frozenset())
    kernels = (ON_CPU.__class__(TRITON, "sageattention", "sageattn", triton=True),)
    windows = World(
        FakePackages(sageattention={"sageattn": sageattn}), kernels, "Windows", RecentRuns()
    )
    _, report = applied(Patcher(), world=windows, machine=on_gpu)
    assert "libtriton.pyd" in report.warnings[0]
