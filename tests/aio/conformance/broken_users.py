"""User adapters with one fault each, named in the docstring."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.errors import DuplicateKeyId, InvalidKeyId, InvalidUserId
from lucia.models import UNSET, KeyRow, SessionRow, Unset, UserRow
from lucia.testing import AsyncSessionUserAdapterSuite as JoinedLaws
from lucia.testing import AsyncUserAdapterSuite as Suite
from tests.aio.conformance.broken import breaks
from tests.aio.support.case_insensitive_store import AsyncCaseInsensitiveStore
from tests.aio.support.rendezvous import AsyncRendezvousAdapter
from tests.support.clocks import Time

# Users


@breaks(Suite.test_get_unknown_user)
class AsyncRaisesForUnknown(AsyncMemoryAdapter):
    """Raises an error for an unknown user."""

    async def get_user(self, user_id: str, /) -> UserRow | None:
        found = await super().get_user(user_id)
        if found is None:
            raise InvalidUserId
        return found


@breaks(Suite.test_set_user)
class AsyncAsciiAttributes(AsyncMemoryAdapter):
    """Replaces characters beyond ASCII."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        plain = {
            name: value.encode("ascii", "replace").decode() for name, value in attributes.items()
        }
        return await super().set_user(user_id, plain, key)


@breaks(Suite.test_set_user)
class AsyncReturnsTheIdAlone(AsyncMemoryAdapter):
    """Returns a new user without attributes."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        await super().set_user(user_id, attributes, key)
        return UserRow(id=user_id)


@breaks(Suite.test_set_user_without_key)
class AsyncMakesKeys(AsyncMemoryAdapter):
    """Creates a key for a user without one."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        made = KeyRow(
            id=f"auto:{user_id}",
            user_id=user_id,
            hashed_password=None,
            primary_key=True,
            expires=None,
        )
        return await super().set_user(user_id, attributes, key or made)


@breaks(Suite.test_set_user_with_key)
class AsyncForgetsPrimary(AsyncMemoryAdapter):
    """Stores the primary key as a non-primary key."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        return await super().set_user(
            user_id, attributes, None if key is None else replace(key, primary_key=False)
        )


class AsyncUserFirst(AsyncMemoryAdapter):
    """Stores the user before it knows whether the key's id is free."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        if key is not None and key.id in self._keys:
            self._users[user_id] = UserRow(id=user_id, attributes=attributes)
            raise DuplicateKeyId
        return await super().set_user(user_id, attributes, key)


breaks(Suite.test_set_user_with_taken_key, Suite.test_set_user_at_once)(AsyncUserFirst)


@breaks(Suite.test_set_user_with_taken_key)
class AsyncTakesKeysOver(AsyncMemoryAdapter):
    """Moves a taken key to the new user."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        self._keys.pop("" if key is None else key.id, None)
        return await super().set_user(user_id, attributes, key)


@breaks(Suite.test_set_user_with_taken_id)
class AsyncOverwritesUsers(AsyncMemoryAdapter):
    """Overwrites an existing user."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        self._users.pop(user_id, None)
        return await super().set_user(user_id, attributes, key)


@breaks(Suite.test_set_user_with_taken_id)
class AsyncKeyFirst(AsyncMemoryAdapter):
    """Stores the key before it knows whether the user's id is free."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        if key is not None and user_id in self._users:
            self._keys[key.id] = key
        return await super().set_user(user_id, attributes, key)


@breaks(Suite.test_set_user_at_once)
class AsyncLooksAtKeyFirst(AsyncRendezvousAdapter):
    """Checks whether the key's id is free, and stores the key later."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        if key is not None and key.id in self._keys:
            raise DuplicateKeyId
        await self.meeting.wait()
        if key is not None:
            self._keys[key.id] = key
        return await super().set_user(user_id, attributes, None)


@breaks(Suite.test_attributes_are_copied)
class AsyncSharedIn(AsyncMemoryAdapter):
    """Stores the caller's own objects."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        self._users[user_id] = UserRow(id=user_id, attributes=attributes)
        return self._users[user_id]


@breaks(Suite.test_delete_user)
class AsyncMarksDeleted(AsyncMemoryAdapter):
    """Only marks a user as deleted, and still returns it."""

    async def delete_user(self, user_id: str, /) -> None:
        await self.update_user_attributes(user_id, {"deleted": True})


@breaks(Suite.test_delete_user)
class AsyncDeletesAllUsers(AsyncMemoryAdapter):
    """Removes all users."""

    async def delete_user(self, user_id: str, /) -> None:
        if user_id in self._users:
            self._users.clear()


@breaks(Suite.test_delete_unknown_user)
class AsyncRaisesOnDeleteUser(AsyncMemoryAdapter):
    """Raises an error for an unknown user."""

    async def delete_user(self, user_id: str, /) -> None:
        if user_id not in self._users:
            raise InvalidUserId
        await super().delete_user(user_id)


@breaks(Suite.test_update)
class AsyncReplacesAttributes(AsyncMemoryAdapter):
    """Drops the attributes that are not in the update."""

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        if user_id in self._users:
            self._users[user_id] = UserRow(id=user_id, attributes=dict(attributes))
        return self._users.get(user_id)


@breaks(Suite.test_update)
class AsyncUpdatesEverybody(AsyncMemoryAdapter):
    """Updates all users."""

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        for each in list(self._users):
            await super().update_user_attributes(each, attributes)
        return self._users.get(user_id)


@breaks(Suite.test_update)
class AsyncReturnsBefore(AsyncMemoryAdapter):
    """Returns the user as it was before the update."""

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        before = await self.get_user(user_id)
        await super().update_user_attributes(user_id, attributes)
        return before


@breaks(Suite.test_update_nothing)
class AsyncCountsChanges(AsyncMemoryAdapter):
    """Returns None if there is nothing to change, as for an unknown user."""

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        return await super().update_user_attributes(user_id, attributes) if attributes else None


@breaks(Suite.test_update_unknown)
class AsyncUpsertsUsers(AsyncMemoryAdapter):
    """Creates an unknown user."""

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        self._users.setdefault(user_id, UserRow(id=user_id))
        return await super().update_user_attributes(user_id, attributes)


# Keys


@breaks(Suite.test_get_unknown_key)
class AsyncRaisesForUnknownKey(AsyncMemoryAdapter):
    """Raises an error for an unknown key."""

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        found = await super().get_key(key_id)
        if found is None:
            raise InvalidKeyId
        return found


@breaks(Suite.test_set_key)
class AsyncHidesExpired(AsyncMemoryAdapter):
    """Does not return expired keys."""

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        found = await super().get_key(key_id)
        return None if found is None or found.expires == 0 else found


@breaks(Suite.test_set_key)
class AsyncEmptyForNone(AsyncMemoryAdapter):
    """Stores an empty string where there is no hash."""

    async def set_key(self, key: KeyRow, /) -> None:
        await super().set_key(replace(key, hashed_password=key.hashed_password or ""))


@breaks(Suite.test_list_keys)
class AsyncListsAllKeys(AsyncMemoryAdapter):
    """Lists the keys of all users."""

    async def get_keys_by_user_id(self, user_id: str, /) -> list[KeyRow]:
        return list(self._keys.values())


@breaks(Suite.test_list_keys)
class AsyncListsNoPrimary(AsyncMemoryAdapter):
    """Leaves the primary key out of the list."""

    async def get_keys_by_user_id(self, user_id: str, /) -> list[KeyRow]:
        return [key for key in await super().get_keys_by_user_id(user_id) if not key.primary_key]


@breaks(Suite.test_duplicate_key)
class AsyncOverwritesKeys(AsyncMemoryAdapter):
    """Overwrites a key of the same user."""

    async def set_key(self, key: KeyRow, /) -> None:
        found = self._keys.get(key.id)
        if found is not None and found.user_id == key.user_id:
            self._keys[key.id] = key
        else:
            await super().set_key(key)


@breaks(Suite.test_duplicate_key)
class AsyncStealsKeys(AsyncMemoryAdapter):
    """Moves a taken key to another user."""

    async def set_key(self, key: KeyRow, /) -> None:
        self._keys[key.id] = key


@breaks(Suite.test_key_of_unknown_user)
class AsyncKeysOfNobody(AsyncMemoryAdapter):
    """Does not check whether the user exists."""

    async def set_key(self, key: KeyRow, /) -> None:
        self._add_key(key)


@breaks(Suite.test_key_of_unknown_user)
class AsyncStoresThenRefuses(AsyncMemoryAdapter):
    """Detects an unknown user only after the key is stored."""

    async def set_key(self, key: KeyRow, /) -> None:
        self._add_key(key)
        if key.user_id not in self._users:
            raise InvalidUserId


@breaks(Suite.test_set_key_at_once)
class AsyncLooksFirst(AsyncRendezvousAdapter):
    """Checks whether an id is free, and stores the key later."""

    async def set_key(self, key: KeyRow, /) -> None:
        if key.id in self._keys:
            raise DuplicateKeyId
        await self.meeting.wait()
        self._keys[key.id] = key


# Passwords


@breaks(Suite.test_update_password)
class AsyncKeepsPasswords(AsyncMemoryAdapter):
    """Never removes a password."""

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        if hashed_password is None:
            return await self.get_key(key_id)
        return await super().update_key_password(key_id, hashed_password, expected=expected)


@breaks(Suite.test_update_password)
class AsyncSetsAllPasswords(AsyncMemoryAdapter):
    """Sets the hash of all keys."""

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        self._keys = {
            id_: replace(key, hashed_password=hashed_password) for id_, key in self._keys.items()
        }
        return self._keys.get(key_id)


@breaks(Suite.test_update_password_keeps_the_rest)
class AsyncRecreatesUnknownKey(AsyncMemoryAdapter):
    """Replaces the key by one that is neither primary nor expires."""

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        found = await super().update_key_password(key_id, hashed_password, expected=expected)
        if found is not None:
            self._keys[key_id] = replace(found, primary_key=False, expires=None)
        return found


@breaks(Suite.test_update_password_of_unknown_key)
class AsyncRaisesOnUnknownUpdate(AsyncMemoryAdapter):
    """Creates an unknown key."""

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        made = KeyRow(
            id=key_id, user_id="unknown", hashed_password=None, primary_key=False, expires=None
        )
        self._keys.setdefault(key_id, made)
        return await super().update_key_password(key_id, hashed_password, expected=expected)


@breaks(Suite.test_update_expected_password)
class AsyncNullEqualsNothing(AsyncMemoryAdapter):
    """Compares with ``= NULL``, which is never true."""

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        return (
            None
            if expected is None
            else await super().update_key_password(key_id, hashed_password, expected=expected)
        )


@breaks(Suite.test_update_unexpected_password)
class AsyncTakesNoneForUnset(AsyncMemoryAdapter):
    """Treats ``expected=None`` as if it were not given."""

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        return await super().update_key_password(
            key_id, hashed_password, expected=expected or UNSET
        )


@breaks(Suite.test_update_unexpected_password)
class AsyncIgnoresExpected(AsyncMemoryAdapter):
    """Ignores the expected hash."""

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        return await super().update_key_password(key_id, hashed_password)


@breaks(Suite.test_update_expected_at_once)
class AsyncComparesFirst(AsyncRendezvousAdapter):
    """Compares the hash, and sets the new one later."""

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        key = self._keys.get(key_id)
        if key is None or key.hashed_password != expected:
            return None
        await self.meeting.wait()
        return await super().update_key_password(key_id, hashed_password)


# Removing keys


@breaks(Suite.test_delete_keys)
class AsyncCountsIds(AsyncMemoryAdapter):
    """Returns the number of ids that it was given."""

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        await super().delete_non_primary_key(*key_ids)
        return len(key_ids)


@breaks(Suite.test_delete_keys)
class AsyncRemovesOneKey(AsyncMemoryAdapter):
    """Stops at the first unknown id."""

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        count = 0
        for key_id in key_ids:
            if key_id not in self._keys:
                break
            count += await super().delete_non_primary_key(key_id)
        return count


@breaks(Suite.test_delete_unknown_key)
class AsyncRaisesOnDeleteKey(AsyncMemoryAdapter):
    """Raises an error for an unknown key."""

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        for key_id in key_ids:
            if key_id not in self._keys:
                raise InvalidKeyId
        return await super().delete_non_primary_key(*key_ids)


@breaks(Suite.test_delete_primary_key)
class AsyncRemovesPrimary(AsyncMemoryAdapter):
    """Removes primary keys too."""

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        return sum(self._keys.pop(key_id, None) is not None for key_id in set(key_ids))


@breaks(Suite.test_consume_at_once)
class AsyncCountsFirst(AsyncRendezvousAdapter):
    """Counts the keys, and removes them later."""

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        count = len([key_id for key_id in key_ids if key_id in self._keys])
        await self.meeting.wait()
        await super().delete_non_primary_key(*key_ids)
        return count


@breaks(Suite.test_delete_keys_by_user)
class AsyncLeavesPrimary(AsyncMemoryAdapter):
    """Leaves a user's primary key."""

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        await self.delete_non_primary_key(
            *(key.id for key in await self.get_keys_by_user_id(user_id))
        )


@breaks(Suite.test_delete_keys_by_user)
class AsyncDeletesAllKeys(AsyncMemoryAdapter):
    """Removes the keys of all users."""

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        self._keys.clear()


@breaks(Suite.test_delete_keys_by_unknown_user)
class AsyncRaisesOnDeleteKeys(AsyncMemoryAdapter):
    """Raises an error for an unknown user."""

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        if user_id not in self._users:
            raise InvalidUserId
        await super().delete_keys_by_user_id(user_id)


# Ids


@breaks(Suite.test_odd_ids)
class AsyncSplitsAtLastColon(AsyncMemoryAdapter):
    """Splits key ids at the last colon, and strips the rest."""

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        provider, _, name = key_id.rpartition(":")
        return await super().get_key(f"{provider}:{name.strip()}")


@breaks(Suite.test_similar_ids)
class AsyncIgnoresCase(AsyncMemoryAdapter):
    """Ignores case in the owners of keys."""

    async def get_keys_by_user_id(self, user_id: str, /) -> list[KeyRow]:
        return [key for key in self._keys.values() if key.user_id.casefold() == user_id.casefold()]


@breaks(Suite.test_similar_ids)
class AsyncDeletesTrimmed(AsyncMemoryAdapter):
    """Ignores white space in user ids when it deletes a user."""

    async def delete_user(self, user_id: str, /) -> None:
        self._users = {
            id_: user for id_, user in self._users.items() if id_.strip() != user_id.strip()
        }


@breaks(Suite.test_other_spellings)
class AsyncFolds(AsyncCaseInsensitiveStore):
    """Compares all ids as MariaDB does by default."""

    def __init__(self) -> None:
        super().__init__(Time())


@breaks(Suite.test_other_spellings)
class AsyncKeysInAnyCase(AsyncMemoryAdapter):
    """Ignores case in key ids."""

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        return next(
            (key for key in self._keys.values() if key.id.casefold() == key_id.casefold()), None
        )


@breaks(Suite.test_other_spellings)
class AsyncKeysWithoutAccents(AsyncMemoryAdapter):
    """Ignores accents in key ids when it removes keys."""

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        plain = {key_id.replace("é", "e") for key_id in key_ids}
        return await super().delete_non_primary_key(
            *(key_id for key_id in self._keys if key_id.replace("é", "e") in plain)
        )


@breaks(Suite.test_other_spellings)
class AsyncUsersPadded(AsyncMemoryAdapter):
    """Ignores trailing spaces in user ids."""

    async def get_user(self, user_id: str, /) -> UserRow | None:
        return await super().get_user(user_id.rstrip(" "))


@breaks(Suite.test_other_spellings)
class AsyncRemovesUsersInAnyCase(AsyncMemoryAdapter):
    """Ignores case in user ids when it deletes a user."""

    async def delete_user(self, user_id: str, /) -> None:
        self._users = {
            id_: user for id_, user in self._users.items() if id_.casefold() != user_id.casefold()
        }


@breaks(Suite.test_other_spellings)
class AsyncKeysOfOtherUsers(AsyncMemoryAdapter):
    """Ignores invisible characters in the user id of a key."""

    async def set_key(self, key: KeyRow, /) -> None:
        await super().set_key(replace(key, user_id=key.user_id.replace("\u200b", "")))


@breaks(Suite.test_longest_ids)
class AsyncCutsKeyIds(AsyncMemoryAdapter):
    """Compares only the first 191 characters of a key id."""

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        return next((key for key in self._keys.values() if key.id[:191] == key_id[:191]), None)


@breaks(Suite.test_longest_ids)
class AsyncCutsUserIds(AsyncMemoryAdapter):
    """Compares only the first 255 characters of a user id."""

    async def get_keys_by_user_id(self, user_id: str, /) -> list[KeyRow]:
        return [key for key in self._keys.values() if key.user_id[:255] == user_id[:255]]


# Sessions with users


@breaks(JoinedLaws.test_joined)
class AsyncJoinsAnyone(AsyncMemoryAdapter):
    """Joins any user with the session."""

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[SessionRow, UserRow] | None:
        session = await self.get_session(session_id)
        return None if session is None else (session, next(iter(self._users.values())))


@breaks(JoinedLaws.test_joined)
class AsyncJoinsWithoutAttributes(AsyncMemoryAdapter):
    """Leaves the session's attributes out."""

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[SessionRow, UserRow] | None:
        found = await super().get_session_and_user_by_session_id(session_id)
        return None if found is None else (replace(found[0], attributes={}), found[1])


@breaks(JoinedLaws.test_joined_unknown)
class AsyncJoinsRevoked(AsyncMemoryAdapter):
    """Still returns a session that was removed or never stored."""

    async def set_session(self, session: SessionRow, /) -> None:
        self.last = session
        await super().set_session(session)

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[SessionRow, UserRow] | None:
        return (self.last, self._users[self.last.user_id]) if session_id == self.last.id else None


@breaks(JoinedLaws.test_joined_other_spellings)
class AsyncJoinsFolded(AsyncCaseInsensitiveStore):
    """Compares session ids as MariaDB does by default."""

    def __init__(self) -> None:
        super().__init__(Time())


@breaks(JoinedLaws.test_joined_without_user)
class AsyncJoinsOuter(AsyncMemoryAdapter):
    """Makes up a user for a session without one."""

    async def get_session_and_user_by_session_id(
        self, session_id: str, /
    ) -> tuple[SessionRow, UserRow] | None:
        session = await self.get_session(session_id)
        return (
            None
            if session is None
            else (session, self._users.get(session.user_id) or UserRow(id=session.user_id))
        )
