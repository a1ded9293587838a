"""A worker that reads long device lists and measures how long they block the event loop.

``python -m bench.list_worker LIBRARY LOOP URL SETTINGS``.
"""

import asyncio
import gc
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from bench.drive import gather_results, user_ids
from bench.peer import DeviceLists, expect
from bench.worker import PREPARERS, work

MS: Final = 1_000
OLDEST: Final = 2
"""The garbage collector's generation whose collection is a full one."""


class Pulse:
    """The longest time between two turns of the event loop, in milliseconds of processor time.

    ``longest`` includes full garbage collections, ``without_collections`` does not.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.without_collections = 0.0
        self._collecting = 0.0
        self._began = 0.0

    @contextmanager
    def beating(self) -> Generator[None]:
        """Run a task in every turn of the event loop that measures the time since the last one."""
        task = asyncio.get_running_loop().create_task(self._beat())
        gc.callbacks.append(self._collect)
        try:
            yield
        finally:
            gc.callbacks.remove(self._collect)
            task.cancel()

    async def _beat(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            gap = (now - last) * MS
            self.longest = max(self.longest, gap)
            self.without_collections = max(self.without_collections, gap - self._collecting)
            self._collecting = 0.0
            last = now

    def _collect(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] != OLDEST:
            return
        if phase == "start":
            self._began = time.thread_time()
        else:
            self._collecting += (time.thread_time() - self._began) * MS


class ListWorker:
    """The methods that the runner calls, for the section on device lists."""

    def __init__(self, lists: DeviceLists) -> None:
        self._lists = lists
        self._user_id, self._other = dict.fromkeys(user_ids(8))
        self._count = 0

    async def check(self) -> list[str]:
        """Raise AssertionError unless the list has exactly the sessions of its user."""
        await self._lists.log_in(self._other)
        expect("devices", len(await self._lists.read(self._other)), 1)
        expect("devices of nobody", len(await self._lists.read(self._user_id)), 0)
        return []

    async def grow(self, count: int) -> None:
        """Log the user in until there are `count` sessions."""
        await gather_results(self._lists.log_in, [self._user_id] * (count - self._count), PREPARERS)
        self._count = count

    async def gaps(self) -> list[float]:
        """Read the list once; return the time it took and the longest gaps, in milliseconds."""
        pulse = Pulse()
        gc.collect()
        begin = time.perf_counter()
        with pulse.beating():
            devices = await self._lists.read(self._user_id)
            seconds = time.perf_counter() - begin
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        expect("devices", len(devices), self._count)
        return [seconds * MS, pulse.longest, pulse.without_collections]


if __name__ == "__main__":
    work("open_device_lists", ListWorker)
