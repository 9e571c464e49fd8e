import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from _bootstrap import (
    STAMP_NAME,
    SetupFailedError,
    ensure_environment,
    python_of,
    require_python,
    run_on_stderr,
    setup_key,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"


class Recorder:
    """Stands in for running commands; making an environment leaves its interpreter."""

    def __init__(self, root):
        self.root, self.commands, self.failing = root, [], ()

    def __call__(self, command):
        self.commands.append([str(part) for part in command])
        if self.kind(command) in self.failing:
            return 1
        if self.kind(command) == "venv":
            python = python_of(self.root / ".venv")
            python.parent.mkdir(parents=True)
            python.touch()
        return 0

    @staticmethod
    def kind(command):
        return next(word for word in ("venv", "install", "-c") if word in command)

    @property
    def kinds(self):
        return [self.kind(command) for command in self.commands]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "constraints.txt").write_text("torch==2\n")
    return tmp_path


@pytest.fixture
def run(root):
    return Recorder(root)


def ensure(root, run, *extras):
    return ensure_environment(root, extras or ("standalone",), root / "constraints.txt", run=run)


def test_the_first_start_makes_and_installs(root, run, capsys):
    python = ensure(root, run)
    assert python == python_of(root / ".venv")
    assert run.kinds == ["venv", "install"]
    assert run.commands[1][-4:] == [
        "--editable", f"{root}[standalone]", "--constraint", str(root / "constraints.txt"),
    ]  # fmt: skip
    said = capsys.readouterr()
    assert said.out == ""
    assert "making" in said.err
    assert "installing" in said.err


def test_the_second_start_runs_nothing(root, run):
    ensure(root, run)
    run.commands.clear()
    ensure(root, run)
    assert run.commands == []


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("the package changed", lambda root: (root / "pyproject.toml").write_text("[other]\n")),
        ("the versions changed", lambda root: (root / "constraints.txt").write_text("torch==3\n")),
        ("the stamp is gone", lambda root: (root / ".venv" / STAMP_NAME).unlink()),
        ("the stamp is torn", lambda root: (root / ".venv" / STAMP_NAME).write_text('{"key"')),
        ("the stamp is not ours", lambda root: (root / ".venv" / STAMP_NAME).write_text("[1]")),
    ],
)
def test_it_installs_again_into_what_is_there_when(sentence, change, root, run):
    ensure(root, run)
    run.commands.clear()
    change(root)
    ensure(root, run)
    assert run.kinds == ["-c", "install"]


def test_further_extras_join_those_installed(root, run):
    ensure(root, run, "standalone")
    ensure(root, run, "test", "standalone")
    assert f"{root}[standalone,test]" in run.commands[-1]
    run.commands.clear()
    ensure(root, run, "standalone")
    assert run.commands == []


def test_a_broken_interpreter_is_replaced(root, run):
    ensure(root, run)
    (root / ".venv" / STAMP_NAME).unlink()
    run.commands.clear()
    run.failing = ("-c",)
    with pytest.raises(FileExistsError):  # the recorder's venv does not clear
        ensure(root, run)
    assert run.kinds == ["-c", "venv"]
    assert "--clear" in run.commands[1]


def test_a_folder_without_an_interpreter_is_made_anew(root, run):
    ensure(root, run)
    python_of(root / ".venv").unlink()
    python_of(root / ".venv").parent.rmdir()
    run.commands.clear()
    ensure(root, run)
    assert run.kinds == ["venv", "install"]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("venv", ("could not be made", "python3-venv", "Nothing else was changed")),
        ("install", ("pip could not install", "was kept", "-m pip install")),
    ],
)
def test_failures_say_what_happened_what_was_kept_and_what_to_do(step, words, root, run):
    run.failing = (step,)
    with pytest.raises(SetupFailedError) as caught:
        ensure(root, run)
    assert all(word in str(caught.value) for word in words)
    assert not (root / ".venv" / STAMP_NAME).exists()


def test_after_a_failure_the_next_start_tries_again(root, run):
    run.failing = ("install",)
    with pytest.raises(SetupFailedError):
        ensure(root, run)
    run.failing = ()
    ensure(root, run)
    assert json.loads((root / ".venv" / STAMP_NAME).read_text())["extras"] == ["standalone"]


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 6, 0)])
def test_an_old_python_is_refused_with_both_versions(version):
    with pytest.raises(SetupFailedError, match=re.escape(".".join(map(str, version)))) as caught:
        require_python(version)
    assert "3.10" in str(caught.value)


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 14, 1), (4, 0, 0)])
def test_newer_ones_are_taken(version):
    require_python(version)


def test_interpreters_of_both_systems(tmp_path):
    assert python_of(tmp_path, windows=False) == tmp_path / "bin" / "python"
    assert python_of(tmp_path, windows=True) == tmp_path / "Scripts" / "python.exe"


def test_the_key_depends_on_where_the_checkout_is(root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "pyproject.toml").write_bytes((root / "pyproject.toml").read_bytes())
    assert setup_key(root, None) != setup_key(other, None)


def test_a_command_that_cannot_start_is_an_exit_code(tmp_path, capfd):
    assert run_on_stderr([str(tmp_path / "nothing")]) == 127
    assert "cannot start" in capfd.readouterr().err


def test_output_of_what_it_runs_goes_to_stderr(capfd):
    assert run_on_stderr([sys.executable, "-c", "print('hello')"]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "hello" in said.err


def test_the_scripts_need_nothing_installed():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import _bootstrap, run"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(SCRIPTS)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
