"""ComfyUI's real frontend in Debian's Chromium, and its editor as a user handles it."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, nullcontext

CHROMIUM = os.environ.get("CHROMIUM_PATH") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
"""They work in a container without a display or a network."""
READY = "() => (window.app ?? window.comfyAPI?.app?.app)?.extensionManager !== undefined"
REGISTERED = "() => window.LiteGraph?.registered_node_types?.IAMCCS_HwSupporter"
PATIENCE_MS = 120_000
QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.ShowMissingNodesWarning": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
}
"""Else a first visit is greeted by dialogues over everything."""
VUE = "Comfy.VueNodes.Enabled"
OUR_FILES = "/extensions/vram_supervisor/"

_ADD = """
async ([type, values]) => {
  const app = window.app ?? window.comfyAPI.app.app;
  const node = LiteGraph.createNode(type);
  node.pos = [300 + 420 * app.graph.nodes.length, 150];
  app.graph.add(node);
  app.canvas.ds.offset = [0, 0];
  app.canvas.ds.scale = 1;
  app.canvas.setDirty(true, true);
  for (const widget of node.widgets ?? []) {
    if (widget.name in values) widget.value = values[widget.name];
  }
  return String(node.id);
}
"""
_CLEAR = "() => { (window.app ?? window.comfyAPI.app.app).graph.clear(); }"
_NODES = """
() => (window.app ?? window.comfyAPI.app.app).graph.serialize().nodes.map(
  (node) => ({id: String(node.id), type: node.type, values: node.widgets_values,
              kept: node.properties?.vram_supervisor ?? null}))
"""
_LINK = """
([from, slot, to, input]) => {
  const graph = (window.app ?? window.comfyAPI.app.app).graph;
  graph.getNodeById(from).connect(slot, graph.getNodeById(to), input);
}
"""
_RUN = "(id) => (window.app ?? window.comfyAPI.app.app).extensionManager.command.execute(id)"
_SET = """
([id, value]) =>
  (window.app ?? window.comfyAPI.app.app).extensionManager.setting.set(id, value)
"""
_WIDGET = """
([id, name]) => {
  const graph = (window.app ?? window.comfyAPI.app.app).graph;
  return graph.getNodeById(id)?.widgets?.find((widget) => widget.name === name)?.value;
}
"""
_CHECK_STATE = """
() => (window.app ?? window.comfyAPI.app.app).extensionManager.workflow.activeWorkflow
  ?.changeTracker?.checkState?.()
"""
_NO_CLIPBOARD = """
() => Object.defineProperty(navigator, "clipboard", {value: undefined, configurable: true})
"""


class Editor:
    """A page with the frontend."""

    def __init__(self, page, name=None, at_start=()):
        self.page, self.name = page, name
        self.problems = []
        """What failed in the page."""
        self.at_start = list(at_start)
        """What failed in this pack's files before the page was handed over."""
        note_problems(page, self.problems)

    def clear(self):
        self.page.evaluate(_CLEAR)

    def add(self, kind, **values):
        """A new node with these widget values; its id."""
        return self.page.evaluate(_ADD, [kind, values])

    def nodes(self):
        """As they would be saved, by id."""
        return {each["id"]: each for each in self.page.evaluate(_NODES)}

    def link(self, source, slot, target, entry):
        self.page.evaluate(_LINK, [int(source), slot, int(target), entry])

    def widget(self, node_id, name):
        return self.page.evaluate(_WIDGET, [int(node_id), name])

    def wait_for_widget(self, node_id, name, value):
        self.page.wait_for_function(
            f"([id, name, value]) => ({_WIDGET})([id, name]) === value",
            arg=[int(node_id), name, value],
        )

    def run(self, command):
        self.page.evaluate(_RUN, command)

    def set(self, setting, value):
        self.page.evaluate(_SET, [setting, value])

    def notice(self):
        """What was done so far is a step that can be undone."""
        self.page.evaluate(_CHECK_STATE)

    def refuse_clipboard(self):
        self.page.evaluate(_NO_CLIPBOARD)

    def allow_clipboard(self):
        self.page.evaluate("() => delete navigator.clipboard")

    def press(self, name, nth=0):
        """A button by its name, and what the probe answered."""
        with self.page.expect_response(lambda answer: "/iamccs/hw_probe?" in answer.url) as heard:
            self.page.get_by_role("button", name=name).nth(nth).click()
        return heard.value.json()

    @contextmanager
    def panel(self):
        """The panel in the sidebar, live."""
        self.run("VramSupervisor.ShowPanel")
        found = self.page.get_by_role("region", name="VRAM supervisor")
        found.get_by_text("Live", exact=True).wait_for()
        yield found
        self.run("Workspace.ToggleSidebarTab.vram-supervisor")
        found.wait_for(state="detached")

    def settled(self):
        """The first workflow is there: what is added before is thrown away."""
        self.page.locator(".vsup-badge").wait_for()
        self.page.wait_for_function(
            "() => (window.app ?? window.comfyAPI.app.app).extensionManager"
            ".workflow?.activeWorkflow"
        )
        self.problems.clear()


def note_problems(page, problems, *, everything=True):
    """Add errors that nobody caught, and what this pack's files print as errors."""

    def uncaught(error):
        told = str(error.stack or error)
        if everything or OUR_FILES in told:
            problems.append(told)

    def printed(message):
        if message.type == "error" and OUR_FILES in message.location.get("url", ""):
            problems.append(f"{message.text} ({message.location['url']})")

    page.on("pageerror", uncaught)
    page.on("console", printed)


@contextmanager
def opened(url, *, browser=None, width=1500, height=900, problems=None, **settings):
    """A page with the frontend ready and this pack's nodes registered; settings by their ids.

    ``problems`` gets what failed in this pack's files meanwhile.
    """
    with nullcontext(browser) if browser else _chromium() as used:
        page = used.new_page(viewport={"width": width, "height": height})
        note_problems(page, [] if problems is None else problems, everything=False)
        page.route("**/*", lambda route: _only_local(route, url))
        page.request.post(f"{url}/settings", data={**QUIET, **settings})
        page.goto(url)
        page.wait_for_function(READY, timeout=PATIENCE_MS)
        page.wait_for_function(REGISTERED, timeout=PATIENCE_MS)
        yield page
        page.close()


@contextmanager
def _chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def _only_local(route, url):
    """The frontend's calls to the outside are no part of a test."""
    if route.request.url.startswith((url, "data:", "blob:")):
        route.continue_()
    else:
        route.abort()
