"""A TCP proxy that can be cut without telling either side, like a network that drops packets."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

__all__ = ["CuttableProxy", "link"]

HOST: Final = "127.0.0.1"
PIECE: Final = 65_536


class CuttableProxy:
    """A proxy that forwards both ways unless it is cut.

    Args:
        port: the server's port.
        loop: the event loop of the proxy. It runs in another thread than the caller of `cut`.
    """

    def __init__(self, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self._server = port
        self._loop = loop
        self._ends: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self.port = 0

    @property
    def url(self) -> str:
        """The Redis URL of the proxy."""
        return f"redis://{HOST}:{self.port}"

    async def open(self) -> None:
        """Start listening."""
        listening = await asyncio.start_server(self._pass, HOST, 0)
        self.port = listening.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Drop all data from now on. Connections stay open."""
        self._is_cut = True

    def restore(self) -> None:
        """Reset the connections that were cut, and forward the data of new ones."""
        asyncio.run_coroutine_threadsafe(self._restore(), self._loop).result()

    async def _restore(self) -> None:
        for end in self._ends:
            end.transport.abort()
        self._is_cut = False

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(HOST, self._server)
        ends = {writer, other_writer}
        self._ends |= ends
        with suppress(OSError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, other_writer))
                group.create_task(self._pass_on(other_reader, writer))
        self._ends -= ends

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                if not self._is_cut:
                    writer.write(piece)
        writer.close()


@contextmanager
def link(port: int) -> Generator[CuttableProxy]:
    """Run a proxy to the server at this port in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    way = CuttableProxy(port, loop)
    try:
        asyncio.run_coroutine_threadsafe(way.open(), loop).result()
        yield way
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
