"""Processes that forecast. Torch is asked for by the tests themselves: others do without."""

import pytest


@pytest.fixture
def no_cuda(monkeypatch):
    """Torch here has no CUDA to name an allocator of."""
    from vram_supervisor.nodes.host import forecast as module

    monkeypatch.setattr(module, "allocator_name", lambda device: "cudaMallocAsync")
    monkeypatch.setattr(module, "attention_name", lambda model: "pytorch")


@pytest.fixture
def worlds(no_cuda):
    """Makes processes that forecast, and ends them."""
    from support.forecast_world import World

    made = []

    def make(*args, **options):
        made.append(World(*args, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()
