"""Calls that go on when the task that waits for them is cancelled."""

import asyncio

import pytest

from lucia._compat.uncancelled import AsyncUncancelled, Uncancelled


async def test_cancelled_wait() -> None:
    """A cancellation ends the wait at once, and the call is made to its end."""
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def call() -> None:
        begun.set()
        await go_on.wait()
        ended.set()
        raise ValueError("nobody waits for this")

    waiting = asyncio.ensure_future(AsyncUncancelled.run(call))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await ended.wait()


async def test_errors() -> None:
    """The error of a call is raised to whoever waits for it."""

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await AsyncUncancelled.run(fail)


async def test_cancelled_call() -> None:
    """A call that is cancelled itself ends with that."""

    async def cancel() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await AsyncUncancelled.run(cancel)


def test_sync() -> None:
    """The sync class makes the call."""
    calls: list[int] = []
    Uncancelled.run(lambda: calls.append(1))
    assert calls == [1]
