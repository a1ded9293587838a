"""Sign-ups whose process is killed between their statements: user and key, or neither."""

import random
from collections.abc import Iterator
from typing import Any, Final

import pytest
from sqlalchemy import Engine, func, select

from lucia import Auth, InvalidKeyId, PrimaryKey
from lucia.adapters.sqlalchemy import SQLAlchemyAdapter
from tests.support.killed_sql_clients import MOMENTS, PASSWORD, killed_clients
from tests.support.passwords import CHEAP
from tests.support.suite_databases import TABLES, AsyncSuiteDatabase, SuiteDatabase

ROUNDS: Final = 14
"""How often for each driver: each moment once, and more than 100 times with all drivers."""

STORED: Final = MOMENTS - 1
"""The only moment at which user and key are stored; before it neither is."""

WAYS: Final = [
    pytest.param(database, place, id=f"{flavour}-{place}")
    for flavour, database in (("async", AsyncSuiteDatabase), ("sync", SuiteDatabase))
    for place in database.DRIVERS
]


class Watcher:
    """A look at the database that survives the killed clients."""

    def __init__(self, engine: Engine, client_url: str, flavour: str) -> None:
        self.case = (client_url, flavour)
        self._engine = engine
        adapter = SQLAlchemyAdapter(engine, TABLES)
        self._auth: Any = Auth(users=adapter, sessions=adapter, env="DEV", hash=CHEAP)

    def rows(self) -> tuple[int, int]:
        """Return how many users and how many keys there are."""
        with self._engine.connect() as connection:
            users, keys = (
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (TABLES.user, TABLES.key)
            )
        return users, keys

    def check(self, name: str, before: tuple[int, int], *, stored: bool) -> None:
        """Assert that user and key are stored or neither, and that the name is usable."""
        users, keys = self.rows()
        assert (users - before[0], keys - before[1]) == ((1, 1) if stored else (0, 0))
        if not stored:
            with pytest.raises(InvalidKeyId):
                self._auth.get_key("email", name)
            self._auth.create_user(primary_key=PrimaryKey("email", name, PASSWORD))
        self._auth.use_key("email", name, PASSWORD)


@pytest.fixture
def watcher(request: pytest.FixtureRequest, database: Any, place: Any) -> Iterator[Watcher]:
    """Yield a watcher of empty tables, reached by each driver."""
    flavour = "async" if database is AsyncSuiteDatabase else "sync"
    client_url = database.url_of(request, place).render_as_string(hide_password=False)
    beside = SuiteDatabase.beside(request, place)
    with beside as engine:
        yield Watcher(engine, client_url, flavour)


@pytest.mark.slow
@pytest.mark.parametrize(("database", "place"), WAYS)
def test_killed_sign_ups(watcher: Watcher) -> None:
    """A sign-up that is killed at a random moment stores user and key, or neither."""
    chance = random.Random(1)  # noqa: S311 # so that a failure can be repeated
    moments = [*range(MOMENTS), *(chance.randrange(MOMENTS) for _ in range(ROUNDS - MOMENTS))]
    with killed_clients() as clients:
        for number, moment in enumerate(moments):
            name, before = f"anna-{number}", watcher.rows()
            assert clients.sign_up(*watcher.case, name, moment, False) == "killed"
            watcher.check(name, before, stored=moment == STORED)
        assert clients.sign_up(*watcher.case, "anna", MOMENTS, False) == "done"


@pytest.mark.slow
@pytest.mark.parametrize(("database", "place"), WAYS)
def test_check_finds_half_of_a_sign_up(watcher: Watcher) -> None:
    """The check fails for an adapter that stores user and key in two transactions."""
    with killed_clients() as clients:
        before = watcher.rows()
        # After the user's INSERT and SELECT and the first COMMIT, before the key's INSERT.
        assert clients.sign_up(*watcher.case, "anna", 5, True) == "killed"
        with pytest.raises(AssertionError):
            watcher.check("anna", before, stored=False)
