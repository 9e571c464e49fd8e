import pytest

from vram_supervisor.supervisor.planning.allocator import (
    CAPACITY_RATIO,
    capacity_ratio,
    usable_bytes,
)
from vram_supervisor.supervisor.planning.trace import Step, Trace
from vram_supervisor.supervisor.planning.workspace import (
    CUDNN_LAYOUT,
    NO_WORKSPACE,
    workspace_of,
)


@pytest.mark.parametrize(
    ("sentence", "allocator", "usable"),
    [
        ("the native allocator wastes some of what it holds", "native", 1000),
        ("expandable segments fill it all", "expandable", 1200),
        ("the driver's own pool needs room for fast kernels", "cudaMallocAsync", 857),
        ("system memory has no such limit", "cpu", 1200),
        ("an allocator nobody measured is taken for the worst", "somebody's", 857),
        ("and so is an unknown one", None, 857),
    ],
)
def test_what_live_tensors_can_fill(sentence, allocator, usable):
    assert usable_bytes(1200, allocator) == usable


@pytest.mark.parametrize("allocator", [*CAPACITY_RATIO, None])
def test_never_more_than_is_free_and_never_negative(allocator):
    assert usable_bytes(10_000, allocator) <= 10_000
    assert usable_bytes(-5, allocator) == 0


def test_where_nothing_better_is_at_hand_slow_kernels_will_do():
    assert usable_bytes(1200, "cudaMallocAsync", tight=True) == 1043
    assert all(
        capacity_ratio(name, tight=True) <= capacity_ratio(name) for name in [*CAPACITY_RATIO, None]
    )


def test_only_the_cpu_takes_no_workspace_from_torch():
    trace = Trace(100, (Step(100), Step(80, "conv2d", 30, 20, 10)), 2, 0.0)
    assert workspace_of("cpu") is NO_WORKSPACE
    assert workspace_of("cuda") is workspace_of("xpu") is CUDNN_LAYOUT
    assert NO_WORKSPACE.peak_bytes(trace) == 100
    assert CUDNN_LAYOUT.peak_bytes(trace) == 140
