"""A proxy before a server that delays what passes, delivers it in pieces, and resets connections."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

__all__ = ["Weather", "splitting_proxy"]

_PIECE: Final = 40
"""The longest piece that is passed on at once, in bytes: shorter than a record."""

_PAUSE: Final = 0.001
"""The longest pause between two pieces, in seconds."""

_RESET_ONE_IN: Final = 2_000
"""How many pieces pass, on average, before a connection is reset."""


@dataclass
class Weather:
    """What happens to what passes: nothing, or while it is ``stormy`` what chance says."""

    chance: random.Random
    stormy: bool = False

    def piece(self) -> int:
        """How many bytes go on at once."""
        return self.chance.randint(1, _PIECE) if self.stormy else 65_536

    def resets(self) -> bool:
        """Whether the connection is reset before the next piece."""
        return self.stormy and self.chance.randrange(_RESET_ONE_IN) == 0

    def pause(self) -> float:
        """How many seconds to wait after a piece."""
        return self.chance.random() * _PAUSE if self.stormy else 0


@asynccontextmanager
async def splitting_proxy(port: int, weather: Weather) -> AsyncIterator[int]:
    """The port of a proxy before the server at this one, on this machine."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):  # the proxy ends
            await _relay(reader, writer, port, weather)
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


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, weather: Weather) -> None:
    """Pass bytes in both directions until one side ends, or both are reset."""
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
    directions = [asyncio.ensure_future(_pass(reader, other_writer, weather)), asyncio.ensure_future(_pass(other_reader, writer, weather))]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        other_writer.transport.abort()
        for each in directions:
            each.cancel()
        await asyncio.gather(*directions, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, weather: Weather) -> None:
    while data := await reader.read(65_536):
        while data:
            size = weather.piece()
            piece, data = data[:size], data[size:]
            if weather.resets():
                return
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(weather.pause())
