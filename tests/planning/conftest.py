"""Calibration stores on one file and one clock, closed when the test ends."""

import pytest
from support.clock import StillClock

from vram_supervisor.supervisor.planning.calibration_store import CalibrationStore


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "calibration.sqlite"


@pytest.fixture
def open_store(path, clock):
    opened = []

    def make(where=path, **options):
        opened.append(CalibrationStore(where, clock, **options))
        return opened[-1]

    yield make
    for store in opened:
        store.close()
