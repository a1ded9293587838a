"""Our connections to one server, in either colour: as many as the application's client may have, each command with a deadline."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from lucia._connections.batches import Batches
from lucia._connections.settings import AsyncSettings, Settings
from lucia._connections.tracking import AsyncTracked
from lucia._connections.wire import INFO, drop, is_clean, pack, replies_of
from lucia.redis.clients import is_answer, is_last
from lucia.redis.commands import AsyncReplies, Reply, Words
from lucia.redis.replay import OtherHistory, Watch
from lucia.redis.topology import Recipe
from lucia.redis.unanswered import AsyncRecords, Records, Unanswered, records_in

__all__ = ["AsyncServer", "Server"]


class AsyncServer:
    """Our connections to one server, for one event loop: as many at once as the application's client may have, made when needed.

    Args:
        recipe: how to make them.
        watch: is told when one comes up or is lost.
        settings: how they are used.
        many_slots: whether the server is a node of a cluster.
    """

    def __init__(self, recipe: Recipe, watch: Watch, settings: AsyncSettings, *, many_slots: bool = False) -> None:
        self._recipe = recipe
        self._watch = watch
        self._places = asyncio.Semaphore(recipe.limit)
        self._idle: list[Any] = []
        self._round = 0
        self._seconds = settings.seconds
        self._tracked = self._track(settings)
        self._send_reads = self._exchange if self._tracked is None else self._tracked.exchange
        self._batches = self._reads = Batches(self._exchange, settings.seconds, many_slots=many_slots) if settings.coalesce else None
        if self._batches is not None and self._tracked is not None:
            self._reads = Batches(self._send_reads, settings.seconds, many_slots=many_slots)

    def ask(self, commands: Sequence[Words], seconds: float) -> AsyncReplies:
        """Send commands one right after another; their replies in order, and a server's refusal is a reply too.

        What belongs on one connection with a command (ASKING before it) is to be given here with it. What others of the same tick ask
        may be sent on it too, before and after.

        Args:
            seconds: for waiting for a connection, connecting, sending and reading, all in all.

        Raises:
            Overloaded: too many requests wait.
            Unanswered: the time was over, or no connection could be made, or it was lost. It is never used again.
            OtherHistory: nothing was sent, since what was ended has to be ended again first; the connection is there for that.
        """
        if self._batches is None:
            return self._exchange(commands, seconds)
        return self._batches.ask(commands, seconds)

    def ask_alone(self, commands: Sequence[Words], seconds: float) -> AsyncReplies:
        """The same, on a connection that nothing else is sent on: what waits there (WAIT), or has long replies, holds up nobody."""
        return self._exchange(commands, seconds)

    def read(self, keys: Sequence[bytes]) -> AsyncRecords:
        """What is at these keys, which are in one slot, by the deadline of the settings.

        Raises:
            AskAlone: the server answered something else.
            Overloaded, Unanswered, OtherHistory: as :meth:`ask`.
        """
        return self._read_alone(keys) if self._reads is None else self._reads.read(keys)

    async def _read_alone(self, keys: Sequence[bytes]) -> Records:
        return records_in((await self._send_reads([("MGET", *keys)], self._seconds, only_reads=True))[0], len(keys))

    async def _exchange(
        self, commands: Sequence[Words], seconds: float, *, only_reads: bool = False, sending: Callable[[], None] | None = None
    ) -> list[Reply]:
        sent = False
        limit = asyncio.timeout(seconds)
        try:
            async with limit, self._places:
                round_ = self._round
                connection = await self._take(only_reads=only_reads)
                try:
                    packed = pack(connection, commands)
                    sent = True
                    if sending is not None:
                        sending()
                    await connection.send_packed_command(packed, False)
                    replies = await replies_of(connection, len(commands))
                except BaseException:
                    await drop(connection)
                    raise
                await self._give_back(connection, round_, replies)
        except OtherHistory:
            raise
        except Exception as error:
            self._watch.lost()
            raise Unanswered(None if limit.expired() else error, sent=sent) from error
        return replies

    async def drop_idle(self) -> None:
        """Close the connections that lie idle, so that the next command gets a new one."""
        if self._tracked is not None:
            self._tracked.drop()
        await self._drop_idle()

    async def aclose(self) -> None:
        """Close the idle connections now, and those in use when they are given back. Later calls open new ones."""
        await self._retire()
        if self._tracked is not None:
            await self._tracked.aclose()

    async def _retire(self) -> None:
        self._round += 1
        await self._drop_idle()

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await drop(connection)

    def _track(self, settings: AsyncSettings) -> AsyncTracked | None:
        """The connection for reads whose records are kept, if they are to be."""
        if settings.near.lease is None:
            return None
        entries, lease = settings.near.entries, settings.near.lease
        return AsyncTracked(
            self._recipe, self._watch, entries, lease=lease, seconds=settings.seconds, plain=self._exchange, moved=self._retire
        )

    async def _take(self, *, only_reads: bool) -> Any:
        """A connection; one for reads is not looked at first, since a read shows by its reply what is wrong with it."""
        while self._idle:
            connection = self._idle.pop()
            if only_reads or await is_clean(connection):
                return connection
            self._watch.lost()
            await drop(connection)
        return await self._open()

    async def _open(self) -> Any:
        """A new connection, after its handshake, where the server's history is the one that is known."""
        connection = self._recipe.connection()
        connection.socket_timeout = connection.socket_connect_timeout = None  # the deadline is ours
        try:
            await connection.connect()
            await connection.send_packed_command(connection.pack_commands([INFO]), False)
            (reply,) = await replies_of(connection, 1)
        except BaseException:
            await drop(connection)
            raise
        if self._watch.came_up(reply):
            await self.aclose()
        if self._watch.due:
            self._idle.append(connection)
            raise OtherHistory
        return connection

    async def _give_back(self, connection: Any, round_: int, replies: Sequence[Reply]) -> None:
        if round_ == self._round and not is_last(replies):
            self._idle.append(connection)
        else:
            await drop(connection)


class Server:
    """Our connections to one server, for the threads of one process."""

    def __init__(self, recipe: Recipe, watch: Watch, settings: Settings, *, many_slots: bool = False) -> None:
        self._seconds = settings.seconds
        self._recipe = recipe
        self._watch = watch
        self._places = threading.Semaphore(recipe.limit)
        self._idle: list[Any] = []
        self._round = 0

    def ask(self, commands: Sequence[Words], seconds: float) -> list[Reply]:
        """Send commands together on one connection, and return their replies in order; a server's refusal is a reply too.

        Whatever belongs on one connection with a command (ASKING before it, WAIT after it) is to be given here with it.

        Args:
            seconds: for waiting for a connection, connecting, sending and reading, all in all.

        Raises:
            Unanswered: the time was over, or no connection could be made, or it was lost. It is never used again.
            OtherHistory: nothing was sent, since what was ended has to be ended again first; the connection is there for that.
        """
        return self._exchange(commands, seconds, only_reads=False)

    def _exchange(self, commands: Sequence[Words], seconds: float, *, only_reads: bool) -> list[Reply]:
        end = time.monotonic() + seconds
        if not self._places.acquire(timeout=seconds):
            raise Unanswered(None, sent=False)
        sent = False
        try:
            round_ = self._round
            connection = self._take(end, only_reads=only_reads)
            try:
                packed = connection.pack_commands(commands)
                sent = True
                connection.send_packed_command(packed, False)
                replies = _replies(connection, len(commands), end)
            except BaseException:
                connection.disconnect()
                raise
            self._give_back(connection, round_, replies, seconds)
        except OtherHistory:
            raise
        except Exception as error:
            self._watch.lost()
            raise Unanswered(None if time.monotonic() >= end else error, sent=sent) from error
        finally:
            self._places.release()
        return replies

    def ask_alone(self, commands: Sequence[Words], seconds: float) -> list[Reply]:
        """The same: a thread sends nothing together with others."""
        return self.ask(commands, seconds)

    def read(self, keys: Sequence[bytes]) -> Records:
        """What is at these keys, which are in one slot, by the deadline of the settings.

        Raises:
            AskAlone: the server answered something else.
            Unanswered, OtherHistory: as :meth:`ask`.
        """
        return records_in(self._exchange([("MGET", *keys)], self._seconds, only_reads=True)[0], len(keys))

    def drop_idle(self) -> None:
        """Close the connections that lie idle, so that the next command gets a new one."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.disconnect()

    def close(self) -> None:
        """Close the idle connections now, and those in use when they are given back. Later calls open new ones."""
        self._round += 1
        self.drop_idle()

    def _take(self, end: float, *, only_reads: bool) -> Any:
        """A connection; one for reads is not looked at first, since a read shows by its reply what is wrong with it."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._open(end)
            if only_reads or _is_clean(connection):
                return connection
            self._watch.lost()
            connection.disconnect()

    def _open(self, end: float) -> Any:
        """A new connection, after its handshake, where the server's history is the one that is known."""
        connection = self._recipe.connection()
        connection.socket_timeout = connection.socket_connect_timeout = _until(end)
        try:
            connection.connect()
            connection.send_packed_command(connection.pack_commands([INFO]), False)
            (reply,) = _replies(connection, 1, end)
        except BaseException:
            connection.disconnect()
            raise
        if self._watch.came_up(reply):
            self.close()
        if self._watch.due:
            self._idle.append(connection)
            raise OtherHistory
        return connection

    def _give_back(self, connection: Any, round_: int, replies: Sequence[Reply], seconds: float) -> None:
        """Keep a connection for the next command, unless it was closed, or made in such haste that its own timeout is short."""
        if round_ == self._round and not is_last(replies) and connection.socket_timeout > seconds / 2:
            self._idle.append(connection)
        else:
            connection.disconnect()


def _until(end: float) -> float:
    """The seconds that are left; a little if there are none, since none would mean not to wait at all."""
    return max(end - time.monotonic(), 0.001)


def _replies(connection: Any, count: int, end: float) -> list[Reply]:
    """So many replies; fewer if after one of them the client closes the connection."""
    replies: list[Reply] = []
    while len(replies) < count and not is_last(replies):
        try:
            replies.append(_reply(connection, end))
        except Exception as error:
            if not is_answer(error):
                raise
            replies.append(error)
    return replies


def _reply(connection: Any, end: float) -> Reply:
    if not connection.can_read(timeout=_until(end)):
        raise TimeoutError
    return connection.read_response(disable_decoding=True)


def _is_clean(connection: Any) -> bool:
    """Whether an idle connection is still open and has no reply that nobody read."""
    try:
        return not connection.can_read()
    except Exception:  # the client's own kinds of it
        return False
