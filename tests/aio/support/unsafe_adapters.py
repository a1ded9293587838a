"""SQLAlchemy adapters that each lack one guarantee, and wait until another call makes use of it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import insert

from lucia._rules.caps import surplus_sessions
from lucia._rules.sessions import system_clock
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from lucia.errors import DuplicateKeyId, InvalidUserId
from lucia.models import UNSET, KeyRow, SessionRow, Unset, UserRow
from tests.aio.support.rendezvous import AsyncRendezvous, until
from tests.support.suite_databases import TABLES

__all__ = ["UNSAFE", "AsyncUserBeforeKey"]


class AsyncUserBeforeKey(AsyncSQLAlchemyAdapter):
    """Stores a user and their key in two transactions."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        stored = await super().set_user(user_id, attributes, None)
        if key is not None:
            await self.set_key(key)
        return stored


class AsyncOverwritesKeys(AsyncSQLAlchemyAdapter):
    """Reports success for a key that was stored before."""

    async def set_key(self, key: KeyRow, /) -> None:
        try:
            await super().set_key(key)
        except DuplicateKeyId:
            await super().update_key_password(key.id, key.hashed_password)


class AsyncReadsThenDeletes(AsyncSQLAlchemyAdapter):
    """Counts the keys that it has read, not those that it has deleted."""

    def __init__(self, source: Any, tables: AuthTables) -> None:
        super().__init__(source, tables)
        self._meeting = AsyncRendezvous(2)

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        found = [await self.get_key(key_id) for key_id in key_ids]
        await self._meeting.wait()
        await super().delete_non_primary_key(*key_ids)
        return len([key for key in found if key is not None])


class AsyncIgnoresExpected(AsyncSQLAlchemyAdapter):
    """Replaces a hash whatever it is by then."""

    _is_changed = False

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        if isinstance(expected, Unset):
            changed = await super().update_key_password(key_id, hashed_password)
            self._is_changed = True
            return changed
        await until(lambda: self._is_changed)
        return await super().update_key_password(key_id, hashed_password)


class AsyncReadsThenRenews(AsyncSQLAlchemyAdapter):
    """Stores a successor without a look at whether the session is still there."""

    _renewals = 0
    _is_signed_out = False

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        if await self.get_session(session_id) is None:
            return None
        self._renewals += 1
        await until(lambda: self._is_signed_out)
        await self.set_session(successor)
        return successor

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        await until(lambda: self._renewals)
        await super().delete_sessions_by_user_id(user_id)
        self._is_signed_out = True


class AsyncReadsThenCaps(AsyncSQLAlchemyAdapter):
    """Revokes the surplus of the sessions that it has read before."""

    def __init__(self, source: Any, tables: AuthTables) -> None:
        super().__init__(source, tables)
        self._meeting = AsyncRendezvous(10)

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        rows = await self.get_sessions_by_user_id(session.user_id)
        await self._meeting.wait()
        await self.set_session(session)
        await self.delete_session(*surplus_sessions(rows, session, limit, system_clock()))
        return session


class AsyncReadsThenAddsKeys(AsyncSQLAlchemyAdapter):
    """Stores a key without a look at whether the user is still there."""

    _keys = 0
    _is_deleted = False

    async def set_key(self, key: KeyRow, /) -> None:
        if await self.get_user(key.user_id) is None:
            raise InvalidUserId
        self._keys += 1
        await until(lambda: self._is_deleted)
        source: Any = self._source
        async with source.begin() as connection:
            await connection.execute(insert(TABLES.key).values(**asdict(key)))

    async def delete_user(self, user_id: str, /) -> None:
        await until(lambda: self._keys)
        await super().delete_user(user_id)
        self._is_deleted = True


class AsyncReadsThenKeeps(AsyncSQLAlchemyAdapter):
    """Keeps the id that it was given, not what that was renewed to."""

    def __init__(self, source: Any, tables: AuthTables) -> None:
        super().__init__(source, tables)
        self._renewed: list[str] = []

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        renewed = await super().renew_session(session_id, successor, grace=grace)
        self._renewed.append(session_id)
        return renewed

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        await until(lambda: keep in self._renewed)
        rows = await self.get_sessions_by_user_id(user_id)
        await self.delete_session(*(row.id for row in rows if row.id != keep))
        return True


UNSAFE: Mapping[str, type[AsyncSQLAlchemyAdapter]] = {
    "sign_up": AsyncUserBeforeKey,
    "add_key": AsyncOverwritesKeys,
    "use_once": AsyncReadsThenDeletes,
    "change_password": AsyncIgnoresExpected,
    "sign_out": AsyncReadsThenRenews,
    "cap": AsyncReadsThenCaps,
    "delete_user": AsyncReadsThenAddsKeys,
    "keep": AsyncReadsThenKeeps,
}
"""An adapter for each race, which must fail its check."""
