"""``Auth``'s methods for sessions, which also work beside an application's own users."""

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Generic, cast

from lucia._async.protocols import (
    AsyncRenewingSessionAdapter,
    AsyncSessionUserAdapter,
    AsyncUserAdapter,
)
from lucia._async.transactions import AsyncUncommittedChanges
from lucia._compat.blocks import AsyncBlocks, drain
from lucia._logs import record_ignored, revocation, signed_in
from lucia._memory.user_cache import UserCache
from lucia._rules.keys import exactly
from lucia._rules.sessions import (
    Clock,
    SessionExpiry,
    check_handle,
    check_metadata,
    is_session_id,
    new_session_row,
    session_state,
    successor_row,
    to_device,
)
from lucia._rules.user_ids import TEXT_IDS, UserIdType
from lucia._typing import AttributesT, UserIdT, UserT
from lucia.errors import ConcurrentlyRevoked, InvalidSessionId, InvalidUserId, UsersNotConfigured
from lucia.models import (
    Device,
    Session,
    SessionRow,
    SessionState,
    SessionUser,
    StoredSession,
    UserRow,
    handle_of,
    user_id_text,
)

_Live = tuple[StoredSession, SessionState, bool]
"""A live session, its state, and whether the id that was asked for is a used id of it."""


class AsyncSessionMethods(Generic[UserT, UserIdT, AttributesT]):
    """The session half of ``Auth``.

    An id that is not 40 characters of ``0-9A-Za-z`` is never sent to the store. What is not a
    ``str``, such as a :class:`~lucia.Session` instead of its id, is a ``TypeError``, before
    anything is changed.
    """

    _users: AsyncUserAdapter | None
    _sessions: AsyncRenewingSessionAdapter
    _joined: AsyncSessionUserAdapter | None
    _user_cache: UserCache | None
    _user_ids: UserIdType[UserIdT]
    _changes: AsyncUncommittedChanges | None
    _transform: Callable[[UserRow[UserIdT]], UserT]
    _expiry: SessionExpiry
    _cleanup: bool
    _max_sessions: int | None
    _clock: Clock

    @property
    def keeps_metadata(self) -> bool:
        """Whether the session adapter keeps the metadata of a login."""
        return self._sessions.keeps_attributes

    @property
    def has_users(self) -> bool:
        """Whether there is a user adapter."""
        return self._users is not None

    def transform_database_user(self, row: UserRow, /) -> UserT:
        """Return what the application gets for a stored user, by the configured function."""
        if self._user_ids is TEXT_IDS:
            return self._transform(cast("UserRow[UserIdT]", row))
        return self._transform(UserRow(id=self._user_ids.decode(row.id), attributes=row.attributes))

    async def create_session(
        self, user_id: UserIdT, *, metadata: Mapping[str, Any] | None = None
    ) -> Session[UserIdT]:
        """Log a user in: create a session, which is ``active`` and ``fresh``.

        Whether the user exists is checked only if the session store has users.

        With ``max_sessions_per_user=`` the user's oldest logins are revoked for it. If that many
        newer logins come at the same time, this one is revoked before it is returned.

        Args:
            user_id: who logs in.
            metadata: JSON values for the device list, such as the user agent; renewals keep them.
                The session has them as JSON decodes them: keys are text, and tuples are lists.

        Raises:
            DuplicateSessionId: the new id is taken, which is in practice impossible.
            InvalidUserId: the store has users, and not this one.
            InvalidInput: ``metadata`` is longer than 8 KiB as JSON.
            TypeError: ``metadata`` is not a mapping, or ``user_id`` is of another type.
            ValueError: ``metadata`` is not JSON, or the session adapter does not keep attributes.
        """
        return await self._create_session(self._user_ids.encode(user_id), metadata)

    async def _create_session(
        self, user_id: str, metadata: Mapping[str, Any] | None
    ) -> Session[UserIdT]:
        kept = self._check_metadata(metadata)
        # First: if this fails, no session is stored that nobody has.
        await self._sweep(user_id)
        try:
            row = await self._set_session(user_id, kept)
        except ConcurrentlyRevoked:
            # A sign-out everywhere revoked the first attempt; this login comes after it.
            row = await self._set_session(user_id, kept)
        signed_in(user_id)
        if self._changes is not None:
            self._changes.note_session(user_id, row.id)
        return self._to_session(row, "active", fresh=True)

    async def _set_session(self, user_id: str, metadata: Mapping[str, Any]) -> SessionRow:
        row = self._as_kept(new_session_row(user_id, self._clock(), self._expiry, metadata))
        if self._max_sessions is not None:
            return await self._sessions.set_session_capped(row, limit=self._max_sessions)
        await self._sessions.set_session(row)
        return row

    async def get_session(self, session_id: str) -> Session[UserIdT]:
        """Return the live session with this id, active or idle, without renewing it.

        Within the grace, a used id leads to its successor, which is ``fresh``.

        Raises:
            InvalidSessionId: there is no live session with this id.
        """
        row, state, followed = await self._find(session_id)
        return self._to_session(row, state, fresh=followed)

    async def get_session_user(self, session_id: str) -> SessionUser[UserT, UserIdT]:
        """Return the session as :meth:`get_session` does, with its user.

        Raises:
            InvalidSessionId: there is no such session, or its user is gone.
            UsersNotConfigured: there is no user adapter.
        """
        (row, state, followed), user = await self._find_with_user(session_id)
        return SessionUser(
            self._to_session(row, state, fresh=followed), self.transform_database_user(user)
        )

    async def validate_session(self, session_id: str) -> Session[UserIdT]:
        """Return the session of a request.

        An active session is returned as it is, without a write. An idle one is renewed: it is
        ``fresh``, and has another id.

        Raises:
            InvalidSessionId: there is no live session with this id.
        """
        if not is_session_id(session_id):
            raise InvalidSessionId
        found = await self._sessions.get_session(session_id)
        # The fast path: nearly every request has an active session. The id is compared (I0).
        if (
            found is not None
            and found.id == session_id
            and self._clock() <= found.active_expires <= found.idle_expires
            and self._user_ids is TEXT_IDS
        ):
            return Session(found, "active", False, self._expiry.active_ms)
        row, state, followed = await self._judge(session_id, found)
        if state == "idle":
            return await self._renew(row, self._expiry.grace_ms)
        return self._to_session(row, state, fresh=followed)

    async def validate_session_user(self, session_id: str) -> SessionUser[UserT, UserIdT]:
        """Return the session as :meth:`validate_session` does, with its user.

        Raises:
            InvalidSessionId: there is no such session, or its user is gone.
            UsersNotConfigured: there is no user adapter.
        """
        (row, state, followed), user = await self._find_with_user(session_id)
        if state == "idle":
            session = await self._renew(row, self._expiry.grace_ms)
        else:
            session = self._to_session(row, state, fresh=followed)
        return SessionUser(session, self.transform_database_user(user))

    async def get_user_of(self, session: Session[UserIdT]) -> UserT:
        """Return the user of a session that was validated, from the cache if there is one.

        Raises:
            InvalidUserId: the user is gone.
            UsersNotConfigured: there is no user adapter.
        """
        row = await self._find_user(user_id_text(session))
        if row is None:
            raise InvalidUserId
        return self.transform_database_user(row)

    async def renew_session(self, session_id: str) -> Session[UserIdT]:
        """Replace this session, active or idle, by a new one. The used id is dead after the grace.

        There is one successor, however many renew at once; within the grace each of them gets it.

        Raises:
            InvalidSessionId: there is no live session with this id.
        """
        row, state, followed = await self._find(session_id)
        if followed:
            return self._to_session(row, state, fresh=True)
        return await self._renew(row, self._expiry.grace_ms)

    async def invalidate_session(self, session_id: str) -> None:
        """Revoke a session, and what it was renewed to within the last 60 seconds.

        An unknown id is not an error.
        """
        if is_session_id(session_id):
            with revocation():
                await self._sessions.delete_session(session_id)

    async def invalidate_all_user_sessions(
        self, user_id: UserIdT, *, keep: str | None = None
    ) -> bool:
        """Log a user out everywhere.

        When it returns, no session that was created or renewed before the call validates again.

        Args:
            user_id: who is logged out; an unknown id is not an error.
            keep: the id of a session to keep. If it was renewed within the last minute, its
                successor is kept.

        Raises:
            TypeError: ``keep`` is neither a ``str`` nor None; no session was revoked.

        Returns:
            Whether everything was done: True without ``keep``, and if it was kept. False if
            ``keep`` is no live session of this user: then all of the user's sessions are revoked.
        """
        return await self._revoke_all(self._user_ids.encode(user_id), keep)

    async def _revoke_all(self, user_id: str, keep: str | None) -> bool:
        spared = keep if keep is not None and is_session_id(keep) else None
        if self._changes is not None:
            self._changes.note_revocation(user_id, spared)
        with revocation(user_id):
            if spared is not None:
                is_kept = await self._sessions.delete_other_sessions(user_id, spared)
            else:
                await self._sessions.delete_sessions_by_user_id(user_id)
                is_kept = keep is None
        if self._changes is not None:
            self._changes.note_transaction()
        return is_kept

    async def _revoke_all_but(self, user_id: str, kept_ids: Collection[str]) -> None:
        """Revoke all logins of a user but those that have one of these sessions."""
        if len(kept_ids) < 2:
            await self._revoke_all(user_id, next(iter(kept_ids), None))
            return
        kept = {
            handle_of(row)
            for session_id in kept_ids
            if (row := await self._sessions.get_session(session_id)) is not None
        }
        rows = drain(await self._sessions.get_sessions_by_user_id(user_id))
        others: list[str] = []
        async for block in AsyncBlocks(rows):
            others += [row.id for row in block if handle_of(row) not in kept]
        with revocation(user_id):
            await self._sessions.delete_session(*others)

    async def invalidate_user_session(self, user_id: UserIdT, handle: str) -> bool:
        """Revoke one login of a user by its handle, whatever it was renewed to.

        Returns:
            Whether there was such a login; another user's handle revokes nothing.
        """
        text = self._user_ids.encode(user_id)
        check_handle(handle)
        ids = [row.id for row in await self._rows_of_login(text, handle)]
        if ids:
            with revocation(text):
                await self._sessions.delete_session(*ids)
        return bool(ids)

    async def get_all_user_sessions(self, user_id: UserIdT) -> list[Device[UserIdT]]:
        """Return where a user is logged in, the newest login first.

        These are active and idle sessions without their ids, one for each handle.

        Raises:
            InvalidUserId: there is a user adapter, and it has no such user.
        """
        text = self._user_ids.encode_sought(user_id)
        if self._users is not None and await self._get_user(text) is None:
            raise InvalidUserId
        rows = drain(await self._sessions.get_sessions_by_user_id(text))
        now = self._clock()
        dead: list[SessionRow] = []
        logins: dict[str, Device[UserIdT]] = {}
        async for block in AsyncBlocks(rows):
            own = [row for row in block if row.user_id == text]
            dead += [row for row in own if session_state(row, now) is None]
            for device in self._devices(own, user_id, now):
                # During a renewal a login may have two sessions; the newest expires last.
                known = logins.get(device.handle, device)
                if known.idle_period_expires_at <= device.idle_period_expires_at:
                    logins[device.handle] = device
        await self._delete_dead(dead)
        return await _newest_first(logins.values())

    async def get_user_session(self, user_id: UserIdT, handle: str) -> Device[UserIdT]:
        """Return one login of a user by its handle, active or idle, whatever it was renewed to.

        It tells code that keeps a connection open longer than a request whether the login is still
        there: the id that the request came with is dead soon after a renewal, but the handle stays.

        Raises:
            InvalidSessionId: this user has no such login any more.
        """
        text = self._user_ids.encode_sought(user_id)
        check_handle(handle)
        rows = await self._rows_of_login(text, handle)
        devices = self._devices(rows, user_id, self._clock())
        if not devices:
            raise InvalidSessionId
        return max(devices, key=lambda device: device.idle_period_expires_at)

    async def delete_dead_user_sessions(self, user_id: UserIdT) -> None:
        """Remove a user's dead sessions from a store that does not expire them itself."""
        await self._delete_dead_of(self._user_ids.encode(user_id))

    async def _delete_dead_of(self, user_id: str) -> None:
        rows = await self._sessions.get_sessions_by_user_id(user_id)
        now = self._clock()
        if dead := [
            row.id for row in rows if row.user_id == user_id and session_state(row, now) is None
        ]:
            await self._sessions.delete_session(*dead)

    def _check_metadata(self, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the metadata as the store will return it; empty if there is none."""
        if not metadata:
            return {}
        if not self._sessions.keeps_attributes:
            raise ValueError(
                "this session adapter does not keep attributes, so a session can't have metadata"
            )
        return check_metadata(metadata)

    async def _rows_of_login(self, user_id: str, handle: str) -> list[SessionRow]:
        """Return the sessions of one login, including dead ones."""
        rows = drain(await self._sessions.get_sessions_by_user_id(user_id))
        found: list[SessionRow] = []
        async for block in AsyncBlocks(rows):
            found += [row for row in block if row.user_id == user_id and handle_of(row) == handle]
        return found

    def _devices(
        self, rows: Iterable[SessionRow], user_id: UserIdT, now: int
    ) -> list[Device[UserIdT]]:
        return [
            to_device(row, state, self._expiry, user_id)
            for row in rows
            if (state := session_state(row, now)) is not None
        ]

    async def _find(self, session_id: str) -> _Live:
        if not is_session_id(session_id):
            raise InvalidSessionId
        return await self._judge(session_id, await self._sessions.get_session(session_id))

    async def _judge(self, session_id: str, row: StoredSession | None) -> _Live:
        followed = False
        # A database that ignores case may return the session of another id.
        if row is None or row.id != session_id:
            row, followed = await self._sessions.get_successor(session_id), True
        if row is None:
            raise InvalidSessionId
        state = session_state(row, self._clock())
        if state is None:
            await self._delete_dead([row])
            raise InvalidSessionId
        return row, state, followed

    async def _find_with_user(self, session_id: str) -> tuple[_Live, UserRow]:
        self._require_users()
        if self._joined is not None and is_session_id(session_id):
            both = await self._joined.get_session_and_user_by_session_id(session_id)
            found = both is not None and both[0].id == session_id and both[1].id == both[0].user_id
            state = session_state(both[0], self._clock()) if both is not None and found else None
            if both is not None and state is not None:
                return (both[0], state, False), both[1]
        live = await self._find(session_id)
        user = await self._find_user(live[0].user_id)
        if user is None:
            raise InvalidSessionId("this session's user is gone")
        return live, user

    async def _get_user(self, user_id: str) -> UserRow | None:
        """Return the user whose id is exactly this one, from the store."""
        return exactly(await self._require_users().get_user(user_id), user_id)

    async def _find_user(self, user_id: str) -> UserRow | None:
        """Return a session's user, from the cache or from the store."""
        self._require_users()
        if self._user_cache is None:
            return await self._get_user(user_id)
        row = self._user_cache.find(user_id)
        if row is None:
            # Begun before the read: if a user is dropped meanwhile, this row may be the old one.
            reading = self._user_cache.begin()
            row = await self._get_user(user_id)
            if row is not None:
                self._user_cache.keep(row, reading)
        return row

    async def _renew(self, row: StoredSession, grace: int) -> Session[UserIdT]:
        try:
            found = await self._replace(row, grace)
        except ConcurrentlyRevoked:
            # The successor was revoked. If the used session was too, this finds nothing to renew.
            found = await self._replace(row, grace)
        state = None if found is None else session_state(found, self._clock())
        if found is None or state is None:
            raise InvalidSessionId
        return self._to_session(found, state, fresh=True)

    async def _replace(self, row: StoredSession, grace: int) -> StoredSession | None:
        now = self._clock()
        successor = self._as_kept(successor_row(row, now, self._expiry))
        # The absolute lifetime is over, though it was longer when the record was written.
        if successor.idle_expires <= now:
            await self._sessions.delete_session(row.id)
            return None
        return await self._sessions.renew_session(row.id, successor, grace=grace)

    def _to_session(
        self, row: StoredSession, state: SessionState, *, fresh: bool
    ) -> Session[UserIdT]:
        """Return what the application gets for a live record.

        Raises:
            InvalidSessionId: the user's id in it can't be read, since it was written for ids of
                another type.
        """
        try:
            user_id = self._user_ids.decode(row.user_id)
        except ValueError:
            record_ignored("the user's id in it is of another type")
            raise InvalidSessionId("this session's user has an id of another type") from None
        return Session(row, state, fresh, self._expiry.active_ms, user_id)

    def _as_kept(self, row: SessionRow) -> SessionRow:
        """Return the row as the store will return it: without attributes if it keeps none."""
        return row if self._sessions.keeps_attributes else replace(row, attributes={})

    async def _sweep(self, user_id: str) -> None:
        if self._cleanup and not self._sessions.expires_records:
            await self._delete_dead_of(user_id)

    async def _delete_dead(self, rows: Sequence[StoredSession]) -> None:
        if rows and self._cleanup and not self._sessions.expires_records:
            await self._sessions.delete_session(*(row.id for row in rows))

    def _require_users(self) -> AsyncUserAdapter:
        if self._users is None:
            raise UsersNotConfigured
        return self._users


async def _newest_first(devices: Iterable[Device[UserIdT]]) -> list[Device[UserIdT]]:
    """Sort devices by the time of their login; other tasks run between blocks."""
    runs = [sorted(block, key=_created_at, reverse=True) async for block in AsyncBlocks(devices)]
    merged = heapq.merge(*runs, key=_created_at, reverse=True)
    return [device async for block in AsyncBlocks(merged) for device in block]


def _created_at(device: Device[Any]) -> datetime:
    return device.created_at
