import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import run as script
from _bootstrap import SetupFailedError

from vram_supervisor.nodes.host.preferences import PROTECT_VARIABLE

REPOSITORY = Path(__file__).parents[2]

# A stand-in for ComfyUI: tells where it found the pack, then does what it is asked to.
MAIN = """
import argparse, json, os, signal, sys, threading

parser = argparse.ArgumentParser()
parser.add_argument("--extra-model-paths-config", nargs="+", action="append", default=[])
parser.add_argument("--exit", type=int, default=0)
parser.add_argument("--wait", action="store_true")
options, rest = parser.parse_known_args()
packs = {}
for config in (path for group in options.extra_model_paths_config for path in group):
    for section in json.load(open(config, encoding="utf-8")).values():
        folder = section["custom_nodes"]
        packs.update({name: os.path.realpath(os.path.join(folder, name))
                      for name in os.listdir(folder)})
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
print(json.dumps({"packs": packs, "rest": rest, "cwd": os.getcwd(),
                  "configs": options.extra_model_paths_config,
                  "protect": os.environ.get("IAMCCS_PROTECT_VAE_DECODE")}), flush=True)
if options.wait:
    stopped.wait(60)
    sys.exit(7)
sys.exit(options.exit)
"""


@pytest.fixture
def comfyui(tmp_path):
    path = tmp_path / "ComfyUI with space"
    (path / "custom_nodes").mkdir(parents=True)
    (path / "main.py").write_text(textwrap.dedent(MAIN))
    return path


def start(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "run.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COMFYUI_PYTHON": sys.executable, **environment},
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "own", "passed_on"),
    [
        (["--smoke"], ["--smoke"], []),
        (["a", "--", "b", "--", "c"], ["a"], ["b", "--", "c"]),
        (["--"], [], []),
        ([], [], []),
    ],
)
def test_arguments_split_at_the_first_dashes(arguments, own, passed_on):
    assert script.split_arguments(arguments) == (own, passed_on)


def test_where_comfyui_is_found(comfyui, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "main.py").touch()
    inside = comfyui / "custom_nodes" / "pack"
    outside = tmp_path / "pack"
    named = {"COMFYUI_PATH": str(other)}
    assert script.find_comfyui(comfyui, named, outside) == comfyui
    assert script.find_comfyui(None, named, inside) == other
    assert script.find_comfyui(None, {}, inside) == comfyui
    assert script.find_comfyui(None, {"COMFYUI_PATH": ""}, outside) is None


def test_a_custom_nodes_folder_without_comfyui_is_none(tmp_path):
    assert script.find_comfyui(None, {}, tmp_path / "custom_nodes" / "pack") is None


def test_a_folder_that_is_no_comfyui_is_an_error_that_names_it(tmp_path):
    with pytest.raises(SetupFailedError, match="There is no main") as caught:
        script.find_comfyui(tmp_path, {}, tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("flag", ["--smoke", "--embedded"])
def test_the_embedded_host_is_used_when_asked_for(flag, comfyui):
    environment = {"COMFYUI_PATH": str(comfyui)}
    request = script.read_request([flag, "--port", "0"], environment, comfyui / "x")
    assert request.comfyui is None
    assert request.arguments[-2:] == ("--port", "0")


def test_unknown_arguments_and_those_after_the_dashes_are_passed_on(comfyui):
    request = script.read_request(
        ["--comfyui", str(comfyui), "--cpu", "--", "--port", "1"], {}, comfyui
    )
    assert request.comfyui == comfyui
    assert request.arguments == ("--cpu", "--port", "1")


def make(path):
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("sentence", "where", "windows"),
    [
        ("its venv", "ComfyUI with space/venv/bin/python", False),
        ("its hidden venv", "ComfyUI with space/.venv/bin/python", False),
        ("its venv on Windows", "ComfyUI with space/venv/Scripts/python.exe", True),
        ("the portable one beside it", "python_embeded/python.exe", True),
    ],
)
def test_comfyuis_interpreter(sentence, where, windows, comfyui):
    python = make(comfyui.parent / where)
    assert script.comfyui_python(comfyui, {}, windows=windows) == python
    named = {"COMFYUI_PYTHON": "/named/python"}
    assert script.comfyui_python(comfyui, named, windows=windows) == Path("/named/python")


def test_without_one_of_its_own_it_is_ours(comfyui):
    assert script.comfyui_python(comfyui, {}) == Path(sys.executable)


def test_a_pack_already_in_place_needs_nothing(comfyui, tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    script.link_folder(comfyui / "custom_nodes" / "pack", checkout)
    with script.pack_in_place(comfyui, checkout) as arguments:
        assert arguments == []
    assert (comfyui / "custom_nodes" / "pack").exists()


def test_the_link_is_removed_and_the_checkout_is_not(comfyui, tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "file").write_text("kept")
    with script.pack_in_place(comfyui, checkout) as arguments:
        config = Path(arguments[1])
        (section,) = json.loads(config.read_text()).values()
        assert (Path(section["custom_nodes"]) / script.PACK_FOLDER / "file").read_text() == "kept"
    assert not config.parent.exists()
    assert (checkout / "file").read_text() == "kept"
    assert list((comfyui / "custom_nodes").iterdir()) == []


def test_a_failure_inside_removes_the_link_too(comfyui, tmp_path):
    placing = script.pack_in_place(comfyui, tmp_path)
    folder = Path(placing.__enter__()[1]).parent
    assert placing.__exit__(KeyError, KeyError(), None) is False
    assert not folder.exists()


def test_comfyui_starts_with_the_pack_in_place_and_nothing_stays(comfyui):
    done = start("--comfyui", str(comfyui), "--", "--cpu")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["packs"] == {script.PACK_FOLDER: str(REPOSITORY.resolve())}
    assert told["rest"] == ["--cpu"]
    assert Path(told["cwd"]).samefile(comfyui)
    assert not Path(told["configs"][0][0]).parent.exists()
    assert list((comfyui / "custom_nodes").iterdir()) == []


@pytest.mark.parametrize(
    ("sentence", "flags", "variable", "told"),
    [
        ("the flag switches on", ["--protect-vae-decode"], {}, "1"),
        ("also over the variable", ["--protect-vae-decode"], {PROTECT_VARIABLE: "0"}, "1"),
        ("the variable does too", [], {PROTECT_VARIABLE: "yes"}, "yes"),
        ("off is the default", [], {}, None),
    ],
)
def test_the_protection_of_cores_decode_nodes(
    sentence, flags, variable, told, comfyui, monkeypatch
):
    monkeypatch.delenv(PROTECT_VARIABLE, raising=False)
    done = start("--comfyui", str(comfyui), *flags, **variable)
    heard = json.loads(done.stdout)
    assert heard["protect"] == told, sentence
    assert heard["rest"] == [], "ComfyUI would refuse a flag that it does not know"


def test_the_script_and_the_pack_mean_the_same_variable():
    assert script.PROTECT_VARIABLE == PROTECT_VARIABLE


def test_there_is_nothing_to_protect_without_a_comfyui(tmp_path):
    with pytest.raises(SetupFailedError, match="--protect-vae-decode is for ComfyUI"):
        script.read_request(["--embedded", "--protect-vae-decode"], {}, tmp_path)


def test_its_exit_code_is_ours(comfyui):
    assert start("--comfyui", str(comfyui), "--exit", "42").returncode == 42


@pytest.mark.skipif(os.name == "nt", reason="a console on Windows sends signals itself")
def test_signals_are_handed_on_and_the_link_is_still_removed(comfyui):
    environment = {**os.environ, "COMFYUI_PYTHON": sys.executable}
    command = [sys.executable, str(REPOSITORY / "scripts" / "run.py"), "--comfyui", str(comfyui)]
    with subprocess.Popen(
        [*command, "--wait"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        told = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 7
    assert not Path(told["configs"][0][0]).parent.exists()


def test_a_python_that_does_not_run_is_named(comfyui, tmp_path):
    missing = str(tmp_path / "no-python")
    done = start("--comfyui", str(comfyui), COMFYUI_PYTHON=missing)
    assert done.returncode == 1
    assert missing in done.stderr
    assert "COMFYUI_PYTHON" in done.stderr


def test_missing_requirements_come_with_the_command_that_helps(monkeypatch, tmp_path):
    monkeypatch.setattr(script, "MODULES", {"nothing-like-it": "nothing_like_it", "json": "json"})
    python = Path(sys.executable)
    assert script.missing_requirements(python) == ["nothing-like-it"]
    with pytest.raises(SetupFailedError) as caught:
        script.check_requirements(python, tmp_path, install=False)
    assert f"-m pip install -r {tmp_path / 'requirements.txt'}" in str(caught.value)
    assert "without --no-install" in str(caught.value)


def test_every_requirement_of_the_pack_is_checked():
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    named = {line.split(">=")[0].strip() for line in lines if line and not line.startswith("#")}
    assert named == set(script.MODULES)


def test_help_needs_no_environment():
    done = start("-h")
    assert done.returncode == 0
    assert "--comfyui" in done.stdout
