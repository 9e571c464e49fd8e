"""Half an hour of samples and jobs leaves nothing behind in the page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.http_world import ListHistory, NoCounter

from vram_supervisor.supervisor.service import Supervisor

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import _bench_ui as bench

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def test_heap_nodes_and_listeners_are_flat_over_thirty_minutes(own_browser: Browser) -> None:
    probes = [bench.WavingProbe(0), bench.WavingProbe(1)]
    supervisor = Supervisor(probes=probes, history=ListHistory(), counter=NoCounter())
    supervisor.start()
    site = bench.Site(supervisor)
    site.start()
    page = own_browser.new_page(viewport={"width": 1400, "height": 900})
    rows = bench.simulated(page, site)
    page.close()
    supervisor.stop()
    grown = {row.what: row for row in rows if row.goal is not None}
    assert set(grown) == {"growth of the heap", "more nodes", "more listeners"}
    assert [row for row in grown.values() if row.value > (row.goal or 0)] == []
