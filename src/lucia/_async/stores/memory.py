"""Users, keys and sessions in this process's memory.

For tests and for trying things out. The conformance suites compare other stores with it.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from itertools import count
from typing import Any

from lucia._compat.locks import AsyncLock
from lucia._logs import revoked
from lucia._memory.renewals import Renewals
from lucia._rules.caps import surplus_sessions
from lucia._rules.sessions import Clock, system_clock
from lucia.errors import DuplicateKeyId, DuplicateSessionId, InvalidUserId
from lucia.models import UNSET, KeyRow, SessionRow, Unset, UserRow


class AsyncMemoryAdapter:
    """One store for users and sessions; each process has its own, which ends with the process.

    Given only as ``sessions=``, it stores sessions of users that it does not know, like the Redis
    adapter.

    Args:
        clock: returns the time in milliseconds since the epoch.
    """

    keeps_attributes: bool = True
    expires_records: bool = False

    def __init__(self, *, clock: Clock = system_clock) -> None:
        self._lock = AsyncLock()
        self._users: dict[str, UserRow] = {}
        self._numbers = count(1)
        self._keys: dict[str, KeyRow] = {}
        self._sessions: dict[str, SessionRow] = {}
        self._clock = clock
        self._renewals = Renewals(clock)

    async def get_user(self, user_id: str, /) -> UserRow | None:
        """Return the user with this id, or None."""
        return self._users.get(user_id)

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        """Store a new user and their primary key, both or neither.

        Raises:
            DuplicateKeyId: a key has this id; no user was stored.
            ValueError: a user has this id, or an attribute is named ``id``.
        """
        async with self._lock:
            if user_id in self._users:
                raise ValueError(
                    "a user with this id exists already: generate_custom_user_id has to return a "
                    "new one each time"
                )
            return self._add_user(user_id, attributes, key)

    async def add_user(
        self, attributes: Mapping[str, Any], make_key: Callable[[str], KeyRow] | None, /
    ) -> UserRow:
        """Store a new user, whose id is the next number, and their primary key, both or neither.

        Raises:
            DuplicateKeyId: a key has this id; no user was stored.
            ValueError: an attribute is named ``id``.
        """
        async with self._lock:
            user_id = next(str(each) for each in self._numbers if str(each) not in self._users)
            key = None if make_key is None else make_key(user_id)
            return self._add_user(user_id, attributes, key)

    def _add_user(self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None) -> UserRow:
        user = UserRow(id=user_id, attributes=dict(attributes))
        # Add the key first: if it is refused, no user is stored.
        if key is not None:
            self._add_key(key)
        self._users[user_id] = user
        return user

    async def delete_user(self, user_id: str, /) -> None:
        """Remove the user; an unknown id is no error."""
        async with self._lock:
            self._users.pop(user_id, None)

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        """Change these attributes, leave the others, and return the user; None if unknown."""
        async with self._lock:
            user = self._users.get(user_id)
            if user is None:
                return None
            changed = UserRow(id=user_id, attributes={**user.attributes, **attributes})
            self._users[user_id] = changed
            return changed

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        """Return the key with this id, even if it has expired; None if there is none."""
        return self._keys.get(key_id)

    async def get_keys_by_user_id(self, user_id: str, /) -> list[KeyRow]:
        """Return the user's keys; none for an unknown user."""
        async with self._lock:
            return [key for key in self._keys.values() if key.user_id == user_id]

    async def set_key(self, key: KeyRow, /) -> None:
        """Store a new key.

        Raises:
            DuplicateKeyId: a key has this id; nothing was changed.
            InvalidUserId: no such user.
        """
        async with self._lock:
            if key.user_id not in self._users:
                raise InvalidUserId
            self._add_key(key)

    def _add_key(self, key: KeyRow) -> None:
        if key.id in self._keys:
            raise DuplicateKeyId
        self._keys[key.id] = key

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        """Set the key's hash and return the key.

        None if there is no such key, or if ``expected`` is given and the key has another hash.
        """
        async with self._lock:
            key = self._keys.get(key_id)
            if key is None or (expected is not UNSET and key.hashed_password != expected):
                return None
            changed = replace(key, hashed_password=hashed_password)
            self._keys[key_id] = changed
            return changed

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        """Remove these keys but for primary ones; return how many were removed."""
        async with self._lock:
            gone = {id_ for id_ in key_ids if id_ in self._keys and not self._keys[id_].primary_key}
            for id_ in gone:
                del self._keys[id_]
            return len(gone)

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        """Remove all keys of this user; an unknown user is no error."""
        async with self._lock:
            self._keys = {id_: key for id_, key in self._keys.items() if key.user_id != user_id}

    async def get_session(self, session_id: str, /) -> SessionRow | None:
        """Return the session with this id, even if it has expired; None if there is none."""
        session = self._sessions.get(session_id)
        return None if session is None else _copy(session)

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[SessionRow, UserRow] | None:
        """Return the session and its user; None if either is missing."""
        async with self._lock:
            session = self._sessions.get(session_id)
            user = None if session is None else self._users.get(session.user_id)
            return None if session is None or user is None else (_copy(session), user)

    async def get_sessions_by_user_id(self, user_id: str, /) -> list[SessionRow]:
        """Return the user's sessions, with expired ones; none for an unknown user."""
        async with self._lock:
            return [
                _copy(session) for session in self._sessions.values() if session.user_id == user_id
            ]

    async def set_session(self, session: SessionRow, /) -> None:
        """Store a new session.

        Raises:
            DuplicateSessionId: a session has this id; nothing was changed.
        """
        async with self._lock:
            self._add_session(session)

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        """Store a new session and revoke the user's oldest logins beyond ``limit``.

        Raises:
            DuplicateSessionId: a session has this id; nothing was changed.
        """
        async with self._lock:
            self._add_session(session)
            for session_id in surplus_sessions(
                self._sessions.values(), session, limit, self._clock()
            ):
                del self._sessions[session_id]
            return session

    def _add_session(self, session: SessionRow) -> None:
        if session.id in self._sessions:
            raise DuplicateSessionId
        self._sessions[session.id] = _copy(session)

    async def delete_session(self, /, *session_ids: str) -> None:
        """Revoke these sessions, and what they were renewed to within the last 60 seconds.

        Unknown ids are no error.
        """
        async with self._lock:
            for session_id in session_ids:
                next_id: str | None = session_id
                while next_id is not None:
                    row = self._sessions.pop(next_id, None)
                    revoked(0 if row is None else 1, None if row is None else row.user_id)
                    next_id = self._renewals.successor(next_id)

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        """Revoke all sessions of this user; an unknown user is no error."""
        async with self._lock:
            self._keep_only(user_id, None)

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        """Revoke all sessions of this user but ``keep``, or what that was renewed to.

        Returns:
            Whether a session was kept.
        """
        async with self._lock:
            kept = self._end_of_chain(keep)
            if kept is None or kept.user_id != user_id:
                self._keep_only(user_id, None)
                return False
            self._keep_only(user_id, kept.id)
            return True

    def _end_of_chain(self, session_id: str) -> SessionRow | None:
        """Return the session, or what it was renewed to in the last 60 s, whatever the grace."""
        successor = self._renewals.successor(session_id)
        return (
            self._sessions.get(session_id) if successor is None else self._end_of_chain(successor)
        )

    def _keep_only(self, user_id: str, keep: str | None) -> None:
        sessions = self._sessions
        self._sessions = {
            id_: row for id_, row in sessions.items() if row.user_id != user_id or id_ == keep
        }
        revoked(len(sessions) - len(self._sessions))

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> SessionRow | None:
        """Replace a session by its successor, once; the grace is in milliseconds.

        Raises:
            DuplicateSessionId: the successor's id is taken; nothing was changed.
        """
        async with self._lock:
            if session_id not in self._sessions:
                return self._follow_chain(session_id)
            # Add the successor first: if its id is taken, the used session stays.
            self._add_session(successor)
            del self._sessions[session_id]
            self._renewals.add(session_id, successor.id, grace)
            return successor

    async def get_successor(self, session_id: str, /) -> SessionRow | None:
        """Follow a used id along its renewals to a live session, each within its grace.

        None if they lead to none.
        """
        async with self._lock:
            return self._follow_chain(session_id)

    def _follow_chain(self, session_id: str) -> SessionRow | None:
        found = self._successor(session_id)
        return None if found is None else _copy(found)

    def _successor(self, session_id: str) -> SessionRow | None:
        successor = self._renewals.within_grace(session_id)
        return (
            None
            if successor is None
            else self._sessions.get(successor) or self._successor(successor)
        )


def _copy(session: SessionRow) -> SessionRow:
    """Return a row that shares nothing with this one, as if it were read from a database."""
    return replace(session, attributes=deepcopy(dict(session.attributes)))
