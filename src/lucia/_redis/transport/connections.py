"""Pools of the store's own connections to one server, async and sync.

A pooled connection may be dead without any sign of it: a load balancer, a NAT or a host that
crashed forgot it, or reset it. It may also lead to a server that is not the one it was: a primary
that was demoted, filled from another one, and promoted again. So (invariants T1, T3 and T4):

* A connection that was closed or reset, as far as can be seen here, is not used.
* One that was not checked for some seconds is checked first, by a round trip that also returns the
  server's history and role.
* A lost connection retires its generation: all connections that are as old are closed, now or
  when they are given back.
* A retry asks for a fresh connection (:class:`~lucia._redis.commands.SendMode`).
* While a replay of revocations is due, a connection carries nothing else.

What a pool decides is in :class:`_Pool`, once for both flavours; the pools themselves do the
waiting. The pools of redis-py have no such checks, and raise where a request should wait.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lucia._redis.commands import DEFAULT_MODE, AsyncReplies, Reply, SendMode, Words
from lucia._redis.replay import Checkpoint, ConnectionMonitor
from lucia._redis.transport import blocking_io
from lucia._redis.transport import settings as connection_settings
from lucia._redis.transport.batching import RequestBatcher
from lucia._redis.transport.connection_io import (
    HIGH_WATER,
    INFO,
    Records,
    closes_connection,
    drop,
    is_clean,
    pack,
    read_replies,
    records_in,
)
from lucia._redis.transport.fair_semaphore import FairSemaphore
from lucia._redis.transport.retries import BatchRejected, NoReply
from lucia._redis.transport.settings import AsyncSettings, Settings
from lucia._redis.transport.topology import ConnectionFactory
from lucia._redis.transport.tracking import AsyncTracked

__all__ = ["AsyncServer", "Server"]

_RETIRED: Final = -1
"""The generation of a connection that is closed when it is given back."""

_UNCHECKED: Final = Checkpoint(b"", -1)
"""Equal to no checkpoint of a server."""


@dataclass(slots=True)
class _Pooled:
    """A connection and what its pool knows of it.

    Args:
        connection: of the application's client library.
        generation: of the pool, when the server last answered a check on the connection.
        checked: when that was, by the monotonic clock.
        checkpoint: the result of that check.
    """

    connection: Any
    generation: int = _RETIRED
    checked: float = -math.inf
    checkpoint: Checkpoint = _UNCHECKED


class _Pool:
    """Decides which connections may be used, and which have to be closed."""

    def __init__(
        self,
        factory: ConnectionFactory,
        monitor: ConnectionMonitor,
        seconds: float,
        *,
        many_slots: bool,
    ) -> None:
        self._factory = factory
        self._monitor = monitor
        self._revocations = monitor.revocations
        self._seconds = seconds
        # A node of a cluster may have left its address. With two thirds of the time left, the slot
        # map can be read again, and another node be asked.
        self._connect_seconds = seconds / 3 if many_slots else seconds
        self._idle: list[_Pooled] = []
        self._generation: int = 0
        self._closings: int = 0
        self._is_closed = False
        self._lost_at = -math.inf

    def _may_send(self, pooled: _Pooled, *, during_replay: bool) -> bool:
        """Return whether nothing has to be done before anything is sent (T3).

        Another event loop or thread may have met another server since the last check.
        """
        return pooled.checkpoint.demand == self._revocations.newest_demand and (
            during_replay or not self._revocations.due
        )

    def _is_checked(self, pooled: _Pooled) -> bool:
        """Return whether the last check is recent, and nothing has happened since (T4)."""
        # Checked since the last loss: a connection as old as the lost one may be lost too (T1).
        oldest = max(time.monotonic() - connection_settings.IDLE_CHECK_SECONDS, self._lost_at)
        return (
            pooled.checked >= oldest and pooled.checkpoint.demand == self._revocations.newest_demand
        )

    def _pop(self) -> _Pooled | None:
        """Return the idle connection that was used last, so that the others can be closed."""
        try:
            return self._idle.pop()
        except IndexError:  # another thread may have taken the last one
            return None

    def _keep(self, pooled: _Pooled, replies: Sequence[Reply] = ()) -> bool:
        """Return whether a connection went back to the idle ones; else it has to be closed."""
        if pooled.generation != self._generation:
            # A connection of the same age was lost, or the pool was closed (T1).
            return False
        # Only errors cost a look at their kind.
        if replies and isinstance(replies[-1], Exception) and closes_connection(replies[-1]):
            return False
        self._idle.append(pooled)
        return True

    def _retire(self) -> list[_Pooled]:
        """Start a new generation; return the idle connections of the last one, to be closed."""
        self._generation += 1
        idle, self._idle = self._idle, []
        return idle

    def _note_loss(self, generation: int, seconds: float, *, timed_out: bool) -> list[_Pooled]:
        """Record a lost connection; return the idle ones that are as old, to be closed.

        They are likely to be lost too. But where a request with little time timed out, the server
        may only be slow: then they are checked before their next use instead. Opening all of them
        again would make it slower.
        """
        self._monitor.lost()
        self._lost_at = time.monotonic()
        is_certain = not timed_out or seconds >= self._seconds / 2
        return self._retire() if is_certain and generation == self._generation else []

    def _is_other_server(self, pooled: _Pooled, reply: Reply) -> bool:
        """Return whether the reply to a check names another history than the known one.

        Raises:
            Exception: the connection must not be used.
        """
        self._monitor.check(reply)
        before = None if pooled.checkpoint is _UNCHECKED else pooled.checkpoint
        return self._monitor.is_changed(reply, before)

    def _passed(self, pooled: _Pooled, reply: Reply, closings: int) -> None:
        """Record a check that succeeded.

        Args:
            closings: how often the pool was closed before the check or the connection began.
        """
        pooled.checkpoint, pooled.checked = self._monitor.connected(reply), time.monotonic()
        # Closed while it was opened or checked: it serves this request, and is then closed.
        is_current = closings == self._closings and not self._is_closed
        pooled.generation = self._generation if is_current else _RETIRED


class AsyncServer(_Pool):
    """The connections to one server, for one event loop, as many as the client may have.

    Args:
        factory: makes them.
        monitor: learns when one is opened, checked or lost.
        settings: how they are used.
        many_slots: whether the server is a node of a cluster.
    """

    def __init__(
        self,
        factory: ConnectionFactory,
        monitor: ConnectionMonitor,
        settings: AsyncSettings,
        *,
        many_slots: bool = False,
    ) -> None:
        super().__init__(factory, monitor, settings.seconds, many_slots=many_slots)
        self._permits = asyncio.Semaphore(factory.limit)
        self._tracked = self._track(settings)
        self.read_exchange = self._exchange if self._tracked is None else self._tracked.exchange
        self._batches = self._reads = (
            RequestBatcher(self._exchange, settings.seconds) if settings.coalesce else None
        )
        # With a near-cache reads go on the tracked connection, so they are batched apart.
        if self._batches is not None and self._tracked is not None:
            self._reads = RequestBatcher(self.read_exchange, settings.seconds, only_reads=True)

    def ask(
        self, commands: Sequence[Words], seconds: float, mode: SendMode = DEFAULT_MODE
    ) -> AsyncReplies:
        """Send commands one right after another; return their replies in order.

        A server's error is a reply too. What belongs on one connection with a command (ASKING
        before it, WAIT after it) must be passed in the same call. Unless ``mode`` says otherwise,
        requests of others in the same tick may be sent on it too, before and after.

        Args:
            commands: what to send.
            seconds: for waiting for a connection, connecting, sending and reading, all in all (T7).
            mode: how to send it.

        Raises:
            Overloaded: too many requests wait.
            NoReply: the time was over, or no connection could be made, or it was lost.
            BatchRejected: nothing was sent, since a replay of revocations comes first.
        """
        if self._batches is None or mode.alone:
            return self._exchange(
                commands, seconds, fresh=mode.fresh, during_replay=mode.during_replay
            )
        return self._batches.ask(commands, seconds, fresh=mode.fresh)

    async def read(self, keys: Sequence[bytes], seconds: float) -> Records:
        """Return what is at these keys, which are in one slot.

        Raises:
            BatchRejected: as :meth:`ask`, or the server answered something else.
            Overloaded, NoReply: as :meth:`ask`.
        """
        commands: list[Words] = [("MGET", *keys)]
        if self._reads is None:
            replies = await self.read_exchange(commands, seconds, only_reads=True)
        else:
            replies = await self._reads.ask(commands, seconds)
        return records_in(replies[0], len(keys))

    async def drop_idle(self) -> None:
        """Close the connections: the idle ones now, those in use when they are given back."""
        if self._tracked is not None:
            self._tracked.drop()
        await self._close_pooled()

    async def close_all(self) -> None:
        """Close the connections, also those that are being opened. Later calls open new ones."""
        self._closings += 1
        await self._close_all()

    async def aclose(self) -> None:
        """Close the connections for good: later calls open new ones, and keep none of them."""
        self._is_closed = True
        await self.close_all()

    async def _exchange(
        self,
        commands: Sequence[Words],
        seconds: float,
        *,
        only_reads: bool = False,
        fresh: bool = False,
        during_replay: bool = False,
        sending: Callable[[], None] | None = None,
    ) -> list[Reply]:
        sent, has_permit, generation = False, False, _RETIRED
        limit = asyncio.timeout(seconds)
        try:
            async with limit, self._permits:
                has_permit = True
                pooled = await self._take(seconds, fresh=fresh)
                generation = pooled.generation
                # Asked after the connection was checked, which may have met another history (T3).
                if not self._may_send(pooled, during_replay=during_replay):
                    if not self._keep(pooled):
                        await drop(pooled.connection)
                    raise BatchRejected  # noqa: TRY301 # where it is decided
                try:
                    packed = pack(pooled.connection, commands)
                    if sending is not None:
                        sending()
                    # From here on: a request that is cancelled or times out may have arrived.
                    sent = True
                    try:
                        await pooled.connection.send_packed_command(packed, False)
                    except Exception:
                        sent = len(packed) > HIGH_WATER
                        raise
                    replies = await read_replies(pooled.connection, len(commands))
                except BaseException:
                    # Also when cancelled: the next request would read this one's replies (I0).
                    await drop(pooled.connection)
                    raise
                if not self._keep(pooled, replies):
                    await drop(pooled.connection)
        except BatchRejected:
            raise
        except Exception as error:
            if has_permit:  # else no connection was tried
                await self._lose(generation, seconds, timed_out=limit.expired())
            raise NoReply(None if limit.expired() else error, sent=sent) from error
        return replies

    async def _take(self, seconds: float, *, fresh: bool) -> _Pooled:
        """Return a connection that can be used now; a new one if ``fresh``."""
        while (pooled := self._pop()) is not None:
            if fresh:  # the new one takes the place of this one, or the limit would be exceeded
                await drop(pooled.connection)
                break
            if await self._is_usable(pooled, seconds):
                return pooled
        return await self._open()

    async def _is_usable(self, pooled: _Pooled, seconds: float) -> bool:
        """Return whether an idle connection can be used; close it otherwise.

        A check has half of the time, so that the other half is left to open another connection.
        """
        generation, usable, timed_out = pooled.generation, False, False
        try:
            usable = await is_clean(pooled.connection)
            if usable and not self._is_checked(pooled):
                usable, timed_out = await self._passes_check(pooled, seconds / 2)
        finally:
            if not usable:
                await drop(pooled.connection)
        if not usable:
            await self._lose(generation, seconds, timed_out=timed_out)
        return usable

    async def _passes_check(self, pooled: _Pooled, seconds: float) -> tuple[bool, bool]:
        """Return whether a check succeeds within so many seconds, and whether it timed out."""
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await self._check(pooled, self._closings)
        except Exception:  # each client has its own kinds of errors here
            return False, limit.expired()
        return True, False

    async def _open(self) -> _Pooled:
        """Open a connection, and check it."""
        connection, closings = self._factory.connection(), self._closings
        # The deadline is ours; with a timeout of its own, redis-py starts a task for each send.
        connection.socket_timeout = connection.socket_connect_timeout = None
        pooled = _Pooled(connection)
        try:
            async with asyncio.timeout(self._connect_seconds):
                await connection.connect()
            await self._check(pooled, closings)
        except BaseException:
            await drop(connection)
            raise
        return pooled

    async def _check(self, pooled: _Pooled, closings: int) -> None:
        """Ask the server which history it has, and whether it is a primary.

        Raises:
            Exception: the connection must not be used.
        """
        connection = pooled.connection
        await connection.send_packed_command(connection.pack_commands([INFO]), False)
        (reply,) = await read_replies(connection, 1)
        if self._is_other_server(pooled, reply):
            # Before the new history is recorded: the replay must not be sent to the former server.
            await self._close_all()
        self._passed(pooled, reply, closings)

    async def _lose(self, generation: int, seconds: float, *, timed_out: bool) -> None:
        for pooled in self._note_loss(generation, seconds, timed_out=timed_out):
            await drop(pooled.connection)

    async def _close_all(self) -> None:
        await self._close_pooled()
        if self._tracked is not None:
            await self._tracked.aclose()

    async def _close_pooled(self) -> None:
        for pooled in self._retire():
            await drop(pooled.connection)

    def _track(self, settings: AsyncSettings) -> AsyncTracked | None:
        """Return the connection for reads that fill the near-cache, if there is one."""
        if settings.near.lease is None:
            return None
        return AsyncTracked(
            self._factory,
            self._monitor,
            settings.near.entries,
            lease=settings.near.lease,
            seconds=settings.seconds,
            plain=self._exchange,
            moved=self._close_pooled,
        )


class Server(_Pool):
    """The connections to one server, for the threads of one process, first come, first served.

    Args:
        factory: makes them.
        monitor: learns when one is opened, checked or lost.
        settings: how they are used.
        many_slots: whether the server is a node of a cluster.
    """

    def __init__(
        self,
        factory: ConnectionFactory,
        monitor: ConnectionMonitor,
        settings: Settings,
        *,
        many_slots: bool = False,
    ) -> None:
        super().__init__(factory, monitor, settings.seconds, many_slots=many_slots)
        self._permits = FairSemaphore(factory.limit)

    def ask(
        self, commands: Sequence[Words], seconds: float, mode: SendMode = DEFAULT_MODE
    ) -> list[Reply]:
        """Send commands together on one connection, and return their replies in order.

        A server's error is a reply too. What belongs on one connection with a command (ASKING
        before it, WAIT after it) must be passed in the same call.

        Args:
            commands: what to send.
            seconds: for waiting for a connection, connecting, sending and reading, all in all (T7).
            mode: how to send it; requests of other threads are never sent together with it.

        Raises:
            NoReply: the time was over, or no connection could be made, or it was lost.
            BatchRejected: nothing was sent, since a replay of revocations comes first.
        """
        end = time.monotonic() + seconds
        if not self._permits.acquire(seconds):
            raise NoReply(None, sent=False)
        sent, generation = False, _RETIRED
        try:
            pooled = self._take(end, fresh=mode.fresh)
            generation = pooled.generation
            if not self._may_send(pooled, during_replay=mode.during_replay):
                self._give_back(pooled)
                raise BatchRejected  # noqa: TRY301 # where it is decided
            try:
                # If sending fails, the last command is incomplete, so the server runs nothing of
                # it (T2). Those before it change nothing without it (ASKING, MULTI).
                blocking_io.send(pooled.connection, commands, end)
                sent = True
                replies = blocking_io.read_replies(pooled.connection, len(commands))
            except BaseException:
                pooled.connection.disconnect()
                raise
            self._give_back(pooled, replies)
        except BatchRejected:
            raise
        except Exception as error:
            # By the clock: each client raises its own error for a timeout.
            timed_out = time.monotonic() >= end
            self._lose(generation, seconds, timed_out=timed_out)
            raise NoReply(None if timed_out else error, sent=sent) from error
        finally:
            self._permits.release()
        return replies

    def read(self, keys: Sequence[bytes], seconds: float) -> Records:
        """Return the values of keys, which are in one slot.

        Raises:
            BatchRejected: as :meth:`ask`, or the server answered something else.
            NoReply: as :meth:`ask`.
        """
        return records_in(self.ask([("MGET", *keys)], seconds)[0], len(keys))

    def drop_idle(self) -> None:
        """Close the connections: the idle ones now, those in use when they are given back."""
        _disconnect(self._retire())

    def close_all(self) -> None:
        """Close the connections, also those that are being opened. Later calls open new ones."""
        self._closings += 1
        self.drop_idle()

    def close(self) -> None:
        """Close the connections. Later calls open new ones, since this object is used again."""
        self.close_all()

    def _take(self, end: float, *, fresh: bool) -> _Pooled:
        """Return a connection that can be used now; a new one if ``fresh``."""
        while (pooled := self._pop()) is not None:
            if fresh:  # the new one takes the place of this one, or the limit would be exceeded
                pooled.connection.disconnect()
                break
            if self._is_usable(pooled, end):
                return pooled
        return self._open(end)

    def _is_usable(self, pooled: _Pooled, end: float) -> bool:
        """Return whether an idle connection can be used; close it otherwise.

        A check has half of the time, so that the other half is left to open another connection.
        """
        generation, usable, timed_out, now = pooled.generation, False, False, time.monotonic()
        try:
            # It may have been retired while another thread gave it back.
            usable = generation == self._generation and blocking_io.is_clean(pooled.connection, end)
            if usable and not self._is_checked(pooled):
                usable, timed_out = self._passes_check(pooled, (now + end) / 2)
        finally:
            if not usable:
                pooled.connection.disconnect()
        if not usable:
            self._lose(generation, end - now, timed_out=timed_out)
        return usable

    def _passes_check(self, pooled: _Pooled, end: float) -> tuple[bool, bool]:
        """Return whether a check succeeds by then, and whether it timed out."""
        try:
            self._check(pooled, self._closings, end)
        except Exception:  # each client has its own kinds of errors here
            return False, time.monotonic() >= end
        return True, False

    def _open(self, end: float) -> _Pooled:
        """Open a connection, and check it."""
        connection, closings = self._factory.connection(), self._closings
        # For the socket's connect(), which runs before the socket is wrapped in a TimedSocket.
        connection.socket_timeout = connection.socket_connect_timeout = blocking_io.seconds_until(
            end
        )
        pooled = _Pooled(connection)
        try:
            blocking_io.connect(connection, min(end, time.monotonic() + self._connect_seconds))
            self._check(pooled, closings, end)
        except BaseException:
            connection.disconnect()
            raise
        return pooled

    def _check(self, pooled: _Pooled, closings: int, end: float) -> None:
        """Ask the server which history it has, and whether it is a primary.

        Raises:
            Exception: the connection must not be used.
        """
        blocking_io.send(pooled.connection, [INFO], end)
        (reply,) = blocking_io.read_replies(pooled.connection, 1)
        if self._is_other_server(pooled, reply):
            # Before the new history is recorded: the replay must not be sent to the former server.
            self.drop_idle()
        self._passed(pooled, reply, closings)

    def _give_back(self, pooled: _Pooled, replies: Sequence[Reply] = ()) -> None:
        if not self._keep(pooled, replies):
            pooled.connection.disconnect()

    def _lose(self, generation: int, seconds: float, *, timed_out: bool) -> None:
        _disconnect(self._note_loss(generation, seconds, timed_out=timed_out))


def _disconnect(pooled: Iterable[_Pooled]) -> None:
    for each in pooled:
        each.connection.disconnect()
