"""Send commands through the application's client, where we can't open connections like its own."""

import asyncio
from collections.abc import Sequence
from typing import Any

from lucia._redis.commands import DEFAULT_MODE, Reply, SendMode, Words
from lucia._redis.replay import ConnectionMonitor
from lucia._redis.transport.client_errors import is_error_reply
from lucia._redis.transport.clients import one_node
from lucia._redis.transport.connection_io import Records
from lucia._redis.transport.retries import BatchRejected, NoReply

__all__ = ["AsyncClientPassthrough", "ClientPassthrough"]


class AsyncClientPassthrough:
    """A route through the application's client, which may have retries of its own."""

    only_server: None = None

    def __init__(self, client: Any, monitor: ConnectionMonitor) -> None:
        self._client = client
        self._monitor = monitor
        # So that the first failure counts as another history, and not as the first one met.
        monitor.connected(None)

    async def key_per_primary(
        self, _prefix: str, _seconds: float, _began: float, /
    ) -> dict[str, str]:
        """Refuse, since the client may lead anywhere and send anything twice.

        Raises:
            NoReply: always.
        """
        raise NoReply(None, sent=False)

    async def ask(
        self,
        key: object,
        commands: Sequence[Words],
        seconds: float,
        _mode: SendMode = DEFAULT_MODE,
        /,
    ) -> list[Reply]:
        """Send a command, or a transaction.

        Raises:
            NoReply: the time was over, or the client raised an error that is no server's answer.
        """
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                if len(commands) == 1:
                    # Records are bytes, also if the client decodes (decode_responses=True).
                    return [await self._client.execute_command(*commands[0], NEVER_DECODE=True)]
                async with self._client.pipeline(transaction=True) as pipeline:
                    # Skip MULTI and EXEC, the first and the last: the pipeline sends them itself.
                    for words in commands[1:-1]:
                        pipeline.execute_command(*words)
                    return [await pipeline.execute()]
        except Exception as error:
            if is_error_reply(error):
                return [error]
            # The client does not show what it reconnects to: every failure without a reply counts
            # as another history, and what was revoked recently is revoked again.
            self._monitor.lost()
            self._monitor.connected(None)
            raise NoReply(None if limit.expired() else error, sent=True) from error

    async def read(self, _keys: Sequence[bytes], _seconds: float, /) -> Records:
        """Refuse, since the client has no way to read several keys as one of our batches.

        Raises:
            BatchRejected: always.
        """
        raise BatchRejected

    async def nodes(self, _seconds: float, /) -> list[str]:
        """Return the name of its only server.

        Raises:
            TypeError: it has several.
        """
        return one_node(self._client)

    async def ask_node(
        self, _node: str, commands: Sequence[Words], seconds: float, _mode: SendMode, /
    ) -> list[Reply]:
        """Send commands one after another.

        Raises:
            NoReply: as :meth:`ask`.
        """
        return [(await self.ask(None, [words], seconds))[0] for words in commands]

    async def drop_idle(self) -> None:
        """Do nothing: the connections are the client's own."""

    async def aclose(self) -> None:
        """Do nothing: the application closes its client."""


class ClientPassthrough:
    """A route through the application's client, which has timeouts and retries of its own."""

    only_server: None = None

    def __init__(self, client: Any, monitor: ConnectionMonitor) -> None:
        self._client = client
        self._monitor = monitor
        # So that the first failure counts as another history, and not as the first one met.
        monitor.connected(None)

    def key_per_primary(self, _prefix: str, _seconds: float, _began: float, /) -> dict[str, str]:
        """Refuse, since the client may lead anywhere and send anything twice.

        Raises:
            NoReply: always.
        """
        raise NoReply(None, sent=False)

    def ask(
        self,
        key: object,
        commands: Sequence[Words],
        seconds: float,
        _mode: SendMode = DEFAULT_MODE,
        /,
    ) -> list[Reply]:
        """Send a command, or a transaction.

        Raises:
            NoReply: the client raised an error that is no server's answer.
        """
        try:
            if len(commands) == 1:
                # Records are bytes, also if the client decodes (decode_responses=True).
                return [self._client.execute_command(*commands[0], NEVER_DECODE=True)]
            with self._client.pipeline(transaction=True) as pipeline:
                # Skip MULTI and EXEC, the first and the last: the pipeline sends them itself.
                for words in commands[1:-1]:
                    pipeline.execute_command(*words)
                return [pipeline.execute()]
        except Exception as error:
            if is_error_reply(error):
                return [error]
            # The client does not show what it reconnects to: every failure without a reply counts
            # as another history, and what was revoked recently is revoked again.
            self._monitor.lost()
            self._monitor.connected(None)
            raise NoReply(error, sent=True) from error

    def read(self, _keys: Sequence[bytes], _seconds: float, /) -> Records:
        """Refuse, since the client has no way to read several keys as one of our batches.

        Raises:
            BatchRejected: always.
        """
        raise BatchRejected

    def nodes(self, _seconds: float, /) -> list[str]:
        """Return the name of its only server.

        Raises:
            TypeError: it has several.
        """
        return one_node(self._client)

    def ask_node(
        self, _node: str, commands: Sequence[Words], seconds: float, _mode: SendMode, /
    ) -> list[Reply]:
        """Send commands one after another.

        Raises:
            NoReply: as :meth:`ask`.
        """
        return [self.ask(None, [words], seconds)[0] for words in commands]

    def drop_idle(self) -> None:
        """Do nothing: the connections are the client's own."""

    def close(self) -> None:
        """Do nothing: the application closes its client."""
