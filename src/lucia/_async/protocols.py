"""The protocols that adapters implement.

Rules for every adapter:

* It stores rows unchanged, with attributes that it does not know, and returns plain frozen rows.
* Reading a missing row returns None or an empty list; deleting one is not an error.
* It raises the errors named here, and the errors of its database unchanged.
* It accepts every id that a row accepts. That session ids have 40 characters is a rule of ``Auth``.
* A user's id is text in every row, whatever its type in the database and in the application is.

The suites of :mod:`lucia.testing` check them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lucia._rules.throttling import Attempt, FailureRule
from lucia.models import UNSET, AsyncFoundSession, KeyRow, SessionRow, StoredSession, Unset, UserRow

__all__ = [
    "AsyncIdAssigningUserAdapter",
    "AsyncRenewingSessionAdapter",
    "AsyncSessionAdapter",
    "AsyncSessionUserAdapter",
    "AsyncThrottleStore",
    "AsyncThrottlingSessionAdapter",
    "AsyncTransactionalAdapter",
    "AsyncUserAdapter",
]


@runtime_checkable
class AsyncSessionAdapter(Protocol):
    """Stores sessions: the five methods that every session adapter needs.

    With these alone, renewal, ``keep=`` and a cap have limits: see "Writing an adapter" in the
    documentation.
    """

    # A plain function: an adapter may return a future, which saves each request a coroutine.
    def get_session(self, session_id: str, /) -> AsyncFoundSession:
        """Return the session with this id, even if it has expired; None if there is none."""
        ...

    async def get_sessions_by_user_id(self, user_id: str, /) -> Sequence[SessionRow]:
        """Return the user's sessions in any order; empty for an unknown user."""
        ...

    async def set_session(self, session: SessionRow, /) -> None:
        """Store a new session.

        Raises:
            DuplicateSessionId: another session has this id; nothing was changed.
            InvalidUserId: there is no such user, if the store can tell.
            ConcurrentlyRevoked: all of the user's sessions were revoked while this one was created;
                nothing of it is left.
        """
        ...

    async def delete_session(self, /, *session_ids: str) -> None:
        """Remove these sessions; unknown ids are not an error."""
        ...

    async def delete_sessions_by_user_id(self, user_id: str, /) -> None:
        """Remove all sessions of this user; an unknown user is not an error.

        Every session whose ``set_session`` returned before this call is gone when it returns.
        """
        ...


@runtime_checkable
class AsyncRenewingSessionAdapter(AsyncSessionAdapter, Protocol):
    """A session adapter with renewal, ``keep=`` and a cap on a user's logins.

    ``keeps_attributes``: the attributes of rows are stored and returned.
    ``expires_records``: the store removes expired sessions by itself.

    ``delete_session`` of an id that was renewed within the last 60 seconds removes its successor
    too, and so on along the chain.
    """

    @property
    def keeps_attributes(self) -> bool: ...

    @property
    def expires_records(self) -> bool: ...

    async def set_session_capped(self, session: SessionRow, /, *, limit: int) -> SessionRow:
        """Store the session of a new login, and remove the user's oldest logins above ``limit``.

        :func:`lucia.surplus_sessions` says which; their successors are removed too. Concurrent
        logins are put in one order: when all calls have returned, ``limit`` logins are left, and
        this one may have been removed by newer ones.

        Args:
            session: the session, as for :meth:`set_session`.
            limit: how many logins the user may have, from 1 to 1,000.

        Returns:
            The session as stored: to order the logins of several machines, its ``created_at`` may
            be up to a minute later.

        Raises:
            DuplicateSessionId, InvalidUserId, ConcurrentlyRevoked: as :meth:`set_session`; nothing
                was stored or removed.
        """
        ...

    async def renew_session(
        self, session_id: str, successor: SessionRow, /, *, grace: int
    ) -> StoredSession | None:
        """Replace a session by a successor; of concurrent calls, exactly one stores its own.

        Args:
            session_id: the id of the session to replace, which is then a used id.
            successor: the session to store, with another id and the same user.
            grace: how long the used id leads to the successor, in milliseconds, 0 to 60,000.

        Returns:
            ``successor`` if this call stored it. Else the successor that an earlier call stored, or
            its own successor, while each is within its grace. Else None: there is no such session,
            and ``successor`` was not stored.

        Raises:
            DuplicateSessionId: another session has the successor's id; nothing was changed.
            ConcurrentlyRevoked: as :meth:`set_session`; the used session may exist or not.
        """
        ...

    async def get_successor(self, session_id: str, /) -> StoredSession | None:
        """Return the end of the chain of renewals that starts at this used id.

        None if a renewal in the chain is past its grace, or if the session at its end is gone.
        """
        ...

    async def delete_other_sessions(self, user_id: str, keep: str, /) -> bool:
        """Remove all sessions of this user except that with the id ``keep``, or its successor.

        Returns:
            Whether a session was kept. If ``keep`` is not a session of this user, all are removed.
        """
        ...


@runtime_checkable
class AsyncUserAdapter(Protocol):
    """Stores users and keys."""

    async def get_user(self, user_id: str, /) -> UserRow | None:
        """Return the user with this id, or None."""
        ...

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        """Store a new user and their primary key, both or neither; return the user as stored.

        Raises:
            DuplicateKeyId: a key has this id; no user was stored.
        """
        ...

    async def delete_user(self, user_id: str, /) -> None:
        """Remove the user; an unknown id is not an error."""
        ...

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        """Change these attributes and leave the others; return the user as stored, or None."""
        ...

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        """Return the key with this id, even if it has expired; None if there is none."""
        ...

    async def get_keys_by_user_id(self, user_id: str, /) -> Sequence[KeyRow]:
        """Return the user's keys in any order; empty for an unknown user."""
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
        """Set the key's hash; if ``expected`` is given, only if it is the current hash, atomically.

        Returns:
            The key as stored; None if there is no such key or its hash differs: nothing was
            changed.
        """
        ...

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        """Remove these keys except primary ones; unknown ids are not an error.

        Returns:
            How many keys this call removed. Of concurrent calls for one key, exactly one counts it:
            that is how a single-use key is consumed.
        """
        ...

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        """Remove all keys of this user, also the primary one; an unknown user is not an error."""
        ...


@runtime_checkable
class AsyncIdAssigningUserAdapter(Protocol):
    """Optional for a user adapter: the database assigns the ids of new users."""

    async def add_user(
        self, attributes: Mapping[str, Any], make_key: Callable[[str], KeyRow] | None, /
    ) -> UserRow:
        """Store a new user, whose id the database assigns, and their primary key, both or neither.

        Args:
            attributes: the user's attributes.
            make_key: returns the key to store, for the id that was assigned; None for no key.

        Returns:
            The user as stored.

        Raises:
            DuplicateKeyId: a key has this id; no user was stored.
        """
        ...


@runtime_checkable
class AsyncTransactionalAdapter(Protocol):
    """Optional for an adapter: takes part in a transaction of the application's."""

    def in_transaction(self, transaction: Any, /) -> Any:
        """Return an adapter of the same kind that does everything in this transaction.

        It neither commits nor rolls back: that is the caller's.

        Raises:
            TypeError: this is not such a transaction.
        """
        ...

    def open_transaction(self) -> object | None:
        """Return the open transaction that this adapter takes part in; None if there is none.

        While it is open, this is the same object each time.
        """
        ...


@runtime_checkable
class AsyncSessionUserAdapter(Protocol):
    """Optional for an adapter of sessions and users: returns both from one query."""

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[StoredSession, UserRow] | None:
        """Return the session and its user; None if either is missing."""
        ...


@runtime_checkable
class AsyncThrottleStore(Protocol):
    """Counts failed logins under names, which are 32 hex digits, each by a rule."""

    async def attempt(self, rules: Mapping[str, FailureRule], /) -> Attempt:
        """Count an attempt as a failure under each name, or under none if it has to wait.

        :meth:`FailureRule.judge` says whether it has to. Judging and counting are one atomic step
        for each name: of concurrent attempts, no more pass than would pass one after another.
        """
        ...

    async def take_back(self, entries: Mapping[str, str], /) -> None:
        """Undo the counting of an attempt, by its ``entries``; a missing entry is not an error."""
        ...


@runtime_checkable
class AsyncThrottlingSessionAdapter(Protocol):
    """Optional for a session adapter: a throttle store that all processes share.

    Without it, each process counts failed logins alone.
    """

    def throttle_store(self) -> AsyncThrottleStore:
        """Return a throttle store in the same place as the sessions."""
        ...
