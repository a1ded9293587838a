"""A store that compares ids as MariaDB does by default.

It ignores case, accents, trailing spaces and invisible characters.
"""

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from lucia.models import UNSET, KeyRow, SessionRow, Unset, UserRow
from tests.aio.support.watched_store import AsyncWatchedStore


def normalized(text: str) -> str:
    """Return the form that is the same for all ids that such a store considers equal."""
    letters = (
        each
        for each in unicodedata.normalize("NFKD", text)
        if unicodedata.category(each) not in ("Mn", "Cf")
    )
    return "".join(letters).casefold().rstrip()


def find(ids: Iterable[str], id_: str) -> str:
    """Return the stored id that such a store considers equal to this one, else this one."""
    return next((stored for stored in ids if normalized(stored) == normalized(id_)), id_)


class AsyncCaseInsensitiveStore(AsyncWatchedStore):
    """A store that finds, changes and removes rows under any spelling of their ids."""

    async def get_user(self, user_id: str, /) -> UserRow | None:
        return await super().get_user(find(self._users, user_id))

    async def delete_user(self, user_id: str, /) -> None:
        await super().delete_user(find(self._users, user_id))

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        return await super().update_user_attributes(find(self._users, user_id), attributes)

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        return await super().get_key(find(self._keys, key_id))

    async def get_keys_by_user_id(self, user_id: str, /) -> list[KeyRow]:
        return await super().get_keys_by_user_id(find(self._users, user_id))

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        return await super().update_key_password(
            find(self._keys, key_id), hashed_password, expected=expected
        )

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        return await super().delete_non_primary_key(
            *(find(self._keys, key_id) for key_id in key_ids)
        )

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        await super().delete_keys_by_user_id(find(self._users, user_id))

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        return await super().get_session(find(self._sessions, session_id))

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[SessionRow, UserRow] | None:
        return await super().get_session_and_user_by_session_id(find(self._sessions, session_id))

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        return await super().get_sessions_by_user_id(find(self._users, user_id))

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        await super().delete_sessions_by_user_id(find(self._users, user_id))
