"""Call an adapter of either flavour concurrently, from a test that is neither.

A call is a function of the adapter: ``lambda adapter: adapter.get_session("id")``. Its outcome is
its return value, or the exception that it raised.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, Protocol, Self

import pytest
import redis.exceptions
import valkey.exceptions

from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.errors import LuciaError
from tests.support.redis_clients import AsyncClients, Clients
from tools.servers import until

__all__ = [
    "ASYNC_FLAVOURS",
    "FLAVOURS",
    "Call",
    "Caller",
    "Timed",
    "failures",
    "foreign",
    "open_caller",
    "read",
    "some_slow",
    "timed",
    "when_available",
]

ALONE: Final = ", coalesce=False"

_LOOPS: Final = ["asyncio", *(["uvloop"] if find_spec("uvloop") is not None else [])]

ASYNC_FLAVOURS: Final = tuple(loop + suffix for loop in _LOOPS for suffix in ("", ALONE))

FLAVOURS: Final = ("threads", *ASYNC_FLAVOURS)
"""Ways to call an adapter: from threads, or from tasks, with and without coalescing."""

THREADS: Final = 64

Call = Callable[[Any], Any]


class Caller(Protocol):
    """An adapter, and the threads or tasks that call it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def all(self, calls: Iterable[Call]) -> list[Any]:
        """Make all calls concurrently, and return their outcomes in order."""
        ...

    def all_until(self, calls: Iterable[Call], act: Callable[[], object]) -> list[list[Any]]:
        """Repeat all calls concurrently until ``act`` has returned, and then once more.

        Returns:
            The outcomes of each call, in order.
        """
        ...

    def rest(self, seconds: float) -> None:
        """Let time pass, so that an event loop notices changes of its connections."""
        ...


class AsyncCaller:
    """Calls from the tasks of an event loop, which runs only during this object's methods."""

    def __init__(self, connect: Callable[[Any], Any], loop: str, **settings: Any) -> None:
        new_loop = import_module("uvloop").new_event_loop if loop == "uvloop" else None
        self._runner = asyncio.Runner(loop_factory=new_loop)
        self._stack = AsyncExitStack()
        self._adapter = self._runner.run(self._open(connect, settings))

    async def _open(self, connect: Callable[[Any], Any], settings: Any) -> Any:
        client = await self._stack.enter_async_context(connect(AsyncClients))
        adapter = AsyncRedisSessionAdapter(client, **settings)
        return await self._stack.enter_async_context(adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def all(self, calls: Iterable[Call]) -> list[Any]:
        return self._runner.run(_gather(self._adapter, calls))

    def all_until(self, calls: Iterable[Call], act: Callable[[], object]) -> list[list[Any]]:
        return self._runner.run(_gather_until(self._adapter, calls, act))

    def rest(self, seconds: float) -> None:
        self._runner.run(asyncio.sleep(seconds))


async def _gather(adapter: Any, calls: Iterable[Call]) -> list[Any]:
    return await asyncio.gather(*(call(adapter) for call in calls), return_exceptions=True)


async def _gather_until(
    adapter: Any,
    calls: Iterable[Call],
    act: Callable[[], object],
) -> list[list[Any]]:
    acting = asyncio.ensure_future(asyncio.to_thread(act))

    async def repeat(call: Call) -> list[Any]:
        outcomes: list[Any] = []
        is_over = False
        while not is_over:
            is_over = acting.done()
            outcomes += await asyncio.gather(call(adapter), return_exceptions=True)
            await asyncio.sleep(0)
        return outcomes

    outcomes = await asyncio.gather(*map(repeat, calls))
    await acting
    return outcomes


class ThreadCaller:
    """Calls from the threads of a pool."""

    def __init__(self, connect: Callable[[Any], Any], **settings: Any) -> None:
        self._stack = ExitStack()
        self._threads = self._stack.enter_context(ThreadPoolExecutor(THREADS))
        client = self._stack.enter_context(connect(Clients))
        self._adapter = self._stack.enter_context(RedisSessionAdapter(client, **settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def all(self, calls: Iterable[Call]) -> list[Any]:
        return list(map(_outcome, [self._threads.submit(call, self._adapter) for call in calls]))

    def all_until(self, calls: Iterable[Call], act: Callable[[], object]) -> list[list[Any]]:
        with ThreadPoolExecutor(1) as alone:
            acting = alone.submit(act)

            def repeat(call: Call) -> list[Any]:
                outcomes: list[Any] = []
                is_over = False
                while not is_over:
                    is_over = acting.done()
                    outcomes.append(_attempt(call, self._adapter))
                return outcomes

            found = [self._threads.submit(repeat, call) for call in calls]
            acting.result()
            return [each.result() for each in found]

    def rest(self, seconds: float) -> None:
        time.sleep(seconds)


def _attempt(call: Call, adapter: Any) -> Any:
    try:
        return call(adapter)
    except Exception as error:
        return error


def _outcome(future: "Future[Any]") -> Any:
    return future.exception() or future.result()


def open_caller(flavour: str, connect: Callable[[Any], Any], **settings: Any) -> Caller:
    """Create an adapter and a caller for it.

    Args:
        flavour: one of ``FLAVOURS``.
        connect: returns a client, as a context manager, given ``Clients`` or ``AsyncClients``.
        settings: the adapter's settings.
    """
    if flavour == "threads":
        return ThreadCaller(connect, **settings)
    if flavour.endswith(ALONE):
        settings["coalesce"] = False
    return AsyncCaller(connect, flavour.removesuffix(ALONE), **settings)


def read(session_id: str) -> Call:
    """Return a call that validates a session."""
    return lambda adapter: adapter.get_session(session_id)


class Timed(NamedTuple):
    """The outcome of a call, and how long it took."""

    outcome: Any
    seconds: float


def timed(call: Call) -> Call:
    """Wrap a call so that it returns a :class:`Timed` and never raises."""

    async def awaited(result: Awaitable[Any], start: float) -> Timed:
        outcomes = await asyncio.gather(result, return_exceptions=True)
        return Timed(outcomes[0], time.monotonic() - start)

    def timed_call(adapter: Any) -> Any:
        start = time.monotonic()
        outcome = _attempt(call, adapter)
        if isinstance(outcome, Awaitable):
            return awaited(outcome, start)
        return Timed(outcome, time.monotonic() - start)

    return timed_call


def failures(outcomes: Sequence[Any]) -> Counter[str]:
    """Count the calls that failed, by error."""
    errors = [each for each in outcomes if isinstance(each, BaseException)]
    return Counter(f"{type(each).__name__}: {each}" for each in errors)


def foreign(outcomes: Sequence[Any]) -> Counter[str]:
    """Count the errors that are neither ours nor the client library's."""
    own = (LuciaError, redis.exceptions.RedisError, valkey.exceptions.ValkeyError)
    return failures([each for each in outcomes if not isinstance(each, own)])


def some_slow(names: Iterable[str], quick: Collection[str]) -> list[Any]:
    """Mark all names as slow except the quick ones."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def when_available(caller: Caller, calls: list[Call]) -> list[Any]:
    """Repeat the calls until none fails, and return the outcomes."""
    outcomes: list[Any] = []

    def succeed() -> bool:
        outcomes[:] = caller.all(calls)
        return not failures(outcomes)

    until(succeed, 30)
    return outcomes
