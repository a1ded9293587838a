"""Races of calls to one ``Auth``, each with a check of what must hold after it."""

from functools import partial
from typing import Any, Final

from sqlalchemy import Column, Table, func, select

from lucia import (
    AsyncAuth,
    DuplicateKeyId,
    InvalidCredentials,
    InvalidSessionId,
    InvalidUserId,
    LuciaError,
    PrimaryKey,
    Session,
    User,
)
from lucia._testing.checks import equal, is_error, one_winner
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter
from tests.aio.support.rendezvous import until
from tests.support.clocks import HOUR
from tests.support.passwords import CHEAP, OUTDATED, ROOMY
from tests.support.suite_databases import TABLES, Place

__all__ = ["CALLERS", "AsyncRaces"]

CALLERS: Final = 50
"""How many callers try the same, where one of them must win."""

CAP: Final = 3
PASSWORD: Final = "correct horse battery staple"
NEW_PASSWORD: Final = "staple battery horse correct"

session_table: Final[Any] = TABLES.session


class AsyncRaces:
    """Races over one adapter. Each takes a number of its own, which is part of all names.

    A race raises ``AssertionError`` if its check fails. An error of the database in any of its
    calls is raised as it is.

    Args:
        adapter: the adapter that is tested.
        engine: the engine that counts rows.
        place: where they are. At PostgreSQL's REPEATABLE READ the cap holds after the next log-in.
    """

    def __init__(self, adapter: AsyncSQLAlchemyAdapter, engine: Any, place: Place) -> None:
        self._adapter = adapter
        self._engine = engine
        self._caps_late = engine.dialect.name == "postgresql" and place.level == "REPEATABLE READ"
        self._auth = self._make_auth()

    def _make_auth(self, **settings: Any) -> AsyncAuth[User]:
        defaults: dict[str, Any] = {"hash": CHEAP, "password_pool": ROOMY, "throttle": None}
        return AsyncAuth(
            sessions=self._adapter, users=self._adapter, env="DEV", **{**defaults, **settings}
        )

    async def _add_user(self, name: str, *, hasher: Any = CHEAP) -> str:
        """Store a user with a key of this name, and return the user's id."""
        auth = self._make_auth(hash=hasher)
        user = await auth.create_user(primary_key=PrimaryKey("email", name, PASSWORD))
        return user.user_id

    async def _count(self, table: Table, column: Column[Any] | None = None, value: str = "") -> int:
        """Return how many rows a table has, or how many with this value."""
        statement = select(func.count()).select_from(table)
        if column is not None:
            statement = statement.where(column == value)
        async with self._engine.connect() as connection:
            return int((await connection.execute(statement)).scalar_one())

    async def _live(self, user_id: str) -> set[str]:
        """Return the ids of the user's sessions."""
        return {row.id for row in await self._adapter.get_sessions_by_user_id(user_id)}

    async def sign_up(self, number: int) -> None:
        """Of many sign-ups with one name one succeeds, and the others leave no user behind."""
        before = await self._count(TABLES.user)
        key = PrimaryKey("email", f"taken-{number}", PASSWORD)
        outcomes = await AsyncRacingCalls.gather_results(
            *[partial(self._auth.create_user, primary_key=key)] * CALLERS
        )
        one_winner(outcomes, is_error(DuplicateKeyId), "create_user with one key")
        equal(await self._count(TABLES.user) - before, 1, "the number of users stored")
        await self._auth.use_key("email", f"taken-{number}", PASSWORD)

    async def add_key(self, number: int) -> None:
        """Of many calls that give two users a key of one name one succeeds."""
        users = [await self._add_user(f"{name}-{number}") for name in ("anna", "bert")]
        outcomes: list[Any] = await AsyncRacingCalls.gather_results(
            *(
                partial(
                    self._auth.create_key,
                    users[place % 2],
                    provider_id="github",
                    provider_user_id=str(number),
                    password=None,
                )
                for place in range(CALLERS)
            )
        )
        winner = one_winner(outcomes, is_error(DuplicateKeyId), "create_key of one name")
        stored = await self._auth.get_key("github", str(number))
        equal(stored.user_id, outcomes[winner].user_id, "the owner of the key")
        equal(outcomes[winner].user_id, users[winner % 2], "the owner that was returned")

    async def use_once(self, number: int) -> None:
        """Of many uses of a single-use key one succeeds."""
        user_id = await self._add_user(f"anna-{number}")
        await self._auth.create_single_use_key(
            user_id,
            provider_id="password_reset",
            provider_user_id=f"token-{number}",
            password=None,
            expires_in=HOUR,
        )
        outcomes = await AsyncRacingCalls.gather_results(
            *[partial(self._auth.use_key, "password_reset", f"token-{number}", None)] * CALLERS
        )
        one_winner(outcomes, is_error(InvalidCredentials), "use_key of a single-use key")

    async def change_password(self, number: int) -> None:
        """A log-in that writes a new hash of the old password does not undo a change of it."""
        name = f"anna-{number}"
        user_id = await self._add_user(name, hasher=OUTDATED)
        log_in = partial(self._auth.create_session_with_key, "email", name, PASSWORD)
        calls: list[Any] = [log_in] * 5
        calls.insert(
            number % 6, partial(self._auth.update_key_password, "email", name, NEW_PASSWORD)
        )
        outcomes = await AsyncRacingCalls.gather_results(*calls)
        _only(outcomes, InvalidCredentials)
        old, new = await AsyncRacingCalls.gather_results(
            partial(self._auth.use_key, "email", name, PASSWORD),
            partial(self._auth.use_key, "email", name, NEW_PASSWORD),
        )
        equal(isinstance(old, InvalidCredentials), True, "whether the old password is refused")
        equal(isinstance(new, LuciaError), False, "whether the new password is refused")
        equal(await self._live(user_id), set(), "the sessions of the old password")

    async def sign_out(self, number: int) -> None:
        """No session that was handed out before a sign-out everywhere survives it.

        Nor does a successor of one. Other log-ins of the same moment may.
        """
        name = f"anna-{number}"
        user_id = await self._add_user(name)
        before = [await self._auth.create_session(user_id) for _ in range(10)]
        handed_out: list[str] = []
        revoked: list[str] = []

        async def log_in() -> None:
            session = await self._auth.create_session_with_key("email", name, PASSWORD)
            handed_out.append(session.session_id)

        async def sign_out() -> None:
            # In some rounds, some log-ins have returned before.
            await until(lambda: len(handed_out) >= number % 5)
            revoked.extend(handed_out)
            await self._auth.invalidate_all_user_sessions(user_id)

        calls: list[Any] = [log_in] * 10
        calls += [partial(self._auth.renew_session, session.session_id) for session in before]
        calls.insert(7 * number % 20, sign_out)
        _only(await AsyncRacingCalls.gather_results(*calls), InvalidSessionId)
        equal(len(handed_out), 10, "the number of log-ins that succeeded")
        live = await self._live(user_id)
        equal(live - set(handed_out), set(), "the sessions from before, and their successors")
        equal(live & set(revoked), set(), "the sessions handed out before")

    async def cap(self, number: int) -> None:
        """After more log-ins at once than the cap allows, exactly the cap is left."""
        auth = self._make_auth(max_sessions_per_user=CAP)
        user_id = await self._add_user(f"anna-{number}")
        sessions: list[Any] = await AsyncRacingCalls.gather_results(
            *[partial(auth.create_session, user_id)] * 10
        )
        _only(sessions)
        if self._caps_late:
            sessions.append(await auth.create_session(user_id))
        live = await self._live(user_id)
        equal(len(live), CAP, "the number of sessions left")
        equal(live <= {session.session_id for session in sessions}, True, "whose they are")

    async def delete_user(self, number: int) -> None:
        """Nothing of a deleted user is left, whatever the user did at the same moment."""
        name = f"anna-{number}"
        user_id = await self._add_user(name)
        before = [await self._auth.create_session(user_id) for _ in range(3)]
        calls: list[Any] = [
            partial(self._auth.create_session_with_key, "email", name, PASSWORD)
        ] * 10
        calls += [partial(self._auth.renew_session, session.session_id) for session in before]
        calls += [
            partial(
                self._auth.create_key,
                user_id,
                provider_id="github",
                provider_user_id=f"{number}-{place}",
                password=None,
            )
            for place in range(3)
        ]
        calls.insert(7 * number % 16, partial(self._auth.delete_user, user_id))
        outcomes = await AsyncRacingCalls.gather_results(*calls)
        _only(outcomes, InvalidCredentials, InvalidUserId, InvalidSessionId)
        equal(await self._adapter.get_user(user_id), None, "the deleted user")
        for table in (TABLES.key, session_table):
            rows = await self._count(table, table.c.user_id, user_id)
            equal(rows, 0, f"the rows of the deleted user in {table.name}")

    async def keep(self, number: int) -> None:
        """A sign-out everywhere else keeps the session that is renewed at the same moment."""
        user_id = await self._add_user(f"anna-{number}")
        kept, *others = [await self._auth.create_session(user_id) for _ in range(6)]
        renew: list[Any] = [partial(self._auth.renew_session, kept.session_id)] * 4
        renew += [partial(self._auth.renew_session, session.session_id) for session in others]
        keep = partial(self._auth.invalidate_all_user_sessions, user_id, keep=kept.session_id)
        calls = [*renew[: number % 10], keep, *renew[number % 10 :]]
        outcomes = await AsyncRacingCalls.gather_results(*calls)
        _only(outcomes, InvalidSessionId)
        successors = {
            outcome.session_id
            for call, outcome in zip(calls, outcomes, strict=True)
            if call is renew[0] and isinstance(outcome, Session)
        }
        equal(len(successors), 1, "the number of successors of the kept session")
        equal(await self._live(user_id), successors, "the sessions left")


def _only(outcomes: list[object], *errors: type[LuciaError]) -> None:
    """Check that no call raised any other error of the library."""
    others = [
        type(outcome).__name__
        for outcome in outcomes
        if isinstance(outcome, LuciaError) and not isinstance(outcome, errors)
    ]
    equal(others, [], "the errors of concurrent calls")
