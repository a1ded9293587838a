"""A process that calls one library: ``python -m bench.worker LIBRARY LOOP URL SETTINGS``.

One request a line comes in as JSON, ``[method, *arguments]``, one answer a line goes out, ``{"result": …}`` or ``{"error": …}``.
In between the event loop runs on, as a server's does.
"""

import asyncio
import importlib
import json
import random
import resource
import sys
import traceback
from collections.abc import Awaitable, Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.drive import drive, user_ids
from bench.peer import AsyncPeer
from bench.sampler import Sampler

PREPARERS: Final = 64
"""How many calls at once prepare what is measured."""

SAME: Final = 1_000
"""How many sessions are read over and over, whatever else there is."""

STATM: Final = Path("/proc/self/statm")
"""Where Linux says how much memory a process holds."""

DUE: Final = 0.01
"""Seconds after which a session that is due for renewal soon is due."""


class Worker:
    """What a runner asks of a library."""

    def __init__(self, peer: AsyncPeer) -> None:
        self._peer = peer
        self._pool: list[str] = []
        self._ready: list[str] = []

    async def check(self) -> list[str]:
        """Whether the library does what it is measured at; which operations it has.

        Raises:
            AssertionError: it does not.
        """
        peer, (alice, bob) = self._peer, dict.fromkeys(user_ids(8))
        session_id = await peer.create(alice)
        expect("a session is its user's", await self._user_of(session_id), alice)
        expect(
            "an unknown id is nobody's",
            await self._user_of(session_id[:-1] + ("b" if session_id[-1] == "a" else "a")),
            None,
        )
        if peer.revoke:
            await peer.revoke(session_id)
            expect("an ended session is nobody's", await self._user_of(session_id), None)
        if peer.create_due and peer.renew:
            due = await peer.create_due(alice)
            await asyncio.sleep(DUE)
            renewed = await peer.renew(due)
            expect("a renewed session has another id", renewed != due, wanted=True)
            expect("a renewed session is its user's", await self._user_of(renewed), alice)
        if peer.revoke_all:
            ids = [await peer.create(bob) for _ in range(3)]
            await peer.revoke_all(bob)
            expect(
                "sessions that were ended together are nobody's",
                {await self._user_of(each) for each in ids},
                {None},
            )
        return [name for name, call in self._calls().items() if call]

    async def prepare(self, operation: str, count: int) -> None:
        """Make what the operation will be measured with."""
        create = self._peer.create_due if operation == "renew" else self._peer.create
        if operation == "create":
            self._ready = user_ids(count)
        elif operation == "again":
            self._pool = await self._created(create, count)
        else:
            self._ready = await self._created(create, count)
            await asyncio.sleep(DUE)

    async def run(self, operation: str, callers: int, count: int) -> float:
        """The seconds that so many calls took."""
        pools = {"again": self._pool, "same": self._pool[:SAME]}
        arguments = (
            islice(cycle(pools[operation]), count)
            if operation in pools
            else islice(self._ready, count)
        )
        call = self._calls()[operation]
        assert call, operation
        seconds, answers = await drive(call, arguments, callers)
        expect("calls", len(answers), count)
        if operation in {"again", "same", "first"}:
            expect(
                "sessions not found",
                sum(self._peer.user_id(answer) is None for answer in answers),
                0,
            )
        if operation == "renew":
            expect("sessions not renewed", len({*answers} & {*self._ready}), 0)
        return seconds

    async def profile(self, operation: str, callers: int, count: int) -> dict[str, float]:
        """Per cent of the time of so many calls, by module."""
        with Sampler() as sampler:
            await self.run(operation, callers, count)
        return sampler.shares()

    async def create_all(self, count: int) -> None:
        """Make so many sessions of one user."""
        await drive(self._peer.create_in_bulk or self._peer.create, user_ids(1) * count, PREPARERS)

    async def revoke_all(self) -> float:
        """The seconds that it took to end them all."""
        assert self._peer.revoke_all
        return (await drive(self._peer.revoke_all, user_ids(1), 1)).seconds

    async def grow(self, count: int) -> None:
        """Make sessions until there are so many to be read again, in a random order."""
        self._pool += await self._created(self._peer.create, count - len(self._pool))
        random.shuffle(self._pool)

    async def memory(self) -> float:
        """What the process holds in memory, in MiB."""
        return memory()

    def _calls(self) -> dict[str, Callable[[str], Awaitable[object]] | None]:
        peer = self._peer
        reads = dict.fromkeys(("again", "same", "first"), peer.validate)
        return {"create": peer.create, **reads, "renew": peer.renew, "revoke": peer.revoke}

    async def _created(
        self, create: Callable[[str], Awaitable[str]] | None, count: int
    ) -> list[str]:
        assert create
        return [
            str(session_id)
            for session_id in (await drive(create, user_ids(count), PREPARERS)).answers
        ]

    async def _user_of(self, session_id: str) -> str | None:
        try:
            found = self._peer.user_id(await self._peer.validate(session_id))
        except self._peer.refusal:
            return None
        return found and found.replace("-", "")


def memory() -> float:
    """What this process holds in memory, in MiB."""
    pages = int(STATM.read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def expect(what: str, got: object, wanted: object) -> None:
    """Raise AssertionError unless it is what is wanted."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What ``asyncio.Runner`` takes for a loop of this name."""
    return uvloop.new_event_loop if loop == "uvloop" else None


async def serve(worker: Any) -> None:
    """Answer requests until there are none."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        method, *arguments = json.loads(line)
        try:
            answer: dict[str, Any] = {"result": await getattr(worker, method)(*arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def work(opener: str, make: Callable[[Any], Any]) -> None:
    """Be the process of one library, as the command line says: open it, make what answers, and answer.

    Args:
        opener: what of the library's module opens it.
        make: makes what answers requests.
    """
    library, loop, url, settings = sys.argv[1:]
    open_library = getattr(importlib.import_module(f"bench.peers.{library}"), opener)

    async def main() -> None:
        async with open_library(url, **json.loads(settings)) as opened:
            await serve(make(opened))

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main())


if __name__ == "__main__":
    work("open_peer", Worker)
