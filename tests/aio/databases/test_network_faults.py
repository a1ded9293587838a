"""Calls to an ``Auth`` over a database whose connections are reset, or which is started again."""

import gc
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pytest
from sqlalchemy import func, make_url, select
from sqlalchemy.exc import DBAPIError

from lucia import AsyncAuth, DuplicateKeyId, PrimaryKey
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter
from lucia.models import KeyRow
from tests.aio.support.rendezvous import until
from tests.aio.support.unsafe_adapters import AsyncUserBeforeKey
from tests.support.faulty_proxy import FaultyProxy
from tests.support.passwords import CHEAP, ROOMY
from tests.support.sql_servers import Kind, own_sql_server
from tests.support.suite_databases import TABLES, AsyncSuiteDatabase, Place, tables

CALLERS: Final = 50
CALLS: Final = 3
"""How many sign-ups each caller makes."""

PASSWORD: Final = "correct horse battery staple"

# Drivers leave a connection that is reset while it is opened to the garbage collector.
pytestmark = [
    pytest.mark.no_cover,
    pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
]

SERVERS: Final = [place for place in AsyncSuiteDatabase.DRIVERS if "sqlite" not in place.driver]


class AsyncSignUps:
    """Sign-ups over an engine, and a look at what they have stored."""

    def __init__(self, engine: Any, adapter: AsyncSQLAlchemyAdapter) -> None:
        self._engine = engine
        self._auth = AsyncAuth(
            users=adapter,
            sessions=adapter,
            env="DEV",
            hash=CHEAP,
            password_pool=ROOMY,
            throttle=None,
        )

    async def sign_up(self, name: str) -> Exception | None:
        """Sign up, and return the error of SQLAlchemy, asyncpg or the operating system, if any.

        Any other error is raised.
        """
        try:
            await self._auth.create_user(primary_key=PrimaryKey("email", name, PASSWORD))
        # SQLAlchemy does not wrap asyncpg's errors while it connects.
        except (DBAPIError, OSError, asyncpg.PostgresConnectionError) as error:
            return error
        return None

    async def check(self, *names: str) -> None:
        """Assert that these names can be used, and that no user lacks a key."""
        for name in names:
            await self._auth.use_key("email", name, PASSWORD)
        lonely = select(func.count()).where(TABLES.user_id.not_in(select(TABLES.key.c.user_id)))
        async with self._engine.connect() as connection:
            assert (await connection.execute(lonely)).scalar_one() == 0

    async def recover(self) -> None:
        """Assert that at most one sign-up fails, and that others work from then on."""
        first = [await self.sign_up("again-0")]
        others = await AsyncRacingCalls.gather_results(
            *(partial(self.sign_up, f"again-{number}") for number in range(1, CALLERS))
        )
        assert [each for each in others if each is not None] == []
        await self.check(*(["again-0"] if first == [None] else []))


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Return the place that a test is parametrized with."""
    found: Place = request.param
    return found


@pytest.fixture
def proxy(request: pytest.FixtureRequest, place: Place) -> Iterator[FaultyProxy]:
    """Yield a proxy in front of the place's server."""
    url = AsyncSuiteDatabase.url_of(request, place)
    assert url.port is not None
    with FaultyProxy(url.port) as made:
        yield made
    gc.collect()  # here, where the warnings below are ignored, and not in another test


def behind(
    request: pytest.FixtureRequest, place: Place, proxy: FaultyProxy, **settings: Any
) -> AsyncSuiteDatabase:
    """Return the place's database, reached through the proxy."""
    url = AsyncSuiteDatabase.url_of(request, place)
    return AsyncSuiteDatabase(url.set(host="127.0.0.1", port=proxy.port), **settings)


@pytest.mark.parametrize("place", SERVERS, indirect=True, ids=str)
async def test_resets_during_sign_ups(
    request: pytest.FixtureRequest, place: Place, proxy: FaultyProxy
) -> None:
    """A reset is an error of the driver or of SQLAlchemy, and leaves no user without a key.

    A sign-up whose answer was lost is stored or not, and can be repeated.
    """
    async with behind(request, place, proxy) as engine:
        sign_ups = AsyncSignUps(engine, AsyncSQLAlchemyAdapter(engine, TABLES))
        outcomes: dict[str, Exception | None] = {}

        async def work(caller: int) -> None:
            for call in range(CALLS):
                name = f"anna-{caller}-{call}"
                outcomes[name] = await sign_ups.sign_up(name)

        async def reset() -> None:
            for reset in range(1, 5):
                await until(lambda: len(outcomes) >= reset * 30)  # noqa: B023 # awaited at once
                proxy.reset()

        works: list[Any] = [partial(work, caller) for caller in range(CALLERS)]
        await AsyncRacingCalls.gather_results(reset, *works)
        failed = [name for name, outcome in outcomes.items() if outcome is not None]
        assert failed
        await sign_ups.recover()
        again = await AsyncRacingCalls.gather_results(
            *(partial(sign_ups.sign_up, name) for name in failed)
        )
        assert [each for each in again if not isinstance(each, DuplicateKeyId | None)] == []
        await sign_ups.check(*outcomes)


@pytest.mark.parametrize("place", SERVERS, indirect=True, ids=str)
async def test_check_finds_a_half_written_user(
    request: pytest.FixtureRequest, place: Place, proxy: FaultyProxy
) -> None:
    """The check fails for an adapter that stores user and key in two transactions."""

    class AsyncResetsBetween(AsyncUserBeforeKey):
        async def set_key(self, key: KeyRow, /) -> None:
            proxy.reset()
            await super().set_key(key)

    async with behind(request, place, proxy) as engine:
        sign_ups = AsyncSignUps(engine, AsyncResetsBetween(engine, TABLES))
        assert await sign_ups.sign_up("anna") is not None
        with pytest.raises(AssertionError):
            await sign_ups.check()


@pytest.mark.parametrize("pings", [False, True], ids=["plain", "pool_pre_ping"])
@pytest.mark.parametrize("place", SERVERS, indirect=True, ids=str)
async def test_connections_that_were_reset_while_idle(
    request: pytest.FixtureRequest,
    place: Place,
    proxy: FaultyProxy,
    pings: bool,
) -> None:
    """The pool replaces all of them after one error, or with ``pool_pre_ping`` after none."""
    async with behind(request, place, proxy, pool_pre_ping=pings) as engine:
        sign_ups = AsyncSignUps(engine, AsyncSQLAlchemyAdapter(engine, TABLES))
        await AsyncRacingCalls.gather_results(
            *(partial(sign_ups.sign_up, f"anna-{number}") for number in range(10))
        )
        proxy.reset()
        assert proxy.resets > 1
        error = await sign_ups.sign_up("bert")
        if pings:
            assert error is None
        else:
            assert isinstance(error, DBAPIError)
            assert error.connection_invalidated
        await sign_ups.recover()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", "crash"])
@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
async def test_server_is_started_again(kind: Kind, how: str) -> None:
    """While the server is away calls fail, and then the same adapter works with what was stored."""
    drivers = {place.driver.partition("+")[0]: place.driver for place in SERVERS}
    with (
        own_sql_server(kind) as server,
        server.database() as name,
        tables(make_url(server.url(name))) as url,
    ):
        # MariaDB does not recover from a crash soon after it has created its files.
        server.stop()
        server.start()
        async with AsyncSuiteDatabase(url.set(drivername=drivers[kind])) as engine:
            sign_ups = AsyncSignUps(engine, AsyncSQLAlchemyAdapter(engine, TABLES))
            names = [f"anna-{number}" for number in range(10)]
            await AsyncRacingCalls.gather_results(*(partial(sign_ups.sign_up, n) for n in names))
            getattr(server, how)()
            assert await sign_ups.sign_up("bert") is not None
            server.start()
            await sign_ups.recover()
            await sign_ups.check(*names)
