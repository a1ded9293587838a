"""Calls that race one another, for the conformance suites: as tasks, or in threads.

Unlike :mod:`lucia._compat.gathering`, whose sync calls run one after another, these always overlap.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from lucia.errors import LuciaError

__all__ = ["AsyncRacingCalls", "RacingCalls"]


class AsyncRacingCalls:
    """Calls as tasks of the running event loop."""

    @staticmethod
    async def gather_results(*calls: Callable[[], Awaitable[object]]) -> list[object]:
        """Start all calls, and return what each returned, or the library's error that it raised.

        Other errors are raised.
        """
        return _checked(await asyncio.gather(*(call() for call in calls), return_exceptions=True))


class RacingCalls:
    """Calls in a thread each."""

    @staticmethod
    def gather_results(*calls: Callable[[], object]) -> list[object]:
        """Start all calls, and return what each returned, or the library's error that it raised.

        Other errors are raised.
        """
        start = Barrier(len(calls))

        def run(call: Callable[[], object]) -> object:
            start.wait()
            try:
                return call()
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(calls)) as threads:
            return _checked(threads.map(run, calls))


def _checked(results: Iterable[object]) -> list[object]:
    found: list[object] = []
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, LuciaError):
            raise result
        found.append(result)
    return found
