"""The conformance suites of user adapters: one test method for each requirement."""

from functools import partial
from typing import Any, ClassVar, Final, Protocol

from lucia._async.protocols import AsyncSessionAdapter, AsyncSessionUserAdapter, AsyncUserAdapter
from lucia._rules.sessions import system_clock
from lucia._testing.checks import (
    CONCURRENT_CALLS,
    ODD_TEXTS,
    OTHER_SPELLINGS,
    SIMILAR_IDS,
    STORED_ID,
    equal,
    is_error,
    no_error,
    one_winner,
    refused,
    same_rows,
)
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia._testing.sample_users import SampleUsers
from lucia.errors import DuplicateKeyId, InvalidUserId
from lucia.models import MAX_EPOCH_MS, MAX_ID_LENGTH, KeyRow, SessionRow, UserRow

_ODD: Final = "Zoë 🦊 \"'%s\\\n; DROP TABLE users;--"


class AsyncUserAdapterSuite(SampleUsers):
    """The requirements for every user adapter.

    Subclass it in a test module and add a fixture ``adapter``, as :mod:`lucia.testing` shows. The
    fixture returns an adapter on an empty store, a new one for each test. pytest is not needed:
    each test is a method that takes the adapter and raises ``AssertionError``.

    Attributes:
        text_columns: the names of two optional attributes of users that hold text.
        longest_user_id: the longest user id that the store must accept, in bytes of UTF-8.
        odd_texts: ids that the store must accept.
    """

    text_columns: ClassVar[tuple[str, str]] = ("name", "town")
    longest_user_id: ClassVar[int] = 10_000
    odd_texts: ClassVar[tuple[str, ...]] = ODD_TEXTS

    def key(
        self,
        key_id: str,
        user_id: str | None = None,
        hashed_password: str | None = "hash-1",  # noqa: S107 -- the hash of nothing
        *,
        primary: bool = False,
        expires: int | None = None,
    ) -> KeyRow:
        """Return a key of the user anna."""
        return KeyRow(
            id=key_id,
            user_id=self.anna if user_id is None else user_id,
            hashed_password=hashed_password,
            primary_key=primary,
            expires=expires,
        )

    async def store(self, adapter: AsyncUserAdapter, *keys: KeyRow) -> None:
        """Store keys, and create their users first; at most one key of each is primary."""
        primary = {key.user_id: key for key in keys if key.primary_key}
        for user_id in dict.fromkeys(key.user_id for key in keys):
            await adapter.set_user(user_id, {}, primary.get(user_id))
        for key in keys:
            if not key.primary_key:
                await adapter.set_key(key)

    async def check_keys(self, adapter: AsyncUserAdapter, user_id: str, *keys: KeyRow) -> None:
        """Check that the user has exactly these keys, and each can be read."""
        same_rows(
            await adapter.get_keys_by_user_id(user_id),
            keys,
            f"get_keys_by_user_id({user_id[:40]!r})",
        )
        for key in keys:
            equal(await adapter.get_key(key.id), key, f"get_key({key.id!r})")

    async def check_no_user(self, adapter: AsyncUserAdapter, user_id: str) -> None:
        """Check that there is neither this user nor a key of it."""
        equal(await adapter.get_user(user_id), None, f"get_user({user_id[:40]!r})")
        same_rows(
            await adapter.get_keys_by_user_id(user_id), [], f"get_keys_by_user_id({user_id[:40]!r})"
        )

    # Users

    async def test_get_unknown_user(self, adapter: AsyncUserAdapter) -> None:
        """``get_user`` of an unknown id returns None."""
        with no_error("get_user of an unknown id"):
            equal(await adapter.get_user("unknown"), None, "get_user of an unknown id")

    async def test_set_user(self, adapter: AsyncUserAdapter) -> None:
        """A new user is returned with the given attributes, and a later read returns the same."""
        first, second = self.text_columns
        stored = await adapter.set_user(self.anna, {first: _ODD, second: "Köln"}, None)
        equal(
            (stored.id, stored.attributes.get(first), stored.attributes.get(second)),
            (self.anna, _ODD, "Köln"),
            "set_user",
        )
        equal(await adapter.get_user(self.anna), stored, "get_user")
        equal(type(stored), UserRow, "the type of what set_user returns")

    async def test_set_user_without_key(self, adapter: AsyncUserAdapter) -> None:
        """A user may have no key."""
        await adapter.set_user(self.anna, {}, None)
        await self.check_keys(adapter, self.anna)

    async def test_set_user_with_key(self, adapter: AsyncUserAdapter) -> None:
        """A user and the primary key are stored together."""
        key = self.key("email:anna", primary=True)
        stored = await adapter.set_user(self.anna, {}, key)
        equal(await adapter.get_user(self.anna), stored, "get_user")
        await self.check_keys(adapter, self.anna, key)

    async def test_set_user_with_taken_key(self, adapter: AsyncUserAdapter) -> None:
        """A taken key id raises ``DuplicateKeyId``: neither the user nor the key is stored."""
        key = self.key("email:anna", primary=True)
        await adapter.set_user(self.anna, {}, key)
        with refused(DuplicateKeyId, "set_user with a key whose id is taken"):
            await adapter.set_user(
                self.bert, {}, self.key("email:anna", self.bert, "hash-2", primary=True)
            )
        await self.check_no_user(adapter, self.bert)
        await self.check_keys(adapter, self.anna, key)

    async def test_set_user_with_taken_id(self, adapter: AsyncUserAdapter) -> None:
        """A taken user id raises an error: the stored user is unchanged, the key is not stored."""
        name = self.text_columns[0]
        stored = await adapter.set_user(self.anna, {name: "first"}, None)
        with refused(Exception, "set_user with a taken id"):
            await adapter.set_user(
                self.anna, {name: "second"}, self.key("email:anna", primary=True)
            )
        equal(await adapter.get_user(self.anna), stored, "get_user after a refused set_user")
        equal(await adapter.get_key("email:anna"), None, "get_key after a refused set_user")
        await self.check_keys(adapter, self.anna)

    async def test_set_user_at_once(self, adapter: AsyncUserAdapter) -> None:
        """Of concurrent sign-ups with one key id, one succeeds; the others store no user."""
        keys = [
            self.key("email:anna", self.user_id(f"user-{n}"), f"hash-{n}", primary=True)
            for n in range(CONCURRENT_CALLS)
        ]
        outcomes = await AsyncRacingCalls.gather_results(
            *(partial(adapter.set_user, key.user_id, {}, key) for key in keys)
        )
        winner = one_winner(outcomes, is_error(DuplicateKeyId), "set_user with one key id")
        for place, key in enumerate(keys):
            if place == winner:
                await self.check_keys(adapter, key.user_id, key)
            else:
                await self.check_no_user(adapter, key.user_id)

    async def test_attributes_are_copied(self, adapter: AsyncUserAdapter) -> None:
        """Changing the attributes that were given does not change what is stored."""
        name = self.text_columns[0]
        attributes = {name: "first"}
        stored = await adapter.set_user(self.anna, attributes, None)
        attributes[name] = "second"
        equal(
            (await adapter.get_user(self.anna), stored.attributes[name]),
            (stored, "first"),
            "a user after the attributes given to set_user were changed",
        )

    async def test_delete_user(self, adapter: AsyncUserAdapter) -> None:
        """A removed user can't be read; other users stay."""
        await adapter.set_user(self.anna, {}, None)
        bert = await adapter.set_user(self.bert, {}, None)
        await adapter.delete_user(self.anna)
        equal(await adapter.get_user(self.anna), None, "get_user after delete_user")
        equal(await adapter.get_user(self.bert), bert, "get_user of another user after delete_user")

    async def test_delete_unknown_user(self, adapter: AsyncUserAdapter) -> None:
        """Removing an unknown user raises no error and removes nobody."""
        anna = await adapter.set_user(self.anna, {}, None)
        with no_error("delete_user of an unknown id"):
            await adapter.delete_user("unknown")
        equal(
            await adapter.get_user(self.anna), anna, "get_user after delete_user of an unknown id"
        )

    async def test_update(self, adapter: AsyncUserAdapter) -> None:
        """Only the named attributes of one user change, and the user is returned as stored."""
        first, second = self.text_columns
        await adapter.set_user(self.anna, {first: "old", second: "Köln"}, None)
        bert = await adapter.set_user(self.bert, {first: "Bert"}, None)
        changed = await adapter.update_user_attributes(self.anna, {first: _ODD})
        attributes = (
            None
            if changed is None
            else (changed.attributes.get(first), changed.attributes.get(second))
        )
        equal(attributes, (_ODD, "Köln"), "what update_user_attributes returns")
        equal(await adapter.get_user(self.anna), changed, "get_user after update_user_attributes")
        equal(
            await adapter.get_user(self.bert),
            bert,
            "get_user of another user after update_user_attributes",
        )

    async def test_update_nothing(self, adapter: AsyncUserAdapter) -> None:
        """``update_user_attributes`` without attributes returns the user unchanged."""
        anna = await adapter.set_user(self.anna, {self.text_columns[0]: "Anna"}, None)
        equal(
            await adapter.update_user_attributes(self.anna, {}),
            anna,
            "update_user_attributes without attributes",
        )
        equal(
            await adapter.get_user(self.anna), anna, "get_user after an update without attributes"
        )

    async def test_update_unknown(self, adapter: AsyncUserAdapter) -> None:
        """Changing an unknown user returns None and stores nobody."""
        name = self.text_columns[0]
        equal(
            await adapter.update_user_attributes("unknown", {name: "x"}),
            None,
            "update_user_attributes of an unknown id",
        )
        equal(
            await adapter.update_user_attributes("unknown", {}),
            None,
            "update_user_attributes of an unknown id, without attributes",
        )
        await self.check_no_user(adapter, "unknown")

    # Keys

    async def test_get_unknown_key(self, adapter: AsyncUserAdapter) -> None:
        """``get_key`` of an unknown id returns None."""
        with no_error("get_key of an unknown id"):
            equal(await adapter.get_key("email:unknown"), None, "get_key of an unknown id")

    async def test_set_key(self, adapter: AsyncUserAdapter) -> None:
        """A stored key is returned unchanged, with or without a password or an expiry."""
        keys = [
            self.key("email:anna"),
            self.key("github:1", hashed_password=None),
            self.key("reset:1", hashed_password=None, expires=system_clock() - 1),
            self.key("reset:2", expires=MAX_EPOCH_MS),
            self.key("reset:3", expires=0),
        ]
        await self.store(adapter, *keys)
        await self.check_keys(adapter, self.anna, *keys)

    async def test_list_keys(self, adapter: AsyncUserAdapter) -> None:
        """A user's list has exactly the user's keys; that of an unknown user is empty."""
        keys = [
            self.key("email:anna", primary=True),
            self.key("github:1"),
            self.key("email:bert", self.bert),
        ]
        await self.store(adapter, *keys)
        await self.check_keys(adapter, self.anna, *keys[:2])
        await self.check_keys(adapter, self.bert, keys[2])
        with no_error("get_keys_by_user_id of an unknown user"):
            await self.check_keys(adapter, "unknown")

    async def test_duplicate_key(self, adapter: AsyncUserAdapter) -> None:
        """Storing another key under a taken id raises ``DuplicateKeyId``, changing nothing."""
        key = self.key("email:anna", primary=True)
        await self.store(adapter, key)
        await adapter.set_user(self.bert, {}, None)
        for other in (
            self.key("email:anna", self.bert),
            self.key("email:anna", hashed_password="hash-2"),  # noqa: S106 -- of nothing
        ):
            with refused(DuplicateKeyId, "set_key with a taken id"):
                await adapter.set_key(other)
        await self.check_keys(adapter, self.anna, key)
        await self.check_keys(adapter, self.bert)

    async def test_key_of_unknown_user(self, adapter: AsyncUserAdapter) -> None:
        """A key of an unknown user raises ``InvalidUserId`` and is not stored."""
        with refused(InvalidUserId, "set_key of an unknown user"):
            await adapter.set_key(self.key("email:anna", "unknown"))
        equal(await adapter.get_key("email:anna"), None, "get_key after a refused set_key")
        await self.check_keys(adapter, "unknown")

    async def test_set_key_at_once(self, adapter: AsyncUserAdapter) -> None:
        """Of concurrent calls that store different keys under one id, exactly one succeeds."""
        keys = [self.key("github:1", self.user_id(f"user-{n}")) for n in range(CONCURRENT_CALLS)]
        for key in keys:
            await adapter.set_user(key.user_id, {}, None)
        outcomes = await AsyncRacingCalls.gather_results(
            *(partial(adapter.set_key, key) for key in keys)
        )
        winner = one_winner(outcomes, is_error(DuplicateKeyId), "set_key of one id")
        equal(await adapter.get_key("github:1"), keys[winner], "get_key after concurrent set_key")
        for place, key in enumerate(keys):
            await self.check_keys(adapter, key.user_id, *([key] if place == winner else []))

    # Passwords

    async def test_update_password(self, adapter: AsyncUserAdapter) -> None:
        """A hash is set or removed, and the key is returned as stored; other keys stay."""
        other = self.key("github:1")
        await self.store(adapter, self.key("email:anna"), other)
        for hashed in ("hash-2", None, "hash-3"):
            changed = self.key("email:anna", hashed_password=hashed)
            equal(
                await adapter.update_key_password("email:anna", hashed),
                changed,
                "update_key_password",
            )
            await self.check_keys(adapter, self.anna, changed, other)

    async def test_update_password_keeps_the_rest(self, adapter: AsyncUserAdapter) -> None:
        """Setting a hash changes neither that a key is primary nor when it expires."""
        await self.store(
            adapter, self.key("email:anna", primary=True), self.key("reset:1", expires=MAX_EPOCH_MS)
        )
        for key_id in ("email:anna", "reset:1"):
            await adapter.update_key_password(key_id, "hash-2")
        primary = self.key("email:anna", hashed_password="hash-2", primary=True)  # noqa: S106 -- of nothing
        await self.check_keys(
            adapter,
            self.anna,
            primary,
            self.key("reset:1", hashed_password="hash-2", expires=MAX_EPOCH_MS),  # noqa: S106 -- of nothing
        )

    async def test_update_password_of_unknown_key(self, adapter: AsyncUserAdapter) -> None:
        """Setting the hash of an unknown key returns None and stores nothing."""
        equal(
            await adapter.update_key_password("email:unknown", "hash-2"),
            None,
            "update_key_password of an unknown id",
        )
        equal(
            await adapter.update_key_password("email:unknown", "hash-2", expected=None),
            None,
            "update_key_password of an unknown id with expected=None",
        )
        equal(
            await adapter.get_key("email:unknown"),
            None,
            "get_key after update_key_password of an unknown id",
        )

    async def test_update_expected_password(self, adapter: AsyncUserAdapter) -> None:
        """With ``expected``, a hash is set if the key has that one; None expects no hash."""
        await self.store(
            adapter, self.key("email:anna"), self.key("github:1", hashed_password=None)
        )
        for key_id, expected in (("email:anna", "hash-1"), ("github:1", None)):
            changed = self.key(key_id, hashed_password="hash-2")  # noqa: S106 -- of nothing
            equal(
                await adapter.update_key_password(key_id, "hash-2", expected=expected),
                changed,
                f"update_key_password with expected={expected!r}",
            )
            equal(await adapter.get_key(key_id), changed, "get_key after update_key_password")

    async def test_update_unexpected_password(self, adapter: AsyncUserAdapter) -> None:
        """With ``expected``, a key with another hash is unchanged, and None is returned."""
        keys = [self.key("email:anna"), self.key("github:1", hashed_password=None)]
        await self.store(adapter, *keys)
        for key_id, expected in (
            ("email:anna", "hash-0"),
            ("email:anna", "HASH-1"),
            ("email:anna", None),
            ("github:1", "hash-1"),
        ):
            found = await adapter.update_key_password(key_id, "hash-2", expected=expected)
            equal(
                found,
                None,
                f"update_key_password with expected={expected!r} of a key with another hash",
            )
        await self.check_keys(adapter, self.anna, *keys)

    async def test_update_expected_at_once(self, adapter: AsyncUserAdapter) -> None:
        """Of concurrent calls that expect the same hash, exactly one succeeds."""
        await self.store(adapter, self.key("email:anna"))
        hashes = [f"hash-new-{n}" for n in range(CONCURRENT_CALLS)]
        update = partial(adapter.update_key_password, "email:anna", expected="hash-1")
        outcomes = await AsyncRacingCalls.gather_results(
            *(partial(update, hashed) for hashed in hashes)
        )
        winner = one_winner(
            outcomes, lambda outcome: outcome is None, "update_key_password with one expected hash"
        )
        equal(
            await adapter.get_key("email:anna"),
            self.key("email:anna", hashed_password=hashes[winner]),
            "get_key after concurrent update_key_password",
        )

    # Removing keys

    async def test_delete_keys(self, adapter: AsyncUserAdapter) -> None:
        """Keys of any user are removed and counted once; unknown ids raise no error."""
        keys = [
            self.key("github:1"),
            self.key("reset:1"),
            self.key("github:2", self.bert),
            self.key("github:3", self.bert),
        ]
        await self.store(adapter, *keys)
        with no_error("delete_non_primary_key of known and unknown ids"):
            count = await adapter.delete_non_primary_key(
                "github:1", "unknown:1", "reset:1", "github:1", "github:2"
            )
        equal(count, 3, "the count that delete_non_primary_key returns")
        await self.check_keys(adapter, self.anna)
        await self.check_keys(adapter, self.bert, keys[3])
        equal(await adapter.get_key("github:1"), None, "get_key after delete_non_primary_key")

    async def test_delete_unknown_key(self, adapter: AsyncUserAdapter) -> None:
        """Removing unknown keys, or no keys, returns 0 and removes nothing."""
        key = self.key("github:1")
        await self.store(adapter, key)
        with no_error("delete_non_primary_key of an unknown id, and without ids"):
            equal(
                await adapter.delete_non_primary_key("unknown:1"),
                0,
                "delete_non_primary_key of an unknown id",
            )
            equal(await adapter.delete_non_primary_key(), 0, "delete_non_primary_key without ids")
        await self.check_keys(adapter, self.anna, key)

    async def test_delete_primary_key(self, adapter: AsyncUserAdapter) -> None:
        """A primary key is neither removed nor counted, also among other keys."""
        primary = self.key("email:anna", primary=True)
        await self.store(adapter, primary, self.key("github:1"))
        equal(
            await adapter.delete_non_primary_key("email:anna"),
            0,
            "delete_non_primary_key of a primary key",
        )
        equal(
            await adapter.delete_non_primary_key("email:anna", "github:1"),
            1,
            "delete_non_primary_key of a primary key and another",
        )
        await self.check_keys(adapter, self.anna, primary)

    async def test_consume_at_once(self, adapter: AsyncUserAdapter) -> None:
        """Of concurrent calls that remove one key, one counts it: a single-use key is used once."""
        await self.store(adapter, self.key("reset:1", expires=MAX_EPOCH_MS))
        outcomes = await AsyncRacingCalls.gather_results(
            *[partial(adapter.delete_non_primary_key, "reset:1")] * CONCURRENT_CALLS
        )
        winner = one_winner(
            outcomes, lambda outcome: outcome == 0, "delete_non_primary_key of one id"
        )
        equal(outcomes[winner], 1, "the count that the successful delete_non_primary_key returns")
        equal(
            await adapter.get_key("reset:1"),
            None,
            "get_key after concurrent delete_non_primary_key",
        )

    async def test_delete_keys_by_user(self, adapter: AsyncUserAdapter) -> None:
        """All keys of a user are removed, also the primary one; the user and other keys stay."""
        bert = self.key("email:bert", self.bert)
        await self.store(adapter, self.key("email:anna", primary=True), self.key("github:1"), bert)
        anna = await adapter.get_user(self.anna)
        await adapter.delete_keys_by_user_id(self.anna)
        await self.check_keys(adapter, self.anna)
        equal(await adapter.get_key("email:anna"), None, "get_key after delete_keys_by_user_id")
        equal(await adapter.get_user(self.anna), anna, "get_user after delete_keys_by_user_id")
        await self.check_keys(adapter, self.bert, bert)

    async def test_delete_keys_by_unknown_user(self, adapter: AsyncUserAdapter) -> None:
        """Removing the keys of an unknown user raises no error and removes nothing."""
        key = self.key("email:anna")
        await self.store(adapter, key)
        with no_error("delete_keys_by_user_id of an unknown user"):
            await adapter.delete_keys_by_user_id("unknown")
        await self.check_keys(adapter, self.anna, key)

    # Ids

    async def test_odd_ids(self, adapter: AsyncUserAdapter) -> None:
        """User ids and key ids may be any text."""
        keys = [self.key(f"email:{text}", self.user_id(text)) for text in self.odd_texts]
        await self.store(adapter, *keys)
        for key in keys:
            user = await adapter.get_user(key.user_id)
            equal(user is not None and user.id, key.user_id, "the id that get_user returns")
            await self.check_keys(adapter, key.user_id, key)

    async def test_similar_ids(self, adapter: AsyncUserAdapter) -> None:
        """Similar ids name different users and different keys."""
        keys = [self.key(f"email:{text}", self.user_id(text)) for text in SIMILAR_IDS]
        await self.store(adapter, *keys)
        for place, key in enumerate(keys):
            await self.check_keys(adapter, key.user_id, key)
            equal(
                await adapter.delete_non_primary_key(key.id),
                1,
                f"delete_non_primary_key({key.id!r}) among similar ids",
            )
            await adapter.delete_user(key.user_id)
            for other in keys[place + 1 :]:
                equal(
                    await adapter.get_user(other.user_id) is not None,
                    True,
                    f"whether get_user({other.user_id!r}) returns a user",
                )
                await self.check_keys(adapter, other.user_id, other)

    async def test_other_spellings(self, adapter: AsyncUserAdapter) -> None:
        """An id that differs in case, accents, spaces or invisible characters is unknown."""
        name = self.text_columns[0]
        stored_id = self.user_id(STORED_ID)
        user = await adapter.set_user(stored_id, {name: "first"}, None)
        key = self.key(f"email:{STORED_ID}", stored_id)
        await adapter.set_key(key)
        for other in OTHER_SPELLINGS:
            other_id, other_key = self.user_id(other), f"email:{other}"
            where = f"where only {STORED_ID!r} is stored"
            equal(await adapter.get_user(other_id), None, f"get_user({other!r}) {where}")
            found = await adapter.update_user_attributes(other_id, {name: "second"})
            equal(found, None, f"update_user_attributes({other!r}) {where}")
            equal(await adapter.get_key(other_key), None, f"get_key({other_key!r}) {where}")
            same_rows(
                await adapter.get_keys_by_user_id(other_id),
                [],
                f"get_keys_by_user_id({other!r}) {where}",
            )
            equal(
                await adapter.update_key_password(other_key, "hash-2"),
                None,
                f"update_key_password({other_key!r}) {where}",
            )
            equal(
                await adapter.delete_non_primary_key(other_key),
                0,
                f"delete_non_primary_key({other_key!r}) {where}",
            )
            with refused(InvalidUserId, f"set_key for {other!r} {where}"):
                await adapter.set_key(self.key("github:1", other_id))
            await adapter.delete_keys_by_user_id(other_id)
            await adapter.delete_user(other_id)
            equal(
                await adapter.get_user(stored_id),
                user,
                f"get_user({STORED_ID!r}) after calls with {other!r}",
            )
            await self.check_keys(adapter, stored_id, key)

    async def test_longest_ids(self, adapter: AsyncUserAdapter) -> None:
        """A user id may have ``longest_user_id`` bytes, a key id 255 characters; all count."""
        user_id = "é" * ((self.longest_user_id - 1) // 2)
        key_id = f"email:{'🦊' * (MAX_ID_LENGTH - 7)}"
        keys = [self.key(key_id + last, self.user_id(user_id + last)) for last in "ab"]
        await self.store(adapter, *keys)
        for key in keys:
            await self.check_keys(adapter, key.user_id, key)


class _AsyncBoth(AsyncUserAdapter, AsyncSessionAdapter, AsyncSessionUserAdapter, Protocol):
    """An object that stores users and sessions."""


class AsyncSessionUserAdapterSuite(SampleUsers):
    """The requirements for ``get_session_and_user_by_session_id``.

    An object that stores users and sessions may have this method. Use the suite like the others.
    """

    text_columns: ClassVar[tuple[str, str]] = ("name", "town")

    def row(self, session_id: str, user_id: str | None = None, **attributes: Any) -> SessionRow:
        """Return a session that expires at the end of the year 9999."""
        return SessionRow(
            id=session_id,
            user_id=self.anna if user_id is None else user_id,
            active_expires=MAX_EPOCH_MS,
            idle_expires=MAX_EPOCH_MS,
            attributes=attributes,
        )

    async def test_joined(self, adapter: _AsyncBoth) -> None:
        """A session and its user are returned as ``get_session`` and ``get_user`` return them."""
        await adapter.set_user(self.bert, {self.text_columns[0]: "Bert"}, None)
        anna = await adapter.set_user(self.anna, {self.text_columns[0]: _ODD}, None)
        session = self.row("one", handle="a")
        await adapter.set_session(session)
        await adapter.set_session(self.row("two", self.bert))
        expected = (await adapter.get_session("one"), anna)
        equal(
            await adapter.get_session_and_user_by_session_id("one"),
            expected,
            "get_session_and_user_by_session_id",
        )

    async def test_joined_unknown(self, adapter: _AsyncBoth) -> None:
        """For an unknown or removed session, None is returned."""
        await adapter.set_user(self.anna, {}, None)
        await adapter.set_session(self.row("one"))
        await adapter.delete_session("one")
        for session_id in ("unknown", "one"):
            found = await adapter.get_session_and_user_by_session_id(session_id)
            equal(found, None, "get_session_and_user_by_session_id of an unknown session")

    async def test_joined_other_spellings(self, adapter: _AsyncBoth) -> None:
        """An id that differs in case, accents, spaces or invisible characters is unknown."""
        await adapter.set_user(self.anna, {}, None)
        await adapter.set_session(self.row(STORED_ID))
        for other in OTHER_SPELLINGS:
            found = await adapter.get_session_and_user_by_session_id(other)
            equal(
                found,
                None,
                f"get_session_and_user_by_session_id({other!r}) where only {STORED_ID!r} is stored",
            )

    async def test_joined_without_user(self, adapter: _AsyncBoth) -> None:
        """For a session whose user was removed, None is returned."""
        await adapter.set_user(self.anna, {}, None)
        await adapter.set_session(self.row("one"))
        await adapter.delete_user(self.anna)
        found = await adapter.get_session_and_user_by_session_id("one")
        equal(found, None, "get_session_and_user_by_session_id of a session whose user was removed")
