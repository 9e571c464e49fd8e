"""Sizes of parts follow the room there is while a decode runs."""

import pytest

torch = pytest.importorskip("torch")


from support.exact_world import CPU  # noqa: E402

from vram_supervisor.nodes.host.live_sizer import LiveSizer  # noqa: E402
from vram_supervisor.supervisor.decode.layout import Layout  # noqa: E402
from vram_supervisor.supervisor.decode.parking import HostPages, Parking  # noqa: E402

# Room that changes.


def layout_of(rows, peak_bytes, resident_bytes):
    return Layout({(0, 0): (rows, 9)}, resident_bytes, peak_bytes, carried_bytes=resident_bytes)


def test_parts_follow_what_is_free():
    free, asked = [1000], []

    def again(room_bytes):
        asked.append(room_bytes)
        return layout_of(2, 500, 50)

    sizer = LiveSizer(layout_of(8, 1000, 100), 1.0, lambda: free[0], again)
    assert sizer.part(0, 0, 64, 64) == (8, 9)
    sizer.parking = Parking(CPU, 100, HostPages(64, locks=False))
    assert sizer.part(0, 0, 64, 64) == (8, 9)
    held = sizer.parking.keep(torch.zeros(20))
    free[0] = 860
    # What waits on the device could be parked: it counts as room.
    assert sizer.part(0, 0, 64, 64) == (8, 9)
    assert asked == []
    free[0] = 400
    assert sizer.part(0, 0, 64, 64) == (2, 9)
    assert asked == [480]
    assert (sizer.parking.limit_bytes, sizer.resident_bytes(), sizer.carried_bytes()) == (
        50,
        50,
        50,
    )
    sizer.parking.drop(held)


def test_a_stage_without_a_layout_is_run_at_once():
    sizer = LiveSizer(layout_of(8, 1000, 100), 1.0, lambda: 1000, lambda room: None)
    assert sizer.part(3, 1, 64, 48) == (64, 48)


def test_where_nothing_smaller_fits_the_sizes_stay():
    sizer = LiveSizer(layout_of(8, 1000, 100), 1.0, lambda: 1, lambda room: None)
    sizer.parking = Parking(CPU, 100, HostPages(64, locks=False))
    assert sizer.part(0, 0, 64, 64) == (8, 9)
