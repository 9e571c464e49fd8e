"""Jobs as our history and stream tell them, however they were posted."""

import http.client
import json

import pytest
from support.host_workflows import latent, link, node, safe_decode, vae

KL_JOB = {"height": 16, "width": 16}


def decode_job(salt):
    return {
        "vae": vae("image_kl.safetensors"),
        "latent": latent(seed=salt, **KL_JOB),
        "safe": safe_decode(),
        "save": node("PreviewImage", images=link("safe")),
    }


@pytest.mark.parametrize("who", [{}, {"client_id": "a-client-nobody-listens-to"}])
def test_a_job_is_in_the_history_with_nodes_and_peaks(comfy, salt, who):
    prompt_id, entry = comfy.run(decode_job(salt), **who)
    assert entry["status"]["status_str"] == "success"
    record = comfy.record(prompt_id)
    assert record["status"] == "success"
    types = [each["node_type"] for each in record["nodes"]]
    assert "IAMCCS_VAEDecodeTiledSafe" in types
    if comfy.reports_jobs:
        assert types.index("HostTestLatent") < types.index("IAMCCS_VAEDecodeTiledSafe")
        assert types[-1] == "PreviewImage"
    for each in record["nodes"]:
        assert each["ended_s"] >= each["started_s"]
    if not comfy.reports_jobs and not record["peaks"]:
        return  # seen too late for a sample of its own
    (cpu,) = (peak for peak in record["peaks"] if peak["device"] == "cpu")
    assert cpu["process_bytes"] > 0
    assert cpu["torch_bytes"] is None, "torch does not count system memory"


def test_a_failed_node_ends_with_its_job(comfy, salt):
    if not comfy.reports_jobs:
        pytest.skip("a host without cache providers hides jobs of a few milliseconds")
    prompt = {
        "latent": latent(**KL_JOB),
        "act": node("HostTestAct", value=link("latent"), how="fail", salt=salt),
    }
    prompt_id, _ = comfy.run(prompt)
    record = comfy.record(prompt_id)
    assert record["status"] == "error"
    (failed,) = (each for each in record["nodes"] if each["node_id"] == "act")
    assert failed["ended_s"] is not None


def test_between_jobs_nothing_is_running(comfy, salt):
    prompt_id, _ = comfy.run(decode_job(salt))
    comfy.record(prompt_id)
    assert comfy.get("/api/iamccs/hw_probe")[1]["jobs"]["current"] is None


def test_while_a_node_runs_the_probe_says_where_the_job_is(comfy, salt):
    prompt = {
        "latent": latent(**KL_JOB),
        "act": node("HostTestAct", value=link("latent"), how="wait", salt=salt),
    }
    prompt_id = comfy.queue(prompt)
    comfy.until(lambda: comfy.get("/host_test/waiting")[1])

    def located():
        telemetry = comfy.get("/api/iamccs/hw_probe")[1]["telemetry"]["cpu"]
        return telemetry["node_type"] == "HostTestAct" and telemetry

    sample = comfy.until(located)
    assert sample["job_id"] == prompt_id
    assert sample["node_id"] == "act"
    comfy.post("/interrupt", {})
    comfy.finished(prompt_id)


@pytest.mark.parametrize("path", ["/api/iamccs/hw_probe", "/iamccs/hw_probe"])
def test_the_probe_answers_a_superset_of_the_public_packs(comfy, path):
    status, answer = comfy.get(f"{path}?width=1280&height=720&frames=81&fps=16&vae=wan2.1")
    assert status == 200
    assert answer["hardware"]["cuda_available"] is False
    assert answer["hardware"]["system_ram_gb"] > 0
    assert answer["recommendations"]["hw_supporter"]["profile"]
    assert answer["recommendations"]["vae_decode"]["context"]["megapixels"] == 0.922
    assert answer["versions"]["comfyui"]
    assert answer["versions"]["vram_supervisor"]


def test_a_bad_value_is_refused_with_its_field(comfy):
    status, answer = comfy.get("/api/iamccs/hw_probe?width=abc")
    assert status == 400
    assert answer["error"]["field"] == "width"


def test_the_stream_tells_of_a_headless_job_from_start_to_end(comfy, salt):
    connection = http.client.HTTPConnection("127.0.0.1", comfy.port, timeout=60)
    connection.request("GET", "/api/iamccs/hw_probe?stream=1")
    response = connection.getresponse()
    assert response.status == 200
    assert response.getheader("Content-Type").startswith("text/event-stream")
    prompt_id = comfy.queue(decode_job(salt))
    phases, telemetry = [], 0
    for kind, data in events(response):
        telemetry += kind == "telemetry"
        if kind == "job" and data["job_id"] == prompt_id:
            phases.append((data["phase"], data.get("node_type")))
            if data["phase"] == "end":
                break
    connection.close()
    assert phases[0][0] == "start"
    assert ("node", "IAMCCS_VAEDecodeTiledSafe") in phases
    assert telemetry > 0


def events(response):
    kind = None
    while True:
        line = response.readline().decode().rstrip("\n")
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: ") and kind in ("telemetry", "job"):
            yield kind, json.loads(line.removeprefix("data: "))
