"""What a store has to do: the protocols that adapters implement.

Laws that hold for every adapter:

* It keeps what it is given, also attributes it does not know, and gives back plain frozen rows.
* Asking for what is not there is None or empty, deleting it is no error.
* It raises the library's errors named here; every error of its database goes up unchanged.
* It takes any id that a row takes; the 40-character rule for session ids is ``Auth``'s.

:mod:`lucia.testing` checks them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lucia._rules.throttling import Attempt, FailureRule
from lucia.models import UNSET, AsyncFoundSession, KeyRow, SessionRow, StoredSession, Unset, UserRow

__all__ = [
    "AsyncRenewingSessionAdapter",
    "AsyncSessionAdapter",
    "AsyncSessionUserAdapter",
    "AsyncThrottleStore",
    "AsyncThrottlingSessionAdapter",
    "AsyncUserAdapter",
]


@runtime_checkable
class AsyncSessionAdapter(Protocol):
    """Stores sessions: the five methods of the original, enough for an adapter to work.

    Over these alone, renewal, ``keep=`` and a cap are as good as the five allow: see "Writing an adapter" in the documentation.
    """

    def get_session(self, session_id: str, /) -> AsyncFoundSession:
        """Return the session with this id, dead ones included; None if there is none."""
        ...

    async def get_sessions_by_user_id(self, user_id: str, /) -> Sequence[SessionRow]:
        """The user's sessions in any order; empty for an unknown user."""
        ...

    async def set_session(self, session: SessionRow, /) -> None:
        """Store a new session.

        Raises:
            DuplicateSessionId: another session has this id; nothing was changed.
            InvalidUserId: no such user, where the store can tell.
            ConcurrentlyRevoked: all of the user's sessions were ended while this one was made; nothing of it is left.
        """
        ...

    async def delete_session(self, /, *session_ids: str) -> None:
        """Remove these sessions; unknown ids are no error."""
        ...

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        """Remove all sessions of this user; an unknown user is no error.

        When it returns, no session whose ``set_session`` had returned before is left.
        """
        ...


@runtime_checkable
class AsyncRenewingSessionAdapter(AsyncSessionAdapter, Protocol):
    """A session adapter that renews with one successor, can keep one session at a sign-out everywhere, and can cap a user's logins.

    ``keeps_attributes``: the rows' attributes are stored and given back.
    ``expires_records``: dead sessions vanish by themselves, so that nobody has to sweep them.

    ``delete_session`` of an id that was renewed within the last 60 seconds removes its successor too, and so on along the chain.
    """

    @property
    def keeps_attributes(self) -> bool: ...

    @property
    def expires_records(self) -> bool: ...

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        """Store the session of a new login, and end the user's oldest logins, so that ``limit`` are left at most, this one among them.

        Which these are is what :func:`lucia.surplus_sessions` says; they end with what they are renewed to meanwhile. Logins that go on
        at the same time are in one order: once all have returned, ``limit`` are left, and this one may have been ended by newer ones.

        Args:
            session: as for :meth:`set_session`.
            limit: how many logins the user may have, from 1 to 1,000.

        Returns:
            The session as stored: where several machines put logins in order, ``created_at`` may be up to a minute later.

        Raises:
            DuplicateSessionId, InvalidUserId, ConcurrentlyRevoked: as :meth:`set_session`; nothing was stored, and nothing ended.
        """
        ...

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> StoredSession | None:
        """Replace a session by its successor, once, however many callers ask.

        Args:
            session_id: the used session.
            successor: the session to take its place, with an id of its own and the same user.
            grace: how long the used id leads to the successor, in milliseconds, 0 to 60,000.

        Returns:
            ``successor`` if this call made it; the one that an earlier call made, or what that was renewed to, if it is within
            its grace; else None: the used session is gone, and ``successor`` was not stored.

        Raises:
            DuplicateSessionId: the successor's id is taken; nothing was changed.
            ConcurrentlyRevoked: as :meth:`set_session`; the used session may be there or not.
        """
        ...

    async def get_successor(self, session_id: str, /) -> StoredSession | None:
        """The live end of the chain of renewals that starts at this used id, while each step is within its grace; else None."""
        ...

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        """Remove all sessions of this user but the one with the id ``keep``, or what that was renewed to.

        Returns:
            Whether a session was kept. If ``keep`` is no session of this user, all are removed and it is False.
        """
        ...


@runtime_checkable
class AsyncUserAdapter(Protocol):
    """Stores users and keys."""

    async def get_user(self, user_id: str, /) -> UserRow | None:
        """The user with this id, or None."""
        ...

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        """Store a new user and their primary key, both or neither, and return the user as stored.

        Raises:
            DuplicateKeyId: a key has this id; no user was stored.
        """
        ...

    async def delete_user(self, user_id: str, /) -> None:
        """Remove the user; an unknown id is no error."""
        ...

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        """Change the named attributes, leave the others, and return the user as stored; None if there is none."""
        ...

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        """The key with this id, expired ones included; None if there is none."""
        ...

    async def get_keys_by_user_id(self, user_id: str, /) -> Sequence[KeyRow]:
        """The user's keys in any order; empty for an unknown user."""
        ...

    async def set_key(self, key: KeyRow, /) -> None:
        """Store a new key.

        Raises:
            DuplicateKeyId: a key has this id; nothing was changed.
            InvalidUserId: no such user.
        """
        ...

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        """Set the key's hash, atomically on the condition that it is ``expected`` where that is given.

        Returns:
            The key as stored; None if there is no such key or its hash is another: nothing was changed.
        """
        ...

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        """Remove these keys but for primary ones; unknown ids are no error.

        Returns:
            How many this call removed. Of two concurrent calls for one key exactly one counts it: so a single-use key is consumed.
        """
        ...

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        """Remove all keys of this user, the primary one included; an unknown user is no error."""
        ...


@runtime_checkable
class AsyncSessionUserAdapter(Protocol):
    """What an object that stores both may offer: a session and its user in one query."""

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[StoredSession, UserRow] | None:
        """The session and its user; None if either is missing."""
        ...


@runtime_checkable
class AsyncThrottleStore(Protocol):
    """Counts failed sign-ins under names, which are 32 hex digits, each by a rule."""

    async def attempt(self, rules: Mapping[str, FailureRule], /) -> Attempt:
        """Judge an attempt by :meth:`FailureRule.judge`, and count it as a failure under each name, or under none if it has to wait.

        It is one step for each name: of attempts at once no more pass than would pass one after another.
        """
        ...

    async def take_back(self, entries: Mapping[str, str], /) -> None:
        """Make an attempt uncounted, by the ``entries`` of its :class:`Attempt`; one that is gone already is no error."""
        ...


@runtime_checkable
class AsyncThrottlingSessionAdapter(Protocol):
    """What a session adapter may offer: a store of failed sign-ins that all processes share. Without it each process counts alone."""

    def throttle_store(self) -> AsyncThrottleStore:
        """A store beside the sessions."""
        ...
