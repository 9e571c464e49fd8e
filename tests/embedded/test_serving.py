import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

pytest.importorskip("torch")

PAGE_AT = re.compile(r"the page is at (http://127\.0\.0\.1:\d+/)")


@pytest.fixture
def served(tmp_path):
    command = [sys.executable, "-m", "vram_supervisor.supervisor.embedded", "--port", "0"]
    command += ["--no-browser", "--device", "cpu", "--history", str(tmp_path / "history.sqlite")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        lines = iter(process.stderr.readline, "")
        found = next(match for line in lines if (match := PAGE_AT.search(line)))
        yield process, found[1]
        if process.poll() is None:
            process.kill()


def get_json(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM to catch on Windows")
def test_it_serves_the_page_and_the_probe_until_it_is_told_to_stop(served):
    process, url = served
    with urllib.request.urlopen(url, timeout=60) as page:
        assert "text/html" in page.headers["Content-Type"]
    probe = get_json(f"{url}iamccs/hw_probe")
    assert "cpu" in probe["telemetry"]
    assert get_json(f"{url}api/iamccs/hw_probe")["hardware"]["cuda_available"] is False
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
