"""A proxy in front of one server that breaks connections as networks do.

It runs in a thread of its own, so it serves sync and async clients. It does not parse the data, so
it works with TLS too.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, cast

__all__ = ["FaultyProxy", "unanswered_port"]

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0: closing the socket sends RST instead of FIN."""


class FaultyProxy:
    """A proxy in front of one server.

    After a fault, new connections are healthy, except where a method says otherwise. A method
    returns when its effect has reached the sockets.

    Args:
        target: the server's port on this machine, or its unix socket.
        listen: the unix socket to listen on; None for a free TCP port.

    Attributes:
        port: the port of the proxy; 0 for a unix socket.
        delay: the delay of each packet in each direction, in seconds.
        trickle: the pause between bytes from the server, in seconds; 0 for whole packets.
        answered_packets: the number of packets from the client that reach the server on a new
            connection; later ones are swallowed. None for all.
        accepted: the number of accepted connections.
        resets: the number of connections that the proxy has reset.
        packets: the number of packets received from clients.
        received: the number of bytes received from clients.
    """

    def __init__(self, target: int | Path, listen: Path | None = None) -> None:
        self.target = target
        self.delay = self.trickle = 0.0
        self.answered_packets: int | None = None
        self.held = False
        self.accepted = self.resets = self.packets = self.received = 0
        self.connections: set[_Connection] = set()
        self.port = 0
        self._path = listen
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._listen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self.connections)

    def reset(self) -> None:
        """Reset all open connections with RST."""
        self._on_each(_Connection.reset)

    def reset_late(self) -> None:
        """Reset each open connection at its next packet. Nobody can tell before."""
        self._on_each(_Connection.reset_on_next_packet)

    def drop(self) -> None:
        """Swallow everything sent from now on over each open connection, and keep it open."""
        self._on_each(_Connection.swallow)

    def half_close(self) -> None:
        """Send FIN to the client on each open connection, and keep reading."""
        self._on_each(_Connection.half_close)

    def cut(self) -> None:
        """Close all open connections with FIN. Data in flight is lost."""
        self._on_each(_Connection.close)

    def hold(self) -> None:
        """Hold back all data, on new connections too, until :meth:`flow`."""
        self.held = True
        self._on_each(_Connection.nothing)

    def flow(self) -> None:
        """Deliver the data that was held back, and everything that follows."""
        self.held = False
        self._on_each(_Connection.deliver)

    def lead_to(self, target: int | Path) -> None:
        """Close all connections, and connect new ones to another server."""
        self.target = target
        self.cut()

    def refuse(self) -> None:
        """Refuse new connections."""
        self._run(self._stop_listening)

    def accept(self) -> None:
        """Accept new connections again."""
        self._run(self._listen)

    def close(self) -> None:
        """Close everything."""
        if self.loop.is_closed():
            return
        self._run(self._shut_down)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _on_each(self, act: "Callable[[_Connection], Awaitable[None]]") -> None:
        async def act_on_all() -> None:
            await asyncio.gather(*map(act, list(self.connections)))

        self._run(act_on_all)

    def _run(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(act(), self.loop).result(30)

    async def _listen(self) -> None:
        if self._path is None:
            listening = socket.create_server(("127.0.0.1", self.port), backlog=4096)
            self.port = int(listening.getsockname()[1])
        else:
            listening = socket.create_server(str(self._path), family=socket.AF_UNIX, backlog=4096)
        listening.setblocking(False)
        self._listening = listening
        self.loop.add_reader(listening, self._accept)

    async def _stop_listening(self) -> None:
        self.loop.remove_reader(self._listening)
        self._listening.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _shut_down(self) -> None:
        await self._stop_listening()
        while True:
            for each in list(self.connections):
                await each.close()
            others = asyncio.all_tasks() - {cast("asyncio.Task[None]", asyncio.current_task())}
            if not others:
                return
            await asyncio.wait(others)  # connections that were accepted just before

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            accepted, _ = self._listening.accept()
            accepted.setblocking(False)
            self.accepted += 1
            _Connection(self, accepted)


class _Connection:
    """A client's connection, and the proxy's connection to the server for it."""

    def __init__(self, proxy: FaultyProxy, accepted: socket.socket) -> None:
        self.client = _End(self)
        self.server = _End(self)
        self._proxy = proxy
        self.is_over = self._swallows = self._is_doomed = False
        self._packets = 0
        proxy.connections.add(self)
        self._connecting = proxy.loop.create_task(self._connect(accepted))

    async def reset(self) -> None:
        """Close the connection with RST."""
        if not self.is_over and self.client.transport is not None:
            self._proxy.resets += 1
            found = self.client.transport.get_extra_info("socket")
            if found.family != socket.AF_UNIX:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        await self.close()

    async def reset_on_next_packet(self) -> None:
        """Reset the connection when the client sends something."""
        self._is_doomed = True

    async def swallow(self) -> None:
        """Stop forwarding."""
        self._swallows = True

    async def half_close(self) -> None:
        """Send FIN to the client."""
        self._swallows = True
        if self.client.transport is not None and not self.client.transport.is_closing():
            self.client.transport.write_eof()

    async def nothing(self) -> None:
        """Do nothing."""

    async def deliver(self) -> None:
        """Forward the waiting data in both directions."""
        self.deliver_from(self.client)
        self.deliver_from(self.server)

    async def close(self) -> None:
        """Close both ends, and wait until they are closed."""
        self._end()
        await asyncio.gather(self.client.closed(), self.server.closed())
        await asyncio.sleep(0)  # asyncio closes the socket right after connection_lost

    def take(self, end: "_End", data: bytes) -> None:
        """Forward data that an end has received; empty data is the end of the stream."""
        if end is self.client and data:
            self._proxy.packets += 1
            self._proxy.received += len(data)
            self._packets += 1
            limit = self._proxy.answered_packets
            if limit is not None and self._packets > limit:
                self._swallows = True
            if self._is_doomed:
                self._proxy.loop.create_task(self.reset())
                return
        if self._swallows:
            if end is self.client and not data:
                self._end()
            return
        if end is self.server and self._proxy.trickle:
            self._trickle(data)
            return
        end.waiting.append(data)
        if self._proxy.delay:
            self._proxy.loop.call_later(self._proxy.delay, self.deliver_from, end, 1)
        else:
            self.deliver_from(end)

    def _trickle(self, data: bytes) -> None:
        """Forward the server's data byte by byte."""
        for number in range(len(data)):
            self.server.waiting.append(data[number : number + 1])
            seconds = self._proxy.trickle * number
            self._proxy.loop.call_later(seconds, self.deliver_from, self.server, 1)

    def deliver_from(self, end: "_End", count: int = 1 << 30) -> None:
        """Forward `count` waiting pieces, unless data is held back."""
        other = self.server if end is self.client else self.client
        while count and end.waiting and other.transport is not None and not self._proxy.held:
            data, count = end.waiting.popleft(), count - 1
            if data:
                other.transport.write(data)
            else:
                self._end()

    def _end(self) -> None:
        self.is_over = True
        self._proxy.connections.discard(self)
        for end in (self.client, self.server):
            end.waiting.clear()
            if end.transport is not None:
                end.transport.abort()

    async def _connect(self, accepted: socket.socket) -> None:
        loop, target = self._proxy.loop, self._proxy.target
        await loop.connect_accepted_socket(lambda: self.client, accepted)
        try:
            if isinstance(target, Path):
                await loop.create_unix_connection(lambda: self.server, str(target))
            else:
                await loop.create_connection(lambda: self.server, "127.0.0.1", target)
        except OSError:
            self._end()
        else:
            self.deliver_from(self.client)


class _End(asyncio.Protocol):
    """One of the two ends of a connection in the proxy."""

    def __init__(self, connection: _Connection) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiting: deque[bytes] = deque()
        self._connection = connection
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._connection.is_over:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._connection.take(self, data)

    def eof_received(self) -> bool:
        self._connection.take(self, b"")
        return True  # keep the transport open: both ends are closed together

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._connection.take(self, b"")

    async def closed(self) -> None:
        """Wait until the end is closed."""
        if self.transport is not None:
            await self._closed.wait()


@contextmanager
def unanswered_port() -> Iterator[int]:
    """Yield a port that does not answer SYN packets because its listen queue is full.

    Raises:
        RuntimeError: the system answers them anyway.
    """
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            try:
                waiting.connect(address)
            except TimeoutError:
                yield int(address[1])
                return
        raise RuntimeError("the system answers SYN packets although the listen queue is full")
