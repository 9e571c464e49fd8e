"""Which kernel a mode means on which machine."""

import sys
import types

import pytest
from support.toy_sage import FakePackages

from vram_supervisor.nodes.attention.choosing import InstalledPackages, Place, choose
from vram_supervisor.nodes.attention.kernels import AUTO, KERNELS

ONE = FakePackages({"sageattention": (1, 0, 6)}, sageattention={"sageattn": print})
NAMES = [each.function for each in KERNELS if each.module == "sageattention"]
TWO = FakePackages({"sageattention": (2, 2, 0)}, sageattention=dict.fromkeys(NAMES, print))
OLDER = FakePackages({"sageattention": (2, 1, 1)}, sageattention=dict.fromkeys(NAMES, print))
THREE = FakePackages(sageattn3={"sageattn3_blackwell": print}, **TWO.modules)
NONE = FakePackages()
BROKEN = FakePackages(sageattention="sageattention is installed but cannot be imported (DLL)")

FP16_CUDA = "sageattn_qk_int8_pv_fp16_cuda"
TRITON = "sageattn_qk_int8_pv_fp16_triton"
FP8 = "sageattn_qk_int8_pv_fp8_cuda"


def cuda(major, minor, os_name="Linux"):
    return Place("cuda", (major, minor), os_name)


def chosen(mode, place, packages):
    return choose(mode, place, KERNELS, packages)


@pytest.mark.parametrize(
    ("sentence", "mode", "place", "packages", "function"),
    [
        ("disabled is the host's", "disabled", cuda(9, 0), TWO, None),
        ("nothing installed, nothing chosen", "auto", cuda(8, 9), NONE, None),
        ("a package that cannot be imported", "auto", cuda(8, 9), BROKEN, None),
        ("no GPU", "auto", Place("cpu", None, "Linux"), TWO, None),
        ("AMD: auto does not", "auto", Place("hip", None, "Linux"), ONE, None),
        ("AMD: a wish for 1.0.6 does", TRITON, Place("hip", None, "Linux"), ONE, "sageattn"),
        ("AMD: CUDA kernels do not", FP16_CUDA, Place("hip", None, "Linux"), TWO, None),
        ("Turing has none", "auto", cuda(7, 5), TWO, None),
        ("Turing has none on a wish either", TRITON, cuda(7, 5), ONE, None),
        ("A100", "auto", cuda(8, 0), TWO, FP16_CUDA),
        ("A100 with 1.0.6", "auto", cuda(8, 0), ONE, "sageattn"),
        ("RTX 30", "auto", cuda(8, 6), TWO, TRITON),
        ("RTX 30 on Windows: not Triton", "auto", cuda(8, 6, "Windows"), TWO, FP16_CUDA),
        ("Windows with 1.0.6: Triton is all there is", "auto", cuda(8, 9, "Windows"), ONE, None),
        ("a wish for Triton on Windows is heeded", TRITON, cuda(8, 9, "Windows"), ONE, "sageattn"),
        ("RTX 40", "auto", cuda(8, 9), TWO, FP8),
        ("H100 and H200 have a function of their own", "auto", cuda(9, 0), TWO, f"{FP8}_sm90"),
        ("H200 with 1.0.6", "auto", cuda(9, 0), ONE, "sageattn"),
        ("RTX 50", "auto", cuda(12, 0), TWO, FP8),
        ("RTX 50 with 1.0.6: Triton is left alone", "auto", cuda(12, 0), ONE, None),
        ("auto never picks FP4", "auto", cuda(12, 0), THREE, FP8),
        ("FP4 on a wish", "sageattn3", cuda(12, 0), THREE, "sageattn3_blackwell"),
        ("FP4 needs Blackwell", "sageattn3", cuda(9, 0), THREE, None),
        ("FP4 needs its package", "sageattn3", cuda(12, 0), TWO, None),
        ("a generation nobody named", "auto", cuda(13, 0), TWO, None),
        ("fp8 needs Ada", FP8, cuda(8, 6), TWO, None),
        ("CUDA kernels are not in 1.0.6", FP16_CUDA, cuda(8, 9), ONE, None),
        ("the faster accumulator needs 2.2", f"{FP8}++", cuda(8, 9), OLDER, None),
        ("with 2.2 it is there", f"{FP8}++", cuda(8, 9), TWO, FP8),
        ("an older 2 falls to the slower accumulator", "auto", cuda(8, 9), OLDER, FP8),
        ("a word of another version", "sageattn9", cuda(8, 9), TWO, None),
    ],
)
def test_the_function(sentence, mode, place, packages, function):
    choice = chosen(mode, place, packages)
    found = None if choice.kernel is None else choice.kernel.function
    assert found == function, sentence
    assert (choice.why is None) == (function is not None or mode == "disabled"), sentence


@pytest.mark.parametrize(
    ("mode", "place", "packages", "says"),
    [
        ("auto", cuda(8, 9), NONE, "sageattention is not installed"),
        ("auto", cuda(8, 9), BROKEN, "cannot be imported (DLL)"),
        ("auto", cuda(13, 0), TWO, "no kernel for CUDA capability 13.0"),
        ("auto", Place("cpu", None, "Linux"), TWO, "jobs run on cpu"),
        ("auto", cuda(8, 9, "Windows"), ONE, "which auto leaves alone on Windows"),
        (FP8, cuda(8, 6), TWO, "needs CUDA capability 8.9 or newer, this GPU has 8.6"),
        (FP16_CUDA, cuda(8, 9), ONE, "has no sageattn_qk_int8_pv_fp16_cuda (it is in version 2"),
        (f"{FP8}++", cuda(8, 9), OLDER, "needs sageattention 2.2 or newer, 2.1.1 is installed"),
        ("sageattn3", cuda(9, 0), THREE, "capability 10.0 or 12.0 or 12.1, this GPU has 9.0"),
        (FP8, Place("cuda", None, "Linux"), TWO, "capability is unknown"),
        ("sageattn9", cuda(8, 9), TWO, "sageattn9 is not known"),
    ],
)
def test_what_is_missing_is_said(mode, place, packages, says):
    assert says in chosen(mode, place, packages).why


@pytest.mark.parametrize(
    ("sentence", "mode", "place", "options"),
    [
        ("the accumulator", FP16_CUDA, cuda(8, 6), {"pv_accum_dtype": "fp32"}),
        (
            "no quantisation by Triton on Windows",
            FP16_CUDA,
            cuda(8, 6, "Windows"),
            {"pv_accum_dtype": "fp32", "qk_quant_gran": "per_warp"},
        ),
        (
            "on Blackwell per warp, as SageAttention's own choice",
            f"{FP8}++",
            cuda(12, 0),
            {"pv_accum_dtype": "fp32+fp16", "qk_quant_gran": "per_warp"},
        ),
        ("FP4's means", "sageattn3_per_block_mean", cuda(12, 0), {"per_block_mean": True}),
    ],
)
def test_the_options_of_its_calls(sentence, mode, place, options):
    packages = FakePackages(sageattn3={"sageattn3_blackwell": print}, **TWO.modules)
    assert chosen(mode, place, packages).options == options, sentence


@pytest.mark.parametrize(
    ("mode", "os_name", "warned"),
    [
        (TRITON, "Windows", True),
        (TRITON, "Linux", False),
        (FP16_CUDA, "Windows", False),
        ("sageattn3_per_block_mean", "Windows", True),
        ("sageattn3", "Windows", False),
    ],
)
def test_triton_on_windows_comes_with_a_warning(mode, os_name, warned):
    warning = chosen(mode, cuda(12, 0, os_name), THREE).warning
    assert ("libtriton.pyd" in warning and "restart ComfyUI" in warning) if warned else not warning


@pytest.mark.parametrize("capability", sorted(AUTO))
@pytest.mark.parametrize("packages", [ONE, TWO, OLDER, THREE])
def test_auto_never_compiles_with_triton_on_windows(capability, packages):
    choice = chosen("auto", Place("cuda", capability, "Windows"), packages)
    if choice.kernel is None:
        return
    assert not choice.kernel.triton
    assert not choice.kernel.triton_quantises or choice.options["qk_quant_gran"] == "per_warp"


def test_every_mode_of_the_face_is_in_the_table():
    assert {each.mode for each in KERNELS} == {
        FP16_CUDA, TRITON, FP8, f"{FP8}++", "sageattn3", "sageattn3_per_block_mean",
    }  # fmt: skip
    assert {mode for modes in AUTO.values() for mode in modes} < {each.mode for each in KERNELS}


class TestInstalledPackages:
    def test_what_is_missing(self):
        assert InstalledPackages().problem("no_such_package") == "no_such_package is not installed"

    def test_what_fails_in_its_own_way(self, tmp_path, monkeypatch):
        (tmp_path / "fails_in_its_own_way.py").write_text("raise OSError('a DLL is missing')")
        monkeypatch.syspath_prepend(tmp_path)
        assert "(a DLL is missing)" in InstalledPackages().problem("fails_in_its_own_way")

    def test_what_is_there(self, monkeypatch):
        module = types.ModuleType("there")
        module.sageattn = print
        monkeypatch.setitem(sys.modules, "there", module)
        packages = InstalledPackages()
        assert packages.problem("there") is None
        assert packages.function("there", "sageattn") is print
        assert packages.function("there", "sageattn_qk_int8_pv_fp16_cuda") is None

    @pytest.mark.parametrize(
        ("text", "numbers"),
        [("1.0.6", (1, 0, 6)), ("2.2.0+cu128torch2.7.1.post3", (2, 2, 0)), ("dev", None)],
    )
    def test_a_version_is_its_leading_numbers(self, text, numbers, monkeypatch):
        monkeypatch.setattr("importlib.metadata.version", lambda _name: text)
        assert InstalledPackages().version("sageattention") == numbers

    def test_no_version_where_nothing_says_it(self):
        assert InstalledPackages().version("no_such_package") is None
