"""Calls at the same time, for the conformance suites: tasks in one colour, threads in the other."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from lucia.errors import LuciaError

__all__ = ["AsyncCalls", "Calls"]


class AsyncCalls:
    """Calls as tasks of the running event loop."""

    @staticmethod
    async def together(*calls: Callable[[], Awaitable[object]]) -> list[object]:
        """Start all calls, wait for all, and give what each returned, or the library's error that it raised; other errors go up."""
        return _outcomes(await asyncio.gather(*(call() for call in calls), return_exceptions=True))


class Calls:
    """Calls in threads of their own."""

    @staticmethod
    def together(*calls: Callable[[], object]) -> list[object]:
        """Start all calls, wait for all, and give what each returned, or the library's error that it raised; other errors go up."""
        start = Barrier(len(calls))

        def run(call: Callable[[], object]) -> object:
            start.wait()
            try:
                return call()
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(calls)) as threads:
            return _outcomes(threads.map(run, calls))


def _outcomes(outcomes: Iterable[object]) -> list[object]:
    found: list[object] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, LuciaError):
            raise outcome
        found.append(outcome)
    return found
