from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.page_server import PageServer, set_visibility, wait_for_samples

from vram_supervisor.supervisor.embedded.decode_job import DecodeJobs
from vram_supervisor.supervisor.service import build_supervisor
from vram_supervisor.supervisor.units import GiB

if TYPE_CHECKING:
    from playwright.sync_api import Page


pytestmark = pytest.mark.browser

LIVE = "#connection[data-state='live']"
GPU_CARD = "[data-device='cuda:0']"
IMAGES = Path(__file__).parents[2] / "docs" / "images"


def text(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text()


def test_figures_move(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    torch = f"{GPU_CARD} .legend li:has([data-segment='torch']) .value"
    first = text(page, torch)
    page.wait_for_function(
        "([selector, first]) => document.querySelector(selector).innerText !== first",
        arg=[torch, first],
    )
    assert text(page, f"{GPU_CARD} .device-name") == "Test GPU"
    assert re.fullmatch(r"\d+\.\d GiB", text(page, f"{GPU_CARD} .headline-value"))
    assert text(page, f"{GPU_CARD} .headline-total") == "of 24.0 GiB in use"
    assert text(page, f"{GPU_CARD} .legend li:has([data-segment='external']) .value") == "2.0 GiB"
    assert text(page, f"{GPU_CARD} [data-gauge='utilization']") == "50 %"


def test_the_timeline_is_painted(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    page.wait_for_function(
        """selector => {
          const canvas = document.querySelector(selector);
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const shades = new Set();
          for (let at = 0; at < pixels.data.length; at += 4) {
            if (pixels.data[at + 3] === 255) shades.add(pixels.data.slice(at, at + 3).join());
          }
          return shades.size >= 3;
        }""",
        arg=f"{GPU_CARD} canvas",
    )
    label = page.get_attribute(f"{GPU_CARD} canvas", "aria-label")
    assert "Other processes 2.0 GiB" in label


def test_unknown_is_a_dash_that_says_so(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    gauge = page.locator(f"{GPU_CARD} [data-gauge='temperature']")
    assert gauge.inner_text() == "\N{EN DASH}"
    assert gauge.get_attribute("aria-label") == "unknown"
    assert gauge.get_attribute("title")


def test_a_decode_runs_and_its_peaks_are_listed(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    for name, value in {"width": "96", "height": "64", "frames": "5", "budget_gib": "0,5"}.items():
        page.fill(f"input[name={name}]", value)
    page.click("#decode-button")
    page.wait_for_selector("#tile-map.with-picture", timeout=60_000)
    assert text(page, "#decode-percent") == "100 %"
    assert re.fullmatch(r"(\d+) of \1 tiles? decoded", text(page, "#tile-caption"))
    facts = text(page, "#decode-facts")
    assert re.search(r"Predicted peak\s+[\d.]+ [KMG]iB", facts)
    assert re.search(r"Measured peak\s+[\d.]+ [KMG]iB", facts)
    row = page.locator("#jobs-body tr").first
    row.wait_for()
    page.wait_for_function(
        "() => document.querySelector('#jobs-body tr').innerText.split('iB').length === 3"
    )
    assert "Done" in row.inner_text()
    row.locator("summary").click()
    assert "StreamedTiledDecode" in row.locator("details").inner_text()
    assert text(page, "#job-line") == "No job is running"
    assert server.jobs.latest().budget_bytes == GiB // 2


def test_a_refused_wish_is_explained_at_its_field(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    page.fill("input[name=frames]", "many")
    page.click("#decode-button")
    page.wait_for_selector("input[name=frames][aria-invalid=true]")
    assert "frames must be a whole number" in text(page, "#form-error")
    assert page.evaluate("document.activeElement.name") == "frames"
    assert text(page, "#decode-button") == "Start decode"
    page.fill("input[name=frames]", "1")
    page.fill("input[name=width]", "32")
    page.fill("input[name=height]", "32")
    page.keyboard.press("Enter")
    page.wait_for_selector("input[name=frames]:not([aria-invalid])")
    assert page.locator("#form-error").is_hidden()


def test_a_restarted_server_is_found_again(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    server.stop()
    page.wait_for_selector("#connection[data-state='reconnecting']")
    server.start()
    page.wait_for_selector(LIVE, timeout=30_000)
    before = text(page, f"{GPU_CARD} .legend")
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).innerText !== before",
        arg=[f"{GPU_CARD} .legend", before],
    )


def test_a_hidden_page_asks_for_nothing_and_a_shown_one_goes_on(
    page: Page, server: PageServer
) -> None:
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    set_visibility(page, "hidden")
    assert text(page, "#connection") == "Paused"
    wait_for_samples(server.supervisor, 4)
    assert server.supervisor.health()["streams"] == 0
    requests = server.requests.total()
    wait_for_samples(server.supervisor, 6)
    assert server.requests.total() == requests
    set_visibility(page, "visible")
    page.wait_for_selector(LIVE)


def test_without_a_free_stream_the_page_polls(page: Page, server: PageServer) -> None:
    taken = [server.supervisor.open_stream(None, lambda: None) for _ in range(64)]
    page.goto(server.url)
    page.wait_for_selector("#connection[data-state='polling']")
    polls = server.requests["/iamccs/hw_probe"]
    assert text(page, f"{GPU_CARD} .headline-total") == "of 24.0 GiB in use"
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).innerText !== before",
        arg=[f"{GPU_CARD} .legend", text(page, f"{GPU_CARD} .legend")],
    )
    assert server.requests["/iamccs/hw_probe"] > polls
    for stream in taken:
        stream.close()


def test_it_fits_a_narrow_phone(page: Page, server: PageServer) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_every_control_is_named_and_reached_by_keyboard(page: Page, server: PageServer) -> None:
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.name || document.activeElement.id"))
    order = ["width", "height", "frames", "budget_gib", "decode-button"]
    start = reached.index("width")
    assert reached[start : start + 5] == order
    for label in ("Width", "Height", "Frames", "Budget"):
        assert page.get_by_label(label).count() == 1
    assert page.get_by_role("status").count() >= 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes(page: Page, server: PageServer, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(server.url)
    page.wait_for_selector(LIVE)
    ratios = page.evaluate(
        """() => {
          const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
          const luminance = css => {
            const [r, g, b] = css.match(/[\\d.]+/g).map(Number).map(channel);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const behind = node => {
            for (let at = node; at; at = at.parentElement) {
              const color = getComputedStyle(at).backgroundColor;
              if (!color.endsWith(", 0)")) return color;
            }
          };
          const shown = ["h1", "h2", ".headline-value", ".headline-total", ".legend .name", "dt",
            ".device-key", ".hint", "label", "input", "button", "footer a", ".chart-axis span",
            ".connection", ".empty", ".versions"];
          return Object.fromEntries(shown.map(selector => {
            const node = document.querySelector(selector);
            const pair = [luminance(getComputedStyle(node).color), luminance(behind(node))];
            return [selector, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
          }));
        }"""
    )
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.skipif(
    not os.environ.get("VRAM_SUPERVISOR_SCREENSHOTS"), reason="VRAM_SUPERVISOR_SCREENSHOTS not set"
)
def test_screenshot_of_a_real_decode(page: Page, tmp_path: Path) -> None:
    """The README's picture: this machine's own figures while the page's decode runs."""
    supervisor = build_supervisor(tmp_path / "history.sqlite")
    supervisor.start()
    server = PageServer(supervisor, DecodeJobs(supervisor))
    server.start()
    try:
        page.goto(server.url)
        page.wait_for_selector(LIVE)
        page.fill("input[name=budget_gib]", "0.1")
        page.click("#decode-button")
        page.wait_for_selector("#tile-map.with-picture", timeout=120_000)
        page.click("#decode-button")
        page.wait_for_selector("#tile-map:not(.with-picture)")
        page.wait_for_function(
            "() => document.querySelector('#decode-progress').value > 0.4", timeout=120_000
        )
        IMAGES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=IMAGES / "embedded-page.png", full_page=True)
    finally:
        server.jobs.cancel()
        assert server.jobs.wait(120)
        server.stop()
        supervisor.stop()
