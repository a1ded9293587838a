"""Completing a replay of revocations in both flavours, over an operation that the test controls."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from lucia._redis.replay import MAX_REPLAYED_AT_ONCE, Revocations
from lucia._redis.transport.replayer import AsyncReplayer, Replayer
from lucia._redis.transport.retries import NoReply
from lucia.errors import StoreUnavailable

COUNT = 2 * MAX_REPLAYED_AT_ONCE + 1


def due() -> Revocations:
    """Return revocations that have to be replayed."""
    revocations = Revocations()
    revocations.met("p", b"one")
    revocations.revoked(map(str, range(COUNT)), revocations.newest_demand)
    revocations.met("p", b"two")
    return revocations


class Steps:
    """Blocks of a replay, which fail or wait as the test says."""

    def __init__(self, fails: int = 0) -> None:
        self.sizes: list[int] = []
        self.fails = fails
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def run(self, ids: Sequence[str], _seconds: float) -> None:
        self.sizes.append(len(ids))
        self.begun.set()
        self.may_go_on.wait(20)
        if self.fails:
            self.fails -= 1
            raise ConnectionError("lost")

    async def run_in_loop(self, ids: Sequence[str], seconds: float) -> None:
        await asyncio.to_thread(self.run, ids, seconds)


Complete = Callable[[float], Awaitable[None]]


def complete(flavour: str, revocations: Revocations, steps: Steps) -> Complete:
    """Return a replayer's ``complete`` as a coroutine function, in either flavour."""
    if flavour == "async":
        return partial(AsyncReplayer(revocations, 5).complete, steps.run_in_loop)
    replayer = Replayer(revocations, 5)

    async def in_thread(seconds: float) -> None:
        await asyncio.to_thread(replayer.complete, steps.run, seconds)

    return in_thread


each_flavour = pytest.mark.parametrize("flavour", ["async", "sync"])


@each_flavour
async def test_blocks(flavour: str) -> None:
    """A replay revokes all ids, block by block, and concurrent callers share it."""
    revocations, steps = due(), Steps()
    completing = complete(flavour, revocations, steps)
    steps.may_go_on.clear()
    callers = [asyncio.ensure_future(completing(20)) for _ in range(5)]
    await asyncio.to_thread(steps.begun.wait, 20)
    steps.may_go_on.set()
    await asyncio.gather(*callers)
    assert steps.sizes == [MAX_REPLAYED_AT_ONCE, MAX_REPLAYED_AT_ONCE, 1]
    assert not revocations.due


@each_flavour
async def test_failure(flavour: str) -> None:
    """If a block fails, all callers get the error, and the next try uses smaller blocks."""
    revocations, steps = due(), Steps(fails=2)
    completing = complete(flavour, revocations, steps)
    for _ in range(2):
        with pytest.raises(NoReply) as raised:
            await completing(20)
        assert isinstance(raised.value.error, StoreUnavailable)
        assert isinstance(raised.value.error.__cause__, ConnectionError)
        assert revocations.due
    await completing(20)
    assert steps.sizes[:4] == [
        MAX_REPLAYED_AT_ONCE,
        MAX_REPLAYED_AT_ONCE // 2,
        MAX_REPLAYED_AT_ONCE // 4,
        MAX_REPLAYED_AT_ONCE // 2,
    ]
    assert not revocations.due


@each_flavour
async def test_a_caller_without_time(flavour: str) -> None:
    """A caller waits no longer than its timeout, and the replay goes on without it."""
    revocations, steps = due(), Steps()
    completing = complete(flavour, revocations, steps)
    steps.may_go_on.clear()
    with pytest.raises(NoReply) as raised:
        await completing(0.05)
    assert raised.value.error is None
    steps.may_go_on.set()
    await completing(20)
    assert steps.sizes == [MAX_REPLAYED_AT_ONCE, MAX_REPLAYED_AT_ONCE, 1]


async def test_closing() -> None:
    """Closing stops a replay, which stays due, and its callers get an error."""
    revocations, steps = due(), Steps()
    replayer = AsyncReplayer(revocations, 5)
    await replayer.aclose()
    steps.may_go_on.clear()
    caller = asyncio.ensure_future(replayer.complete(steps.run_in_loop, 20))
    await asyncio.to_thread(steps.begun.wait, 20)
    await replayer.aclose()
    with pytest.raises(NoReply):
        await caller
    steps.may_go_on.set()
    assert revocations.due


def test_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, the caller gets an error, and the next caller tries again."""
    revocations, steps = due(), Steps()
    replayer = Replayer(revocations, 5)
    with monkeypatch.context() as patch:

        def refuse(_: Any) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(NoReply) as raised:
            replayer.complete(steps.run, 1)
    assert isinstance(raised.value.error, StoreUnavailable)
    replayer.complete(steps.run, 20)
    replayer.close()
    assert not revocations.due
