"""One sync connection of redis-py or valkey-py, with one deadline for all that is done on it.

The client's own timeouts are for a single call of the socket; a reply may take many of them, and
connecting has no common limit at all.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from lucia._redis.commands import Reply, Words
from lucia._redis.transport.client_errors import is_error_reply
from lucia._redis.transport.connection_io import closes_connection
from lucia._redis.transport.threads import in_thread

__all__ = ["TimedSocket", "connect", "is_clean", "read_replies", "seconds_until", "send"]


class TimedSocket:
    """A socket with one deadline for all its calls.

    Args:
        socket: what the client connected; TLS included.
        deadline: by the monotonic clock; set again for each operation.
    """

    __slots__ = ("_socket", "deadline")

    def __init__(self, socket: Any, deadline: float) -> None:
        self._socket = socket
        self.deadline = deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, data: bytes) -> None:
        """Send all the data.

        Raises:
            TimeoutError: the deadline has passed; some of it may have been sent.
        """
        rest = memoryview(data)
        while rest:
            self._limit()
            rest = rest[self._socket.send(rest) :]

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive up to so many bytes; without waiting where the client asks for that.

        Raises:
            TimeoutError: the deadline has passed.
        """
        self._limit()
        received: bytes = self._socket.recv(size, flags)
        return received

    def recv_into(self, buffer: bytearray) -> int:
        """Receive into a buffer; otherwise as :meth:`recv`."""
        self._limit()
        count: int = self._socket.recv_into(buffer)
        return count

    def _limit(self) -> None:
        if self._socket.gettimeout() == 0:  # the client only checks whether something has arrived
            return
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self._socket.settimeout(seconds)


def connect(connection: Any, end: float) -> None:
    """Connect in a thread of its own, so that the deadline holds wherever it hangs.

    Raises:
        TimeoutError: the deadline has passed; the connection is closed once its thread is done.
    """
    done: Future[None] = Future()
    _use_timed_socket(connection, end)
    # Looking up a name, connecting to each of several addresses, and TLS have no common limit.
    in_thread("lucia-connect", connection.connect, done)
    try:
        done.result(seconds_until(end))
    except BaseException:  # the thread can't be stopped, and may still connect
        done.add_done_callback(lambda _: connection.disconnect())
        raise


def is_clean(connection: Any, end: float) -> bool:
    """Return whether an idle connection is still open and has no unread reply."""
    try:
        connection._sock.deadline = end
        return not connection.can_read()
    except Exception:  # each client has its own kinds of errors here
        return False


def send(connection: Any, commands: Sequence[Words], end: float) -> None:
    """Send commands by the deadline, which holds for reading their replies too."""
    connection._sock.deadline = end
    # False: no health check, which sends a PING and reads its reply before.
    connection.send_packed_command([b"".join(connection.pack_commands(commands))], False)


def read_replies(connection: Any, count: int) -> list[Reply]:
    """Read so many replies, or fewer if the client closes the connection after one of them."""
    replies: list[Reply] = []
    for _ in range(count):
        try:
            # Bytes, also if the application's client decodes.
            replies.append(connection.read_response(disable_decoding=True))
        except Exception as error:
            if not is_error_reply(error):
                raise
            replies.append(error)
            if closes_connection(error):
                break
    return replies


def seconds_until(end: float) -> float:
    """Return the seconds left, at least 1 ms, since 0 would make a socket non-blocking."""
    return max(end - time.monotonic(), 0.001)


def _use_timed_socket(connection: Any, deadline: float) -> None:
    """Make a connection that is not connected yet use a timed socket."""

    def connect() -> TimedSocket:
        del connection._connect  # else the connection would refer to itself
        return TimedSocket(connection._connect(), deadline)

    connection._connect = connect
