from __future__ import annotations

import asyncio
import threading

import anyio

from vram_supervisor.supervisor.http.wakeups import Wakeups


async def turn() -> None:
    """Let the event loop go round once."""
    await asyncio.sleep(0)


async def test_a_crowd_is_woken_a_few_per_turn_in_order() -> None:
    wakeups = Wakeups(per_turn=2)
    loop = asyncio.get_running_loop()
    wakers = [asyncio.Event() for _ in range(5)]
    for waker in wakers:
        wakeups.notifier(loop, waker)()
    counts = []
    while not all(waker.is_set() for waker in wakers):
        await turn()
        counts.append(sum(waker.is_set() for waker in wakers))
    assert counts[-3:] == [2, 4, 5]
    assert [waker.is_set() for waker in wakers] == [True] * 5


async def test_wakers_of_many_threads_are_all_woken() -> None:
    wakeups = Wakeups(per_turn=3)
    loop = asyncio.get_running_loop()
    for _ in range(20):
        wakers = [asyncio.Event() for _ in range(16)]
        notifiers = [wakeups.notifier(loop, waker) for waker in wakers]
        threads = [threading.Thread(target=notify) for notify in notifiers]
        for thread in threads:
            thread.start()
        for waker in wakers:
            with anyio.fail_after(20):
                await waker.wait()


def test_publishing_after_the_loop_is_gone_does_no_harm() -> None:
    wakeups = Wakeups()
    loop = asyncio.new_event_loop()
    notify = wakeups.notifier(loop, asyncio.Event())
    loop.close()
    notify()
    notify()
