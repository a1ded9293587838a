"""The Redis session adapter: runs the operations of :mod:`lucia.redis.protocol` over a client that the application made."""

import random
from collections.abc import Mapping
from typing import Any, TypeVar

from lucia.errors import StoreCorrupt
from lucia.models import SessionRow
from lucia.redis import protocol
from lucia.redis.clients import AsyncRedisClient, check_client, close_idle, is_no_script, is_wrong_type, redact
from lucia.redis.layout import Layout
from lucia.redis.protocol import Argument, Call, Command, Eval, Operation, Reply

T = TypeVar("T")


class AsyncRedisSessionAdapter:
    """Sessions in Redis or Valkey, on a single server or behind Sentinel.

    Users and keys are another adapter's; a session is stored also when its user does not exist.

    ============================================ ====================================================================
    key                                          value
    ============================================ ====================================================================
    ``session:{session id}``                     JSON of the session's row; expires with the session
    ``userSession:{user id}``                    list of session ids, newest first; expires with the last of them
    ``session:renewed:{session:{used id}}``      after a renewal for 60 s: what the used id leads to
    ============================================ ====================================================================

    ================================ =================================================================================
    method                           commands
    ================================ =================================================================================
    ``get_session``                  ``MGET session:ID``
    ``set_session``                  script: ``TIME``, ``LLEN userSession:USER``, ``SET session:ID … NX PXAT``, ``LPUSH``,
                                     ``PTTL``, ``PEXPIREAT``; at every eighth login from the 16th session on also
                                     ``LRANGE``, ``MGET`` and a script with ``EXISTS`` and ``LREM``
    ``renew_session``                script: ``TIME``, ``MGET session:OLD``, ``LLEN``, ``SET session:NEW … NX PXAT``,
                                     ``SET session:renewed:{session:OLD} … PX 60000``, ``DEL session:OLD``, ``LPUSH``,
                                     ``PTTL``, ``PEXPIREAT``, ``LREM``
    ``get_successor``                ``MGET`` and ``PTTL`` of ``session:renewed:{session:OLD}``, ``MGET session:NEW``
    ``get_sessions_by_user_id``      ``LRANGE userSession:USER 0 -1``, ``MGET``; for dead ids a script: ``EXISTS``, ``LREM``
    ``delete_session``               script: ``MGET`` of session and marker, ``DEL``; then ``LREM userSession:USER 0 ID``
    ``delete_sessions_by_user_id``   ``LRANGE userSession:USER 0 -1``; script: ``LRANGE``, ``DEL`` and ``LREM`` for each; above
                                     1,000 sessions by blocks, each with ``MGET`` of the markers, whose successors end too
    ``delete_other_sessions``        the same, and ``MGET`` of the kept session, ``MGET`` and ``PTTL`` of its marker;
                                     ``EXISTS`` in the script
    ================================ =================================================================================

    Scripts run by ``EVALSHA``, and by ``EVAL`` where the server does not know them yet; every key they touch is declared.

    Args:
        client: made by the application, which also connects and closes it; ``decode_responses`` may be either way.
        namespaces: ``session`` and ``user_session``, each of which may be left out.

    Raises:
        TypeError: the client is none that this adapter can use.
        ValueError: a namespace is empty or unknown, or the two collide.

    Each method raises the client's own errors unchanged but for arguments, ids among them, that are taken out of their text; and
    :class:`~lucia.StoreCorrupt` where an index holds a value of another type.
    """

    keeps_attributes: bool = True
    expires_records: bool = True

    def __init__(self, client: AsyncRedisClient, namespaces: Mapping[str, str] | None = None) -> None:
        check_client(client, like=self.get_session)
        self._client: Any = client
        self._layout = Layout.from_namespaces(namespaces)

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        """The session with this id; None if there is none, or if what is stored there is no session."""
        return await self._run(protocol.get(self._layout, session_id))

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        """The user's sessions, newest first; empty for an unknown user."""
        return await self._run(protocol.get_by_user(self._layout, user_id))

    async def set_session(self, session: SessionRow, /) -> None:
        """Store a new session and its index entry, in one step. Repeating the very same call is no error.

        Raises:
            DuplicateSessionId: another session has this id; nothing was changed.
            ValueError: the session's end is past by the server's clock, or its record is longer than 16 KiB.
        """
        await self._run(protocol.create(self._layout, session, random.randrange))

    async def delete_session(self, /, *session_ids: str) -> None:
        """End these sessions, and what they were renewed to within the last 60 seconds; unknown ids are no error."""
        await self._run(protocol.delete(self._layout, session_ids))

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        """End all sessions of this user: when it returns, none that was made or renewed before is left."""
        await self._run(protocol.delete_by_user(self._layout, user_id))

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        """End all sessions of this user but ``keep``, or what that was renewed to; says whether one was kept."""
        return await self._run(protocol.delete_by_user(self._layout, user_id, keep))

    async def renew_session(self, session_id: str, successor: SessionRow, /, *, grace: int) -> SessionRow | None:
        """Replace a session by its successor, once, in one step; the grace is in milliseconds, by the server's clock.

        Raises:
            DuplicateSessionId, ValueError: as :meth:`set_session`.
        """
        return await self._run(protocol.renew(self._layout, session_id, successor, grace))

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        """The live end of the chain of renewals that starts at this used id, while each step is within its grace; else None."""
        return await self._run(protocol.successor_of(self._layout, session_id))

    async def _run(self, operation: Operation[T]) -> T:
        try:
            command = next(operation)
            while True:
                command = operation.send(await self._execute(command))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _execute(self, command: Command) -> Reply:
        try:
            return await self._send(command)
        except Exception as error:
            redact(error, command)
            if is_wrong_type(error):
                raise StoreCorrupt("an index of the session store is no list: another program writes to the same keys") from error
            raise

    async def _send(self, command: Command) -> Reply:
        if isinstance(command, Call):
            return await self._call(command.name, *command.arguments)
        if isinstance(command, Eval):
            return await self._eval(command)
        return await self._drop_connections()

    async def _eval(self, command: Eval) -> Reply:
        arguments = (len(command.keys), *command.keys, *command.arguments)
        try:
            return await self._call("EVALSHA", command.script.sha, *arguments)
        except Exception as error:
            if not is_no_script(error):
                raise
        return await self._call("EVAL", command.script.text, *arguments)

    async def _call(self, name: str, *arguments: Argument) -> Reply:
        encoded = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
        return await self._client.execute_command(name, *encoded, NEVER_DECODE=True)

    async def _drop_connections(self) -> None:
        single = getattr(self._client, "connection", None)
        if single is not None:
            await single.disconnect()
        else:
            await close_idle(self._client.connection_pool)
