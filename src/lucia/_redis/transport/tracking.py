"""A connection for reads on which the server announces changes, to fill the near-cache.

``CLIENT TRACKING ON``, in RESP3, makes the server remember which keys were read on the connection,
and push their names there when they change. One task reads everything that arrives, replies and
pushes alike, and fills or evicts entries right there, in the order in which the server sent them. A
waiting request wakes up later, when its reply may be outdated, and so fills nothing.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final, cast

from lucia._logs import near_cache_off
from lucia._redis.commands import Reply, Words
from lucia._redis.replay import Checkpoint, ConnectionMonitor
from lucia._redis.transport import settings as connection_settings
from lucia._redis.transport.client_errors import is_refusal, is_transient
from lucia._redis.transport.connection_io import (
    INFO,
    Exchange,
    closes_connection,
    drop,
    is_open,
    pack,
    read_replies,
)
from lucia._redis.transport.near_cache_entries import ENTRY_SECONDS, Entries, Lease, Reading
from lucia._redis.transport.retries import BatchRejected, NoReply
from lucia._redis.transport.topology import ConnectionFactory

__all__ = ["AsyncTracked"]

_HELLO: Final = ("HELLO", 3)
"""Sent again in case the application's connection class uses RESP2.

With RESP2 a server accepts ``CLIENT TRACKING`` and never announces a change.
"""

_TRACKING: Final = ("CLIENT", "TRACKING", "ON")

HEARTBEATS_PER_LEASE: Final = 3
"""How often in a lease's time it is renewed while there are no requests."""

REFUSED_SECONDS: Final = 60.0
"""How long after a refusal a server is asked again for tracking."""


class AsyncTracked:
    """The reads of one server, in one event loop, that fill the near-cache.

    If the server or the client can't announce changes, reads go the way of other commands, and one
    line is logged that says why.

    Args:
        factory: makes the connection.
        monitor: learns which history the server has, and that the connection was lost.
        entries: the near-cache.
        lease: how long entries may be used without a sign of the server, in seconds.
        seconds: how long the reply to a renewal of the lease may take.
        plain: sends commands on other connections.
        moved: retires the other connections, when this one has met another history.
    """

    def __init__(
        self,
        factory: ConnectionFactory,
        monitor: ConnectionMonitor,
        entries: Entries,
        *,
        lease: float,
        seconds: float,
        plain: Exchange,
        moved: Callable[[], Awaitable[None]],
    ) -> None:
        self._factory = factory.with_options(protocol=3)
        self._monitor = monitor
        self._entries = entries
        self._lease = lease
        self._seconds = seconds
        self._plain = plain
        self._moved = moved
        self._opening = asyncio.Lock()
        self._link: _Link | None = None
        self._round = 0
        self._not_before = -math.inf
        self._told = False

    async def exchange(
        self,
        commands: Sequence[Words],
        seconds: float,
        *,
        only_reads: bool = False,
        fresh: bool = False,
        sending: Callable[[], None] | None = None,
    ) -> list[Reply]:
        """Send commands together, and return their replies in order, errors included.

        Args:
            commands: each an ``MGET``, if ``only_reads``.
            seconds: for all of it.
            only_reads: whether none of them changes anything; others go to ``plain``.
            fresh: whether they need a connection that is opened for them; then they go to
                ``plain``.
            sending: called when they may begin to arrive at the server.

        Raises:
            NoReply: the time was over, or no connection could be made, or it was lost.
            BatchRejected: nothing was sent, since a replay of revocations comes first.
        """
        end = time.monotonic() + seconds
        link = await self._reach(seconds) if only_reads and not fresh else None
        left, sending = end - time.monotonic(), sending or _nothing
        if link is None:
            return await self._plain(
                commands, left, only_reads=only_reads, fresh=fresh, sending=sending
            )
        # Asked only now: opening the connection may have met another history (T3).
        if self._monitor.revocations.due:
            raise BatchRejected
        return await link.ask(commands, left, sending)

    def drop(self) -> None:
        """Close the connection now; the next read opens another."""
        if self._link is not None:
            self._link.lose(_closed_by_us())

    async def aclose(self) -> None:
        """Close the connection once no request is in flight. Later calls open another."""
        self._round += 1
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()

    async def _reach(self, seconds: float) -> "_Link | None":
        """Return the connection, opened if there is none; None if it can't track."""
        if self._is_settled():
            return self._link
        limit = asyncio.timeout(seconds)
        try:
            async with limit, self._opening:
                await self._settle()
        except Exception as error:
            self._monitor.lost()
            raise NoReply(None if limit.expired() else error, sent=False) from error
        return self._link

    async def _settle(self) -> None:
        # Asked again: another task may have opened it while this one waited for the lock.
        if not self._is_settled():
            if self._link is not None:
                await self._link.aclose()
            round_ = self._round
            self._link = await self._open()
            if self._link is not None and round_ != self._round:  # it was closed meanwhile
                self._link.retire()

    def _is_settled(self) -> bool:
        """Return whether there is a connection, or tracking was refused recently."""
        if self._link is not None:
            return self._link.is_open
        return self._entries.clock() < self._not_before

    async def _open(self) -> "_Link | None":
        """Open a connection, and check its server's history; None if it can't track."""
        connection = self._factory.connection()
        connection.socket_timeout = connection.socket_connect_timeout = None  # the deadline is ours
        try:
            history, refusal = await _handshake(connection)
            if refusal is None:
                self._monitor.check(history)
                if self._monitor.is_changed(history):
                    # Before the new history is recorded: the replay must not be sent to the former
                    # server.
                    await self._moved()
                checkpoint = self._monitor.connected(history)
                return _Link(
                    connection,
                    checkpoint,
                    self._monitor,
                    self._entries,
                    lease=self._lease,
                    seconds=self._seconds,
                    moved=self._moved,
                )
        except BaseException:
            await drop(connection)
            raise
        await drop(connection)
        self._not_before = self._entries.clock() + REFUSED_SECONDS
        if not self._told:
            self._told = True
            near_cache_off(refusal)
        return None


class _Link:
    """One tracked connection, until it is lost."""

    def __init__(
        self,
        connection: Any,
        checkpoint: Checkpoint,
        monitor: ConnectionMonitor,
        entries: Entries,
        *,
        lease: float,
        seconds: float,
        moved: Callable[[], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._monitor = monitor
        self._entries = entries
        self._lease = Lease(lease)
        self._pause = lease / HEARTBEATS_PER_LEASE
        self._seconds = seconds
        self._moved = moved
        self._checkpoint, self._checked = checkpoint, time.monotonic()
        self._waiting: deque[tuple[_Asked | None, Reading | None]] = deque()  # None for a check
        self._closing = self._lost = False
        self._newest: tuple[float, Words] = (-math.inf, ())
        self._filled = asyncio.Event()
        # The parser calls it between two replies, so in the order in which the server sent them.
        connection._parser.set_invalidation_push_handler(self._evict)
        loop = asyncio.get_running_loop()
        # An empty context: the tasks belong to none of the requests. Not by create_task: an eager
        # task factory would run them at once, before this object is complete.
        self._reader = asyncio.Task(self._read(), loop=loop, context=Context())
        self._beater = asyncio.Task(self._beat(), loop=loop, context=Context())

    @property
    def is_open(self) -> bool:
        """Whether commands may still be sent on the connection."""
        return not (self._lost or self._closing) and is_open(self._connection)

    async def ask(
        self,
        reads: Sequence[Words],
        seconds: float,
        sending: Callable[[], None],
        *,
        keeps: bool = True,
    ) -> list[Reply]:
        """Send ``MGET`` commands, and return their replies; fill the near-cache if ``keeps``.

        If the last check is too long ago, another one is sent before them. If it names another
        history, their replies are not used (T4).

        Raises:
            NoReply: the connection is lost, maybe since the time was over.
        """
        checks = [] if self._is_checked() else [INFO]
        packed = pack(self._connection, [*checks, *reads])
        if checks:
            # Now, not when it is answered: later requests need no check of their own, since their
            # replies come after the reply to this one.
            self._checked = time.monotonic()
            self._waiting.append((None, None))
        asked = _Asked(
            self._entries.clock(), len(reads), asyncio.get_running_loop().create_future()
        )
        # Replies are told apart by their order alone: from here to the write, which redis-py does
        # before it first suspends, no other task may run.
        for words in reads:
            self._waiting.append(
                (asked, self._entries.begin(cast("Sequence[bytes]", words[1:])) if keeps else None)
            )
        sending()
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await self._connection.send_packed_command(packed, False)
                return await asked.answered
        # From lose(): its caller has closed the connection and recorded the loss.
        except NoReply:
            raise
        except Exception as error:
            lost = None if limit.expired() else error
            self._monitor.lost()
            # Nobody waits for it any more, and asyncio would log an error in it as never retrieved.
            asked.answered.cancel()
            self.lose(lost)
            raise NoReply(lost, sent=True) from error

    def _is_checked(self) -> bool:
        is_recent = time.monotonic() - self._checked <= connection_settings.IDLE_CHECK_SECONDS
        return is_recent and self._checkpoint.demand == self._monitor.revocations.newest_demand

    def lose(self, error: Exception | None) -> None:
        """Stop using the connection: flush the near-cache, then fail the requests in flight."""
        if self._lost:
            return
        self._lost = True
        # What was read on this connection gets no invalidations any more.
        self._entries.flush()
        for asked, reading in self._waiting:
            self._give_up(reading)
            if asked is not None:
                asked.fail(NoReply(error, sent=True))
        self._waiting.clear()
        self._beater.cancel()
        # The reader calls this itself before it closes the connection: cancelling it then would
        # interrupt that. Cancelled by others, it ends and closes it.
        if self._reader is not asyncio.current_task():
            self._reader.cancel()

    def retire(self) -> None:
        """Stop filling the near-cache; the connection is closed once no request is in flight."""
        self._closing = True
        self._entries.flush()

    async def aclose(self) -> None:
        """Close the connection, now or once all requests in flight are answered."""
        self.retire()
        if not self._waiting:
            self.lose(_closed_by_us())
            # The reader closes the connection, so that it is closed when this returns.
            await asyncio.wait([self._reader, self._beater])

    async def _read(self) -> None:
        """Read replies and pushes until the connection is lost."""
        lost: Exception | None = None
        try:
            while self._waiting or not self._closing:
                (reply,) = await read_replies(self._connection, 1)
                self._take(reply)
        except asyncio.CancelledError:
            pass
        except _OtherServer as error:
            # In this order, as when a connection is opened.
            await self._moved()
            self._monitor.connected(error.reply)
            lost = error
        except Exception as error:
            self._monitor.lost()
            lost = error
        self.lose(lost)
        await drop(self._connection)

    def _take(self, reply: Reply) -> None:
        """Give a reply to the oldest command in flight.

        Raises:
            ConnectionError: there is no such command, or it can't be its reply (I0), or the client
                closes the connection after it.
            _OtherServer: a check names another history.
        """
        if not self._waiting:
            raise ConnectionError("a reply came to no command")
        asked, reading = self._waiting[0]
        if asked is None:
            self._take_check(reply)
            return
        if isinstance(reply, Exception):
            # As from a node that lost its slots: it may not announce all changes any more.
            self._entries.flush()
            self._give_up(reading)
        else:
            self._keep(asked, reading, _records(reply))
        # Not before: if the reply is refused, lose() fails this request with the others.
        self._waiting.popleft()
        asked.take(reply)
        if closes_connection(reply):
            raise ConnectionError("the client closes the connection after this reply")

    def _take_check(self, reply: Reply) -> None:
        self._monitor.check(reply)
        if self._monitor.is_changed(reply, self._checkpoint):
            raise _OtherServer(reply)
        self._checkpoint = self._monitor.connected(reply)
        self._waiting.popleft()

    def _keep(
        self, asked: "_Asked", reading: Reading | None, records: Sequence[bytes | None]
    ) -> None:
        self._lease.extend(asked.sent)
        if reading is not None:
            self._entries.fill(reading, records, asked.sent, self._lease)
            self._newest = asked.sent, ("MGET", *reading.keys[:1])
            self._filled.set()

    def _give_up(self, reading: Reading | None) -> None:
        if reading is not None:
            self._entries.give_up(reading)

    def _evict(self, push: Sequence[Any]) -> "_Handled":
        """Evict the keys that the server announces as changed, or everything."""
        keys = push[1]
        if keys is None:
            self._entries.flush()
        else:
            self._entries.drop(keys)
        return _HANDLED

    async def _beat(self) -> None:
        """Renew the lease while there are entries and no requests, by reading one of the keys."""
        with suppress(NoReply):
            while True:
                await self._filled.wait()
                await asyncio.sleep(self._pause)
                self._entries.sweep()
                asked, read = self._newest
                # Not by PING, for which the server's user may have no right. Entries do not live
                # longer by it.
                if asked + ENTRY_SECONDS > self._entries.clock() and self.is_open:
                    await self.ask([read], self._seconds, _nothing, keeps=False)
                else:
                    self._filled.clear()


class _OtherServer(ConnectionError):
    """The server on this connection has another history than at its last check."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("the server's history changed")
        self.reply = reply


@dataclass(slots=True)
class _Asked:
    """Commands that were sent together."""

    sent: float
    count: int
    answered: "asyncio.Future[list[Reply]]"
    replies: list[Reply] = field(default_factory=list[Reply])

    def take(self, reply: Reply) -> None:
        """Add the next reply: there are fewer than commands if the client then closes."""
        self.replies.append(reply)
        if (
            len(self.replies) == self.count or closes_connection(reply)
        ) and not self.answered.done():
            self.answered.set_result(self.replies)

    def fail(self, error: NoReply) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)


class _Handled:
    """The result of a handler of pushes, for clients that await it and for clients that don't."""

    def __await__(self) -> Iterator[None]:
        return iter(())


_HANDLED: Final = _Handled()


async def _handshake(connection: Any) -> tuple[Reply, str | None]:
    """Open a tracked connection; return the reply to ``INFO replication``, and why it can't track.

    Raises:
        Exception: the connection could not be opened now.
    """
    try:
        await connection.connect()
    except Exception as error:
        if is_refusal(error) and not is_transient(error):
            return None, "the server does not speak RESP3"  # its text may quote the password
        raise
    if not hasattr(connection._parser, "set_invalidation_push_handler"):
        return None, f"{type(connection._parser).__name__} of the client does not support pushes"
    await connection.send_packed_command(connection.pack_commands([_HELLO, INFO, _TRACKING]), False)
    replies = await read_replies(connection, 3)
    if closes_connection(replies[-1]) or is_transient(replies[-1]):
        raise replies[-1]
    _, history, tracking = replies
    return history, f"the server refuses {' '.join(_TRACKING)}: {tracking}" if isinstance(
        tracking, Exception
    ) else None


def _records(reply: Reply) -> list[bytes | None]:
    """Return the values in a reply to ``MGET``.

    Raises:
        ConnectionError: it is another command's reply (I0).
    """
    if isinstance(reply, list) and all(
        record is None or isinstance(record, bytes) for record in cast("list[object]", reply)
    ):
        return cast("list[bytes | None]", reply)
    raise ConnectionError("a reply came to another command")


def _closed_by_us() -> Exception:
    """Return the error for requests in flight on a connection that we closed: they are retried."""
    return ConnectionError("the connection was given up")


def _nothing() -> None:
    """Do nothing when sending begins."""
