"""Starts the ComfyUI that COMFYUI_PATH names, with this pack linked in, and stops it.

Nothing is written into the installation: nodes, models, outputs and user data live in a
temporary base directory.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from support.host_process import installation, python

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
START_TIMEOUT_S = 180
JOB_TIMEOUT_S = 120
PAUSE_S = 0.05
BORROWED = {"pynvml": "pynvml"}
"""Pure modules the pack needs that an untouched ComfyUI lacks, lent from these tests' Python."""


def pytest_collection_modifyitems(items):
    path = os.environ.get("COMFYUI_PATH")
    skip = pytest.mark.skip(reason="no COMFYUI_PATH")
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.host)
            if not path:
                item.add_marker(skip)


class Comfy:
    """A running ComfyUI, over HTTP."""

    def __init__(self, process, port, base, installation):
        self.process, self.port, self.base = process, port, base
        provider = installation / "comfy_execution" / "cache_provider.py"
        self.reports_jobs = provider.is_file()
        """Older hosts are polled: nodes of a few milliseconds go unseen there."""
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path, headers=None):
        """(status, JSON)"""
        return self._ask(urllib.request.Request(self.url + path, headers=headers or {}))

    def post(self, path, body):
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._ask(urllib.request.Request(self.url + path, data, headers))

    def _ask(self, request):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as answer:
            return answer.code, _json(answer.read())

    def queue(self, prompt, **extra):
        """Post a workflow in API format; returns its prompt id."""
        status, answer = self.post("/prompt", {"prompt": prompt, **extra})
        assert status == 200, answer
        return answer["prompt_id"]

    def finished(self, prompt_id):
        """Wait for a prompt's history entry."""
        return self.until(lambda: self.get(f"/history/{prompt_id}")[1].get(prompt_id))

    def run(self, prompt, **extra):
        """Queue and wait: (prompt id, entry)."""
        prompt_id = self.queue(prompt, **extra)
        return prompt_id, self.finished(prompt_id)

    def succeed(self, prompt, **extra):
        """Queue, wait, insist on success: what nodes showed, by node id."""
        _, entry = self.run(prompt, **extra)
        assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
        return {node: out["seen"][0] for node, out in entry["outputs"].items() if "seen" in out}

    def record(self, prompt_id):
        """The finished job as our history endpoint tells it."""
        path = f"/api/iamccs/supervisor/history?job_id={prompt_id}"
        return self.until(lambda: next(iter(self.get(path)[1]["jobs"]), None))

    def settings(self):
        return self.get("/host_test/settings")[1]

    def until(self, question):
        """Ask again until the answer is true-ish; the process may answer late, never wrong."""
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while time.monotonic() < deadline:
            answer = question()
            if answer:
                return answer
            assert self.process.poll() is None, "ComfyUI ended"
            time.sleep(PAUSE_S)
        pytest.fail("ComfyUI did not get there in time")

    def log(self):
        return (self.base / "comfyui.log").read_text(encoding="utf-8", errors="replace")


def _json(body):
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    make_base(base, installation(), python())
    with started(base) as running:
        yield running


@pytest.fixture
def own_server(tmp_path):
    """Starts servers on ``tmp_path``, one after the other; keywords are environment variables."""
    make_base(tmp_path, installation(), python())
    return partial(started, tmp_path)


@pytest.fixture(scope="session")
def protected_comfy(tmp_path_factory):
    """A server whose user asked for safe decodes in core's own nodes."""
    base = tmp_path_factory.mktemp("protected")
    make_base(base, installation(), python())
    with started(base, IAMCCS_PROTECT_VAE_DECODE="1") as running:
        yield running


@contextmanager
def started(base, **variables):
    """A server on a base directory that ``make_base`` made; stopped at the end."""
    port = free_port()
    with (base / "comfyui.log").open("wb") as log:
        process = subprocess.Popen(
            command(python(), installation(), base, port),
            cwd=base,
            env=environment(base, python()) | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running = Comfy(process, port, base, installation())
    try:
        wait_for_start(running)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def make_base(base, installation, python):
    for folder in (
        "custom_nodes",
        "models/vae",
        "models/vae_approx",
        "output",
        "input",
        "temp",
        "user",
    ):
        (base / folder).mkdir(parents=True)
    link(ROOT, base / "custom_nodes" / "vram-supervisor")
    link(HERE / "pack", base / "custom_nodes" / "host_test_pack")
    maker = [python, HERE / "make_vaes.py", installation, base / "models" / "vae"]
    subprocess.run(maker, cwd=base, check=True, capture_output=True)


def link(source, target):
    """A junction on Windows, where symbolic links need rights."""
    if sys.platform == "win32":
        made = ["cmd", "/c", "mklink", "/J", str(target), str(source)]
        subprocess.run(made, check=True, capture_output=True)
    else:
        target.symlink_to(source, target_is_directory=True)


def command(python, installation, base, port):
    arguments = [python, str(installation / "main.py"), "--cpu", "--port", str(port)]
    arguments += ["--base-directory", str(base), "--disable-auto-launch"]
    arguments.append("--fp32-vae")  # half precision is many times slower on most CPUs
    known = (installation / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    if "--disable-api-nodes" in known:
        arguments.append("--disable-api-nodes")
    if "--database-url" in known:
        arguments += ["--database-url", "sqlite:///:memory:"]
    return arguments


def environment(base, python):
    lent = base / "lent"
    lent.mkdir(exist_ok=True)
    for module in BORROWED:
        asked = subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True)
        if asked.returncode != 0:
            source = Path(importlib.util.find_spec(module).origin)
            (lent / source.name).write_bytes(source.read_bytes())
    ours = {name: value for name, value in os.environ.items() if not name.startswith("IAMCCS_")}
    return {**ours, "PYTHONPATH": str(lent), "PYTHONUNBUFFERED": "1"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_start(running):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if running.get("/system_stats")[0] == 200:
                assert "IMPORT FAILED" not in running.log(), running.log()[-4000:]
                return
        except OSError:
            time.sleep(PAUSE_S)
        if running.process.poll() is not None:
            break
    pytest.fail(f"ComfyUI did not start:\n{running.log()[-4000:]}")


@pytest.fixture
def salt():
    """A number that makes a node's inputs new, so that it is not served from the cache."""
    return uuid.uuid4().int % (1 << 30)
