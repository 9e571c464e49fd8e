"""A real Chromium on the embedded page and on ComfyUI's real frontends, over a supervisor that
really samples."""

from __future__ import annotations

import ctypes
from itertools import count
from typing import TYPE_CHECKING

import pytest
from fake_nvml.build import build
from support.c_library import find_compiler
from support.comfy_frontend import CHROMIUM, FLAGS, VUE, Editor, opened
from support.frontend_packages import NEWEST, OLDEST, static_files
from support.frontend_server import FrontendServer
from support.http_world import CPU, GPU, ListHistory, NoCounter
from support.page_server import PageServer

from vram_supervisor.supervisor.embedded.decode_job import DecodeJobs
from vram_supervisor.supervisor.embedded.decoder import DecoderConfig
from vram_supervisor.supervisor.service import Supervisor
from vram_supervisor.supervisor.telemetry.clock import SystemClock
from vram_supervisor.supervisor.telemetry.probes.nvidia import find_nvml, monitor_only_probes
from vram_supervisor.supervisor.types import DeviceInfo, Reading
from vram_supervisor.supervisor.units import GiB, MiB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Browser, Page


class ClimbingProbe:
    """A device that holds more at every reading, and little again after a while."""

    def __init__(self, device: DeviceInfo) -> None:
        self.device = device
        self._steps = count(1)

    def read(self) -> Reading:
        total = self.device.total_bytes
        assert total is not None
        torch = 2 * GiB + (next(self._steps) % 128) * 64 * MiB
        used = torch + 3 * GiB
        return Reading(
            total_bytes=total,
            used_bytes=used,
            free_bytes=total - used,
            process_bytes=torch + GiB,
            torch_allocated_bytes=torch,
            torch_reserved_bytes=torch,
            outside_torch_bytes=GiB,
            external_bytes=2 * GiB,
            utilization_percent=50.0,
        )

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (set CHROMIUM_PATH)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def own_browser(browser: Browser) -> Iterator[Browser]:
    """One whose processes no other page shares."""
    own = browser.browser_type.launch(executable_path=CHROMIUM, args=FLAGS)
    yield own
    own.close()


@pytest.fixture
def server() -> Iterator[PageServer]:
    supervisor = Supervisor(
        probes=[ClimbingProbe(GPU), ClimbingProbe(CPU)],
        history=ListHistory(),
        counter=NoCounter(),
    )
    supervisor.start()
    jobs = DecodeJobs(supervisor, device="cpu", config=DecoderConfig())
    server = PageServer(supervisor, jobs)
    server.start()
    yield server
    jobs.cancel()
    assert jobs.wait(60)
    server.stop()
    supervisor.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; a script error or a refused resource fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, locale="en-GB")
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.extend(_foreign(request.url)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if "Content Security" in message.text else 0,
    )
    yield page
    page.close()
    assert problems == []


def _foreign(url: str) -> list[str]:
    local = url.startswith(("http://127.0.0.1:", "data:", "blob:"))
    return [] if local else [f"a request left the machine: {url}"]


# --- ComfyUI's real frontends ---------------------------------------------------------------

SECOND_CARD = """
gpu GPU-bbbb Second_card 12884901888
memory GPU-bbbb 3221225472 4294967296 5368709120
"""


@pytest.fixture(scope="session")
def second_card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[object]]:
    """A card that real NVML code reads from the fake driver; none without a C compiler."""
    compiler = find_compiler()
    if compiler is None:
        yield []
        return
    import pynvml

    folder = tmp_path_factory.mktemp("fake_nvml")
    (folder / "script.txt").write_text(SECOND_CARD)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FAKE_NVML_SCRIPT", str(folder / "script.txt"))
        patched.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(build(compiler, folder))))
        patched.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        yield monitor_only_probes(find_nvml(SystemClock()))


@pytest.fixture(scope="module", params=[NEWEST, OLDEST])
def frontend(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    second_card: Sequence[object],
) -> Iterator[FrontendServer]:
    """The newest and the oldest supported frontend, over the real routes."""
    static = static_files(request.param)
    if isinstance(static, str):
        pytest.skip(static)
    supervisor = Supervisor(
        probes=[ClimbingProbe(GPU), *second_card, ClimbingProbe(CPU)],
        history=ListHistory(),
        counter=NoCounter(),
    )
    supervisor.start()
    server = FrontendServer(request.param, static, supervisor, tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()
    supervisor.stop()


@pytest.fixture(scope="module", params=["classic", "vue"])
def editor(
    request: pytest.FixtureRequest, frontend: FrontendServer, browser: Browser
) -> Iterator[Editor]:
    """It, with nodes drawn by either renderer."""
    at_start: list[str] = []
    vue = {VUE: request.param == "vue"}
    with opened(frontend.url, browser=browser, problems=at_start, **vue) as page:
        page.set_default_timeout(15_000)
        editor = Editor(page, (frontend.version, request.param), at_start)
        editor.settled()
        yield editor


@pytest.fixture
def graph(editor: Editor) -> Iterator[Editor]:
    """An empty graph; nothing failed in the page meanwhile."""
    editor.clear()
    yield editor
    assert editor.problems == []


@pytest.fixture
def buttons(editor: Editor) -> None:
    """The first Vue nodes drew no elements of extensions: there the commands are what is left."""
    if editor.name == (OLDEST, "vue"):
        pytest.skip(f"Vue nodes of frontend {OLDEST} show no elements of extensions")
