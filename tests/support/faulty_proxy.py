"""A proxy in front of one server that breaks connections in the ways in which networks break them.

It runs in a thread of its own, so it serves sync and async clients alike. Bytes pass unread, so it
works with TLS too.
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

    New connections are healthy after each fault, except where a method says otherwise. A method
    returns when its effect has reached the sockets.

    Args:
        target: the server's port on this machine, or its unix socket.
        listen: the unix socket to listen on; None for a free TCP port.

    Attributes:
        port: where it listens, 0 for a unix socket.
        delay: seconds by which each packet is delayed in each direction.
        trickle: seconds between the bytes that the server sends; 0 for whole packets.
        answered_packets: how many packets of the client reach the server on a new connection;
            later ones are swallowed. None for all.
        accepted: how many connections it has accepted.
        resets: how many connections it has reset.
        packets: how many pieces it has received from clients.
        received: how many bytes it has received from clients.
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
        """How many connections are open."""
        return len(self.connections)

    def reset(self) -> None:
        """Reset all open connections with RST."""
        self._on_each(_Connection.reset)

    def reset_late(self) -> None:
        """Answer the next packet on each open connection with RST; until then nobody can tell."""
        self._on_each(_Connection.reset_on_next_packet)

    def drop(self) -> None:
        """Swallow what is sent from now on over each open connection, and keep it open."""
        self._on_each(_Connection.swallow)

    def half_close(self) -> None:
        """Send FIN to the client on each open connection, and go on to read."""
        self._on_each(_Connection.half_close)

    def cut(self) -> None:
        """Close all open connections with FIN; what is on its way is lost."""
        self._on_each(_Connection.close)

    def hold(self) -> None:
        """Keep back everything on all connections, new ones too, until :meth:`flow`."""
        self.held = True
        self._on_each(_Connection.nothing)

    def flow(self) -> None:
        """Deliver what was kept back, and everything that follows."""
        self.held = False
        self._on_each(_Connection.deliver)

    def lead_to(self, target: int | Path) -> None:
        """Close the connections; new ones lead to another server."""
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
            await asyncio.wait(others)  # connections that were accepted a moment ago

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            accepted, _ = self._listening.accept()
            accepted.setblocking(False)
            self.accepted += 1
            _Connection(self, accepted)


class _Connection:
    """A connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: FaultyProxy, accepted: socket.socket) -> None:
        self.client = _End(self)
        self.server = _End(self)
        self._proxy = proxy
        self.is_over = self._swallows = self._is_doomed = False
        self._packets = 0
        proxy.connections.add(self)
        self._connecting = proxy.loop.create_task(self._connect(accepted))

    async def reset(self) -> None:
        """Close it with RST."""
        if not self.is_over and self.client.transport is not None:
            self._proxy.resets += 1
            found = self.client.transport.get_extra_info("socket")
            if found.family != socket.AF_UNIX:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        await self.close()

    async def reset_on_next_packet(self) -> None:
        """Reset it when the client sends something."""
        self._is_doomed = True

    async def swallow(self) -> None:
        """Pass nothing on any more."""
        self._swallows = True

    async def half_close(self) -> None:
        """Send FIN to the client."""
        self._swallows = True
        if self.client.transport is not None and not self.client.transport.is_closing():
            self.client.transport.write_eof()

    async def nothing(self) -> None:
        """Do nothing."""

    async def deliver(self) -> None:
        """Pass on what waits in both directions."""
        self.deliver_from(self.client)
        self.deliver_from(self.server)

    async def close(self) -> None:
        """Close both ends, and wait until they are closed."""
        self._end()
        await asyncio.gather(self.client.closed(), self.server.closed())
        await asyncio.sleep(0)  # the socket is closed right after the protocol is told

    def take(self, end: "_End", data: bytes) -> None:
        """Pass on what an end has received; nothing stands for the end of the stream."""
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
        """Pass on the server's data byte by byte."""
        for number in range(len(data)):
            self.server.waiting.append(data[number : number + 1])
            seconds = self._proxy.trickle * number
            self._proxy.loop.call_later(seconds, self.deliver_from, self.server, 1)

    def deliver_from(self, end: "_End", count: int = 1 << 30) -> None:
        """Pass on so many pieces of what waits, unless everything is kept back."""
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
    """One of the two ends that a connection has here."""

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
        return True  # both ends are closed together

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._connection.take(self, b"")

    async def closed(self) -> None:
        """Wait until it is closed."""
        if self.transport is not None:
            await self._closed.wait()


@contextmanager
def unanswered_port() -> Iterator[int]:
    """Yield a port whose SYN packets nobody answers: its listen queue is full.

    Raises:
        RuntimeError: the system answers all the same.
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
        raise RuntimeError("the system answers though the listen queue is full")
