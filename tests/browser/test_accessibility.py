"""What axe finds in the panel, the badge and the nodes' buttons, in a dark and a light theme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from vram_supervisor.supervisor.jobs.decodes import Pictures
from vram_supervisor.supervisor.types import Plan
from vram_supervisor.supervisor.units import GiB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.comfy_frontend import Editor
    from support.frontend_server import FrontendServer

pytestmark = pytest.mark.browser

SERIOUS = {"serious", "critical"}
PALETTE = "Comfy.ColorPalette"


@pytest.fixture(params=["dark", "light"])
def themed(request: pytest.FixtureRequest, graph: Editor) -> Iterator[Editor]:
    """The editor in one of its own themes."""
    background = "() => getComputedStyle(document.body).getPropertyValue('--comfy-menu-bg')"
    graph.set(PALETTE, "dark")
    dark = graph.page.evaluate(background)
    if request.param == "light":
        graph.set(PALETTE, "light")
        graph.page.wait_for_function(f"(dark) => ({background})() !== dark", arg=dark)
    yield graph
    graph.set(PALETTE, "dark")


def violations(editor: Editor, where: str) -> list[str]:
    """Serious ones, each with its first element."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found: dict[str, Any] = axe.Axe().run(editor.page, context=where).response
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]} {each['nodes'][0]['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]


def test_the_panel(themed: Editor, frontend: FrontendServer) -> None:
    supervisor = frontend.supervisor
    supervisor.jobs.start_job("job-a")
    supervisor.jobs.enter_node("7", "IAMCCS_VAEDecodeTiledSafe")
    watch = supervisor.decodes.begin(
        "decode", "cuda:0", family="image KL", pictures=Pictures(1024, 1024, 1)
    )
    plan = Plan("tiled", 2, "parts of up to 1024 x 512 px in 2 steps", GiB, fits=True)
    watch.planned(plan, predicted_bytes=GiB)
    themed.run("VramSupervisor.ShowPanel")
    panel = themed.page.get_by_role("region", name="VRAM supervisor")
    panel.get_by_text("Decode: image KL").wait_for()
    watch.finished(0, 1, (0, 0, 1024, 512))
    panel.get_by_role("img", name="Finished part", exact=False).wait_for()
    assert violations(themed, ".vsup") == []
    watch.ended("failed", retries=("pixels: ran out of memory",))
    supervisor.jobs.leave_node("7")
    supervisor.jobs.end_job("error")
    panel.get_by_role("region", name="Last jobs").get_by_text("Failed").first.wait_for()
    assert violations(themed, ".vsup") == []
    themed.run("Workspace.ToggleSidebarTab.vram-supervisor")
    panel.wait_for(state="detached")


def test_the_badge(themed: Editor) -> None:
    themed.page.locator(".vsup-badge").wait_for()
    assert violations(themed, ".vsup-badge") == []


def test_buttons_and_line_of_a_node(themed: Editor, buttons: None) -> None:
    themed.add("IAMCCS_HwSupporter")
    themed.page.get_by_role("button", name="Probe HW & Apply").wait_for()
    assert violations(themed, ".vsup-node") == []
