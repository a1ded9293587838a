"""A client's socket with a deadline, for connections that block a thread."""

import time
from typing import Any

__all__ = ["TimedSocket", "use_timed_socket"]


class TimedSocket:
    """A socket with one deadline for all its calls.

    A socket's own timeout is for one call; what is sent or received may take many.

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
        if self._socket.gettimeout() == 0:  # the client only looks whether something has arrived
            return
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self._socket.settimeout(seconds)


def use_timed_socket(connection: Any, deadline: float) -> None:
    """Let a connection of redis-py or valkey-py that is not connected yet use a timed socket."""

    def connect() -> TimedSocket:
        del connection._connect  # else the connection would refer to itself
        return TimedSocket(connection._connect(), deadline)

    connection._connect = connect
