"""Another interpreter can import the pack while the environment lasts."""

import os
import subprocess
import sys
from pathlib import Path

from _host_process import ROOT, pack_environment


def test_the_pack_is_importable_and_nothing_is_left_behind():
    code = "import vram_supervisor as pack; print(pack.__path__[0])"
    with pack_environment(MARK="set") as environment:
        folder = Path(environment["PYTHONPATH"].split(os.pathsep)[0])
        command = [sys.executable, "-S", "-c", code]
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).resolve() == ROOT
        assert environment["MARK"] == "set"
    assert not folder.exists()
    assert (ROOT / "pyproject.toml").is_file()
