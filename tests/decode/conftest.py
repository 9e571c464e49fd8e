import pytest

torch = pytest.importorskip("torch")

from support.faulty_programs import CASES, World  # noqa: E402

# The engine in trouble.


@pytest.fixture(params=sorted(CASES))
def case(request):
    return CASES[request.param]


@pytest.fixture(params=[0, 1 << 11], ids=["parked", "mixed"])
def resident_bytes(request):
    return request.param


@pytest.fixture
def world(case, resident_bytes):
    return World(case, resident_bytes)
