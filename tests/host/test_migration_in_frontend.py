"""Workflows saved with the public pack, loaded by ComfyUI's real frontend in Chromium."""

import json
from pathlib import Path

import pytest
from support.comfy_frontend import CHROMIUM, opened

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
]
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "workflows"

READ_WIDGETS = """
async (workflow) => {
  const app = window.app ?? window.comfyAPI.app.app;
  await app.loadGraphData(workflow);
  const root = app.rootGraph ?? app.graph;
  const graphs = [root, ...(root.subgraphs?.values() ?? [])];
  const nodes = graphs.flatMap((graph) => graph.nodes).filter((node) => node.widgets);
  const read = (node) => Object.fromEntries(node.widgets.map((w) => [w.name, w.value]));
  return Object.fromEntries(nodes.map((node) => [String(node.id), read(node)]));
}
"""


@pytest.fixture(scope="module")
def page(comfy):
    pytest.importorskip("playwright.sync_api")
    with opened(comfy.url) as page:
        yield page


def saved(name):
    return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))


KNOWN = sorted(path.stem for path in FIXTURES.glob("*.json") if path.stem != "unknown_layout")


@pytest.mark.parametrize("name", KNOWN)
def test_every_value_lands_in_the_widget_it_was_saved_for(page, name):
    workflow = saved(name)
    widgets = page.evaluate(READ_WIDGETS, workflow)
    for path, expected in workflow["extra"]["expected"].items():
        found = widgets[path.rpartition(":")[2]]
        assert {widget: found[widget] for widget in expected} == expected


def test_an_unknown_layout_is_named_in_the_console(page):
    with page.expect_console_message(lambda message: "VRAM supervisor" in message.text) as seen:
        page.evaluate(READ_WIDGETS, saved("unknown_layout"))
    assert "Node 1 (IAMCCS_VAEDecodeTiledSafe)" in seen.value.text


def test_a_saved_workflow_loads_the_same_again(page):
    first = page.evaluate(READ_WIDGETS, saved("hw_supporter_12_with_buttons"))
    serialised = page.evaluate("() => (window.app ?? window.comfyAPI.app.app).graph.serialize()")
    assert page.evaluate(READ_WIDGETS, serialised) == first
