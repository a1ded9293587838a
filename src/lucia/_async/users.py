"""``Auth``'s methods for users, keys and passwords."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, cast, overload

from lucia._async.protocols import AsyncIdAssigningUserAdapter
from lucia._async.sessions import AsyncSessionMethods
from lucia._async.throttling import AsyncGuard
from lucia._async.transactions import AsyncUncommittedChanges
from lucia._compat.password_pool import AsyncPasswordWorkers, owner_of
from lucia._logs import credentials, key_found, revocation
from lucia._rules.keys import (
    check_primary_key,
    check_user_attributes,
    exactly,
    is_revoked_with_credentials,
    key_id,
    refusal,
    sought_key_id,
    to_key,
)
from lucia._rules.passwords import PasswordHasher, check_new_password, is_acceptable
from lucia._rules.sessions import is_session_id, milliseconds
from lucia._typing import AttributesT, UserIdT, UserT
from lucia.errors import (
    ExpiredKey,
    InvalidCredentials,
    InvalidKeyId,
    InvalidPassword,
    InvalidSessionId,
    InvalidUserId,
    Overloaded,
    SessionsNotRevoked,
)
from lucia.models import (
    UNSET,
    Key,
    KeyRow,
    PersistentKey,
    PrimaryKey,
    Session,
    SingleUseKey,
    Unset,
    to_datetime,
)


class AsyncUserMethods(AsyncSessionMethods[UserT, UserIdT, AttributesT]):
    """The methods of ``Auth`` for users and keys.

    Without a user adapter each raises :class:`~lucia.UsersNotConfigured`.

    Passwords are hashed and verified by the worker pool, never on the event loop. If its queue is
    full, :class:`~lucia.Overloaded` is raised. In the pool, addresses take turns.
    """

    _hasher: PasswordHasher
    _workers: AsyncPasswordWorkers
    _guard: AsyncGuard
    _generate_user_id: Callable[[], UserIdT] | None
    _single_use_purposes: frozenset[str]

    @overload
    async def create_user(
        self: "AsyncUserMethods[UserT, UserIdT, Mapping[str, Any]]",
        *,
        primary_key: PrimaryKey | None,
        attributes: Mapping[str, Any] | None = None,
    ) -> UserT: ...

    @overload
    async def create_user(
        self, *, primary_key: PrimaryKey | None, attributes: AttributesT
    ) -> UserT: ...

    async def create_user(self, *, primary_key: PrimaryKey | None, attributes: Any = None) -> UserT:
        """Store a new user, and their primary key if there is one, both or neither.

        Raises:
            DuplicateKeyId: a key has this id already.
            InvalidInput: the password or the key's name is not valid, or an attribute contains NUL
                or a lone surrogate.
            TypeError: ``primary_key`` is neither a ``PrimaryKey`` nor None, or ``attributes`` is
                not a mapping.
            ValueError: the adapter refuses an attribute, or ``provider_id`` contains a colon.
        """
        users = self._require_users()
        check_primary_key(primary_key)
        if attributes is not None:
            check_user_attributes(attributes)
        # An id that can't be stored is refused before the password is hashed.
        generate = self._generate_user_id
        user_id = None if generate is None else self._user_ids.encode(generate())
        make_key = None if primary_key is None else await self._key_maker(primary_key, primary=True)
        if user_id is not None:
            key = None if make_key is None else make_key(user_id)
            row = await users.set_user(user_id, attributes or {}, key)
        else:
            # That the adapter has this was checked when this object was created.
            assigning = cast("AsyncIdAssigningUserAdapter", users)
            row = await assigning.add_user(attributes or {}, make_key)
        return self.transform_database_user(row)

    async def get_user(self, user_id: UserIdT) -> UserT:
        """Return the user with this id, read from the store and not from the cache.

        Raises:
            InvalidUserId: there is no such user.
        """
        row = await self._get_user(self._user_ids.encode_sought(user_id))
        if row is None:
            raise InvalidUserId
        return self.transform_database_user(row)

    async def update_user_attributes(
        self, user_id: UserIdT, attributes: Mapping[str, Any]
    ) -> UserT:
        """Change these attributes and leave the others.

        Raises:
            InvalidUserId: there is no such user.
            InvalidInput: an attribute contains NUL or a lone surrogate.
            TypeError: ``attributes`` is not a mapping.
        """
        users = self._require_users()
        text = self._user_ids.encode_sought(user_id)
        check_user_attributes(attributes)
        if await self._get_user(text) is None:
            raise InvalidUserId
        try:
            row = await users.update_user_attributes(text, attributes)
        finally:
            self._forget_user(text)
        if row is None:
            raise InvalidUserId
        await self._sweep(text)
        return self.transform_database_user(row)

    async def delete_user(self, user_id: UserIdT) -> None:
        """Remove a user with all keys and sessions, also the session of a concurrent login.

        An unknown id is not an error.
        """
        users = self._require_users()
        text = self._user_ids.encode(user_id)
        found = await users.get_user(text)
        if found is not None and exactly(found, text) is None:
            # Another user, whose id the database's collation takes for this one.
            return
        # Keys first: then nobody can log in any more. Sessions before the user and again after:
        # a login that had checked its key before may store its session in between.
        await users.delete_keys_by_user_id(text)
        with revocation(text):
            await self._revoke_all(text, None)
            try:
                await users.delete_user(text)
            finally:
                self._forget_user(text)
            await self._sessions.delete_sessions_by_user_id(text)

    async def create_key(
        self, user_id: UserIdT, *, provider_id: str, provider_user_id: str, password: str | None
    ) -> PersistentKey[UserIdT]:
        """Give a user another key, which can be deleted.

        Raises:
            InvalidUserId: there is no such user.
            DuplicateKeyId: a key has this id already.
            InvalidInput: the key's name or the password is not valid.
            ValueError: ``provider_id`` contains a colon.
        """
        await self._set_key(user_id, PrimaryKey(provider_id, provider_user_id, password))
        return PersistentKey(
            provider_id=provider_id,
            provider_user_id=provider_user_id,
            user_id=user_id,
            password_defined=password is not None,
            primary=False,
        )

    async def create_single_use_key(
        self,
        user_id: UserIdT,
        *,
        provider_id: str,
        provider_user_id: str,
        password: str | None,
        expires_in: timedelta,
    ) -> SingleUseKey[UserIdT]:
        """Give a user a key that is consumed by its first use, such as for a password reset.

        Args:
            user_id: the user.
            provider_id: the purpose of the key, such as ``password_reset``.
            provider_user_id: the name of the key; if it has no password, this is the secret.
            password: a code that the person has to type, or None.
            expires_in: how long the key can be used.

        Raises:
            InvalidUserId: there is no such user.
            DuplicateKeyId: a key has this id already.
            TypeError: ``expires_in`` is not a ``timedelta``.
            InvalidInput: the key's name or the password is not valid.
            ValueError: ``expires_in`` is negative, or ``provider_id`` contains a colon.
        """
        expires = self._clock() + milliseconds("expires_in", expires_in)
        await self._set_key(user_id, PrimaryKey(provider_id, provider_user_id, password), expires)
        return SingleUseKey(
            provider_id=provider_id,
            provider_user_id=provider_user_id,
            user_id=user_id,
            password_defined=password is not None,
            expires_at=to_datetime(expires),
            expired=False,
        )

    async def use_key(
        self,
        provider_id: str,
        provider_user_id: str,
        password: str | None,
        *,
        address: str | None = None,
    ) -> Key[UserIdT]:
        """Check a key and its password, and consume a single-use key.

        An expired single-use key is removed too; a wrong password does not consume it. A key
        without a password needs ``password=None``. If a password is given, every result takes the
        time of one verification, so that known and unknown keys can't be told apart. Two are at
        once: ``TooManyAttempts``, and the refusal of a password that no key can have. A hash of
        another kind or cost than the configured one is replaced.

        Wrong passwords are limited, see :class:`~lucia.Throttle`; its ``single_use_failures``
        consume a single-use key.

        Args:
            provider_id: the key's provider.
            provider_user_id: the key's name with that provider.
            password: what the person typed; None for a key without a password.
            address: where the request came from, for the limit by address and for its turn in the
                password pool. None for no such limit; all requests without an address share a turn.

        Raises:
            InvalidCredentials: one of :class:`~lucia.InvalidKeyId` (there is no such key, or
                another call consumed it), :class:`~lucia.InvalidPassword`,
                :class:`~lucia.OutdatedPassword` and :class:`~lucia.ExpiredKey`.
            TooManyAttempts: too many wrong passwords for this key or from this address; the
                password was not checked.
            Overloaded: too many passwords wait to be checked.
        """
        with credentials(provider_id, provider_user_id, address):
            row = await self._prove(sought_key_id(provider_id, provider_user_id), password, address)
        return self._to_key(row)

    async def create_session_with_key(
        self,
        provider_id: str,
        provider_user_id: str,
        password: str | None,
        *,
        metadata: Mapping[str, Any] | None = None,
        address: str | None = None,
    ) -> Session[UserIdT]:
        """Use a key and log its user in.

        If the password is changed or the key removed meanwhile, the login fails.

        Raises:
            InvalidCredentials, TooManyAttempts, Overloaded: as :meth:`use_key`.
            InvalidInput, ValueError: as :meth:`create_session`, before the key is used.
        """
        self._check_metadata(metadata)
        with credentials(provider_id, provider_user_id, address):
            return await self._sign_in_with_key(
                provider_id, provider_user_id, password, metadata, address
            )

    async def _sign_in_with_key(
        self,
        provider_id: str,
        provider_user_id: str,
        password: str | None,
        metadata: Mapping[str, Any] | None,
        address: str | None,
    ) -> Session[UserIdT]:
        row = await self._allowed(sought_key_id(provider_id, provider_user_id), password, address)
        if row.expires is None:
            row = await self._rehashed(row, password, address)
        elif self._clock() > row.expires:
            await self._consume(row)
        # Consume a single-use key after creating the session. A change of the password revokes
        # these keys first and the sessions then. So it either revokes this session too, or the key
        # is gone when it is to be consumed, and the session is discarded.
        session = await self._create_session(row.user_id, metadata)
        proven = False
        try:
            proven = await self._still_proven(row, password, address)
        # Revoke it also if an error or a cancellation ends the check: nobody is told its id.
        finally:
            if not proven:
                await self.invalidate_session(session.session_id)
        if not proven:
            raise InvalidPassword
        return session

    async def get_key(self, provider_id: str, provider_user_id: str) -> Key[UserIdT]:
        """Return a key without checking a password or its expiry.

        Raises:
            InvalidKeyId: there is no such key.
        """
        row = await self._get_key(sought_key_id(provider_id, provider_user_id))
        if row is None:
            raise InvalidKeyId
        return self._to_key(row)

    async def get_all_user_keys(self, user_id: UserIdT) -> list[Key[UserIdT]]:
        """Return a user's keys.

        Raises:
            InvalidUserId: there is no such user.
        """
        users = self._require_users()
        text = self._user_ids.encode_sought(user_id)
        if await self._get_user(text) is None:
            raise InvalidUserId
        now = self._clock()
        return [
            to_key(row, now, user_id)
            for row in await users.get_keys_by_user_id(text)
            if row.user_id == text
        ]

    async def update_key_password(
        self,
        provider_id: str,
        provider_user_id: str,
        password: str | None,
        *,
        invalidate_sessions: bool = True,
        keep_session: str | None = None,
    ) -> Session[UserIdT] | None:
        """Change a key's password, then revoke its user's sessions.

        The user's single-use keys for the ``single_use_purposes`` of this ``Auth`` are revoked too.

        Args:
            provider_id: the key's provider.
            provider_user_id: the key's name with that provider.
            password: the new password; None for no password.
            invalidate_sessions: False keeps the user's sessions.
            keep_session: the id of the session that asks for the change. It is renewed without a
                grace: the used id is invalid at once.

        Returns:
            The renewed session, whose cookie has to be set; None if ``keep_session`` was not given
            or is not a live session of the user.

        Raises:
            InvalidKeyId: there is no such key.
            InvalidInput: the password is not valid.
            TypeError: ``keep_session`` is neither a ``str`` nor None; nothing was changed.
            SessionsNotRevoked: the password was changed but the sessions were not revoked. Calling
                this again is safe and revokes them.
        """
        self._require_users()
        keep = keep_session if keep_session is not None and is_session_id(keep_session) else None
        id_ = sought_key_id(provider_id, provider_user_id)
        hashed = await self._hash(password)
        key = await self._get_key(id_)
        if key is None or not await self._replace_hash(key, hashed):
            raise InvalidKeyId
        if not invalidate_sessions:
            await self._revoke_single_use_keys(key)
            return None
        return await self._revoke_after_change(key, keep)

    async def change_key_password(
        self,
        provider_id: str,
        provider_user_id: str,
        password: str,
        new_password: str,
        *,
        keep_session: str | None = None,
        address: str | None = None,
    ) -> Session[UserIdT] | None:
        """Check a key's password as :meth:`use_key` does, and replace it.

        Then the user's sessions are revoked as by :meth:`update_key_password`. Of two changes at
        once that start from the same password one succeeds.

        Args:
            provider_id: the key's provider.
            provider_user_id: the key's name with that provider.
            password: the present password, as the person typed it.
            new_password: the new one.
            keep_session: as in :meth:`update_key_password`.
            address: as in :meth:`use_key`.

        Returns:
            As :meth:`update_key_password`.

        Raises:
            InvalidCredentials, TooManyAttempts, Overloaded: as :meth:`use_key`, and
                :class:`~lucia.InvalidKeyId` for a single-use key. Nothing was changed.
            InvalidInput: the new password is not valid.
            TypeError: ``keep_session`` is neither a ``str`` nor None; nothing was changed.
            SessionsNotRevoked: the password was changed but the sessions were not revoked:
                :meth:`invalidate_all_user_sessions` does that.
        """
        keep = keep_session if keep_session is not None and is_session_id(keep_session) else None
        check_new_password(new_password)
        with credentials(provider_id, provider_user_id, address):
            id_ = sought_key_id(provider_id, provider_user_id)
            key = await self._allowed(id_, password, address)
            if key.expires is not None:
                raise InvalidKeyId
            key = await self._rehashed(key, password, address)
            hashed = await self._workers.hash(new_password, owner_of(address))
            if not await self._replace_hash(key, hashed, expected=key.hashed_password):
                # A concurrent login may have replaced the hash by another one of this password.
                current = await self._get_key(id_)
                if (
                    current is None
                    or not await self._matches(current, password, address)
                    or not await self._replace_hash(
                        current, hashed, expected=current.hashed_password
                    )
                ):
                    raise InvalidPassword
        return await self._revoke_after_change(key, keep)

    async def _replace_hash(
        self, key: KeyRow, hashed: str | None, *, expected: str | Unset | None = UNSET
    ) -> bool:
        """Set a key's hash if it still has the expected one, and return whether it had."""
        await self._revoke_single_use_keys(key)
        users = self._require_users()
        return await users.update_key_password(key.id, hashed, expected=expected) is not None

    async def _revoke_after_change(
        self, changed: KeyRow, keep: str | None
    ) -> Session[UserIdT] | None:
        """Revoke what the former password let in; return the session to keep, renewed.

        Raises:
            SessionsNotRevoked: that failed.
        """
        try:
            await self._revoke_single_use_keys(changed)
            return await self._end_other_sessions(changed.user_id, keep)
        except Exception as error:
            raise SessionsNotRevoked from error

    async def delete_key(self, provider_id: str, provider_user_id: str) -> bool:
        """Remove a key that is not primary.

        The user's single-use keys are revoked as by :meth:`update_key_password`, unless this is one
        itself.

        Returns:
            Whether this call removed a key. False for an unknown key, and for a primary one, which
            is removed only with its user.
        """
        users = self._require_users()
        key = await self._get_key(sought_key_id(provider_id, provider_user_id))
        if key is None or key.primary_key:
            return False
        await self._revoke_single_use_keys(key)
        removed = await users.delete_non_primary_key(key.id)
        await self._revoke_single_use_keys(key)
        return removed > 0

    async def _revoke_single_use_keys(self, changed: KeyRow) -> None:
        """Remove the user's single-use keys that could undo the change of this key.

        Call it before the change, so that after a crash none of them works, and again after the
        change, for those that were created in between.
        """
        if changed.expires is not None or not self._single_use_purposes:
            return
        if self._changes is not None:
            self._changes.note_key(changed)
        users = self._require_users()
        rows = await users.get_keys_by_user_id(changed.user_id)
        revoked = [
            row.id
            for row in rows
            if is_revoked_with_credentials(row, changed.user_id, self._single_use_purposes)
        ]
        if revoked:
            await users.delete_non_primary_key(*revoked)

    def _forget_user(self, user_id: str) -> None:
        # Also after a store error: the user may have been changed all the same.
        if self._user_cache is not None:
            self._user_cache.drop(user_id)
        if self._changes is not None:
            self._changes.note_user(user_id)

    async def _repeat(self, changes: AsyncUncommittedChanges) -> None:
        """Repeat the revocations that a concurrent login may have escaped before the commit.

        Raises:
            SessionsNotRevoked: they failed.
        """
        for user_id in changes.users:
            self._forget_user(user_id)
        try:
            try:
                for key in changes.keys:
                    await self._revoke_single_use_keys(key)
            finally:
                for user_id, kept in changes.sessions.items():
                    await self._revoke_all_but(user_id, kept)
        except Exception as error:
            raise SessionsNotRevoked from error

    async def _key_maker(
        self, key: PrimaryKey, *, primary: bool, expires: int | None = None
    ) -> Callable[[str], KeyRow]:
        """Hash a key's password, and return what makes its row for a user's id."""
        id_ = key_id(key.provider_id, key.provider_user_id)
        hashed = await self._hash(key.password)
        return lambda user_id: KeyRow(
            id=id_, user_id=user_id, hashed_password=hashed, primary_key=primary, expires=expires
        )

    async def _set_key(self, user_id: UserIdT, key: PrimaryKey, expires: int | None = None) -> None:
        users = self._require_users()
        text = self._user_ids.encode_sought(user_id)
        make_key = await self._key_maker(key, primary=False, expires=expires)
        await users.set_key(make_key(text))

    def _to_key(self, row: KeyRow) -> Key[UserIdT]:
        return to_key(row, self._clock(), self._user_ids.decode(row.user_id))

    async def _hash(self, password: str | None) -> str | None:
        if password is None:
            return None
        check_new_password(password)
        return await self._workers.hash(password)

    async def _get_key(self, id_: str | None) -> KeyRow | None:
        users = self._require_users()
        return None if id_ is None else exactly(await users.get_key(id_), id_)

    async def _prove(self, id_: str | None, password: str | None, address: str | None) -> KeyRow:
        """Check a key and return its row, with its present hash; consume a single-use key."""
        row = await self._allowed(id_, password, address)
        if row.expires is None:
            return await self._rehashed(row, password, address)
        await self._consume(row)
        return row

    async def _consume(self, row: KeyRow) -> None:
        """Remove a single-use key; of concurrent calls exactly one succeeds."""
        # Before the expiry is checked: the count decides between calls. An expired key goes too.
        consumed = await self._require_users().delete_non_primary_key(row.id)
        if row.expires is not None and self._clock() > row.expires:
            raise ExpiredKey
        if consumed == 0:
            raise InvalidKeyId

    async def _allowed(self, id_: str | None, password: str | None, address: str | None) -> KeyRow:
        """Return the key's row if the throttle allows the attempt and the password is right.

        Without a password nothing is counted, nor if the password can't be anybody's, or if an
        error ended the attempt.
        """
        if password is None:
            return await self._verified(id_, None, address)
        # No key has such a password, so refusing it at once tells nothing about this one.
        if not is_acceptable(password):
            raise InvalidPassword
        attempt = await self._guard.begin(id_, address)
        try:
            row = await self._verified(id_, password, address)
        # A wrong password: the attempt stays counted.
        except InvalidCredentials:
            raise
        # An error or a cancellation: nobody learned whether the password was right.
        except BaseException:
            await self._guard.drop(attempt)
            raise
        await self._guard.prove(attempt)
        return row

    async def _verified(self, id_: str | None, password: str | None, address: str | None) -> KeyRow:
        """Return the key's row if the password is right.

        If a password is given, every path makes one verification of the configured cost.
        """
        row = await self._get_key(id_)
        key_found(row)
        refused = refusal(row, password_given=password is not None)
        if password is not None and not await self._matches_limited(
            None if refused else row, password, address
        ):
            refused = refused or InvalidPassword
        if row is None or refused is not None:
            raise refused or InvalidKeyId
        return row

    async def _matches_limited(
        self, row: KeyRow | None, password: str, address: str | None
    ) -> bool:
        """Return whether the password is right; the last allowed failure consumes a single-use key.

        Raises:
            InvalidKeyId: the last allowed attempt was made before, or is being verified.
        """
        if row is None or row.expires is None:
            return await self._matches(row, password, address)
        attempt = await self._guard.begin_single_use(row, self._clock())
        # An attempt too many is verified too, against the dummy: its time tells nothing.
        try:
            matches = await self._matches(None if attempt.wait else row, password, address)
        except BaseException:
            await self._guard.drop(attempt)
            raise
        if attempt.wait:
            raise InvalidKeyId
        if not matches and self._guard.is_last(attempt):
            await self._require_users().delete_non_primary_key(row.id)
        return matches

    async def _matches(self, row: KeyRow | None, password: str, address: str | None) -> bool:
        owner = owner_of(address)
        if row is None or row.hashed_password is None:
            return await self._workers.verify_dummy(password, owner)
        return await self._workers.verify(password, row.hashed_password, owner)

    async def _rehashed(self, row: KeyRow, password: str | None, address: str | None) -> KeyRow:
        """Return the row with a hash of the configured kind.

        The old hash stays if the password was changed meanwhile, or if the workers are busy.
        """
        if (
            password is None
            or row.hashed_password is None
            or not self._hasher.needs_rehash(row.hashed_password)
        ):
            return row
        try:
            hashed = await self._workers.hash(password, owner_of(address))
        except Overloaded:
            return row
        return (
            await self._require_users().update_key_password(
                row.id, hashed, expected=row.hashed_password
            )
            or row
        )

    async def _still_proven(self, row: KeyRow, password: str | None, address: str | None) -> bool:
        """Return whether the key still has the same password, and consume a single-use key."""
        if row.expires is not None:
            await self._consume(row)
            return await self._get_user(row.user_id) is not None
        current = await self._get_key(row.id)
        if current is None or current.user_id != row.user_id:
            return False
        if current.hashed_password == row.hashed_password:
            return True
        # A concurrent login may have replaced the hash by another one of the same password.
        return password is not None and await self._matches(current, password, address)

    async def _end_other_sessions(self, user_id: str, keep: str | None) -> Session[UserIdT] | None:
        # Renewed first, and then the successor is kept: the id that was known before is dead.
        kept = None if keep is None else await self._renew_own(user_id, keep)
        spared = await self._revoke_all(user_id, None if kept is None else kept.session_id)
        return kept if spared else None

    async def _renew_own(self, user_id: str, session_id: str) -> Session[UserIdT] | None:
        """Renew a session of this user without a grace, so that nobody else can use the used id."""
        try:
            row, _, _ = await self._find(session_id)
            return await self._renew(row, 0) if row.user_id == user_id else None
        except InvalidSessionId:
            return None
