import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.supervisor.decode.memory import is_out_of_memory, pool_is_loose  # noqa: E402


@pytest.mark.parametrize(
    ("sentence", "error", "expected"),
    [
        ("torch's own class", torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        ("Python's own", MemoryError(), True),
        ("the CPU allocator's words",
         RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        ("the driver's words, late", RuntimeError("CUDA error: out of memory"), True),
        ("another runtime error", RuntimeError("shapes do not match"), False),
        ("another error with the words", ValueError("out of memory"), False),
    ],
)  # fmt: skip
def test_what_counts_as_out_of_memory(sentence, error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("device", "backend", "reserved", "loose"),
    [
        ("cuda", "cudaMallocAsync", 160, True),
        ("cuda", "cudaMallocAsync", 150, False),
        ("cuda", "native", 160, False),
        ("cpu", "cudaMallocAsync", 160, False),
    ],
)
def test_only_the_drivers_pool_is_loose_and_only_with_much_unused(
    monkeypatch, device, backend, reserved, loose
):
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: backend)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 100)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: reserved)
    assert pool_is_loose(torch.device(device)) is loose
