import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.supervisor.decode.memory import is_out_of_memory  # noqa: E402


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
