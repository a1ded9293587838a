"""A process that calls one library: ``python -m bench.worker LIBRARY LOOP URL SETTINGS``.

One request a line comes in as JSON, ``[method, *arguments]``, one answer a line goes out, ``{"result": …}`` or ``{"error": …}``.
In between the event loop runs on, as a server's does.
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

from bench.drive import answers_of, drive, nothing, user_ids
from bench.peer import AsyncPeer, expect
from bench.sampler import Sampler
from bench.stock import Stock, session_ids, users_of

PREPARERS: Final = 64
"""How many calls at once prepare what is measured."""

SAMPLE: Final = 20
"""How many of the sessions of a measurement are read once more afterwards, and looked at as a whole."""

STATM: Final = Path("/proc/self/statm")
"""Where Linux says how much memory a process holds."""

READS: Final = ("again", "first")
"""The operations that validate; the first one reads the same sessions each time."""

WANTED: Final[Mapping[str, object]] = {"create": True, "renew": True, "revoke": None}
"""The expected value in the answers of all other operations."""

DUE: Final = 0.01
"""Seconds after which a session that is due for renewal soon is due."""


class Sessions(NamedTuple):
    """The arguments of calls, the expected value in each answer, and the users of the sessions."""

    arguments: list[str]
    wanted: list[object]
    users: list[str]


class Worker:
    """The methods of a library that a runner calls."""

    def __init__(self, peer: AsyncPeer) -> None:
        self._peer = peer
        self._pool = Sessions([], [], [])
        self._ready = Sessions([], [], [])
        self._next = 0

    async def check(self) -> list[str]:
        """Whether the library does what it is measured at; which operations it has.

        Raises:
            AssertionError: it does not.
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
            expect("an ended session is nobody's", await self._user_of(session_id), None)
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
                "sessions that were ended together are nobody's",
                {await self._user_of(each) for each in ids},
                {None},
            )
        return [name for name, (call, _) in self._calls().items() if call]

    async def template(self) -> tuple[str, str]:
        """Make a session to be copied; its id and its user's, which no other has."""
        user_id = uuid.uuid4().hex
        return await self._peer.create(user_id), user_id

    async def take(self, operation: str, prefix: str, length: int, begin: int, count: int) -> None:
        """Take sessions of a stock, from one number on, for an operation."""
        numbers = range(begin, begin + count)
        self._give(operation, session_ids(Stock(prefix, length), numbers), users_of(numbers))

    async def prepare(self, operation: str, count: int) -> None:
        """Make what the operation will be measured with."""
        users = user_ids(count)
        if operation == "create":
            self._give(operation, users, users)
            return
        create = self._peer.create_due if operation == "renew" else self._peer.create
        assert create
        self._give(operation, await answers_of(create, users, PREPARERS), users)
        await asyncio.sleep(DUE)

    async def run(self, operation: str, callers: int, count: int) -> float:
        """The seconds that so many calls took."""
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
        """Per cent of the time of so many calls, by module."""
        with Sampler() as sampler:
            await self.run(operation, callers, count)
        return sampler.shares()

    async def create_all(self, count: int) -> None:
        """Make so many sessions of one user."""
        await answers_of(
            self._peer.create_in_bulk or self._peer.create, user_ids(1) * count, PREPARERS
        )

    async def revoke_all(self) -> float:
        """The seconds that it took to end them all."""
        assert self._peer.revoke_all
        return (await drive(self._peer.revoke_all, nothing, [(user_ids(1)[0], None)], 1)).seconds

    async def memory(self) -> int:
        """Return the memory of the process, in bytes."""
        return memory()

    def _calls(
        self,
    ) -> dict[str, tuple[Callable[[str], Awaitable[Any]] | None, Callable[[Any], object]]]:
        """Each operation's call, and what is looked at in its answer."""
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
        """Return the arguments of so many calls: the same each time, or ones that were never used."""
        if operation == "again":
            return self._pool
        begin, self._next = self._next, self._next + count
        assert self._next <= len(self._ready.arguments), "too few sessions are ready"
        arguments, wanted, users = self._ready
        part = slice(begin, self._next)
        return Sessions(arguments[part], wanted[part], users[part])

    async def _look_closely(self, sessions: Sessions) -> None:
        """Raise AssertionError unless some of the sessions are there as a whole."""
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
    """Return the argument of ``asyncio.Runner`` for an event loop of this name."""
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
