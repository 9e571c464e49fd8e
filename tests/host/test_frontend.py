"""The panel and the node buttons in ComfyUI's real frontend, both renderers, in Chromium."""

import json

import pytest
from support.comfy_frontend import CHROMIUM, opened
from support.host_workflows import KL, latent, node, safe_decode, show, vae

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
]
SAFE = "IAMCCS_VAEDecodeTiledSafe"
VUE = "Comfy.VueNodes.Enabled"
ADD = """
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
CLEAR = "() => { (window.app ?? window.comfyAPI.app.app).graph.clear(); }"
NODES = """
() => (window.app ?? window.comfyAPI.app.app).graph.serialize().nodes.map(
  (node) => ({id: String(node.id), type: node.type, values: node.widgets_values,
              kept: node.properties?.vram_supervisor ?? null}))
"""
LINK = """
([from, slot, to, input]) => {
  const graph = (window.app ?? window.comfyAPI.app.app).graph;
  graph.getNodeById(from).connect(slot, graph.getNodeById(to), input);
}
"""
RUN = "(id) => (window.app ?? window.comfyAPI.app.app).extensionManager.command.execute(id)"
SET = """
([id, value]) =>
  (window.app ?? window.comfyAPI.app.app).extensionManager.setting.set(id, value)
"""


NO_CLIPBOARD = """
() => Object.defineProperty(navigator, "clipboard", {value: undefined, configurable: true})
"""


@pytest.fixture(scope="module", params=["classic", "vue"])
def page(comfy, request):
    pytest.importorskip("playwright.sync_api")
    with opened(comfy.url, **{VUE: request.param == "vue"}) as page:
        page.set_default_timeout(15_000)
        # The bar is there once the first workflow is: what is added before is thrown away.
        page.locator(".vsup-badge").wait_for()
        page.wait_for_function("() => window.app.extensionManager.workflow?.activeWorkflow")
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        yield page
        page.evaluate(SET, [VUE, False])


@pytest.fixture
def graph(page):
    """An empty graph; nothing failed in the page meanwhile."""
    page.evaluate(CLEAR)
    yield page
    assert page.problems == []


def add(page, kind, **values):
    return page.evaluate(ADD, [kind, values])


def nodes(page):
    return {each["id"]: each for each in page.evaluate(NODES)}


def press(page, name, nth=0):
    """A button by its name, and what the page answered."""
    with page.expect_response(lambda answer: "/iamccs/hw_probe?" in answer.url) as answered:
        page.get_by_role("button", name=name).nth(nth).click()
    return answered.value.json()


def test_a_new_node_has_buttons_and_a_line_and_saves_its_own_values_only(graph):
    node_id = add(graph, SAFE)
    graph.get_by_role("button", name="Probe HW & Apply").wait_for()
    graph.get_by_text("free", exact=False).first.wait_for()
    values = nodes(graph)[node_id]["values"]
    assert values == [True, "auto", 512, 64, 256, 32, False, False, 0, "exact", 0, True]


def test_the_size_is_read_from_the_graph_and_an_auto_node_stays_auto(graph):
    source = add(graph, "EmptyHunyuanLatentVideo", width=640, height=352, length=33)
    node_id = add(graph, SAFE)
    graph.evaluate(LINK, [int(source), 0, int(node_id), 0])
    before = nodes(graph)[node_id]["values"]
    report = press(graph, "Probe HW & Apply")
    context = report["recommendations"]["vae_decode"]["context"]
    assert (context["width"], context["height"], context["frames"]) == (640, 352, 33)
    assert nodes(graph)[node_id]["values"] == before
    graph.get_by_text("plan:", exact=False).wait_for()


def test_a_manual_node_gets_the_planned_sizes(graph):
    source = add(graph, "EmptyLatentImage", width=1024, height=1024)
    node_id = add(graph, SAFE, tiling_mode="manual", tile_size=64)
    graph.evaluate(LINK, [int(source), 0, int(node_id), 0])
    advice = press(graph, "Probe HW & Apply")["recommendations"]["vae_decode"]
    graph.wait_for_function(
        "([id, size]) => window.app.graph.getNodeById(id).widgets"
        ".find((w) => w.name === 'tile_size').value === size",
        arg=[int(node_id), advice["tile_size"]],
    )
    assert nodes(graph)[node_id]["values"][1] == "manual"


def test_fill_missing_leaves_what_was_set_and_is_kept_in_the_workflow(graph):
    node_id = add(graph, "IAMCCS_HwSupporter", reserved_vram_gb=2.5)
    graph.get_by_label("How values are applied").select_option("fill_missing")
    press(graph, "Probe HW & Apply")
    graph.get_by_role("button", name="Probe HW & Apply").wait_for()
    saved = nodes(graph)[node_id]
    assert saved["kept"] == {"apply_mode": "fill_missing"}
    assert saved["values"][3] == 2.5
    assert len(saved["values"]) == 14


def test_a_refused_clipboard_shows_the_report_to_copy_by_hand(graph):
    add(graph, SAFE)
    graph.evaluate(NO_CLIPBOARD)
    press(graph, "Copy HW report")
    text = graph.get_by_role("dialog").get_by_role("textbox").input_value()
    assert "recommendations" in json.loads(text)
    graph.get_by_role("dialog").get_by_role("button", name="Close").click()


def test_core_decodes_become_safe_and_one_undo_takes_it_back(graph):
    source, node_id = add(graph, "EmptyLatentImage"), add(graph, "VAEDecode")
    graph.evaluate(LINK, [int(source), 0, int(node_id), 0])
    graph.evaluate("() => window.app.extensionManager.workflow.activeWorkflow"
                   "?.changeTracker?.checkState?.()")  # fmt: skip
    graph.evaluate(RUN, "VramSupervisor.ConvertToSafe")
    assert nodes(graph)[node_id]["type"] == SAFE
    graph.evaluate(RUN, "Comfy.Undo")
    graph.wait_for_function(
        "(id) => window.app.graph.getNodeById(id)?.type === 'VAEDecode'", arg=int(node_id)
    )


@pytest.fixture
def panel(graph):
    """The panel in the sidebar, live."""
    graph.evaluate(RUN, "VramSupervisor.ShowPanel")
    found = graph.get_by_role("region", name="VRAM supervisor")
    found.get_by_text("Live", exact=True).wait_for()
    yield found
    graph.evaluate(RUN, "Workspace.ToggleSidebarTab.vram-supervisor")
    found.wait_for(state="detached")


def test_the_panel_shows_devices_and_a_job_with_its_decode(panel, comfy, salt):
    panel.get_by_text("System memory").first.wait_for()
    comfy.succeed(
        {
            "vae": vae(KL),
            "latent": latent(seed=salt),
            "decode": safe_decode(),
            "show": show("decode", 1),
            "preview": node("PreviewImage", images=["decode", 0]),
        }
    )
    panel.get_by_role("region", name="Last jobs").get_by_role("row").nth(1).wait_for()
    panel.get_by_text("Decode: AutoencoderKL").wait_for()
    assert panel.get_by_text("whole", exact=False).count() > 0


def test_memory_is_freed_and_what_came_of_it_is_said(panel):
    panel.get_by_role("button", name="Free memory now").click()
    panel.get_by_role("status").filter(has_text="emptied").or_(
        panel.get_by_role("status").filter(has_text="Freed")
    ).wait_for()


def test_paused_it_asks_for_nothing_and_goes_on_where_it_is(panel):
    panel.get_by_role("button", name="Pause").click()
    panel.get_by_text("Paused").wait_for()
    panel.get_by_role("button", name="Go on").click()
    panel.get_by_text("Live", exact=True).wait_for()


def test_the_badge_opens_the_panel_and_can_be_switched_off(graph):
    badge = graph.locator(".vsup-badge")
    badge.wait_for()
    badge.click()
    graph.get_by_role("region", name="VRAM supervisor").wait_for()
    graph.evaluate(RUN, "Workspace.ToggleSidebarTab.vram-supervisor")
    graph.evaluate(SET, ["VramSupervisor.Badge", False])
    badge.wait_for(state="detached")
    graph.evaluate(SET, ["VramSupervisor.Badge", True])
    badge.wait_for()


def test_a_setting_in_the_dialogue_is_the_servers(graph, comfy):
    with graph.expect_response(lambda answer: answer.request.method == "POST"
                               and "supervisor/settings" in answer.url):  # fmt: skip
        graph.evaluate(SET, ["VramSupervisor.HistoryDays", 12])
    assert comfy.get("/iamccs/supervisor/settings")[1]["settings"]["history_days"] == 12
    comfy.post("/iamccs/supervisor/settings", {"history_days": 30})
