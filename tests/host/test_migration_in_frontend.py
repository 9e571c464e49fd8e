"""Workflows saved with the public pack, loaded by ComfyUI's real frontend in Chromium."""

import json
import shutil
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
]
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "workflows"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip

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
READY = "() => (window.app ?? window.comfyAPI?.app?.app)?.extensionManager !== undefined"


@pytest.fixture(scope="module")
def page(comfy):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page()
        page.route("**/*", lambda route: only_local(route, comfy))
        page.goto(comfy.url)
        page.wait_for_function(READY, timeout=120_000)
        page.wait_for_function(
            "() => window.LiteGraph?.registered_node_types?.IAMCCS_HwSupporter", timeout=120_000
        )
        yield page
        browser.close()


def only_local(route, comfy):
    """The frontend's calls to the outside are no part of this test."""
    if route.request.url.startswith((comfy.url, "data:", "blob:")):
        route.continue_()
    else:
        route.abort()


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
