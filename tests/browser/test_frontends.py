"""Panel, badge, buttons and settings in ComfyUI's oldest and newest supported frontends, both
renderers, over the real routes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.frontend_nodes import CORE, object_info
from support.frontend_packages import OLDEST
from support.page_server import set_visibility, wait_for_samples

from vram_supervisor.supervisor.jobs.decodes import Pictures
from vram_supervisor.supervisor.types import Plan
from vram_supervisor.supervisor.units import GiB, MiB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator
    from support.comfy_frontend import Editor
    from support.frontend_server import FrontendServer

pytestmark = pytest.mark.browser

SAFE, SUPPORTER = "IAMCCS_VAEDecodeTiledSafe", "IAMCCS_HwSupporter"
WITH_BUTTONS = (
    SAFE, SUPPORTER, "IAMCCS_HwSupporterAny", "IAMCCS_VAEDecodeToDisk",
    "IAMCCS_VAEEncodeTiledSafe", "IAMCCS_SamplerCustomAdvancedWindowed",
)  # fmt: skip
PATIENT_SAMPLES = 100
"""So long may it take until the server knows that a page left: some seconds."""
OURS = sorted(set(object_info()) - set(CORE))


@pytest.fixture
def panel(graph: Editor) -> Iterator[Locator]:
    with graph.panel() as found:
        yield found


def test_it_starts_without_an_error_of_ours(editor: Editor) -> None:
    assert editor.at_start == []


# --- nodes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OURS)
def test_a_node_can_be_added_and_has_the_buttons_it_should(graph: Editor, kind: str) -> None:
    node_id = graph.add(kind)
    button = graph.page.get_by_role("button", name="Probe HW & Apply")
    if kind in WITH_BUTTONS and graph.name != (OLDEST, "vue"):
        button.wait_for()
        assert graph.page.get_by_role("button", name="Copy HW report").count() == 1
    else:
        assert button.count() == 0
    told = object_info()[kind]["input"]
    inputs = {**told.get("required", {}), **told.get("optional", {})}
    defaults = [options["default"] for _, options in inputs.values() if "default" in options]
    assert (graph.nodes()[node_id]["values"] or []) == defaults, "nothing else is saved"


def test_the_size_is_read_from_the_graph_and_an_auto_node_stays_auto(
    graph: Editor, buttons: None
) -> None:
    source = graph.add("EmptyHunyuanLatentVideo", width=640, height=352, length=33)
    node_id = graph.add(SAFE)
    graph.link(source, 0, node_id, 0)
    before = graph.nodes()[node_id]["values"]
    context = graph.press("Probe HW & Apply")["recommendations"]["vae_decode"]["context"]
    assert (context["width"], context["height"], context["frames"]) == (640, 352, 33)
    assert graph.nodes()[node_id]["values"] == before


def test_the_size_is_found_through_a_reroute_and_inside_a_subgraph(
    graph: Editor, buttons: None
) -> None:
    source = graph.add("EmptyHunyuanLatentVideo", width=832, height=480, length=49)
    reroute, node_id = graph.add("Reroute"), graph.add(SAFE)
    graph.link(source, 0, reroute, 0)
    graph.link(reroute, 0, node_id, 0)
    graph.page.evaluate(
        """(id) => {
          const { graph } = window.app ?? window.comfyAPI.app.app;
          graph.convertToSubgraph(new Set([graph.getNodeById(id)]));
        }""",
        int(source),
    )
    assert not any(each["type"].startswith("Empty") for each in graph.nodes().values())
    context = graph.press("Probe HW & Apply")["recommendations"]["vae_decode"]["context"]
    assert (context["width"], context["height"], context["frames"]) == (832, 480, 49)


def test_the_line_shows_the_plan_as_soon_as_the_size_is_known(graph: Editor, buttons: None) -> None:
    source = graph.add("EmptyHunyuanLatentVideo", width=1280, height=720, length=81)
    node_id = graph.add(SAFE)
    line = graph.page.locator(".vsup-node-line")
    line.filter(has_text="GiB free").wait_for()
    assert "plan:" not in line.inner_text()
    graph.link(source, 0, node_id, 0)
    line.filter(has_text="plan:").filter(has_text="expected").wait_for()


def test_a_manual_node_gets_the_planned_sizes(graph: Editor, buttons: None) -> None:
    source = graph.add("EmptyLatentImage", width=1024, height=1024)
    node_id = graph.add(SAFE, tiling_mode="manual", tile_size=64)
    graph.link(source, 0, node_id, 0)
    advice = graph.press("Probe HW & Apply")["recommendations"]["vae_decode"]
    graph.wait_for_widget(node_id, "tile_size", advice["tile_size"])
    assert graph.widget(node_id, "tiling_mode") == "manual"


def test_overwriting_sets_the_reserve_that_is_advised(graph: Editor, buttons: None) -> None:
    node_id = graph.add(SUPPORTER, reserved_vram_gb=7.75, reserved_vram_mode="manual")
    advice = graph.press("Probe HW & Apply")["recommendations"]["hw_supporter"]
    graph.wait_for_widget(node_id, "reserved_vram_gb", advice["reserved_vram_gb"])
    assert graph.widget(node_id, "reserved_vram_mode") == advice["reserved_vram_mode"]


def test_filling_what_is_missing_leaves_what_was_set_and_is_saved(
    graph: Editor, buttons: None
) -> None:
    node_id = graph.add(SUPPORTER, reserved_vram_gb=2.5)
    graph.page.get_by_label("How values are applied").select_option("fill_missing")
    graph.press("Probe HW & Apply")
    graph.page.get_by_role("button", name="Probe HW & Apply").wait_for()
    assert graph.nodes()[node_id]["kept"] == {"apply_mode": "fill_missing"}
    assert graph.widget(node_id, "reserved_vram_gb") == 2.5


def test_a_profile_fills_the_widgets_until_that_is_switched_off(
    graph: Editor, frontend: FrontendServer, buttons: None
) -> None:
    node_id = graph.add(SUPPORTER)
    choose = """([id, profile]) => {
      const app = window.app ?? window.comfyAPI.app.app;
      const node = app.graph.getNodeById(id);
      const widget = node.widgets.find((each) => each.name === "profile");
      widget.value = profile;
      widget.callback?.(profile, app.canvas, node);
    }"""
    page = graph.page
    presets = page.request.get(f"{frontend.url}/iamccs/hw_probe").json()["presets"]
    page.evaluate(choose, [int(node_id), "max_speed"])
    expect_values(graph, node_id, presets["max_speed"])
    page.get_by_label("Profile fills widgets").uncheck()
    page.evaluate(choose, [int(node_id), "low_vram"])
    assert graph.widget(node_id, "profile") == "low_vram"
    assert graph.nodes()[node_id]["kept"] == {"preset_sync": False}
    page.get_by_label("Profile fills widgets").check()
    # Nothing was filled in meanwhile: all of the other profile's values are still there.
    expect_values(graph, node_id, presets["max_speed"], but="profile")
    page.evaluate(choose, [int(node_id), "low_vram"])
    expect_values(graph, node_id, presets["low_vram"])


def test_the_report_goes_to_the_clipboard(
    graph: Editor, frontend: FrontendServer, buttons: None
) -> None:
    graph.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=frontend.url)
    graph.add(SAFE)
    report = graph.press("Copy HW report")
    graph.page.wait_for_function(
        "async () => (await navigator.clipboard.readText()).includes('recommendations')"
    )
    text = graph.page.evaluate("() => navigator.clipboard.readText()")
    assert json.loads(text)["recommendations"] == report["recommendations"]


def test_a_refused_clipboard_shows_the_report_to_copy_by_hand(graph: Editor, buttons: None) -> None:
    graph.add(SAFE)
    graph.refuse_clipboard()
    graph.press("Copy HW report")
    dialog = graph.page.get_by_role("dialog")
    assert "recommendations" in json.loads(dialog.get_by_role("textbox").input_value())
    dialog.get_by_role("button", name="Close").click()
    graph.allow_clipboard()


def test_a_server_that_does_not_answer_changes_no_widget(graph: Editor, buttons: None) -> None:
    node_id = graph.add(SUPPORTER)
    before = graph.nodes()[node_id]["values"]
    button = graph.page.get_by_role("button", name="Probe HW & Apply")
    graph.page.route("**/iamccs/hw_probe?*", lambda route: route.abort())
    try:
        button.click()
        graph.page.wait_for_function(
            "() => [...document.querySelectorAll('.vsup-node button')]"
            ".some((each) => each.title.includes('no widget was changed'))"
        )
    finally:
        graph.page.unroute("**/iamccs/hw_probe?*")
    assert graph.nodes()[node_id]["values"] == before


def test_a_command_probes_for_all_nodes_at_once(graph: Editor, frontend: FrontendServer) -> None:
    node_ids = [graph.add(SUPPORTER, reserved_vram_gb=7.75) for _ in range(2)]
    graph.run("VramSupervisor.ProbeAll")
    advice = graph.page.request.get(f"{frontend.url}/iamccs/hw_probe").json()["recommendations"]
    for node_id in node_ids:
        graph.wait_for_widget(
            node_id, "reserved_vram_gb", advice["hw_supporter"]["reserved_vram_gb"]
        )


def test_core_decodes_become_safe_and_one_undo_takes_it_back(graph: Editor) -> None:
    source, node_id = graph.add("EmptyLatentImage"), graph.add("VAEDecode")
    graph.link(source, 0, node_id, 0)
    graph.notice()
    graph.run("VramSupervisor.ConvertToSafe")
    assert graph.nodes()[node_id]["type"] == SAFE
    graph.run("VramSupervisor.ConvertToCore")
    assert graph.nodes()[node_id]["type"] == "VAEDecode"
    graph.notice()
    graph.run("VramSupervisor.ConvertToSafe")
    graph.run("Comfy.Undo")
    graph.page.wait_for_function(
        "(id) => (window.app ?? window.comfyAPI.app.app).graph.getNodeById(id)?.type"
        " === 'VAEDecode'",
        arg=int(node_id),
    )


# --- the panel ------------------------------------------------------------------------------


def test_the_panel_shows_every_device_and_what_it_holds(panel: Locator) -> None:
    for name in ("Test GPU", "System memory"):
        card = panel.get_by_role("region", name=name).or_(panel.get_by_label(name)).first
        card.wait_for()
    panel.get_by_text("ComfyUI, torch").first.wait_for()


def test_a_decode_is_followed_from_its_plan_to_its_end(
    panel: Locator, frontend: FrontendServer
) -> None:
    supervisor = frontend.supervisor
    supervisor.jobs.start_job("job-1")
    supervisor.jobs.enter_node("7", SAFE)
    watch = supervisor.decodes.begin(
        "decode", "cuda:0", family="Wan 2.1", pictures=Pictures(1280, 720, 81)
    )
    plan = Plan("streamed", 4, "parts of up to 640 x 720 px in 4 steps", 3 * GiB, fits=True)
    watch.planned(plan, predicted_bytes=3 * GiB)
    panel.get_by_text("Decode: Wan 2.1").wait_for()
    panel.get_by_text("parts of up to 640 x 720 px in 4 steps").wait_for()
    panel.get_by_text("Predicted peak").first.wait_for()
    watch.finished(0, 81, (0, 0, 640, 720))
    panel.get_by_role("img", name="Finished part of the pictures: 50 %").wait_for()
    watch.finished(0, 81, (640, 0, 1280, 720))
    watch.ended("done", measured_bytes=2900 * MiB, seconds=4.0)
    panel.get_by_role("img", name="Finished part of the pictures: 100 %").wait_for()
    panel.get_by_text("measured 2.8 GiB", exact=False).wait_for()
    supervisor.jobs.leave_node("7")
    supervisor.jobs.end_job("success")
    row = panel.get_by_role("region", name="Last jobs").get_by_role("row").nth(1)
    row.get_by_text("Done").wait_for()


def test_memory_is_freed_and_what_came_of_it_is_said(panel: Locator) -> None:
    panel.get_by_role("button", name="Free memory now").click()
    said = panel.get_by_role("status")
    said.filter(has_text="emptied").or_(said.filter(has_text="Freed")).wait_for()


def test_while_a_job_runs_nothing_is_freed_and_that_is_said(
    panel: Locator, frontend: FrontendServer
) -> None:
    frontend.queue.running = [(0, "prompt-1", {"1": {"class_type": "X", "inputs": {}}}, {}, ["1"])]
    try:
        panel.get_by_role("button", name="Free memory now").click()
        panel.get_by_role("status").filter(has_text="Stays as it is").wait_for()
    finally:
        frontend.queue.running = []


def test_paused_it_asks_for_nothing_and_goes_on_where_it_is(
    panel: Locator, graph: Editor, frontend: FrontendServer
) -> None:
    graph.set("VramSupervisor.Badge", False)  # it has a slow stream of its own
    graph.page.locator(".vsup-badge").wait_for(state="detached")
    try:
        panel.get_by_role("button", name="Pause").click()
        panel.get_by_text("Paused").wait_for()
        expect_silence(frontend)
        panel.get_by_role("button", name="Go on").click()
        panel.get_by_text("Live", exact=True).wait_for()
    finally:
        graph.set("VramSupervisor.Badge", True)
    graph.page.locator(".vsup-badge").wait_for()


def test_the_panel_copies_the_report(
    panel: Locator, graph: Editor, frontend: FrontendServer
) -> None:
    page = graph.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=frontend.url)
    page.evaluate("() => navigator.clipboard.writeText('')")
    report = graph.press("Copy report")
    panel.get_by_text("The report is on the clipboard.").wait_for()
    text = page.evaluate("() => navigator.clipboard.readText()")
    assert json.loads(text)["recommendations"] == report["recommendations"]


def test_the_panel_also_opens_at_the_bottom(graph: Editor) -> None:
    page = graph.page
    has_one = page.evaluate(
        "() => Boolean((window.app ?? window.comfyAPI.app.app).extensionManager.command"
        ".commands?.some?.((each) => each.id?.includes('vram-supervisor-bottom')))"
    )
    if not has_one:
        pytest.skip("this frontend has no bottom panel for extensions")
    graph.run("Workspace.ToggleBottomPanelTab.vram-supervisor-bottom")
    found = page.get_by_role("region", name="VRAM supervisor")
    found.get_by_text("Live", exact=True).wait_for()
    page.set_viewport_size({"width": 700, "height": 600})
    page.wait_for_function("() => document.querySelector('.vsup-root').offsetWidth < 700")
    sizes = page.evaluate("() => [innerHeight, document.querySelector('.vsup')].map((each) =>"
                          " each.getBoundingClientRect?.().bottom ?? each)")  # fmt: skip
    inner, bottom = sizes
    assert bottom <= inner, "what lies lower can be scrolled to"
    page.set_viewport_size({"width": 1500, "height": 900})
    graph.run("Workspace.ToggleBottomPanelTab.vram-supervisor-bottom")
    found.wait_for(state="detached")


def test_a_server_that_is_killed_and_comes_back_is_followed_again(
    panel: Locator, graph: Editor, frontend: FrontendServer
) -> None:
    badge = graph.page.locator(".vsup-badge")
    badge.filter(has_text="GiB").wait_for()
    frontend.stop()
    panel.get_by_text("Reconnecting", exact=True).wait_for()
    graph.page.locator(".vsup-badge[data-level='unknown']").wait_for()
    with graph.page.expect_response(
        lambda answer: "stream=1" in answer.url and answer.status == 200, timeout=60_000
    ):
        frontend.start()
    panel.get_by_text("Live", exact=True).wait_for(timeout=60_000)
    badge.filter(has_text="GiB").wait_for()
    graph.problems.clear()  # what the frontend itself says of a server that was gone


# --- badge, settings, a hidden page ---------------------------------------------------------


def test_the_badge_opens_the_panel_and_can_be_switched_off(graph: Editor) -> None:
    badge = graph.page.locator(".vsup-badge")
    badge.click()
    graph.page.get_by_role("region", name="VRAM supervisor").wait_for()
    graph.run("Workspace.ToggleSidebarTab.vram-supervisor")
    graph.set("VramSupervisor.Badge", False)
    badge.wait_for(state="detached")
    graph.set("VramSupervisor.Badge", True)
    badge.wait_for()


def test_a_setting_in_the_dialogue_is_the_servers(graph: Editor, frontend: FrontendServer) -> None:
    def is_ours(answer: object) -> bool:
        return "supervisor/settings" in answer.url and answer.request.method == "POST"

    for days in (12, 30):
        with graph.page.expect_response(is_ours):
            graph.set("VramSupervisor.HistoryDays", days)
        assert frontend.book.as_dict()["settings"]["history_days"] == days


def test_a_hidden_page_asks_for_nothing_and_a_shown_one_goes_on(
    panel: Locator, graph: Editor, frontend: FrontendServer
) -> None:
    page = graph.page
    set_visibility(page, "hidden")
    expect_silence(frontend)
    with page.expect_response(lambda answer: "hw_probe" in answer.url):
        set_visibility(page, "visible")
    panel.get_by_text("Live", exact=True).wait_for()


def expect_silence(frontend: FrontendServer) -> None:
    """Nothing listens, and while samples are taken nothing is asked for."""
    for _ in range(PATIENT_SAMPLES):
        if frontend.supervisor.health()["streams"] == 0:
            break
        wait_for_samples(frontend.supervisor, 1)
    assert frontend.supervisor.health()["streams"] == 0
    before = asked(frontend)
    wait_for_samples(frontend.supervisor, 6)
    assert asked(frontend) == before


def asked(frontend: FrontendServer) -> int:
    """Requests for this pack's routes so far."""
    return sum(count for path, count in frontend.requests.items() if "/iamccs/" in path)


def expect_values(graph: Editor, node_id: str, values: dict[str, object], but: str = "") -> None:
    """Wait until the widgets of these names have these values."""
    assert values
    for name, value in values.items():
        if name != but:
            graph.wait_for_widget(node_id, name, value)
