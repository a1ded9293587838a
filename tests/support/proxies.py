"""Proxies in front of a server, in the event loop of the test.

One delays and splits data, and resets connections. The other holds data back.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["HoldingProxy", "NetworkFaults", "holding_proxy", "splitting_proxy"]

_PIECE: Final = 40
"""The longest piece to forward at once, in bytes. It is shorter than a record."""

_PAUSE: Final = 0.001
"""The longest pause between two pieces, in seconds."""

_RESET_ONE_IN: Final = 2_000
"""A connection is reset once in this many pieces, on average."""


@dataclass
class NetworkFaults:
    """The faults of a proxy: random ones while it is ``active``, otherwise none."""

    chance: random.Random
    active: bool = False

    def piece(self) -> int:
        """Return the number of bytes to forward at once."""
        return self.chance.randint(1, _PIECE) if self.active else 65_536

    def resets(self) -> bool:
        """Return whether to reset the connection before the next piece."""
        return self.active and self.chance.randrange(_RESET_ONE_IN) == 0

    def pause(self) -> float:
        """Return the seconds to wait after a piece."""
        return self.chance.random() * _PAUSE if self.active else 0


class HoldingProxy:
    """A proxy that forwards everything until it is closed, and then holds data back.

    Args:
        word: hold back only the data of connections on which a client sent this word.
    """

    def __init__(self, word: bytes = b"") -> None:
        self.port = 0
        self.held = b""
        self._word = word
        self._lets_through = asyncio.Event()
        self._lets_in = asyncio.Event()
        self._client: asyncio.StreamWriter | None = None
        self.open()

    def close(self, *, both: bool = False) -> None:
        """Hold back what the server sends from now on; with ``both``, what clients send too."""
        self._lets_through.clear()
        if both:
            self._lets_in.clear()

    def open(self) -> None:
        """Forward everything, starting with what was held back."""
        self.let_go(len(self.held))
        self._lets_through.set()
        self._lets_in.set()

    def let_go(self, size: int) -> None:
        """Forward this many of the bytes that were held back on the newest connection."""
        if self._client is not None:
            self._client.write(self.held[:size])
        self.held = self.held[size:]

    async def relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        """Forward data until one side closes the connection."""
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        await _both(
            self._in(reader, other_writer, writer), self._out(other_reader, writer), other_writer
        )

    async def _in(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(65_536):
            if self._word in data:
                self._client = client
            if self._client is client:
                await self._lets_in.wait()
            writer.write(data)

    async def _out(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._client is writer and not self._lets_through.is_set():
                self.held += data
            else:
                writer.write(data)


@asynccontextmanager
async def holding_proxy(port: int, word: bytes = b"") -> AsyncIterator[HoldingProxy]:
    """Open a holding proxy in front of the server at this port."""
    dam = HoldingProxy(word)
    async with _proxy(lambda reader, writer: dam.relay(reader, writer, port)) as dam.port:
        yield dam


@asynccontextmanager
async def splitting_proxy(port: int, faults: NetworkFaults) -> AsyncIterator[int]:
    """Open a splitting proxy in front of the server at this port, and yield its own port."""
    async with _proxy(lambda reader, writer: _relay(reader, writer, port, faults)) as own_port:
        yield own_port


@asynccontextmanager
async def _proxy(
    relay: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[int]:
    """Serve each connection with this coroutine function, and yield the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):  # the proxy is closed
            await relay(reader, writer)
        writer.transport.abort()
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks)


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, faults: NetworkFaults
) -> None:
    """Forward data both ways until one side closes, or the connection is reset."""
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
    await _both(
        _pass(reader, other_writer, faults), _pass(other_reader, writer, faults), other_writer
    )


async def _both(
    there: Coroutine[Any, Any, None],
    back: Coroutine[Any, Any, None],
    other_writer: asyncio.StreamWriter,
) -> None:
    """Run both directions until one ends, then close the connection to the server."""
    directions = [asyncio.ensure_future(there), asyncio.ensure_future(back)]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        other_writer.transport.abort()
        for each in directions:
            each.cancel()
        await asyncio.gather(*directions, return_exceptions=True)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, faults: NetworkFaults
) -> None:
    while data := await reader.read(65_536):
        while data:
            size = faults.piece()
            piece, data = data[:size], data[size:]
            if faults.resets():
                return
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(faults.pause())
