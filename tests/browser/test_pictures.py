"""The README's pictures of the panel and the nodes, from the real frontend over a simulated card.

    VRAM_SUPERVISOR_SCREENSHOTS=1 .venv/bin/pytest tests/browser/test_pictures.py

takes them anew. The card and its job are made up; what draws them is what users have.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.comfy_frontend import VUE, Editor, opened
from support.frontend_packages import NEWEST, static_files
from support.frontend_server import FrontendServer
from support.http_world import ListHistory, NoCounter
from support.page_server import wait_for_samples

from vram_supervisor.supervisor.jobs.decodes import Pictures
from vram_supervisor.supervisor.service import Supervisor
from vram_supervisor.supervisor.types import DeviceInfo, Plan, Reading
from vram_supervisor.supervisor.units import GiB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not os.environ.get("VRAM_SUPERVISOR_SCREENSHOTS"),
        reason="VRAM_SUPERVISOR_SCREENSHOTS not set",
    ),
]
IMAGES = Path(__file__).parents[2] / "docs" / "images"
SAFE = "IAMCCS_VAEDecodeTiledSafe"
STEPS = 12
CARD = DeviceInfo("cuda:0", "cuda", "12 GiB card", "GPU-1", 12 * GiB, "8.6")
RAM = DeviceInfo("cpu", "cpu", "Simulated", None, 32 * GiB)


@dataclass(eq=False)
class Simulated:
    """A device that goes from what it holds towards what it is told to."""

    device: DeviceInfo
    wanted_gib: float = 0.6
    external_gib: float = 1.3
    _held_gib: float = field(default=0.6)
    _number: int = 0

    def read(self) -> Reading:
        self._number += 1
        self._held_gib += 0.35 * (self.wanted_gib - self._held_gib)
        ripple = 0.12 * ((self._number % 5) / 4 - 0.5) if self.wanted_gib > 1 else 0
        torch = int((self._held_gib + ripple) * GiB)
        outside, external = int(0.4 * GiB), int(self.external_gib * GiB)
        total = self.device.total_bytes
        assert total is not None
        return Reading(
            total_bytes=total,
            used_bytes=torch + outside + external,
            free_bytes=total - torch - outside - external,
            process_bytes=torch + outside,
            torch_allocated_bytes=torch,
            torch_reserved_bytes=torch,
            outside_torch_bytes=outside,
            external_bytes=external,
            utilization_percent=94.0 if self.wanted_gib > 1 else 3.0,
            temperature_c=61.0 if self.device is CARD else None,
            power_w=148.0 if self.device is CARD else None,
        )

    def close(self) -> None:
        pass


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[FrontendServer, Simulated]]:
    static = static_files(NEWEST)
    if isinstance(static, str):
        pytest.skip(static)
    card = Simulated(CARD)
    supervisor = Supervisor(
        probes=[card, Simulated(RAM, 5.0, 6.0)], history=ListHistory(), counter=NoCounter()
    )
    supervisor.start()
    server = FrontendServer(NEWEST, static, supervisor, tmp_path)
    server.start()
    yield server, card
    server.stop()
    supervisor.stop()


def decode(supervisor: Supervisor, *, parts: int) -> Any:
    """A Wan decode in 12 parts, so many of them done."""
    watch = supervisor.decodes.begin(
        "decode", "cuda:0", family="Wan 2.1", pictures=Pictures(1280, 720, 81)
    )
    reason = "exact (Wan 2.1): parts of up to 320 x 240 px in 12 steps: 3.4 GiB of 4.0 GiB"
    plan = Plan("streamed", STEPS, reason, int(3.4 * GiB), fits=True, predicted_seconds=9.0)
    watch.planned(plan, predicted_bytes=int(3.4 * GiB))
    for part in range(parts):
        left, top = 320 * (part % 4), 240 * (part // 4)
        watch.finished(0, 81, (left, top, left + 320, top + 240))
        watch.advanced()
    return watch


def make_room(supervisor: Supervisor, card: Simulated) -> None:
    """The diffusion model leaves."""
    card.wanted_gib = 1.0
    wait_for_samples(supervisor, 20)


def run_job(supervisor: Supervisor, card: Simulated, name: str) -> None:
    """Sampling, then a decode, then idle again."""
    supervisor.jobs.start_job(name)
    supervisor.jobs.enter_node("12", "SamplerCustomAdvanced")
    card.wanted_gib = 8.6
    wait_for_samples(supervisor, 50)
    supervisor.jobs.leave_node("12")
    supervisor.jobs.enter_node("7", SAFE)
    make_room(supervisor, card)
    watch = decode(supervisor, parts=STEPS)
    card.wanted_gib = 4.2
    wait_for_samples(supervisor, 24)
    watch.ended("done", measured_bytes=int(3.3 * GiB), seconds=8.4)
    supervisor.jobs.leave_node("7")
    supervisor.jobs.end_job("success")
    card.wanted_gib = 0.9
    wait_for_samples(supervisor, 6)


def test_pictures_of_the_panel_the_badge_and_the_nodes(
    browser: Browser, scene: tuple[FrontendServer, Simulated]
) -> None:
    server, card = scene
    supervisor = server.supervisor
    supervisor.tell_state(reserve_bytes=GiB, reserve_words="1.0 GiB for other programs")
    with opened(server.url, browser=browser, width=1400, height=1330, **{VUE: True}) as page:
        editor = Editor(page)
        editor.settled()
        editor.clear()
        source = editor.add("EmptyHunyuanLatentVideo", width=1280, height=720, length=81)
        node_id = editor.add(SAFE)
        editor.add("IAMCCS_HwSupporter")
        editor.link(source, 0, node_id, 0)
        editor.run("VramSupervisor.ShowPanel")
        panel = page.get_by_role("region", name="VRAM supervisor")
        panel.get_by_text("Live", exact=True).wait_for()
        for name in ("wan-1", "wan-2"):
            run_job(supervisor, card, name)
        supervisor.jobs.start_job("wan-3")
        supervisor.jobs.enter_node("12", "SamplerCustomAdvanced")
        card.wanted_gib = 8.6
        wait_for_samples(supervisor, 40)
        supervisor.jobs.leave_node("12")
        supervisor.jobs.enter_node("7", SAFE)
        make_room(supervisor, card)
        watch = decode(supervisor, parts=7)
        card.wanted_gib = 3.9
        panel.get_by_role("img", name="Finished part of the pictures: 58 %").wait_for()
        wait_for_samples(supervisor, 12)
        IMAGES.mkdir(parents=True, exist_ok=True)
        panel.screenshot(path=IMAGES / "panel-sidebar.png")
        page.locator(".vsup-badge").screenshot(path=IMAGES / "badge.png")
        editor.run("Workspace.ToggleSidebarTab.vram-supervisor")
        page.locator(".vsup-node-line").filter(has_text="parts").or_(
            page.locator(".vsup-node-line").filter(has_text="plan:")
        ).first.wait_for()
        page.set_viewport_size({"width": 1800, "height": 1000})
        clip = {"x": 690, "y": 100, "width": 1000, "height": 640}
        page.screenshot(path=IMAGES / "node-buttons.png", clip=clip)
        editor.run("Workspace.ToggleBottomPanelTab.vram-supervisor-bottom")
        panel.get_by_text("Live", exact=True).wait_for()
        panel.get_by_role("img", name="Finished part of the pictures: 58 %").wait_for()
        page.set_viewport_size({"width": 1400, "height": 1000})
        wait_for_samples(supervisor, 6)
        panel.screenshot(path=IMAGES / "panel-bottom.png")
        watch.ended("interrupted")
