"""The example workflows: what they hold is what the nodes of today take."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
image = pytest.importorskip("PIL.Image")

from support.face_schemas import schemas, widgets  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
LEAST_WIDTH = 1000


def load(path):
    return json.loads(path.read_text("utf-8"))


def ours(workflow):
    return [node for node in workflow["nodes"] if node["type"] in schemas()]


def fits(widget, value):
    if widget.kind == "Combo":
        return value in widget.options
    if widget.kind == "Boolean":
        return isinstance(value, bool)
    if widget.kind == "String":
        return isinstance(value, str)
    whole = widget.kind == "Float" or value == int(value)
    return not isinstance(value, bool) and whole and widget.min <= value <= widget.max


def test_there_are_examples():
    assert [path.stem for path in WORKFLOWS] == ["still_image_sdxl", "wan_video_12gb"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_value_is_one_the_widget_takes(path):
    nodes = ours(load(path))
    assert nodes
    for node in nodes:
        taken = widgets(node["type"])
        assert len(node["widgets_values"]) == len(taken), node["type"]
        for widget, value in zip(taken, node["widgets_values"], strict=True):
            assert fits(widget, value), (node["type"], widget.id, value)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_sockets_are_those_of_the_nodes(path):
    for node in ours(load(path)):
        schema = schemas()[node["type"]]
        names = {each.id for each in schema.inputs}
        assert {each["name"] for each in node["inputs"]} <= names
        assert [each["name"] for each in node["outputs"]] == [
            each.display_name for each in schema.outputs
        ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_input_that_must_be_linked_is(path):
    workflow = load(path)
    links = {link[0]: link for link in workflow["links"]}
    for node in ours(workflow):
        required = {
            each.id
            for each in schemas()[node["type"]].inputs
            if each not in widgets(node["type"]) and not getattr(each, "optional", False)
        }
        linked = {each["name"] for each in node["inputs"] if each.get("link") in links}
        assert required <= linked


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_note_says_what_to_download(path):
    workflow = load(path)
    note = next(node for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    wanted = [
        model["name"]
        for node in workflow["nodes"]
        for model in node.get("properties", {}).get("models", ())
    ]
    assert wanted
    assert all(name in note["widgets_values"][0] for name in wanted)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_there_is_a_picture_of_it(path):
    with image.open(path.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert picture.width >= LEAST_WIDTH
