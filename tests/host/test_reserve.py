"""Automatic reserves in a real ComfyUI: held from the job's start, explained, and put back."""

from __future__ import annotations

import json
import subprocess

import pytest
from support import host_process
from support.host_workflows import latent, link, node, show, supporter_any

GiB = 1 << 30
AIMDO = """
import ctypes, json
from types import SimpleNamespace
import comfy_aimdo.control as control
from vram_supervisor.nodes.host import headroom
from vram_supervisor.nodes.host.headroom import HEADROOM
from vram_supervisor.nodes.host.settings import SettingsScope
control.init(nvml_pressure=True)
args = SimpleNamespace(reserve_vram=None, disable_nvml_pressure=False)
found = headroom.headroom_setting(control, headroom.started_with(args))
scope = SettingsScope(headroom.settings_of(found))
own = lambda: ctypes.c_int64.in_dll(control.lib, "simple_vram_headroom").value
seen = [own(), found.read()]
scope.hold("job", {HEADROOM: 3 << 30}); seen += [own(), found.read()]
scope.revise("job", {HEADROOM: 5 << 30}); seen += [own()]
scope.release_all(); seen += [own()]
print(json.dumps(seen))
"""


def job(salt, **changes):
    return {
        "latent": latent(height=4, width=4),
        "any": supporter_any(link("latent"), **changes),
        "look": node("HostTestSettingsNow", after=link("any"), salt=salt),
        "report": show("any", 1),
    }


def outcome(comfy, prompt):
    """What a job's settings were, and the supporter's report."""
    before = comfy.settings()
    seen = comfy.succeed(prompt)
    comfy.until(lambda: comfy.settings() == before)
    return before["reserve_bytes"], seen["look"]["reserve_bytes"], json.loads(seen["report"])


def test_adaptive_holds_at_least_the_hosts_own_and_says_why(comfy, salt):
    before, held, report = outcome(comfy, job(salt, reserved_vram_mode="adaptive"))
    assert held >= before
    assert any(note.startswith("reserve: adaptive: ") for note in report["notes"])
    assert report["effective"]["reserved_vram_gb"] >= round(before / GiB, 2)


def test_the_maximum_holds_too(comfy, salt):
    widgets = {"reserved_vram_mode": "adaptive", "reserved_vram_auto_max_gb": 0.5}
    _, held, report = outcome(comfy, job(salt, **widgets))
    assert held <= GiB // 2
    assert report["applied"]["reserved_vram_gb"] <= 0.5


def test_used_plus_counts_what_other_programs_hold(comfy, salt):
    widgets = {"reserved_vram_mode": "auto_used_plus", "reserved_vram_auto_headroom_gb": 2.0}
    before, held, report = outcome(comfy, job(salt, **widgets))
    assert held > before
    assert held >= 2 * GiB
    assert any("own models twice" in note for note in report["notes"])


@pytest.mark.parametrize("how", ["fail", "wait"])
@pytest.mark.parametrize("mode", ["adaptive", "auto_used_plus"])
def test_a_job_that_fails_or_is_interrupted_leaves_nothing(comfy, salt, mode, how):
    before = comfy.settings()
    prompt = job(salt, reserved_vram_mode=mode)
    prompt["act"] = node("HostTestAct", value=link("any"), how=how, salt=salt)
    prompt_id = comfy.queue(prompt)
    if how == "wait":
        comfy.until(lambda: comfy.get("/host_test/waiting")[1])
        comfy.post("/interrupt", {})
    assert comfy.finished(prompt_id)["status"]["status_str"] == "error"
    comfy.until(lambda: comfy.settings() == before)


def test_the_installed_comfy_aimdo_takes_a_headroom_and_gets_it_back():
    check = "import comfy_aimdo.control as c; c.init(); assert c.lib is not None"
    has = [host_process.python(), "-c", check]
    if subprocess.run(has, capture_output=True, check=False).returncode:
        pytest.skip("no comfy-aimdo, or one without a library for this system")
    first, read, held, read_held, revised, after = host_process.answers_of("-c", AIMDO)
    assert first == read == after
    assert held == read_held == 3 * GiB
    assert revised == 5 * GiB
