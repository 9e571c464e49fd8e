"""The panel and the node buttons in ComfyUI's real frontend, both renderers, in Chromium."""

import json

import pytest
from support.comfy_frontend import CHROMIUM, VUE, Editor, opened
from support.host_workflows import KL, latent, node, safe_decode, show, vae

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
]
SAFE = "IAMCCS_VAEDecodeTiledSafe"


@pytest.fixture(scope="module", params=["classic", "vue"])
def editor(comfy, request):
    pytest.importorskip("playwright.sync_api")
    with opened(comfy.url, **{VUE: request.param == "vue"}) as page:
        page.set_default_timeout(15_000)
        editor = Editor(page)
        editor.settled()
        yield editor
        editor.set(VUE, False)


@pytest.fixture
def graph(editor):
    """An empty graph; nothing failed in the page meanwhile."""
    editor.clear()
    yield editor
    assert editor.problems == []


def test_a_new_node_has_buttons_and_a_line_and_saves_its_own_values_only(graph):
    node_id = graph.add(SAFE)
    graph.page.get_by_role("button", name="Probe HW & Apply").wait_for()
    graph.page.get_by_text("free", exact=False).first.wait_for()
    values = graph.nodes()[node_id]["values"]
    assert values == [True, "auto", 512, 64, 256, 32, False, False, 0, "exact", 0, True]


def test_the_size_is_read_from_the_graph_and_an_auto_node_stays_auto(graph):
    source = graph.add("EmptyHunyuanLatentVideo", width=640, height=352, length=33)
    node_id = graph.add(SAFE)
    graph.link(source, 0, node_id, 0)
    before = graph.nodes()[node_id]["values"]
    report = graph.press("Probe HW & Apply")
    context = report["recommendations"]["vae_decode"]["context"]
    assert (context["width"], context["height"], context["frames"]) == (640, 352, 33)
    assert graph.nodes()[node_id]["values"] == before
    graph.page.get_by_text("plan:", exact=False).wait_for()


def test_a_manual_node_gets_the_planned_sizes(graph):
    source = graph.add("EmptyLatentImage", width=1024, height=1024)
    node_id = graph.add(SAFE, tiling_mode="manual", tile_size=64)
    graph.link(source, 0, node_id, 0)
    advice = graph.press("Probe HW & Apply")["recommendations"]["vae_decode"]
    graph.page.wait_for_function(
        "([id, size]) => window.app.graph.getNodeById(id).widgets"
        ".find((w) => w.name === 'tile_size').value === size",
        arg=[int(node_id), advice["tile_size"]],
    )
    assert graph.nodes()[node_id]["values"][1] == "manual"


def test_fill_missing_leaves_what_was_set_and_is_kept_in_the_workflow(graph):
    node_id = graph.add("IAMCCS_HwSupporter", reserved_vram_gb=2.5)
    graph.page.get_by_label("How values are applied").select_option("fill_missing")
    graph.press("Probe HW & Apply")
    graph.page.get_by_role("button", name="Probe HW & Apply").wait_for()
    saved = graph.nodes()[node_id]
    assert saved["kept"] == {"apply_mode": "fill_missing"}
    assert saved["values"][3] == 2.5
    assert len(saved["values"]) == 14


def test_a_refused_clipboard_shows_the_report_to_copy_by_hand(graph):
    graph.add(SAFE)
    graph.refuse_clipboard()
    graph.press("Copy HW report")
    text = graph.page.get_by_role("dialog").get_by_role("textbox").input_value()
    assert "recommendations" in json.loads(text)
    graph.page.get_by_role("dialog").get_by_role("button", name="Close").click()


def test_core_decodes_become_safe_and_one_undo_takes_it_back(graph):
    source, node_id = graph.add("EmptyLatentImage"), graph.add("VAEDecode")
    graph.link(source, 0, node_id, 0)
    graph.notice()
    graph.run("VramSupervisor.ConvertToSafe")
    assert graph.nodes()[node_id]["type"] == SAFE
    graph.run("Comfy.Undo")
    graph.page.wait_for_function(
        "(id) => window.app.graph.getNodeById(id)?.type === 'VAEDecode'", arg=int(node_id)
    )


@pytest.fixture
def panel(graph):
    with graph.panel() as found:
        yield found


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
    badge = graph.page.locator(".vsup-badge")
    badge.wait_for()
    badge.click()
    graph.page.get_by_role("region", name="VRAM supervisor").wait_for()
    graph.run("Workspace.ToggleSidebarTab.vram-supervisor")
    graph.set("VramSupervisor.Badge", False)
    badge.wait_for(state="detached")
    graph.set("VramSupervisor.Badge", True)
    badge.wait_for()


def test_a_setting_in_the_dialogue_is_the_servers(graph, comfy):
    with graph.page.expect_response(lambda answer: answer.request.method == "POST"
                               and "supervisor/settings" in answer.url):  # fmt: skip
        graph.set("VramSupervisor.HistoryDays", 12)
    assert comfy.get("/iamccs/supervisor/settings")[1]["settings"]["history_days"] == 12
    comfy.post("/iamccs/supervisor/settings", {"history_days": 30})
