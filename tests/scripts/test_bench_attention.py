"""``bench.py attention``: its rows, measured on a CPU with a kernel that computes there."""

import sys

import pytest
from support.toy_sage import ON_CPU, host, sageattn

torch = pytest.importorskip("torch")

from _bench_attention import (  # noqa: E402
    DTYPES,
    HEADINGS,
    Cell,
    exact_error,
    heading,
    installed,
    line,
    made,
    measured,
)

from vram_supervisor.nodes.attention.calls import Ready, read_call  # noqa: E402

CPU = torch.device("cpu")
HEADS = 2


def cells(dtype="fp32", head_dim=64):
    inputs = made((1, 192, HEADS * head_dim), head_dim, DTYPES[dtype], CPU)
    with torch.inference_mode():
        return list(measured([Ready(ON_CPU, sageattn, {})], host, inputs, HEADS, repeats=1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_kernel_is_measured_beside_the_host(dtype):
    (cell,) = cells(dtype)
    assert (cell.kernel, cell.head_dim, cell.tokens) == ("sageattention.sageattn", 64, 192)
    assert cell.dtype == dtype
    assert cell.host_s > 0
    assert cell.kernel_s > 0
    assert cell.check_s > 0
    assert cell.host_error < cell.kernel_error < 0.03
    assert cell.host_bytes is None


def test_what_a_kernel_does_not_take_has_no_row():
    assert cells(head_dim=32) == []


def test_errors_are_against_float32():
    inputs = made((1, 192, HEADS * 64), 64, torch.bfloat16, CPU)
    call = read_call(*inputs, HEADS)
    exact = host(*(each.float() for each in inputs), HEADS).unflatten(-1, (HEADS, -1))
    assert exact_error(exact, call) < 1e-5
    assert exact_error(exact.to(torch.bfloat16), call) > 1e-4
    assert exact_error(exact * 2, call) == pytest.approx(1, rel=1e-3)


def test_a_row_has_a_cell_for_each_heading():
    cell = Cell("k", 64, 4096, "bf16", 2e-3, 1e-3, 2e-3, 1.3e-2, 12 << 20, 24 << 20, 1e-4)
    assert len(cell.row()) == len(HEADINGS)
    assert line(cell.row()) == (
        "| k | 64 | 4096 | bf16 | 2.00 | 1.00 | 2.00x | 0.0020 | 0.0130 | 12 | 24 | 0.10 |"
    )
    assert heading("attention_pytorch").splitlines()[-2] == line(HEADINGS)


def test_where_nothing_is_installed_there_is_nothing_to_measure(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setitem(sys.modules, "sageattention", None)
    monkeypatch.setitem(sys.modules, "sageattn3", None)
    assert list(installed()) == []
