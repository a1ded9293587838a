"""A process that calls one library: ``python -m bench.worker LIBRARY LOOP URL SETTINGS``.

It reads requests from stdin, one JSON line each, ``[method, *arguments]``, and answers each with a
line ``{"result": …}`` or ``{"error": …}``. The event loop keeps running between requests, as in a
server.
"""

import asyncio
import importlib
import json
import resource
import sys
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from bench.drive import drive, gather_results, nothing, user_ids
from bench.peer import AsyncPeer, expect
from bench.sampler import Sampler
from bench.stock import Stock, session_ids, users_of

PREPARERS: Final = 64
"""The number of concurrent calls while sessions are prepared."""

SAMPLE: Final = 20
"""How many sessions are read again after a measurement, to check all their members."""

STATM: Final = Path("/proc/self/statm")
"""Linux reports the memory of the process here, in pages."""

READS: Final = ("again", "first")
"""The operations that validate: the same sessions again and again, or each session once."""

WANTED: Final[Mapping[str, object]] = {"create": True, "renew": True, "revoke": None}
"""The value that the results of all other operations must have."""

DUE: Final = 0.01
"""Seconds until a session of `create_due` is due for renewal."""


class Sessions(NamedTuple):
    """The arguments of calls, the expected value of each result, and the sessions' users."""

    arguments: list[str]
    wanted: list[object]
    users: list[str]


class Worker:
    """The methods that the runner calls, for an async library."""

    def __init__(self, peer: AsyncPeer) -> None:
        self._peer = peer
        self._pool = Sessions([], [], [])
        self._ready = Sessions([], [], [])
        self._next = 0

    async def check(self) -> list[str]:
        """Check that the library's operations work, and return the names of those it has.

        Raises:
            AssertionError: an operation does not work.
        """
        peer, (alice, bob) = self._peer, dict.fromkeys(user_ids(8))
        session_id = await peer.create(alice)
        peer.check(await peer.validate(session_id), session_id, alice)
        expect("a session is its user's", await self._user_of(session_id), peer.known_as(alice))
        expect(
            "an unknown id is nobody's",
            await self._user_of(session_id[:-1] + ("b" if session_id[-1] == "a" else "a")),
            None,
        )
        if peer.revoke:
            await peer.revoke(session_id)
            expect("a revoked session is nobody's", await self._user_of(session_id), None)
        if peer.create_due and peer.renew:
            due = await peer.create_due(alice)
            await asyncio.sleep(DUE)
            found = await peer.renew(due)
            renewed = peer.session_id(found)
            expect("a renewed session has another id", renewed != due, wanted=True)
            expect("a renewed session says so", peer.is_renewed(found), wanted=True)
            expect(
                "a renewed session is its user's",
                await self._user_of(renewed),
                peer.known_as(alice),
            )
        if peer.revoke_all:
            ids = [await peer.create(bob) for _ in range(3)]
            await peer.revoke_all(bob)
            expect(
                "sessions that were revoked together are nobody's",
                {await self._user_of(each) for each in ids},
                {None},
            )
        return [name for name, (call, _) in self._calls().items() if call]

    async def template(self) -> tuple[str, str]:
        """Create a session to be copied, of a new user; return its id and the user's id."""
        user_id = uuid.uuid4().hex
        return await self._peer.create(user_id), user_id

    async def take(self, operation: str, prefix: str, length: int, begin: int, count: int) -> None:
        """Use `count` stored sessions of a stock for an operation, from number `begin` on."""
        numbers = range(begin, begin + count)
        self._give(operation, session_ids(Stock(prefix, length), numbers), users_of(numbers))

    async def prepare(self, operation: str, count: int) -> None:
        """Create the sessions or user ids that the operation will be called with."""
        users = user_ids(count)
        if operation == "create":
            self._give(operation, users, users)
            return
        create = self._peer.create_due if operation == "renew" else self._peer.create
        assert create
        self._give(operation, await gather_results(create, users, PREPARERS), users)
        await asyncio.sleep(DUE)

    async def run(self, operation: str, callers: int, count: int) -> float:
        """Call the operation `count` times, check the results, and return the seconds it took."""
        sessions = self._of(operation, count)
        call, look = self._calls()[operation]
        assert call, operation
        seconds, calls, wrong = await drive(
            call,
            look,
            islice(cycle(zip(sessions.arguments, sessions.wanted, strict=True)), count),
            callers,
        )
        expect("calls", calls, count)
        expect("wrong answers", wrong, 0)
        if operation in READS:
            await self._look_closely(sessions)
        return seconds

    async def profile(self, operation: str, callers: int, count: int) -> dict[str, float]:
        """Run the operation, and return the share of the time by module, in per cent."""
        with Sampler() as sampler:
            await self.run(operation, callers, count)
        return sampler.shares()

    async def create_all(self, count: int) -> None:
        """Create `count` sessions of one user."""
        await gather_results(
            self._peer.create_in_bulk or self._peer.create, user_ids(1) * count, PREPARERS
        )

    async def revoke_all(self) -> float:
        """Revoke all sessions of that user, and return the seconds it took."""
        assert self._peer.revoke_all
        return (await drive(self._peer.revoke_all, nothing, [(user_ids(1)[0], None)], 1)).seconds

    async def memory(self) -> int:
        """Return the memory of the process, in bytes."""
        return memory()

    def _calls(
        self,
    ) -> dict[str, tuple[Callable[[str], Awaitable[Any]] | None, Callable[[Any], object]]]:
        """Return each operation's call, and what extracts the value to check from its result."""
        peer = self._peer
        return {
            "create": (peer.create, bool),
            **dict.fromkeys(READS, (peer.validate, peer.user_id)),
            "renew": (peer.renew, peer.is_renewed),
            "revoke": (peer.revoke, nothing),
        }

    def _give(self, operation: str, arguments: list[str], users: list[str]) -> None:
        wanted = [
            self._peer.known_as(user) if operation in READS else WANTED[operation] for user in users
        ]
        sessions = Sessions(arguments, wanted, users)
        if operation == "again":
            self._pool = sessions
        else:
            self._ready, self._next = sessions, 0

    def _of(self, operation: str, count: int) -> Sessions:
        """Return sessions for `count` calls: the same ones each time, or unused ones."""
        if operation == "again":
            return self._pool
        begin, self._next = self._next, self._next + count
        assert self._next <= len(self._ready.arguments), "too few sessions are ready"
        arguments, wanted, users = self._ready
        part = slice(begin, self._next)
        return Sessions(arguments[part], wanted[part], users[part])

    async def _look_closely(self, sessions: Sessions) -> None:
        """Raise AssertionError unless a sample of the sessions is complete."""
        step = max(1, len(sessions.arguments) // SAMPLE)
        for session_id, user_id in zip(
            sessions.arguments[::step], sessions.users[::step], strict=True
        ):
            self._peer.check(await self._peer.validate(session_id), session_id, user_id)

    async def _user_of(self, session_id: str) -> object:
        try:
            return self._peer.user_id(await self._peer.validate(session_id))
        except self._peer.refusal:
            return None


def memory() -> int:
    """Return the memory of this process, in bytes."""
    pages = int(STATM.read_text().split()[1])
    return pages * resource.getpagesize()


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the ``loop_factory`` of ``asyncio.Runner`` for this event loop."""
    return uvloop.new_event_loop if loop == "uvloop" else None


async def serve(worker: Any) -> None:
    """Answer requests until stdin is closed."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        method, *arguments = json.loads(line)
        try:
            answer: dict[str, Any] = {"result": await getattr(worker, method)(*arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def work(opener: str, make: Callable[[Any], Any]) -> None:
    """Open the library named on the command line, and answer requests.

    Args:
        opener: the function of the library's module that opens it.
        make: creates the worker from the opened library.
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
