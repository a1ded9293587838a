"""A worker for a sync library, whose callers are threads."""

import asyncio
import importlib
import json
import sys
from itertools import cycle, islice

from bench.drive import drive_threads, user_ids
from bench.peer import Peer, expect
from bench.sampler import Sampler
from bench.worker import serve


class SyncWorker:
    """The methods that the runner calls, for a sync library."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._pool: list[tuple[str, object]] = []
        self._user_ids: list[str] = []

    async def check(self) -> list[str]:
        """Check that the library's operations work, and return the names of those it has.

        Raises:
            AssertionError: an operation does not work.
        """
        alice = user_ids(1)[0]
        session_id = self._peer.create(alice)
        expect("a session is its user's", self._user_of(session_id), self._peer.known_as(alice))
        expect(
            "an unknown id is nobody's",
            self._user_of(session_id[:-1] + ("b" if session_id[-1] == "a" else "a")),
            None,
        )
        return ["create", "again"]

    async def prepare(self, operation: str, count: int) -> None:
        """Create the sessions or user ids that the operation will be called with."""
        if operation == "create":
            self._user_ids = user_ids(count)
        else:
            self._pool = [
                (self._peer.create(user_id), self._peer.known_as(user_id))
                for user_id in user_ids(count)
            ]

    async def run(self, operation: str, callers: int, count: int) -> float:
        """Call the operation `count` times, check the results, and return the seconds it took."""
        if operation == "create":
            seconds, calls, wrong = drive_threads(
                self._peer.create,
                bool,
                [(user_id, True) for user_id in self._user_ids[:count]],
                callers,
            )
        else:
            seconds, calls, wrong = drive_threads(
                self._peer.validate, self._peer.user_id, islice(cycle(self._pool), count), callers
            )
        expect("calls", calls, count)
        expect("wrong answers", wrong, 0)
        return seconds

    async def profile(self, operation: str, callers: int, count: int) -> dict[str, float]:
        """Run the operation with one caller, and return the share of the time by module."""
        with Sampler() as sampler:
            await self.run(operation, callers, count)
        return sampler.shares()

    def _user_of(self, session_id: str) -> object:
        try:
            return self._peer.user_id(self._peer.validate(session_id))
        except self._peer.refusal:
            return None


if __name__ == "__main__":
    library, _, url, settings = sys.argv[1:]
    with importlib.import_module(f"bench.peers.{library}").open_peer(
        url, **json.loads(settings)
    ) as peer:
        asyncio.run(serve(SyncWorker(peer)))
