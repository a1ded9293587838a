"""The conformance suite of session adapters that renew: one test method for each requirement."""

from functools import partial
from itertools import pairwise
from typing import Final

from lucia._async.protocols import AsyncRenewingSessionAdapter
from lucia._async.suites.sessions import AsyncSessionAdapterSuite
from lucia._compat.pause import AsyncPause
from lucia._testing.checks import (
    CONCURRENT_CALLS,
    OTHER_SPELLINGS,
    ROUNDS,
    STORED_ID,
    equal,
    one_of,
    one_winner,
    refused,
)
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.errors import DuplicateSessionId
from lucia.models import SessionRow

_GRACE: Final = 60_000
_SHORT: Final = 50
"""A grace period short enough to wait for, in milliseconds."""
_LIFE: Final = 100
"""A session's life short enough to wait for, in milliseconds."""


class AsyncRenewingSessionAdapterSuite(AsyncSessionAdapterSuite):
    """The requirements for a session adapter that renews.

    They include those of :class:`~lucia.testing.SessionAdapterSuite`; the suite is used in the same
    way.
    """

    async def wait(self, milliseconds: int) -> None:
        """Wait for a number of milliseconds.

        Override it, and :meth:`now`, for an adapter that does not use the system's clock.
        """
        await AsyncPause.seconds(milliseconds / 1_000)

    async def renew_chain(
        self, adapter: AsyncRenewingSessionAdapter, *rows: SessionRow, grace: int = _GRACE
    ) -> None:
        """Store the first session, and renew each to the next."""
        await self.store(adapter, rows[0])
        for used, successor in pairwise(rows):
            await adapter.renew_session(used.id, successor, grace=grace)

    async def store_briefly(self, adapter: AsyncRenewingSessionAdapter, session_id: str) -> int:
        """Store a session that expires soon, and return when.

        On a slow machine it may be expired before it is stored: then it gets twice the life.
        """
        life = _LIFE
        while True:
            now = self.now()
            row = SessionRow(
                id=session_id,
                user_id=self.anna,
                active_expires=now,
                idle_expires=now + life,
                attributes={"created_at": now},
            )
            try:
                await adapter.set_session(row)
            except ValueError:
                if self.now() < row.idle_expires:
                    raise
                life *= 2
            else:
                return row.idle_expires

    def login(self, name: str, age: int, user_id: str | None = None) -> SessionRow:
        """Return a session of a login ``age`` milliseconds ago, with its time and its handle."""
        return self.row(name, user_id, created_at=self.now() - age, handle=f"handle of {name}")

    def renewed(self, row: SessionRow, name: str) -> SessionRow:
        """Return a successor of a session, of the same login."""
        return self.row(name, row.user_id, **row.attributes)

    # Capping

    async def test_cap(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """A login within the limit revokes nothing; one more revokes the user's oldest session."""
        foreign = self.login("foreign", 9_000, self.bert)
        rows = [self.login(f"session-{n}", 5_000 - n) for n in range(4)]
        await self.store(adapter, foreign, rows[0])
        for row in rows[1:3]:
            await adapter.set_session_capped(row, limit=3)
        await self.check_count(adapter, self.anna, 3)
        stored = await adapter.set_session_capped(rows[3], limit=3)
        equal(
            (stored.id, stored.user_id, stored.idle_expires),
            (rows[3].id, self.anna, rows[3].idle_expires),
            "set_session_capped",
        )
        await self.check_remaining(adapter, self.anna, "session-1", "session-2", "session-3")
        await self.check_count(adapter, self.bert, 1)

    async def test_cap_order(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """The sessions that logged in first are revoked, in whatever order they were stored."""
        ages = {"third": 3_000, "first": 5_000, "fourth": 2_000, "second": 4_000}
        await self.store(adapter, *(self.login(name, age) for name, age in ages.items()))
        await adapter.set_session_capped(self.login("new", 0), limit=3)
        await self.check_remaining(adapter, self.anna, "third", "fourth", "new")

    async def test_cap_renewed(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """A renewal makes no login newer: the successor of the oldest is revoked first."""
        rows = [self.login("first", 5_000), self.login("second", 4_000), self.login("third", 3_000)]
        successor = self.renewed(rows[0], "successor")
        await self.store(adapter, *rows)
        equal(
            await adapter.renew_session("first", successor, grace=_GRACE),
            successor,
            "renew_session",
        )
        await adapter.set_session_capped(self.login("new", 0), limit=3)
        await self.check_remaining(adapter, self.anna, "second", "third", "new")

    async def test_cap_expired(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Expired sessions are not counted."""
        await self.store(adapter, self.login("first", 5_000))
        ends = [await self.store_briefly(adapter, f"dead-{n}") for n in range(3)]
        await self.wait(max(ends) - self.now() + _LIFE)
        await adapter.set_session_capped(self.login("new", 0), limit=2)
        for id_ in ("first", "new"):
            equal(
                await adapter.get_session(id_) is not None,
                True,
                f"whether {id_!r} is alive beside expired sessions",
            )

    async def test_cap_keeps_new(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """The new login stays, even if the clock of its machine is behind."""
        await self.store(adapter, self.login("first", 2_000), self.login("second", 1_000))
        stored = await adapter.set_session_capped(self.login("new", 10_000), limit=1)
        await self.check_remaining(adapter, self.anna, "new")
        if adapter.keeps_attributes:
            await self.check_stored(adapter, stored)

    async def test_cap_taken_id(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """A login under a taken id raises ``DuplicateSessionId``, and revokes nothing."""
        rows, foreign = (
            [self.login("first", 2_000), self.login("second", 1_000)],
            self.login("taken", 0, self.bert),
        )
        await self.store(adapter, *rows, foreign)
        with refused(DuplicateSessionId, "set_session_capped with a taken id"):
            await adapter.set_session_capped(self.login("taken", 0), limit=1)
        await self.check_remaining(adapter, self.anna, "first", "second")
        await self.check_count(adapter, self.bert, 1)

    async def test_cap_at_once(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """After concurrent logins, the user has exactly as many sessions as the limit."""
        for round_ in range(ROUNDS):
            user_id = self.user_id(f"user-{round_}")
            rows = [
                self.login(f"{round_} session {n}", 0, user_id) for n in range(CONCURRENT_CALLS)
            ]
            await self.store(adapter, self.login(f"{round_} before", 5_000, user_id))
            outcomes = await AsyncRacingCalls.gather_results(
                *(partial(adapter.set_session_capped, row, limit=3) for row in rows)
            )
            equal(
                [type(outcome) for outcome in outcomes],
                [SessionRow] * CONCURRENT_CALLS,
                "concurrent calls of set_session_capped",
            )
            await self.check_count(adapter, user_id, 3)

    async def test_cap_amid_renewals(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """A session that a login revokes while it is renewed leaves no successor."""
        for round_ in range(ROUNDS if adapter.keeps_attributes else 0):
            user_id = self.user_id(f"user-{round_}")
            old, kept = (
                self.login(f"{round_} old", 5_000, user_id),
                self.login(f"{round_} kept", 4_000, user_id),
            )
            successors = [self.renewed(row, f"{row.id} renewed") for row in (old, kept)]
            await self.store(adapter, kept, old)
            new = self.login(f"{round_} new", 0, user_id)
            renewals = [
                partial(adapter.renew_session, row.id, successor, grace=0)
                for row, successor in zip((old, kept), successors, strict=True)
            ]
            outcomes = await AsyncRacingCalls.gather_results(
                renewals[0], partial(adapter.set_session_capped, new, limit=2), renewals[1]
            )
            await self.check_gone(adapter, old, kept, successors[0])
            equal(
                [getattr(outcome, "id", None) for outcome in outcomes[1:]],
                [new.id, successors[1].id],
                "a concurrent login and renewal",
            )
            await self.check_remaining(adapter, user_id, new.id, successors[1].id)

    async def check_remaining(
        self, adapter: AsyncRenewingSessionAdapter, user_id: str, *ids: str
    ) -> None:
        """Check that the user has exactly these sessions.

        Without attributes nobody knows which login is the oldest: then only the number of sessions
        is checked.
        """
        if adapter.keeps_attributes:
            expected = sorted(self.as_listed(self.row(id_, user_id)).id for id_ in ids)
            found = sorted(row.id for row in await adapter.get_sessions_by_user_id(user_id))
            equal(found, expected, f"the ids in get_sessions_by_user_id({user_id!r})")
        else:
            await self.check_count(adapter, user_id, len(ids))

    async def check_count(
        self, adapter: AsyncRenewingSessionAdapter, user_id: str, count: int
    ) -> None:
        """Check how many sessions the user has."""
        equal(
            len(await adapter.get_sessions_by_user_id(user_id)),
            count,
            f"the number of sessions of {user_id!r}",
        )

    # Renewing

    async def test_renew(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """A renewal returns the successor, which replaces the used session; other sessions stay."""
        used, successor, other = self.row("used"), self.row("successor"), self.row("other")
        await self.store(adapter, used, other)
        equal(
            await adapter.renew_session("used", successor, grace=_GRACE), successor, "renew_session"
        )
        await self.check_gone(adapter, used)
        await self.check_list(adapter, self.anna, successor, other)
        await self.check_stored(adapter, successor, other)

    async def test_renew_attributes(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """With ``keeps_attributes``, those of the successor are stored."""
        used, successor = (
            self.row("used", handle="a"),
            self.row("successor", handle="a", metadata={"n": [1]}),
        )
        await self.renew_chain(adapter, used, successor)
        if adapter.keeps_attributes:
            await self.check_stored(adapter, successor)
        found = await adapter.get_session("successor")
        equal(
            found is not None and found.user_id,
            self.anna,
            "the user of a successor with attributes",
        )

    async def test_renew_unknown(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Renewing an unknown session returns None and stores nothing."""
        successor = self.row("successor")
        await self.create_users(adapter, self.anna)
        equal(
            await adapter.renew_session("unknown", successor, grace=_GRACE),
            None,
            "renew_session of an unknown id",
        )
        await self.check_gone(adapter, successor)

    async def test_renew_revoked(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Renewing a revoked session returns None and stores nothing."""
        rows = [self.row("one"), self.row("two")]
        successors = [self.row("successor-one"), self.row("successor-two")]
        await self.store(adapter, *rows)
        await adapter.delete_session("one")
        equal(
            await adapter.renew_session("one", successors[0], grace=_GRACE),
            None,
            "renew_session after delete_session",
        )
        await adapter.delete_sessions_by_user_id(self.anna)
        equal(
            await adapter.renew_session("two", successors[1], grace=_GRACE),
            None,
            "renew_session after delete_sessions_by_user_id",
        )
        await self.check_gone(adapter, *successors)

    async def test_renew_other_spellings(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """An id that differs in case, accents, spaces or invisible characters is unknown."""
        user_id = self.user_id(STORED_ID)
        current = self.row(STORED_ID, user_id)
        await self.renew_chain(adapter, self.row(f"used {STORED_ID}", user_id), current)
        for number, other in enumerate(OTHER_SPELLINGS):
            where, successor = (
                f"where only {STORED_ID!r} is stored",
                self.row(f"successor-{number}", user_id),
            )
            equal(
                await adapter.renew_session(other, successor, grace=_GRACE),
                None,
                f"renew_session({other!r}) {where}",
            )
            equal(
                await adapter.get_successor(f"used {other}"),
                None,
                f"get_successor('used {other}') {where}",
            )
            await adapter.delete_session(f"used {other}")
            equal(
                await adapter.delete_other_sessions(self.user_id(other), STORED_ID),
                False,
                f"delete_other_sessions({other!r}, …) {where}",
            )
            await self.check_list(adapter, user_id, current)

    async def test_renew_again(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Renewing a used id within the grace returns its successor, and stores no second one."""
        used, first, second = self.row("used"), self.row("first"), self.row("second")
        await self.renew_chain(adapter, used, first)
        equal(
            await adapter.renew_session("used", second, grace=_GRACE),
            first,
            "renew_session of a used id within its grace",
        )
        await self.check_list(adapter, self.anna, first)
        await self.check_gone(adapter, second)

    async def test_renew_at_once(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Concurrent renewals of one session make one successor, and each returns it."""
        used = self.row("used")
        successors = [self.row(f"successor-{n}") for n in range(CONCURRENT_CALLS)]
        await self.store(adapter, used)
        outcomes = await AsyncRacingCalls.gather_results(
            *(partial(adapter.renew_session, "used", row, grace=_GRACE) for row in successors)
        )
        one_of(outcomes[0], successors, "renew_session")
        equal(outcomes, [outcomes[0]] * CONCURRENT_CALLS, "concurrent renewals of one session")
        await self.check_list(
            adapter, self.anna, *(row for row in successors if row == outcomes[0])
        )
        await self.check_gone(adapter, used, *(row for row in successors if row != outcomes[0]))

    async def test_renew_at_once_without_grace(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """With a grace of 0, one of the concurrent renewals returns a successor, others None."""
        used = self.row("used")
        successors = [self.row(f"successor-{n}") for n in range(CONCURRENT_CALLS)]
        await self.store(adapter, used)
        outcomes = await AsyncRacingCalls.gather_results(
            *(partial(adapter.renew_session, "used", row, grace=0) for row in successors)
        )
        winner = one_winner(
            outcomes, lambda outcome: outcome is None, "renew_session with a grace of 0"
        )
        equal(outcomes[winner], successors[winner], "renew_session with a grace of 0")
        await self.check_list(adapter, self.anna, successors[winner])
        await self.check_gone(
            adapter, used, *(row for row in successors if row != successors[winner])
        )

    async def test_taken_successor_id(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """A successor with a taken id raises ``DuplicateSessionId``, and changes nothing."""
        used, other, successor = (
            self.row("used"),
            self.row("taken", self.bert),
            self.row("successor"),
        )
        await self.store(adapter, used, other)
        with refused(DuplicateSessionId, "renew_session to a taken id"):
            await adapter.renew_session("used", self.row("taken"), grace=_GRACE)
        await self.check_stored(adapter, used, other)
        await self.check_list(adapter, self.anna, used)
        equal(await adapter.get_successor("used"), None, "get_successor after a refused renewal")
        equal(
            await adapter.renew_session("used", successor, grace=_GRACE),
            successor,
            "renew_session after a refused one",
        )

    # Following used ids

    async def test_successor(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Within the grace, ``get_successor`` of a used id returns its successor."""
        used, successor = self.row("used"), self.row("successor")
        await self.renew_chain(adapter, used, successor)
        equal(await adapter.get_successor("used"), successor, "get_successor within the grace")

    async def test_successor_of_chain(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Every used id of a chain of renewals has the last session as its successor."""
        rows = [self.row(f"session-{n}") for n in range(4)]
        await self.renew_chain(adapter, *rows)
        for row in rows[:-1]:
            equal(
                await adapter.get_successor(row.id),
                rows[-1],
                f"get_successor({row.id!r}) along a chain",
            )
            found = await adapter.renew_session(row.id, self.row("another"), grace=_GRACE)
            equal(found, rows[-1], f"renew_session({row.id!r}) along a chain")
        await self.check_list(adapter, self.anna, rows[-1])

    async def test_no_successor(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """An unknown id and a session that was not renewed have no successor."""
        await self.store(adapter, self.row("one"))
        equal(await adapter.get_successor("unknown"), None, "get_successor of an unknown id")
        equal(await adapter.get_successor("one"), None, "get_successor of a live session")

    async def test_no_grace(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """With a grace of 0, a used id has no successor and is not renewed again."""
        used, successor, second = self.row("used"), self.row("successor"), self.row("second")
        await self.renew_chain(adapter, used, successor, grace=0)
        equal(await adapter.get_successor("used"), None, "get_successor with a grace of 0")
        equal(
            await adapter.renew_session("used", second, grace=_GRACE),
            None,
            "renew_session of a used id with a grace of 0",
        )
        await self.check_list(adapter, self.anna, successor)

    async def test_end_of_grace(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """After the grace, a used id has no successor and is not renewed again."""
        used, successor, second = self.row("used"), self.row("successor"), self.row("second")
        await self.renew_chain(adapter, used, successor, grace=_SHORT)
        await self.wait(_SHORT + 10)
        equal(await adapter.get_successor("used"), None, "get_successor after the grace")
        equal(
            await adapter.renew_session("used", second, grace=_GRACE),
            None,
            "renew_session of a used id after its grace",
        )
        await self.check_list(adapter, self.anna, successor)

    async def test_successor_revoked(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """A used id whose successor was revoked has no successor and is not renewed again."""
        used, successor, second = self.row("used"), self.row("successor"), self.row("second")
        await self.renew_chain(adapter, used, successor)
        await adapter.delete_session("successor")
        equal(
            await adapter.get_successor("used"),
            None,
            "get_successor after the successor was revoked",
        )
        equal(
            await adapter.renew_session("used", second, grace=_GRACE),
            None,
            "renew_session after the successor was revoked",
        )
        await self.check_list(adapter, self.anna)

    # Ending used ids

    async def test_delete_used(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Revoking a used id revokes the whole chain of its successors; other sessions stay."""
        rows, other = [self.row(f"session-{n}") for n in range(4)], self.row("other")
        await self.renew_chain(adapter, *rows)
        await adapter.set_session(other)
        await adapter.delete_session(rows[0].id)
        await self.check_gone(adapter, *rows)
        equal(
            await adapter.get_successor(rows[0].id),
            None,
            "get_successor of a used id that was revoked",
        )
        await self.check_list(adapter, self.anna, other)

    async def test_delete_used_without_grace(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Revoking a used id revokes its successors with a grace of 0 too: it may be a logout."""
        rows = [self.row(f"session-{n}") for n in range(3)]
        await self.renew_chain(adapter, *rows, grace=0)
        await adapter.delete_session(rows[0].id)
        await self.check_gone(adapter, *rows)

    async def test_delete_by_user_revokes_successors(
        self, adapter: AsyncRenewingSessionAdapter
    ) -> None:
        """Removing a user's sessions removes successors too; used ids have no successor then."""
        used, successor = self.row("used"), self.row("successor")
        await self.renew_chain(adapter, used, successor)
        await adapter.delete_sessions_by_user_id(self.anna)
        await self.check_gone(adapter, used, successor)
        equal(
            await adapter.get_successor("used"),
            None,
            "get_successor after delete_sessions_by_user_id",
        )
        equal(
            await adapter.renew_session("used", self.row("second"), grace=_GRACE),
            None,
            "renew_session after delete_sessions_by_user_id, with a used id",
        )

    async def test_delete_amid_renewals(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """A session that is revoked while it is renewed leaves no successor."""
        for round_ in range(ROUNDS):
            user_id = self.user_id(f"user-{round_}")
            used = self.row(f"{round_} used", user_id)
            successors = [
                self.row(f"{round_} successor {n}", user_id) for n in range(CONCURRENT_CALLS)
            ]
            await self.store(adapter, used)
            renewals = [
                partial(adapter.renew_session, used.id, row, grace=_GRACE) for row in successors
            ]
            await AsyncRacingCalls.gather_results(
                *renewals[:4], partial(adapter.delete_session, used.id), *renewals[4:]
            )
            await self.check_gone(adapter, used, *successors)

    async def test_delete_by_user_amid_renewals(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """Removing a user's sessions while they are renewed leaves none, and no successor."""
        for round_ in range(ROUNDS):
            user_id = self.user_id(f"user-{round_}")
            rows = [self.row(f"{round_} used {n}", user_id) for n in range(CONCURRENT_CALLS)]
            successors = [
                self.row(f"{round_} successor {n}", user_id) for n in range(CONCURRENT_CALLS)
            ]
            await self.store(adapter, *rows)
            pairs = zip(rows, successors, strict=True)
            renewals = [
                partial(adapter.renew_session, used.id, row, grace=_GRACE) for used, row in pairs
            ]
            await AsyncRacingCalls.gather_results(
                *renewals[:4], partial(adapter.delete_sessions_by_user_id, user_id), *renewals[4:]
            )
            await self.check_gone(adapter, *rows, *successors)
            await self.check_list(adapter, user_id)

    # Keeping one

    async def test_keep(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """``delete_other_sessions`` keeps one session of the user, and returns True."""
        kept, gone, foreign = (
            self.row("kept"),
            [self.row("one"), self.row("two")],
            self.row("three", self.bert),
        )
        await self.store(adapter, gone[0], kept, gone[1], foreign)
        equal(await adapter.delete_other_sessions(self.anna, "kept"), True, "delete_other_sessions")
        await self.check_gone(adapter, *gone)
        await self.check_list(adapter, self.anna, kept)
        await self.check_stored(adapter, kept, foreign)

    async def test_keep_the_only_one(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """``delete_other_sessions`` keeps a user's only session."""
        kept = self.row("kept")
        await self.store(adapter, kept)
        equal(
            await adapter.delete_other_sessions(self.anna, "kept"),
            True,
            "delete_other_sessions with nothing else to remove",
        )
        await self.check_stored(adapter, kept)

    async def test_keep_renewed(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """``delete_other_sessions`` with a used id keeps its successor."""
        rows, other = [self.row(f"session-{n}") for n in range(3)], self.row("other")
        await self.renew_chain(adapter, *rows)
        await adapter.set_session(other)
        equal(
            await adapter.delete_other_sessions(self.anna, rows[0].id),
            True,
            "delete_other_sessions with a used id",
        )
        await self.check_list(adapter, self.anna, rows[-1])
        await self.check_gone(adapter, other)

    async def test_keep_renewed_without_grace(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """A used id keeps its successor with a grace of 0 too: the client stays logged in."""
        used, successor, other = (self.row(name) for name in ("used", "successor", "other"))
        await self.store(adapter, used, other)
        equal(await adapter.renew_session("used", successor, grace=0), successor, "renew_session")
        equal(
            await adapter.delete_other_sessions(self.anna, "used"),
            True,
            "delete_other_sessions with a used id, renewed with a grace of 0",
        )
        await self.check_list(adapter, self.anna, successor)

    async def test_keep_unknown(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """If the session to keep is gone, all sessions are removed, and False is returned."""
        rows = [self.row("one"), self.row("two"), self.row("revoked")]
        await self.store(adapter, *rows)
        await adapter.delete_session("revoked")
        equal(
            await adapter.delete_other_sessions(self.anna, "revoked"),
            False,
            "delete_other_sessions with a revoked session",
        )
        await self.check_gone(adapter, *rows)

    async def test_keep_foreign(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """If the session to keep is another user's, all are removed but that one; returns False."""
        rows, foreign = [self.row("one"), self.row("two")], self.row("foreign", self.bert)
        await self.store(adapter, *rows, foreign)
        equal(
            await adapter.delete_other_sessions(self.anna, "foreign"),
            False,
            "delete_other_sessions with another user's session",
        )
        await self.check_gone(adapter, *rows)
        await self.check_stored(adapter, foreign)

    async def test_keep_amid_renewals(self, adapter: AsyncRenewingSessionAdapter) -> None:
        """The session to keep survives while it is renewed, as itself or its successor."""
        for round_ in range(ROUNDS):
            user_id = self.user_id(f"user-{round_}")
            login = (
                {"handle": f"login-{round_}"} if adapter.keeps_attributes else {}
            )  # which a renewal carries over
            kept, successor = (
                self.row(f"{round_} kept", user_id, **login),
                self.row(f"{round_} successor", user_id, **login),
            )
            others = [self.row(f"{round_} other {n}", user_id) for n in range(CONCURRENT_CALLS)]
            await self.store(adapter, *others, kept)
            keep = partial(adapter.delete_other_sessions, user_id, kept.id)
            outcomes = await AsyncRacingCalls.gather_results(
                keep, keep, partial(adapter.renew_session, kept.id, successor, grace=_GRACE), keep
            )
            equal(
                outcomes,
                [True, True, successor, True],
                "delete_other_sessions, the third call being renew_session",
            )
            await self.check_list(adapter, user_id, successor)
            await self.check_gone(adapter, kept, *others)
