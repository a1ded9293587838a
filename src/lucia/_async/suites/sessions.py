"""The conformance suite of session adapters: one test method for each requirement."""

import copy
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from lucia._async.protocols import AsyncSessionAdapter
from lucia._rules.sessions import system_clock
from lucia._testing.checks import (
    CONCURRENT_CALLS,
    ODD_TEXTS,
    OTHER_SPELLINGS,
    ROUNDS,
    SIMILAR_IDS,
    STORED_ID,
    equal,
    is_error,
    no_error,
    one_of,
    one_winner,
    refused,
    same_rows,
)
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia._testing.sample_users import SampleUsers
from lucia.errors import DuplicateSessionId, InvalidUserId
from lucia.models import MAX_EPOCH_MS, MAX_ID_LENGTH, SessionRow

_HOUR = 3_600_000


class AsyncSessionAdapterSuite(SampleUsers):
    """The requirements for every session adapter.

    Subclass it in a test module and add a fixture ``adapter``, as :mod:`lucia.testing` shows. The
    fixture returns an adapter on an empty store, a new one for each test. pytest is not needed:
    each test is a method that takes the adapter and raises ``AssertionError``.

    Attributes:
        longest_user_id: the longest user id that the store must accept, in bytes of UTF-8.
        odd_texts: ids that the store must accept.
    """

    longest_user_id: ClassVar[int] = 10_000
    odd_texts: ClassVar[tuple[str, ...]] = ODD_TEXTS

    async def create_user(self, adapter: Any, user_id: str) -> None:
        """Create a user; called once for each user of a test.

        Override it for a store that refuses sessions of unknown users.
        """

    def now(self) -> int:
        """Return the time in milliseconds since the epoch, by the adapter's clock.

        Override it for an adapter that does not use the system's clock.
        """
        return system_clock()

    def row(self, session_id: str, user_id: str | None = None, **attributes: Any) -> SessionRow:
        """Return a session that expires in two hours."""
        now = self.now()
        return SessionRow(
            id=session_id,
            user_id=self.anna if user_id is None else user_id,
            active_expires=now + _HOUR,
            idle_expires=now + 2 * _HOUR,
            attributes=attributes,
        )

    def as_listed(self, row: SessionRow) -> SessionRow:
        """Return a session as its user's list has it.

        Override it for a store that keeps only hashes of ids, so that its lists can't name them.
        """
        return row

    async def store(self, adapter: AsyncSessionAdapter, *rows: SessionRow) -> None:
        """Store sessions, and create their users first."""
        await self.create_users(adapter, *dict.fromkeys(row.user_id for row in rows))
        for row in rows:
            await adapter.set_session(row)

    async def create_users(self, adapter: AsyncSessionAdapter, *user_ids: str) -> None:
        """Create users."""
        for user_id in user_ids:
            await self.create_user(adapter, user_id)

    async def check_stored(self, adapter: AsyncSessionAdapter, *rows: SessionRow) -> None:
        """Check that each session can be read, and is in its user's list."""
        for row in rows:
            equal(await adapter.get_session(row.id), row, f"get_session({row.id!r})")
            entry = self.as_listed(row)
            listed = [
                found
                for found in await adapter.get_sessions_by_user_id(row.user_id)
                if found.id == entry.id
            ]
            equal(
                listed,
                [entry],
                f"the session {row.id!r} in get_sessions_by_user_id({row.user_id[:40]!r})",
            )

    async def check_gone(self, adapter: AsyncSessionAdapter, *rows: SessionRow) -> None:
        """Check that no session can be read, and none is in its user's list."""
        for row in rows:
            equal(
                await adapter.get_session(row.id),
                None,
                f"get_session({row.id!r}) of a removed session",
            )
            entry = self.as_listed(row)
            listed = [
                found
                for found in await adapter.get_sessions_by_user_id(row.user_id)
                if found.id == entry.id
            ]
            equal(
                listed,
                [],
                f"the removed session {row.id!r} in get_sessions_by_user_id({row.user_id[:40]!r})",
            )

    async def check_list(
        self, adapter: AsyncSessionAdapter, user_id: str, *rows: SessionRow
    ) -> None:
        """Check that the user has exactly these sessions."""
        same_rows(
            await adapter.get_sessions_by_user_id(user_id),
            map(self.as_listed, rows),
            f"get_sessions_by_user_id({user_id[:40]!r})",
        )

    # Reading and storing

    async def test_get_unknown(self, adapter: AsyncSessionAdapter) -> None:
        """``get_session`` of an unknown id returns None."""
        with no_error("get_session of an unknown id"):
            equal(await adapter.get_session("unknown"), None, "get_session of an unknown id")

    async def test_get(self, adapter: AsyncSessionAdapter) -> None:
        """A stored session is returned unchanged, as a ``SessionRow``."""
        row = self.row("one")
        await self.store(adapter, row)
        equal(await adapter.get_session("one"), row, "get_session")

    async def test_times(self, adapter: AsyncSessionAdapter) -> None:
        """Times are stored to the millisecond, up to the end of the year 9999."""
        now = self.now()
        near = SessionRow(
            id="near",
            user_id=self.anna,
            active_expires=now + _HOUR + 1,
            idle_expires=now + _HOUR + 999,
        )
        far = SessionRow(
            id="far", user_id=self.anna, active_expires=MAX_EPOCH_MS - 1, idle_expires=MAX_EPOCH_MS
        )
        await self.store(adapter, near, far)
        await self.check_stored(adapter, near, far)

    async def test_attributes(self, adapter: AsyncSessionAdapter) -> None:
        """With ``keeps_attributes``, JSON values are returned; without, the session is stored."""
        nested: dict[str, Any] = {
            "text": "Zoë 🦊 \"'\\\n",
            "list": [1, [], {}, None, {"id": "x"}],
            "empty": "",
        }
        row = self.row(
            "one", nested=nested, none=None, yes=True, zero=0, large=2**53, less=-1, half=0.5
        )
        await self.store(adapter, row)
        if getattr(adapter, "keeps_attributes", False):
            await self.check_stored(adapter, row)
        found = await adapter.get_session("one")
        columns = (
            None
            if found is None
            else (found.id, found.user_id, found.active_expires, found.idle_expires)
        )
        equal(
            columns,
            (row.id, row.user_id, row.active_expires, row.idle_expires),
            "the columns of a session with attributes",
        )

    async def test_attributes_are_copied(self, adapter: AsyncSessionAdapter) -> None:
        """Changing attributes that were given or returned does not change what is stored."""
        metadata = {"agents": ["first"]}
        row = self.row("one", noted=metadata)
        await self.store(adapter, row)
        before = copy.deepcopy(await adapter.get_session("one"))
        metadata["agents"].append("second")
        equal(
            await adapter.get_session("one"),
            before,
            "a session after the attributes given to set_session were changed",
        )
        out = await adapter.get_session("one")
        if out is not None and "noted" in out.attributes:
            with suppress(TypeError):  # attributes that are returned may refuse changes
                out.attributes["noted"]["agents"].append("third")
        equal(
            await adapter.get_session("one"),
            before,
            "a session after the attributes returned by get_session were changed",
        )

    async def test_duplicate(self, adapter: AsyncSessionAdapter) -> None:
        """A session under a taken id raises ``DuplicateSessionId``, and changes nothing."""
        row = self.row("one")
        await self.store(adapter, row)
        await self.create_users(adapter, self.bert)
        with refused(DuplicateSessionId, "set_session of another session under a taken id"):
            await adapter.set_session(self.row("one", self.bert))
        await self.check_stored(adapter, row)
        await self.check_list(adapter, self.bert)

    async def test_duplicate_of_same_user(self, adapter: AsyncSessionAdapter) -> None:
        """A taken id is refused to the same user too: the times stay, and the list has it once."""
        row = self.row("one")
        await self.store(adapter, row)
        later = SessionRow(
            id="one",
            user_id=self.anna,
            active_expires=row.active_expires + 1,
            idle_expires=row.idle_expires + 1,
        )
        with refused(
            DuplicateSessionId, "set_session of the same user's other session under a taken id"
        ):
            await adapter.set_session(later)
        await self.check_list(adapter, self.anna, row)
        equal(await adapter.get_session("one"), row, "get_session after a refused set_session")

    async def test_set_at_once(self, adapter: AsyncSessionAdapter) -> None:
        """Of concurrent calls that store different sessions under one id, exactly one succeeds."""
        rows = [self.row("one", self.user_id(f"user-{n}")) for n in range(CONCURRENT_CALLS)]
        await self.create_users(adapter, *(row.user_id for row in rows))
        outcomes = await AsyncRacingCalls.gather_results(
            *(partial(adapter.set_session, row) for row in rows)
        )
        winner = one_winner(outcomes, is_error(DuplicateSessionId), "set_session of one id")
        equal(
            await adapter.get_session("one"),
            rows[winner],
            "get_session after concurrent set_session",
        )
        for place, row in enumerate(rows):
            await self.check_list(adapter, row.user_id, *([row] if place == winner else []))

    async def test_unknown_user(self, adapter: AsyncSessionAdapter) -> None:
        """A session of an unknown user raises ``InvalidUserId``, or is stored as any other."""
        row = self.row("one", "unknown")
        try:
            await adapter.set_session(row)
        except InvalidUserId:
            await self.check_gone(adapter, row)
        else:
            await self.check_stored(adapter, row)

    async def test_expired(self, adapter: AsyncSessionAdapter) -> None:
        """An expired session is refused with ``ValueError``, or stored as it is, or dropped."""
        row = SessionRow(
            id="one",
            user_id=self.anna,
            active_expires=self.now() - 2 * _HOUR,
            idle_expires=self.now() - _HOUR,
        )
        await self.create_users(adapter, self.anna)
        try:
            await adapter.set_session(row)
        except ValueError:
            await self.check_gone(adapter, row)
        one_of(
            await adapter.get_session("one"),
            [row, None],
            "get_session of a session that was stored expired",
        )
        one_of(
            [*await adapter.get_sessions_by_user_id(self.anna)],
            [[self.as_listed(row)], []],
            "get_sessions_by_user_id with a session that was stored expired",
        )

    # Listing

    async def test_list_unknown_user(self, adapter: AsyncSessionAdapter) -> None:
        """An unknown user has no sessions."""
        with no_error("get_sessions_by_user_id of an unknown user"):
            await self.check_list(adapter, "unknown")

    async def test_list(self, adapter: AsyncSessionAdapter) -> None:
        """A user's list has exactly the user's sessions."""
        rows = [self.row("one"), self.row("two"), self.row("three", self.bert)]
        await self.store(adapter, *rows)
        await self.check_list(adapter, self.anna, *rows[:2])
        await self.check_list(adapter, self.bert, rows[2])

    async def test_many(self, adapter: AsyncSessionAdapter) -> None:
        """A user may have hundreds of sessions: all of them are listed, and removed."""
        rows = [self.row(f"session-{n}") for n in range(300)]
        await self.store(adapter, *rows)
        await self.check_list(adapter, self.anna, *rows)
        await adapter.delete_sessions_by_user_id(self.anna)
        await self.check_gone(adapter, rows[0], rows[150], rows[299])
        await self.check_list(adapter, self.anna)

    # Removing

    async def test_delete(self, adapter: AsyncSessionAdapter) -> None:
        """A removed session can't be read and is in no list; other sessions stay."""
        gone, stays, foreign = self.row("one"), self.row("two"), self.row("three", self.bert)
        await self.store(adapter, gone, stays, foreign)
        await adapter.delete_session("one")
        await self.check_gone(adapter, gone)
        await self.check_stored(adapter, stays, foreign)

    async def test_delete_many(self, adapter: AsyncSessionAdapter) -> None:
        """One call removes sessions of several users, also with unknown and repeated ids."""
        rows = [
            self.row("one"),
            self.row("two"),
            self.row("three", self.bert),
            self.row("four", self.bert),
        ]
        await self.store(adapter, *rows)
        with no_error("delete_session of known and unknown ids"):
            await adapter.delete_session("unknown", "one", "two", "one", "three")
        await self.check_gone(adapter, *rows[:3])
        await self.check_stored(adapter, rows[3])

    async def test_delete_nothing(self, adapter: AsyncSessionAdapter) -> None:
        """``delete_session`` without ids raises no error and removes nothing."""
        row = self.row("one")
        await self.store(adapter, row)
        with no_error("delete_session without ids"):
            await adapter.delete_session()
        await self.check_stored(adapter, row)

    async def test_delete_unknown(self, adapter: AsyncSessionAdapter) -> None:
        """Removing a session twice, or an unknown one, raises no error and removes nothing else."""
        row, gone = self.row("one"), self.row("two")
        await self.store(adapter, row, gone)
        await adapter.delete_session("two")
        with no_error("delete_session of an id that is not there"):
            await adapter.delete_session("two")
            await adapter.delete_session("unknown")
        await self.check_gone(adapter, gone)
        await self.check_stored(adapter, row)

    async def test_delete_by_user(self, adapter: AsyncSessionAdapter) -> None:
        """All sessions of a user are removed; those of other users stay."""
        rows = [self.row("one"), self.row("two"), self.row("three", self.bert)]
        await self.store(adapter, *rows)
        await adapter.delete_sessions_by_user_id(self.anna)
        await self.check_gone(adapter, *rows[:2])
        await self.check_list(adapter, self.anna)
        await self.check_stored(adapter, rows[2])

    async def test_delete_by_unknown_user(self, adapter: AsyncSessionAdapter) -> None:
        """Removing the sessions of an unknown user raises no error and removes nothing."""
        row = self.row("one")
        await self.store(adapter, row)
        with no_error("delete_sessions_by_user_id of an unknown user"):
            await adapter.delete_sessions_by_user_id("unknown")
        await self.check_stored(adapter, row)

    async def test_login_after_delete_by_user(self, adapter: AsyncSessionAdapter) -> None:
        """A user whose sessions were removed can log in again, and log out again."""
        rows = [self.row("one"), self.row("two")]
        await self.store(adapter, rows[0])
        await adapter.delete_sessions_by_user_id(self.anna)
        await adapter.set_session(rows[1])
        await self.check_list(adapter, self.anna, rows[1])
        await adapter.delete_sessions_by_user_id(self.anna)
        await self.check_gone(adapter, *rows)

    async def test_delete_by_user_amid_logins(self, adapter: AsyncSessionAdapter) -> None:
        """Earlier sessions are removed; those of concurrent logins are removed or listed."""
        for round_ in range(ROUNDS):
            user_id = self.user_id(f"user-{round_}")
            before = [self.row(f"{round_} before {n}", user_id) for n in range(CONCURRENT_CALLS)]
            meanwhile = [
                self.row(f"{round_} meanwhile {n}", user_id) for n in range(CONCURRENT_CALLS)
            ]
            await self.store(adapter, *before)
            logins = [partial(adapter.set_session, row) for row in meanwhile]
            await AsyncRacingCalls.gather_results(
                *logins[:4], partial(adapter.delete_sessions_by_user_id, user_id), *logins[4:]
            )
            await self.check_gone(adapter, *before)
            alive = [row for row in meanwhile if await adapter.get_session(row.id) is not None]
            await self.check_list(adapter, user_id, *alive)

    # Ids

    async def test_odd_session_ids(self, adapter: AsyncSessionAdapter) -> None:
        """A session id may be any text."""
        rows = [self.row(text) for text in self.odd_texts]
        await self.store(adapter, *rows)
        await self.check_stored(adapter, *rows)
        await adapter.delete_session(*(row.id for row in rows))
        await self.check_gone(adapter, *rows)

    async def test_odd_user_ids(self, adapter: AsyncSessionAdapter) -> None:
        """A user id may be any text."""
        rows = [
            self.row(f"session-{n}", self.user_id(text)) for n, text in enumerate(self.odd_texts)
        ]
        await self.store(adapter, *rows)
        for row in rows:
            await self.check_list(adapter, row.user_id, row)
            await adapter.delete_sessions_by_user_id(row.user_id)
        await self.check_gone(adapter, *rows)

    async def test_similar_session_ids(self, adapter: AsyncSessionAdapter) -> None:
        """Similar session ids name different sessions."""
        rows = [self.row(text) for text in SIMILAR_IDS]
        await self.store(adapter, *rows)
        for place, row in enumerate(rows):
            await self.check_stored(adapter, *rows[place:])
            await adapter.delete_session(row.id)
            await self.check_list(adapter, self.anna, *rows[place + 1 :])

    async def test_similar_user_ids(self, adapter: AsyncSessionAdapter) -> None:
        """Similar user ids name different users: their sessions are listed and removed apart."""
        rows = [self.row(f"session-{n}", self.user_id(text)) for n, text in enumerate(SIMILAR_IDS)]
        await self.store(adapter, *rows)
        for place, row in enumerate(rows):
            await self.check_list(adapter, row.user_id, row)
            await adapter.delete_sessions_by_user_id(row.user_id)
            await self.check_gone(adapter, row)
            await self.check_stored(adapter, *rows[place + 1 :])

    async def test_other_spellings(self, adapter: AsyncSessionAdapter) -> None:
        """An id that differs in case, accents, spaces or invisible characters is unknown."""
        row = self.row(STORED_ID, self.user_id(STORED_ID))
        await self.store(adapter, row)
        for other in OTHER_SPELLINGS:
            equal(
                await adapter.get_session(other),
                None,
                f"get_session({other!r}) where only {STORED_ID!r} is stored",
            )
            await self.check_list(adapter, self.user_id(other))
            await adapter.delete_session(other)
            await adapter.delete_sessions_by_user_id(self.user_id(other))
            await self.check_stored(adapter, row)

    async def test_longest_session_id(self, adapter: AsyncSessionAdapter) -> None:
        """A session id may have 255 characters, and all of them count."""
        rows = [self.row("🦊" * (MAX_ID_LENGTH - 1) + last) for last in "ab"]
        await self.store(adapter, *rows)
        await self.check_stored(adapter, *rows)

    async def test_longest_user_id(self, adapter: AsyncSessionAdapter) -> None:
        """A user id may have ``longest_user_id`` bytes, and all of them count."""
        rows = [
            self.row(
                f"session-{last}", self.user_id("é" * ((self.longest_user_id - 1) // 2) + last)
            )
            for last in "ab"
        ]
        await self.store(adapter, *rows)
        for row in rows:
            await self.check_list(adapter, row.user_id, row)
