"""What every test gets: asyncio under anyio, and a guard against blocking an event loop."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

if TYPE_CHECKING:
    from collections.abc import Iterator

# Before anything imports torch: its threads cost the tests' tiny tensors several times what they
# save, and sums would come out in another order on another number of cores. Processes that tests
# start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """What was imported stays: no collection need look through it again. Decodes collect after
    each failure, and would spend most of the tests' time on it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_blocking_on_an_event_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call on any event loop, of the test or of a server it started, raises.

    Playwright's synchronous driver keeps a loop on the test's own thread, where its tests may
    of course block: browser tests go without.
    """
    if request.node.get_closest_marker("browser"):
        yield
        return
    with without_sleeping_loop(), blockbuster_ctx() as guard:
        # The interpreter reads modules and source lines (imports, tracebacks, asserts) where
        # they come up; that is neither ours nor repeated.
        for function in guard.functions.values():
            function.can_block_in("<frozen importlib._bootstrap>", {"_find_and_load"})
            function.can_block_in("/linecache.py", {"updatecache", "checkcache"})
        yield


@contextmanager
def without_sleeping_loop() -> Iterator[None]:
    """Hide the loop that Playwright leaves marked as running on this thread between browser
    tests, though it only sleeps in a greenlet: no other test could run a loop of its own."""
    sleeping = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(sleeping)
