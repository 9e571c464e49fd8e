"""ComfyUI's real frontend in Debian's Chromium."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
READY = "() => (window.app ?? window.comfyAPI?.app?.app)?.extensionManager !== undefined"
REGISTERED = "() => window.LiteGraph?.registered_node_types?.IAMCCS_HwSupporter"
PATIENCE_MS = 120_000


@contextmanager
def opened(url, *, width=1500, height=900, **settings):
    """A page with the frontend ready and this pack's nodes registered; settings by their ids."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.route("**/*", lambda route: _only_local(route, url))
        # Else a first visit is greeted by a dialogue over everything.
        page.request.post(f"{url}/settings", data={"Comfy.TutorialCompleted": True, **settings})
        page.goto(url)
        page.wait_for_function(READY, timeout=PATIENCE_MS)
        page.wait_for_function(REGISTERED, timeout=PATIENCE_MS)
        yield page
        browser.close()


def _only_local(route, url):
    """The frontend's calls to the outside are no part of a test."""
    if route.request.url.startswith((url, "data:", "blob:")):
        route.continue_()
    else:
        route.abort()
