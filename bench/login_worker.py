"""A worker for logins with passwords.

``python -m bench.login_worker LIBRARY LOOP URL SETTINGS``.
"""

import asyncio
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

from bench.drive import drive, gather_results
from bench.peer import Logins, expect
from bench.worker import memory, work

PASSWORD: Final = "correct horse battery staple"  # noqa: S105 # not a real one
TICK: Final = 0.001
LOOK: Final = 0.005


class LoginWorker:
    """The methods that the runner calls, for logins."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins
        self._names: list[str] = []

    async def check(self) -> list[str]:
        """Check that the right password logs in and a wrong one does not.

        Raises:
            AssertionError: a login did not behave as expected.
        """
        await self._logins.sign_up("alice", PASSWORD)
        expect(
            "the right password logs in",
            bool(await self._logins.log_in("alice", PASSWORD)),
            wanted=True,
        )
        with suppress(self._logins.refusal):
            expect("a wrong password does not", await self._logins.log_in("alice", "wrong"), None)
        return ["log_in"]

    async def sign_up(self, count: int) -> None:
        """Create `count` users."""
        self._names = [f"user{number}" for number in range(count)]
        await gather_results(lambda name: self._logins.sign_up(name, PASSWORD), self._names, 2)

    async def log_in(self) -> dict[str, float]:
        """Log all users in at once.

        Return the seconds it took, the longest delay of another coroutine in seconds, and the
        growth of the process's memory in MiB.
        """
        longest = 0.0

        async def tick() -> None:
            nonlocal longest
            while True:
                begin = time.perf_counter()
                await asyncio.sleep(TICK)
                longest = max(longest, time.perf_counter() - begin - TICK)

        with growth() as most:
            other = asyncio.create_task(tick())
            await asyncio.sleep(10 * TICK)
            logins = [(name, True) for name in self._names]
            seconds, calls, wrong = await drive(
                lambda name: self._logins.log_in(name, PASSWORD), bool, logins, len(logins)
            )
            await asyncio.sleep(10 * TICK)
            other.cancel()
        expect("who logged in", calls - wrong, len(logins))
        return {"seconds": seconds, "delay": longest, "memory": max(most)}


@contextmanager
def growth() -> Generator[list[float]]:
    """Record how much the process's memory grows, in MiB. It uses a thread: the loop may block."""
    before, seen, done = memory(), [0.0], threading.Event()

    def look() -> None:
        while not done.wait(LOOK):
            seen.append((memory() - before) / 2**20)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    work("open_logins", LoginWorker)
