"""The first answer of several calls, and one call for many callers, both sync and async."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from lucia._redis.transport.first_result import AT_ONCE, AsyncFirstResult, FirstResult
from lucia._redis.transport.single_flight import AsyncSingleFlight, SingleFlight


class Asked:
    """Sync and async calls that return or fail after a time, and record that they began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.seconds: list[float] = []
        self.cancelled: list[str] = []

    def call(self, name: str, after: float = 0, *, fails: bool = False) -> Any:
        """Return a sync call."""

        def run(seconds: float) -> str:
            self._begin(name, seconds)
            time.sleep(min(after, seconds))
            return self._end(name, fails=fails or after > seconds)

        return run

    def task(self, name: str, after: float = 0, *, fails: bool = False) -> Any:
        """Return an async call, which ignores its timeout."""

        async def run(seconds: float) -> str:
            self._begin(name, seconds)
            try:
                await asyncio.sleep(after)
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            return self._end(name, fails=fails)

        return run

    def _begin(self, name: str, seconds: float) -> None:
        self.began.append(name)
        self.seconds.append(seconds)

    def _end(self, name: str, *, fails: bool) -> str:
        if fails:
            raise ValueError(name)
        return name


@pytest.fixture
def asked() -> Asked:
    return Asked()


Ask = Callable[..., Awaitable[tuple[str | None, list[Exception]]]]


async def ask_tasks(asked: Asked, seconds: float, *wanted: Any) -> Any:
    """Run the async calls."""
    return await AsyncFirstResult.of([partial(asked.task, **each)() for each in wanted], seconds)


async def ask_threads(asked: Asked, seconds: float, *wanted: Any) -> Any:
    """Run the sync calls."""
    calls = [partial(asked.call, **each)() for each in wanted]
    return await asyncio.to_thread(FirstResult.of, calls, seconds)


each_way = pytest.mark.parametrize("ask", [ask_tasks, ask_threads], ids=["async", "sync"])


@each_way
async def test_one_that_answers(ask: Ask, asked: Asked) -> None:
    """If the first call succeeds, no other is made."""
    assert await ask(asked, 30, {"name": "a"}, {"name": "b"}) == ("a", [])
    assert asked.began == ["a"]


@each_way
async def test_none_to_ask(ask: Ask, asked: Asked) -> None:
    """Without calls, or without time, there is no answer."""
    assert await ask(asked, 30) == (None, [])
    assert await ask(asked, 0, {"name": "a"}) == (None, [])
    assert asked.began == []


@each_way
async def test_one_after_another(ask: Ask, asked: Asked) -> None:
    """After a failure, several calls are made in parallel, then the rest, within the timeout."""
    fails = [{"name": f"{number}", "fails": True} for number in range(AT_ONCE + 1)]
    answer, errors = await ask(asked, 30, *fails, {"name": "last"})
    assert answer == "last"
    assert {str(error) for error in errors} == {each["name"] for each in fails}
    first, *side_by_side, last = asked.seconds
    assert 9 < first < 11
    assert all(9 < seconds < 11 for seconds in side_by_side)
    assert last > 25


@each_way
async def test_the_fastest_answers(ask: Ask, asked: Asked) -> None:
    """Of parallel calls the fastest one counts; the first call gets only a part of the time."""
    began = time.monotonic()
    slow = [{"name": name, "after": 60} for name in ("a", "b", "c")]
    answer, _ = await ask(asked, 6, *slow, {"name": "d", "after": 0.05})
    assert answer == "d"
    assert time.monotonic() - began < 5
    assert asked.cancelled in ([], ["a", "b", "c"])


@each_way
async def test_all_are_late(ask: Ask, asked: Asked) -> None:
    """After the timeout there is no answer, even if calls are still running."""
    began = time.monotonic()
    late = [{"name": name, "after": 60} for name in ("a", "b")]
    assert (await ask(asked, 0.6, *late))[0] is None
    assert time.monotonic() - began < 5


def test_threads_that_are_late() -> None:
    """A thread that exceeds its timeout is not waited for."""
    over = threading.Event()

    def hang(_seconds: float) -> str:
        over.wait(20)
        return "late"

    def fail(_seconds: float) -> str:
        raise ValueError("first")

    began = time.monotonic()
    answer, errors = FirstResult.of([fail, hang, hang], 0.5)
    assert time.monotonic() - began < 5
    over.set()
    assert (answer, [str(error) for error in errors]) == (None, ["first"])


# One call for many callers


async def test_a_task_for_all() -> None:
    """While a call runs, others wait for it or return; a cancelled caller does not cancel it."""
    calls: list[float] = []
    go_on = asyncio.Event()

    async def call(seconds: float) -> None:
        calls.append(seconds)
        await go_on.wait()

    flight = AsyncSingleFlight(call, 7)
    first = asyncio.create_task(flight.run(30))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await flight.run(30, join=False)
    await flight.run(0.01)
    waiting = asyncio.create_task(flight.run(30))
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    await waiting
    assert calls == [7]
    await flight.run(30)
    assert calls == [7, 7]
    await flight.aclose()


async def test_a_task_that_is_given_up() -> None:
    """Closing cancels a running call; closing again, or before any call, does nothing."""
    ended: list[str] = []

    async def call(_seconds: float) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("ended")

    flight = AsyncSingleFlight(call, 60)
    await flight.aclose()
    await flight.run(0.01)
    await flight.aclose()
    await flight.aclose()
    assert ended == ["ended"]


def test_a_thread_for_all() -> None:
    """While a thread makes the call, others wait for it up to their timeout, or return.

    Later, the call is made again.
    """
    calls: list[float] = []
    began, go_on = threading.Event(), threading.Event()

    def call(seconds: float) -> None:
        calls.append(seconds)
        began.set()
        go_on.wait(20)

    flight = SingleFlight(call, 7)
    flight.run(0.01)
    assert began.wait(20)
    flight.run(30, join=False)
    flight.run(0.01)
    threading.Timer(0.1, go_on.set).start()
    flight.run(30)
    assert calls == [7]
    flight.run(30)
    flight.close()
    assert calls == [7, 7]


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, that is the error of each call."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    found, errors = FirstResult.of([lambda _: "answer"] * 2, 1)
    assert found is None
    assert [str(error) for error in errors] == ["can't start new thread"] * 2
