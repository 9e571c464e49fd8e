"""What is predicted survives a restart of the server."""

import json

from support.host_workflows import KL, latent, safe_decode, show, vae

PROMPT = {
    "vae": vae(KL),
    "latent": latent(height=16, width=24),
    "safe": safe_decode(),
    "report": show("safe", 1),
}


def test_after_a_restart_the_dry_run_is_read_from_disk(own_server, tmp_path):
    predictions = []
    for _ in range(2):
        with own_server() as comfy:
            report = json.loads(comfy.succeed(PROMPT)["report"])
        predictions.append(report["prediction"])
    assert [each["dry_run"] for each in predictions] == ["run", "disk"]
    assert predictions[0]["base_bytes"] == predictions[1]["base_bytes"]
    assert (tmp_path / "user" / "vram_supervisor" / "calibration.sqlite").is_file()
