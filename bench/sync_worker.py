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
    """The methods of a sync library that a runner calls."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._pool: list[tuple[str, object]] = []
        self._user_ids: list[str] = []

    async def check(self) -> list[str]:
        """As :meth:`bench.worker.Worker.check`."""
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
        """Make what the operation will be measured with."""
        if operation == "create":
            self._user_ids = user_ids(count)
        else:
            self._pool = [
                (self._peer.create(user_id), self._peer.known_as(user_id))
                for user_id in user_ids(count)
            ]

    async def run(self, operation: str, callers: int, count: int) -> float:
        """The seconds that so many calls took."""
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
        """Per cent of the time of so many calls, by module; of a single caller."""
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
