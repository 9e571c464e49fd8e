"""Frames on disk from the real host, beside what core's own nodes save."""

import json

import pytest
from support.host_workflows import KL, WAN, latent, link, node, show, vae

GiB = 1 << 30
VIDEO = {"channels": 16, "frames": 2, "height": 12, "width": 16}
INPUTS = {
    "prefix": "frame",
    "image_format": "png",
    "jpg_quality": 95,
    "tile": True,
    "tiling_mode": "auto",
    "tile_size": 512,
    "overlap": 64,
}


def saving(vae_name, sizes, folder, *, seed=7, samples="latent", vae_id="vae", **changes):
    """Our node into ``folder``, beside core's decode and saver."""
    inputs = {"samples": link(samples), "vae": link(vae_id), **INPUTS, **changes}
    return {
        "vae": vae(vae_name),
        "latent": latent(seed=seed, **sizes),
        "disk": node("IAMCCS_VAEDecodeToDisk", output_dir=str(folder), **inputs),
        "folder": show("disk", 0),
        "saved": show("disk", 1),
        "next": show("disk", 2),
        "report": show("disk", 3),
    }


def beside_core(prompt, folder):
    core = node("VAEDecode", samples=link("latent"), vae=link("vae"))
    save = node("SaveImage", images=link("core"), filename_prefix=f"{folder}/core")
    return {**prompt, "core": core, "save": save}


def frames_in(folder, pattern):
    np = pytest.importorskip("numpy")
    image = pytest.importorskip("PIL.Image")
    frames = []
    for path in sorted(folder.glob(pattern)):
        with image.open(path) as picture:
            frames.append(np.asarray(picture).astype(int))
    return np.stack(frames)


@pytest.fixture
def folder(comfy, request):
    return comfy.base / "output" / request.node.name.replace("[", "_").replace("]", "")


CASES = {
    "a batch of images with odd sizes": (KL, {"batch": 3, "height": 9, "width": 21}, 3),
    "a video": (WAN, VIDEO, 5),
    "two videos": (WAN, {**VIDEO, "batch": 2}, 10),
    "a video with its audio, nested": (WAN, {**VIDEO, "nested": True}, 5),
}


@pytest.mark.parametrize("case", CASES)
def test_the_frames_are_those_that_core_saves(comfy, folder, case):
    """Core cuts values off where ours are rounded: one step apart at most."""
    vae_name, sizes, frames = CASES[case]
    seen = comfy.succeed(beside_core(saving(vae_name, sizes, folder.name), folder.name))
    ours, cores = frames_in(folder, "frame_*.png"), frames_in(folder, "core_*.png")
    assert ours.shape == cores.shape == (frames, 8 * sizes["height"], 8 * sizes["width"], 3)
    assert 0 <= (ours - cores).min() <= (ours - cores).max() <= 1
    assert ours.std() > 1
    assert [seen["folder"], seen["saved"], seen["next"]] == [str(folder), frames, frames]
    applied = json.loads(seen["report"])["applied"]
    kind = "whole" if vae_name == KL else "streamed"  # clips leave as they are decoded
    assert (applied["kind"], applied["frames"], applied["frames_found"]) == (kind, frames, 0)


@pytest.mark.parametrize(("vae_name", "sizes"), [(KL, {"height": 40, "width": 40}), (WAN, VIDEO)])
def test_parts_become_the_same_frames_as_the_whole(comfy, folder, vae_name, sizes):
    whole = saving(vae_name, sizes, folder.name, prefix="whole")
    need = json.loads(comfy.succeed(whole)["report"])["prediction"]["predicted_peak_bytes"]
    parts = {"seam_debug_export": True, "seam_debug_dir": f"{folder.name}/seams"}
    tiled = saving(vae_name, sizes, folder.name, vram_budget_gb=0.7 * need / GiB, **parts)
    report = json.loads(comfy.succeed(tiled)["report"])
    assert report["plan"]["tiles"] > 1
    difference = frames_in(folder, "frame_*.png") - frames_in(folder, "whole_*.png")
    assert abs(difference).max() <= 1
    assert frames_in(folder / "seams", "frame_seams_*.png").shape[0] == 1
    assert not list(folder.glob("*.scratch"))


def test_the_same_job_is_not_decoded_again_and_a_missing_frame_comes_back(comfy, folder):
    prompt = saving(WAN, VIDEO, folder.name)
    comfy.succeed(prompt)
    first = {path: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    again = json.loads(comfy.succeed(prompt)["report"])
    assert again["applied"]["frames_found"] == 5
    assert "nothing was decoded" in " ".join(again["notes"])
    gone = folder / "frame_00002.png"
    content = gone.read_bytes()
    gone.unlink()
    report = json.loads(comfy.succeed(prompt)["report"])
    assert report["applied"]["frames_found"] == 4
    assert gone.read_bytes() == content
    del first[gone]
    assert {path: path.stat().st_mtime_ns for path in first} == first


def test_another_jobs_frames_are_cleared_and_other_files_stay(comfy, folder):
    comfy.succeed(saving(WAN, VIDEO, folder.name))
    (folder / "notes.png").write_bytes(b"mine")
    report = json.loads(
        comfy.succeed(saving(WAN, {**VIDEO, "frames": 1}, folder.name, seed=8))["report"]
    )
    assert report["applied"]["files_cleared"] == 5
    assert sorted(path.name for path in folder.glob("*.png")) == ["frame_00000.png", "notes.png"]


def test_segments_follow_each_other_by_next_start_number(comfy, folder):
    first = comfy.succeed(saving(WAN, VIDEO, folder.name, clear_existing=False))
    more = {"clear_existing": False, "start_number": first["next"]}
    second = comfy.succeed(saving(WAN, VIDEO, folder, seed=8, **more))
    assert (first["next"], second["next"]) == (5, 10)
    assert len(list(folder.glob("frame_*.png"))) == 10


def test_a_lossless_video_holds_the_frames_that_png_holds(comfy, folder):
    av = pytest.importorskip("av")
    comfy.succeed(saving(WAN, VIDEO, folder.name))
    seen = comfy.succeed(
        saving(WAN, VIDEO, folder.name, prefix="clip", image_format="lossless video")
    )
    assert seen["saved"] == 5
    with av.open(folder / "clip_00000.mkv") as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert (frames == frames_in(folder, "frame_*.png")).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"folder": "../elsewhere"}, "not inside the output folder"),
        ({"folder": "/elsewhere"}, "not inside the output folder"),
        ({"seam_debug_dir": "../elsewhere"}, "not inside the output folder"),
        ({"prefix": "../frame"}, "The prefix"),
        ({"image_format": "gif"}, "image_format"),
    ],
    ids=["a folder outside", "an absolute one", "seams outside", "a path as prefix", "gif"],
)
def test_what_cannot_be_written_is_refused_before_the_prompt_runs(comfy, folder, changes, said):
    changes = {"folder": folder.name, **changes}
    status, answer = comfy.post("/prompt", {"prompt": saving(KL, {}, **changes)})
    assert status == 400
    assert said in json.dumps(answer["node_errors"]["disk"])


def test_a_failed_decode_keeps_the_latent_and_writes_no_frame(comfy, folder):
    prompt = saving(KL, {"height": 16, "width": 16}, folder.name, vae_id="failing")
    limits = {"how": "broken", "largest_latent_pixels": 0}
    prompt["failing"] = node("HostTestFailingVae", vae=link("vae"), **limits)
    _, entry = comfy.run(prompt)
    assert entry["status"]["status_str"] == "error"
    (problem,) = [
        message["exception_message"]
        for kind, message in entry["status"]["messages"]
        if kind == "execution_error"
    ]
    assert "broken, said by the test" in problem
    assert "The latent was saved to" in problem
    assert not list(folder.glob("frame_*.png"))


def test_a_name_that_is_taken_stops_the_node_before_it_decodes(comfy, folder):
    folder.mkdir(parents=True)
    (folder / "frame_00003.png").write_bytes(b"mine")
    _, entry = comfy.run(saving(WAN, VIDEO, folder.name))
    assert entry["status"]["status_str"] == "error"
    told = json.dumps(entry["status"]["messages"])
    assert "frame_00003.png is there already" in told
    assert "The latent was saved to" in told
    assert (folder / "frame_00003.png").read_bytes() == b"mine"
