"""What the registry, ComfyUI-Manager and ComfyUI itself read from the repository."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirement_lines(path):
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return sorted(line for line in lines if line)


def test_manager_and_pip_install_the_same(project):
    assert requirement_lines(ROOT / "requirements.txt") == sorted(
        project["project"]["dependencies"]
    )


def test_torch_is_left_to_the_host_and_the_deprecated_nvml_package_is_not_used(project):
    names = {re.split(r"[<>=\[ ]", line)[0] for line in project["project"]["dependencies"]}
    assert "nvidia-ml-py" in names
    assert not names & {"torch", "pynvml", "sageattention"}
    assert "sageattention" in project["project"]["optional-dependencies"]["sage"][0]


def test_the_registry_finds_what_it_needs(project):
    comfy = project["tool"]["comfy"]
    assert comfy["PublisherId"]
    assert comfy["DisplayName"]
    assert "comfyui" not in project["project"]["name"].lower()
    assert "web" not in comfy, "beside WEB_DIRECTORY it would load the scripts twice"


def test_every_package_folder_is_installed(project):
    folders = {
        ".".join(("vram_supervisor", *init.parent.relative_to(ROOT).parts))
        for room in ("supervisor", "nodes")
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert folders | {"vram_supervisor"} == set(project["tool"]["setuptools"]["packages"])


def test_the_entry_file_imports_nothing_of_the_pack_at_module_level():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    relative = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative


def test_no_eval_exec_or_pip_at_run_time():
    for path in [*(ROOT / "supervisor").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"eval", "exec"}, path


def test_importing_the_supervisor_starts_nothing():
    import subprocess

    code = (
        "import threading, sys; import vram_supervisor.supervisor.service; "
        "assert threading.active_count() == 1, threading.enumerate(); "
        "assert 'torch' not in sys.modules, 'torch is imported by the first user, not by us'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
