"""Reads of sessions, batched: the path of nearly every request to an application.

Reads of one tick of an event loop are sent together, in one ``MGET`` or a few. The task that sends
one parses the records and sets the results, so a request waits for nothing but its own future.
Whatever is in the way, such as a lost connection or another session's record, is left to the
session reader.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from lucia._logs import Outage
from lucia._redis.lookup import Lookup
from lucia._redis.records import MAX_RECORD_BYTES, PARSE_ERRORS, MismatchedReply, parse_record
from lucia._redis.replay import Revocations
from lucia._redis.transport import batching
from lucia._redis.transport.batching import Batcher
from lucia._redis.transport.connection_io import Exchange, found_in
from lucia._redis.transport.retries import BatchRejected, NoReply, error_to_raise
from lucia._redis.transport.settings import AsyncSettings, Settings
from lucia.models import StoredSession

__all__ = ["AsyncSessionReads", "SessionReads"]

ReadError = NoReply | BatchRejected | MismatchedReply
"""Why a session was not read, though it may be there."""

Recover = Callable[[str, ReadError, float], Coroutine[Any, Any, StoredSession | None]]
"""Reads a session another way after an error, in so many seconds."""

_Future = asyncio.Future[StoredSession | None]

_Read = tuple[str, _Future, bytes | list[bytes]]
"""A session id, the future of its session, and the key or keys at which the session may be: all
that a waiting request keeps alive here."""


class _Server(Protocol):
    @property
    def read_exchange(self) -> Exchange:
        """Sends commands that change nothing."""
        ...


class SessionReads:
    """Sync code asks for one session at a time, so nothing is batched."""

    def __init__(
        self,
        lookup: Lookup,
        settings: Settings,
        revocations: Revocations,
        outage: Outage,
        recover: object,
    ) -> None: ...

    def find(self, session_id: str) -> StoredSession | None:
        """Return None: the session reader asks the server."""
        return None

    def begin(self, server: object) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class AsyncSessionReads:
    """Reads the sessions of one server, in batches of each event loop.

    Args:
        lookup: at which keys a session may be.
        settings: the deadline, and the near-cache.
        revocations: whether a replay is due; until it is complete, nothing else is sent.
        outage: is told that the server answers again.
        recover: reads a session that could not be read in its batch.
    """

    def __init__(
        self,
        lookup: Lookup,
        settings: AsyncSettings,
        revocations: Revocations,
        outage: Outage,
        recover: Recover,
    ) -> None:
        self.lookup = lookup
        self.near = settings.near
        self.seconds = settings.seconds
        self.outage = outage
        self.recover = recover
        self._coalesce = settings.coalesce
        self._keeps = settings.near.lease is not None
        self._revocations = revocations
        self._batchers: dict[asyncio.AbstractEventLoop, _SessionBatcher] = {}

    def find(self, session_id: str) -> _Future | None:
        """Return the future of a session; None where the session reader has to ask.

        Raises:
            Overloaded: too many requests wait.
        """
        loop = asyncio.get_running_loop()
        if self._keeps:
            session = self.near.session(self.lookup, session_id)
            if session is not None:
                known: _Future = loop.create_future()
                known.set_result(session)
                return known
        # Until a replay is complete only the driver sends anything (T3).
        batcher = self._batchers.get(loop)
        if batcher is None or self._revocations.due:
            return None
        return batcher.read(session_id)

    def begin(self, server: "_Server | None") -> None:
        """Batch the reads of the running event loop from now on.

        Args:
            server: has all keys; None where there is no such server.
        """
        if server is None or not self._coalesce:
            return
        if asyncio.get_running_loop() in self._batchers:  # another read of this tick was first
            return
        # A copy, and an entry may be gone: loops of other threads may be doing the same.
        for loop in [loop for loop in list(self._batchers) if loop.is_closed()]:
            self._batchers.pop(loop, None)
        batcher = _SessionBatcher(self, server.read_exchange)
        self._batchers[asyncio.get_running_loop()] = batcher

    def close(self) -> None:
        """Leave the running event loop's reads to the session reader, until :meth:`begin`."""
        self._batchers.pop(asyncio.get_running_loop(), None)


class _SessionBatcher(Batcher[_Read]):
    """The reads of one event loop."""

    def __init__(self, reads: AsyncSessionReads, exchange: Exchange) -> None:
        super().__init__(reads.seconds, time.monotonic)
        self._exchange = exchange
        self._lookup = reads.lookup
        self._prefix = reads.lookup.prefix
        self._near = reads.near
        self._outage = reads.outage
        self._recover = reads.recover
        self._recoveries: set[asyncio.Task[None]] = set()

    def read(self, session_id: str) -> _Future:
        """Return the future of a session."""
        prefix = self._prefix
        # Made here, so that an id that can't be encoded fails its own caller and not a batch.
        keys = self._lookup.keys(session_id) if prefix is None else (prefix + session_id).encode()
        if not self._collecting or not 0 < len(self._requests) < batching.MAX_WAITING:
            self.admit()  # else this batch is being collected, and has room: the fast path
        future: _Future = self._loop.create_future()
        self._requests.append((session_id, future, keys))
        return future

    async def send(self, requests: list[_Read], seconds: float) -> None:
        end = self._clock() + seconds
        groups: list[Any] = [keys for _, _, keys in requests]
        is_single = self._prefix is not None
        keys: list[bytes] = groups if is_single else [key for keys in groups for key in keys]
        try:
            replies = await self._exchange([("MGET", *keys)], seconds, only_reads=True)
        except (NoReply, BatchRejected) as error:
            self._recover_all(requests, error, end)
            return
        if self._outage.is_on:
            self._outage.answered()
        records = found_in(replies[0], len(keys)) if replies else None
        # An error for the whole MGET: read each alone, so that one key can't fail the others.
        if records is None:
            self._recover_all(requests, BatchRejected(), end)
        elif is_single:
            self._answer(requests, records, end)
        else:
            self._answer_groups(requests, groups, records, end)

    def fail(self, requests: Sequence[_Read], error: NoReply | BatchRejected) -> None:
        for _, future, _ in requests:
            if not future.done():
                unavailable = error_to_raise(NoReply(None, sent=False), wrote=False)
                self._outage.failed(unavailable)
                future.set_exception(unavailable)

    def _answer(self, requests: list[_Read], records: list[Any], end: float) -> None:
        """Parse the records, each of which is at the key of its session, and set the results."""
        near = self._near if self._near.lease is not None else None
        for (session_id, future, _), record in zip(requests, records, strict=True):
            if future.done():  # cancelled
                continue
            if record is None:
                future.set_result(None)
                continue
            try:
                row = parse_record(record)
            except PARSE_ERRORS:  # an odd record, which may be a session all the same
                self._answer_slowly(session_id, future, [record], end)
                continue
            # What parse_record leaves to its caller; the slow path decides and logs.
            if row.id != session_id or len(record) > MAX_RECORD_BYTES or "\0" in row.user_id:
                self._answer_slowly(session_id, future, [record], end)
                continue
            if near is not None:
                near.keep(self._lookup.keys(session_id), [record], row)
            future.set_result(row)

    def _answer_groups(
        self, requests: list[_Read], groups: list[list[bytes]], records: list[Any], end: float
    ) -> None:
        """Set the results where each session may be at several keys."""
        start = 0
        for (session_id, future, _), keys in zip(requests, groups, strict=True):
            found = records[start : start + len(keys)]
            start += len(keys)
            if not future.done():
                self._answer_slowly(session_id, future, found, end)

    def _answer_slowly(
        self, session_id: str, future: _Future, records: list[bytes | None], end: float
    ) -> None:
        try:
            row = self._lookup.row(session_id, records)
        except MismatchedReply:
            self._recover_one(session_id, future, MismatchedReply(), end)
            return
        self._near.keep(self._lookup.keys(session_id), records, row)
        future.set_result(row)

    def _recover_all(
        self,
        requests: Sequence[_Read],
        error: NoReply | BatchRejected,
        end: float,
    ) -> None:
        for session_id, future, _ in requests:
            self._recover_one(session_id, future, error, end)

    def _recover_one(self, session_id: str, future: _Future, error: ReadError, end: float) -> None:
        """Read a session another way, in a task that ends when nobody waits for it any more."""
        if future.done():
            return
        recovering = self._recovered(session_id, future, error, end - self._clock())
        # As a batch's worker is started: not by create_task.
        task = asyncio.Task(recovering, loop=self._loop, context=self._context)
        self._recoveries.add(task)
        task.add_done_callback(self._recoveries.discard)
        future.add_done_callback(lambda _: task.cancel())

    async def _recovered(
        self, session_id: str, future: _Future, error: ReadError, seconds: float
    ) -> None:
        try:
            row = await self._recover(session_id, error, seconds)
        # As when the event loop ends: whoever waits is cancelled too, and not left waiting.
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as failure:
            if not future.done():
                future.set_exception(failure)
        else:
            if not future.done():
                future.set_result(row)
