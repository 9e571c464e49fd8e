"""The torch.compile widget: when it is applied, and what the report says when it is not."""

import re
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from vram_supervisor.nodes.compiling import CompileWorld, compile_model
from vram_supervisor.nodes.host import compile_support
from vram_supervisor.nodes.report import Report


class Patcher:
    def __init__(self, *, before=False):
        self.model_options = {compile_support.COMPILED: {"mode": "other"}} if before else {}
        self.dynamic = True

    def clone(self, disable_dynamic=False):
        made = Patcher()
        made.dynamic = not disable_dynamic
        return made

    def add_wrapper_with_key(self, kind, key, wrapper):
        """As the host's."""


class OldPatcher(Patcher):
    def clone(self):
        return OldPatcher()


def put(model, backend, options):
    """As the host's function, as far as it goes."""
    model.model_options[compile_support.COMPILED] = {"backend": backend, "options": options}


def world(**changes):
    standard = {
        "kind": "cuda",
        "os_name": "Linux",
        "triton": lambda: True,
        "cpp": lambda: True,
        "support": lambda: put,
    }
    return CompileWorld(**standard | changes)


def ask(mode, model=None, **changes):
    report = Report()
    model = Patcher() if model is None else model
    return compile_model(model, mode, world(**changes), report), report, model


def how(model):
    return model.model_options[compile_support.COMPILED]["options"]


@pytest.mark.parametrize(
    ("mode", "chosen", "option"),
    [
        ("auto", "reduce-overhead", "triton.cudagraphs"),
        ("reduce-overhead", "reduce-overhead", "triton.cudagraphs"),
        ("max-autotune", "max-autotune", "max_autotune"),
        ("max-autotune-no-cudagraphs", "max-autotune-no-cudagraphs", "max_autotune"),
        ("default", "default", None),
    ],
)
def test_a_mode_is_put_on_a_clone(mode, chosen, option):
    made, report, model = ask(mode)
    assert made is not model
    assert model.model_options == {}
    assert not made.dynamic, "compiled weights are not streamed"
    assert option is None or how(made)[option] is True
    assert how(made)["guard_filter_fn"] is compile_support.guarded
    assert report.applied["torch_compile_mode"] == report.effective["torch_compile_mode"] == chosen
    assert report.warnings == []


def test_older_hosts_clone_without_a_word():
    made, _, model = ask("default", OldPatcher())
    assert isinstance(made, OldPatcher)
    assert made is not model


@pytest.mark.parametrize(("before", "effective"), [(False, "off"), (True, "as compiled before")])
def test_off_leaves_the_model(before, effective):
    made, report, model = ask("off", Patcher(before=before))
    assert made is model
    assert report.applied["torch_compile_mode"] is None
    assert report.effective["torch_compile_mode"] == effective
    assert bool(report.notes) is before


@pytest.mark.parametrize(
    ("sentence", "changes", "model", "words"),
    [
        ("a GPU without Triton", {"triton": lambda: False}, Patcher(), "needs Triton"),
        (
            "a CPU without a compiler",
            {"kind": "cpu", "cpp": lambda: False},
            Patcher(),
            "C\\+\\+ compiler",
        ),
        ("a host without support", {"support": lambda: None}, Patcher(), "has no support"),
        ("a model that takes no wrappers", {}, SimpleNamespace(model_options={}), "no wrappers"),
    ],
)
def test_what_cannot_be_compiled_runs_as_it_is(sentence, changes, model, words):
    made, report, _ = ask("auto", model, **changes)
    assert made is model, sentence
    (warning,) = report.warnings
    assert re.search(words, warning)
    assert "torch_compile_mode=auto is not applied" in warning
    assert report.effective["torch_compile_mode"] == "off"


def test_a_cpu_needs_no_triton():
    made, report, model = ask("default", kind="cpu", triton=lambda: False)
    assert made is not model
    assert report.warnings == []


def test_what_torch_refuses_runs_as_it_is():
    def refuse(model, backend, options):
        raise RuntimeError("Unexpected optimization option")

    made, report, model = ask("default", support=lambda: refuse)
    assert made is model
    assert "Unexpected optimization option" in report.warnings[0]


@pytest.mark.parametrize("streamed", [True, False])
def test_that_a_compiled_model_is_not_streamed_is_said_where_it_was(streamed):
    model = Patcher()
    model.is_dynamic = lambda: streamed
    _, report, _ = ask("default", model)
    assert any("does not stream" in note for note in report.notes) is streamed


def test_what_was_compiled_before_is_replaced_with_a_word():
    _, report, _ = ask("default", Patcher(before=True))
    assert any("replaces" in note for note in report.notes)


@pytest.mark.parametrize(
    ("sentence", "changes", "words"),
    [
        ("Windows", {"os_name": "Windows"}, "0x80000003"),
        ("offload", {"offloads": lambda model: True}, "needs more at its first run"),
    ],
)
@pytest.mark.parametrize("mode", ["auto", "max-autotune"])
def test_where_it_is_known_to_hurt_it_is_tried_with_a_warning(sentence, changes, words, mode):
    made, report, model = ask(mode, **changes)
    assert made is not model, sentence
    assert any(words in warning for warning in report.warnings)


def test_on_windows_the_advice_is_whole():
    _, report, _ = ask("auto", os_name="Windows")
    (warning,) = report.warnings
    for words in ("libtriton.pyd", "not a lack of memory", "fp16_cuda", "restart ComfyUI", "off"):
        assert words in warning


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("L['x']", True),
        ("L['transformer_options']['sigmas']", False),
        ("L['kwargs']['transformer_options']['optimized_attention_override']", True),
    ],
)
def test_a_graph_depends_on_whose_attention_runs_and_on_no_other_option(name, kept):
    assert compile_support.guarded([SimpleNamespace(name=name)]) == [kept]
