"""A pool of our own connections to one server, in either flavour.

A pooled connection may be dead without any sign of it: a load balancer, a NAT or a host that
crashed forgot it, or reset it. It may also lead to a server that is not the one it was: a primary
that was demoted, filled from another one, and promoted again. So:

* A connection that was closed or reset, as far as can be told here, is not used.
* One that was not checked for some seconds is checked first, by a round trip that also tells the
  server's history and role.
* A lost connection retires its generation: all connections that are as old are closed, now or
  when they are given back.
* A retry asks for a fresh connection (:class:`~lucia._redis.commands.SendMode`).
* While a replay of revocations is due, a connection carries nothing else.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from lucia._redis.commands import USUAL, AsyncReplies, Reply, SendMode, Words
from lucia._redis.replay import Checkpoint, ConnectionMonitor
from lucia._redis.transport import settings as connection_settings
from lucia._redis.transport.batching import RequestBatcher
from lucia._redis.transport.client_errors import is_answer, is_last
from lucia._redis.transport.connection_io import HIGH_WATER, INFO, drop, is_clean, pack, replies_of
from lucia._redis.transport.fair_semaphore import FairSemaphore
from lucia._redis.transport.retries import AsyncRecords, BatchRejected, NoReply, Records, records_in
from lucia._redis.transport.settings import AsyncSettings, Settings
from lucia._redis.transport.threads import in_thread
from lucia._redis.transport.timed_socket import use_timed_socket
from lucia._redis.transport.topology import ConnectionFactory
from lucia._redis.transport.tracking import AsyncTracked

__all__ = ["AsyncServer", "Server"]

_RETIRED: Final = -1
"""The generation of a connection that is closed when it is given back."""


@dataclass(slots=True)
class _Pooled:
    """A connection and what its pool knows of it.

    Args:
        connection: of the client's kind.
        generation: of the pool, when the server last answered a check on it.
        checked: when that was, by the monotonic clock.
        checkpoint: what the server told.
    """

    connection: Any
    generation: int = _RETIRED
    checked: float = -math.inf
    checkpoint: Checkpoint | None = None


class AsyncServer:
    """The connections to one server, for one event loop: as many as the application's client may have.

    Args:
        recipe: how to make them.
        watch: is told when one is opened, checked or lost.
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
        self._factory = factory
        self._monitor = monitor
        self._places = asyncio.Semaphore(factory.limit)
        self._idle: list[_Pooled] = []
        self._generation = self._closings = 0
        self._doubted = -math.inf
        self._seconds = settings.seconds
        self._connect_seconds = _connect_seconds(settings.seconds, many_slots=many_slots)
        self._tracked = self._track(settings)
        self._send_reads = self._exchange if self._tracked is None else self._tracked.exchange
        self._batches = self._reads = (
            RequestBatcher(self._exchange, settings.seconds, many_slots=many_slots)
            if settings.coalesce
            else None
        )
        if self._batches is not None and self._tracked is not None:
            self._reads = RequestBatcher(self._send_reads, settings.seconds, many_slots=many_slots)

    def ask(
        self, commands: Sequence[Words], seconds: float, mode: SendMode = USUAL
    ) -> AsyncReplies:
        """Send commands one right after another; return their replies in order.

        A server's refusal is a reply too. What belongs on one connection with a command (ASKING
        before it, WAIT after it) must be passed in the same call. Unless ``mode`` says otherwise, what
        others of the same tick ask may be sent on it too, before and after.

        Args:
            commands: what to send.
            seconds: for waiting for a connection, connecting, sending and reading, all in all.
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

    def read(self, keys: Sequence[bytes]) -> AsyncRecords:
        """What is at these keys, which are in one slot, by the deadline of the settings.

        Raises:
            BatchRejected: the server answered something else.
            Overloaded, NoReply: as :meth:`ask`.
        """
        return self._read_alone(keys) if self._reads is None else self._reads.read(keys)

    async def _read_alone(self, keys: Sequence[bytes]) -> Records:
        return records_in(
            (await self._send_reads([("MGET", *keys)], self._seconds, only_reads=True))[0],
            len(keys),
        )

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
        sent, has_place, generation = False, False, _RETIRED
        limit = asyncio.timeout(seconds)
        try:
            async with limit, self._places:
                has_place = True
                pooled = await self._take(seconds, fresh=fresh)
                generation = pooled.generation
                if not self._may_send(pooled, during_replay=during_replay):
                    await self._give_back(pooled)
                    raise BatchRejected  # noqa: TRY301 # where it is decided
                try:
                    packed = pack(pooled.connection, commands)
                    if sending is not None:
                        sending()
                    sent = True
                    try:
                        await pooled.connection.send_packed_command(packed, False)
                    except Exception:
                        sent = len(packed) > HIGH_WATER
                        raise
                    replies = await replies_of(pooled.connection, len(commands))
                except BaseException:
                    await drop(pooled.connection)
                    raise
                await self._give_back(pooled, replies)
        except BatchRejected:
            raise
        except Exception as error:
            if has_place:
                await self._lose(
                    generation, is_certain=not limit.expired() or seconds >= self._seconds / 2
                )
            raise NoReply(None if limit.expired() else error, sent=sent) from error
        return replies

    def _may_send(self, pooled: _Pooled, *, during_replay: bool) -> bool:
        """Whether nothing has to be done first.

        Another event loop or thread may have met another server since this connection was checked.
        """
        return self._is_current(pooled) and (during_replay or not self._monitor.revocations.due)

    async def drop_idle(self) -> None:
        """Close the connections: the idle ones now, those in use when they are given back."""
        if self._tracked is not None:
            self._tracked.drop()
        await self._retire()

    async def aclose(self) -> None:
        """Close the connections, those too that are being opened. Later calls open new ones."""
        self._closings += 1
        await self._move()

    async def _move(self) -> None:
        """Close all connections, since another server answers, or it has another history."""
        await self._retire()
        if self._tracked is not None:
            await self._tracked.aclose()

    async def _retire(self) -> None:
        self._generation += 1
        idle, self._idle = self._idle, []
        for pooled in idle:
            await drop(pooled.connection)

    async def _lose(self, generation: int, *, is_certain: bool) -> None:
        """Record a lost connection, and close those that are as old, which are likely to be lost too.

        Where it is not certain, since a request had little time, they are checked before their next
        use instead: else a slow server would get all connections anew, and be slower.
        """
        self._monitor.lost()
        if is_certain and generation == self._generation:
            await self._retire()
        self._doubted = time.monotonic()

    def _track(self, settings: AsyncSettings) -> AsyncTracked | None:
        """The connection for reads whose records are kept, if they are to be."""
        if settings.near.lease is None:
            return None
        entries, lease = settings.near.entries, settings.near.lease
        return AsyncTracked(
            self._factory,
            self._monitor,
            entries,
            lease=lease,
            seconds=settings.seconds,
            plain=self._exchange,
            moved=self._retire,
        )

    async def _take(self, seconds: float, *, fresh: bool) -> _Pooled:
        """Return a connection that can be used now; a new one if ``fresh``."""
        while self._idle:
            pooled = self._idle.pop()
            if fresh:  # it takes the place of this one, or there could be more than the limit
                await drop(pooled.connection)
                break
            if await self._is_usable(pooled, seconds):
                return pooled
        return await self._open()

    async def _is_usable(self, pooled: _Pooled, seconds: float) -> bool:
        """Whether an idle connection can be used; closes it otherwise.

        A check has half of the time, so that there is some left to open another connection.
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
            await self._lose(generation, is_certain=not timed_out or seconds >= self._seconds / 2)
        return usable

    def _is_current(self, pooled: _Pooled) -> bool:
        checkpoint = pooled.checkpoint
        return checkpoint is not None and checkpoint.changes == self._monitor.revocations.changes

    def _is_checked(self, pooled: _Pooled) -> bool:
        """Whether the last check is recent, and nothing has happened since that calls for another."""
        oldest = max(time.monotonic() - connection_settings.IDLE_CHECK_SECONDS, self._doubted)
        return pooled.checked >= oldest and self._is_current(pooled)

    async def _passes_check(self, pooled: _Pooled, seconds: float) -> tuple[bool, bool]:
        """Whether a check succeeds within so many seconds, and whether the time was over."""
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await self._check(pooled)
        except Exception:  # the client's own kinds of it
            return False, limit.expired()
        return True, False

    async def _open(self) -> _Pooled:
        """Open a connection, after its handshake."""
        connection = self._factory.connection()
        connection.socket_timeout = connection.socket_connect_timeout = None  # the deadline is ours
        pooled, closings = _Pooled(connection), self._closings
        try:
            async with asyncio.timeout(self._connect_seconds):
                await connection.connect()
            await self._check(pooled)
        except BaseException:
            await drop(connection)
            raise
        if closings != self._closings:
            pooled.generation = _RETIRED
        return pooled

    async def _check(self, pooled: _Pooled) -> None:
        """Ask the server which history it has, and whether it is a primary.

        Raises:
            Exception: the connection must not be used.
        """
        connection, closings = pooled.connection, self._closings
        await connection.send_packed_command(connection.pack_commands([INFO]), False)
        (reply,) = await replies_of(connection, 1)
        self._monitor.check(reply)
        if self._monitor.is_changed(reply, pooled.checkpoint):
            await self._move()
        pooled.checkpoint, pooled.checked = self._monitor.came_up(reply), time.monotonic()
        pooled.generation = self._generation if closings == self._closings else _RETIRED

    async def _give_back(self, pooled: _Pooled, replies: Sequence[Reply] = ()) -> None:
        if pooled.generation == self._generation and not is_last(replies):
            self._idle.append(pooled)
        else:
            await drop(pooled.connection)


class Server:
    """The connections to one server, for the threads of one process; handed out first come, first served."""

    def __init__(
        self,
        factory: ConnectionFactory,
        monitor: ConnectionMonitor,
        settings: Settings,
        *,
        many_slots: bool = False,
    ) -> None:
        self._seconds = settings.seconds
        self._connect_seconds = _connect_seconds(settings.seconds, many_slots=many_slots)
        self._factory = factory
        self._monitor = monitor
        self._places = FairSemaphore(factory.limit)
        self._idle: list[_Pooled] = []
        self._generation = self._closings = 0
        self._doubted = -math.inf

    def ask(self, commands: Sequence[Words], seconds: float, mode: SendMode = USUAL) -> list[Reply]:
        """Send commands together on one connection, and return their replies in order.

        A server's refusal is a reply too. What belongs on one connection with a command (ASKING
        before it, WAIT after it) must be passed in the same call.

        Args:
            commands: what to send.
            seconds: for waiting for a connection, connecting, sending and reading, all in all.
            mode: how to send it; nothing is sent together with what other threads ask.

        Raises:
            NoReply: the time was over, or no connection could be made, or it was lost.
            BatchRejected: nothing was sent, since a replay of revocations comes first.
        """
        end = time.monotonic() + seconds
        if not self._places.acquire(seconds):
            raise NoReply(None, sent=False)
        sent, generation = False, _RETIRED
        try:
            pooled = self._take(end, fresh=mode.fresh)
            generation = pooled.generation
            if not self._may_send(pooled, during_replay=mode.during_replay):
                self._give_back(pooled)
                raise BatchRejected  # noqa: TRY301 # where it is decided
            try:
                # If sending fails, the last command is incomplete, so the server runs nothing of it.
                # Those before it change nothing without it (ASKING, MULTI).
                _send(pooled.connection, commands, end)
                sent = True
                replies = _replies(pooled.connection, len(commands))
            except BaseException:
                pooled.connection.disconnect()
                raise
            self._give_back(pooled, replies)
        except BatchRejected:
            raise
        except Exception as error:
            is_over = time.monotonic() >= end
            self._lose(generation, is_certain=not is_over or seconds >= self._seconds / 2)
            raise NoReply(None if is_over else error, sent=sent) from error
        finally:
            self._places.release()
        return replies

    def _may_send(self, pooled: _Pooled, *, during_replay: bool) -> bool:
        """Whether nothing has to be done first.

        Another thread may have met another server since this connection was checked.
        """
        return self._is_current(pooled) and (during_replay or not self._monitor.revocations.due)

    def read(self, keys: Sequence[bytes]) -> Records:
        """What is at these keys, which are in one slot, by the deadline of the settings.

        Raises:
            BatchRejected: the server answered something else.
            NoReply: as :meth:`ask`.
        """
        return records_in(self.ask([("MGET", *keys)], self._seconds)[0], len(keys))

    def drop_idle(self) -> None:
        """Close the connections: the idle ones now, those in use when they are given back."""
        self._retire()

    def close(self) -> None:
        """Close the connections, those too that are being opened. Later calls open new ones."""
        self._closings += 1
        self._retire()

    def _retire(self) -> None:
        self._generation += 1
        idle, self._idle = self._idle, []
        for pooled in idle:
            pooled.connection.disconnect()

    def _lose(self, generation: int, *, is_certain: bool) -> None:
        """Record a lost connection, and close those that are as old, which are likely to be lost too.

        Where it is not certain, since a request had little time, they are checked before their next
        use instead: else a slow server would get all connections anew, and be slower.
        """
        self._monitor.lost()
        if is_certain and generation == self._generation:
            self._retire()
        self._doubted = time.monotonic()

    def _take(self, end: float, *, fresh: bool) -> _Pooled:
        """Return a connection that can be used now; a new one if ``fresh``."""
        while True:
            try:
                pooled = self._idle.pop()
            except IndexError:
                break
            if fresh:  # it takes the place of this one, or there could be more than the limit
                pooled.connection.disconnect()
                break
            if self._is_usable(pooled, end):
                return pooled
        return self._open(end)

    def _is_usable(self, pooled: _Pooled, end: float) -> bool:
        """Whether an idle connection can be used; closes it otherwise.

        A check has half of the time, so that there is some left to open another connection.
        """
        generation, usable, timed_out, now = pooled.generation, False, False, time.monotonic()
        try:
            # It may have been retired while another thread gave it back.
            usable = generation == self._generation and _is_clean(pooled.connection, end)
            if usable and not self._is_checked(pooled):
                usable, timed_out = self._passes_check(pooled, (now + end) / 2)
        finally:
            if not usable:
                pooled.connection.disconnect()
        if not usable:
            self._lose(generation, is_certain=not timed_out or end - now >= self._seconds / 2)
        return usable

    def _is_current(self, pooled: _Pooled) -> bool:
        checkpoint = pooled.checkpoint
        return checkpoint is not None and checkpoint.changes == self._monitor.revocations.changes

    def _is_checked(self, pooled: _Pooled) -> bool:
        """Whether the last check is recent, and nothing has happened since that calls for another."""
        oldest = max(time.monotonic() - connection_settings.IDLE_CHECK_SECONDS, self._doubted)
        return pooled.checked >= oldest and self._is_current(pooled)

    def _passes_check(self, pooled: _Pooled, end: float) -> tuple[bool, bool]:
        """Whether a check succeeds by then, and whether the time was over."""
        try:
            self._check(pooled, end)
        except Exception:  # the client's own kinds of it
            return False, time.monotonic() >= end
        return True, False

    def _open(self, end: float) -> _Pooled:
        """Open a connection, after its handshake."""
        connection = self._factory.connection()
        connection.socket_timeout = connection.socket_connect_timeout = _until(end)
        pooled, closings = _Pooled(connection), self._closings
        try:
            _connect(connection, min(end, time.monotonic() + self._connect_seconds))
            self._check(pooled, end)
        except BaseException:
            connection.disconnect()
            raise
        if closings != self._closings:
            pooled.generation = _RETIRED
        return pooled

    def _check(self, pooled: _Pooled, end: float) -> None:
        """Ask the server which history it has, and whether it is a primary.

        Raises:
            Exception: the connection must not be used.
        """
        closings = self._closings
        _send(pooled.connection, [INFO], end)
        (reply,) = _replies(pooled.connection, 1)
        self._monitor.check(reply)
        if self._monitor.is_changed(reply, pooled.checkpoint):
            self._retire()
        pooled.checkpoint, pooled.checked = self._monitor.came_up(reply), time.monotonic()
        pooled.generation = self._generation if closings == self._closings else _RETIRED

    def _give_back(self, pooled: _Pooled, replies: Sequence[Reply] = ()) -> None:
        if pooled.generation == self._generation and not is_last(replies):
            self._idle.append(pooled)
        else:
            pooled.connection.disconnect()


def _connect_seconds(seconds: float, *, many_slots: bool) -> float:
    """Return how long connecting may take, of a deadline of so many seconds.

    A node of a cluster may have left its address, and another one be found in the slot map: so
    connecting to it has a third of the time.
    """
    return seconds / 3 if many_slots else seconds


def _connect(connection: Any, end: float) -> None:
    """Connect in a thread of its own, so that the time holds wherever it hangs.

    Looking up a name, connecting to each of several addresses, and TLS have no common limit.

    Raises:
        TimeoutError: the time was over; the connection is closed once its thread is done.
    """
    done: Future[None] = Future()
    use_timed_socket(connection, end)
    in_thread("lucia-connect", connection.connect, done)
    try:
        done.result(_until(end))
    except BaseException:
        done.add_done_callback(lambda _: connection.disconnect())
        raise


def _is_clean(connection: Any, end: float) -> bool:
    """Whether an idle connection is still open and has no reply that nobody read."""
    try:
        connection._sock.deadline = end
        return not connection.can_read()
    except Exception:  # the client's own kinds of it
        return False


def _until(end: float) -> float:
    """Return the seconds left, at least 1 ms, since 0 would make a socket non-blocking."""
    return max(end - time.monotonic(), 0.001)


def _send(connection: Any, commands: Sequence[Words], end: float) -> None:
    """Send commands by the deadline, which holds for reading their replies too."""
    connection._sock.deadline = end
    connection.send_packed_command([b"".join(connection.pack_commands(commands))], False)


def _replies(connection: Any, count: int) -> list[Reply]:
    """So many replies; fewer if after one of them the client closes the connection."""
    replies: list[Reply] = []
    while len(replies) < count and not is_last(replies):
        try:
            replies.append(connection.read_response(disable_decoding=True))
        except Exception as error:
            if not is_answer(error):
                raise
            replies.append(error)
    return replies
