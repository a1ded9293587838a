"""User tables whose primary keys are numbers, UUIDs and other types; ids are text in rows."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5
from zlib import crc32

import pytest
from sqlalchemy import (
    CHAR,
    BigInteger,
    Column,
    Engine,
    Identity,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    event,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import IntegrityError

from lucia import AsyncAuth
from lucia._rules.user_ids import UserIdType
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AsyncSQLAlchemyUserAdapter, AuthTables
from lucia.errors import DuplicateKeyId, InvalidUserId
from lucia.models import KeyRow, SessionRow, UserRow
from lucia.testing import (
    AsyncRenewingSessionAdapterSuite,
    AsyncSessionUserAdapterSuite,
    AsyncUserAdapterSuite,
)
from tests.support.clocks import NOW
from tests.support.databases import AsyncDatabase
from tests.support.sql_servers import SqlServer


@dataclass(frozen=True)
class Badge:
    """An application's own type of ids: two letters and a number."""

    letters: str
    number: int

    def __str__(self) -> str:
        return f"{self.letters}-{self.number}"

    @classmethod
    def parse(cls, badge: str) -> "Badge":
        """Return the badge with this text."""
        letters, _, number = badge.partition("-")
        return cls(letters, int(number))


class BadgeColumn(TypeDecorator[Badge]):
    """A column of badges."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: Badge | None, dialect: object) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: object) -> Badge | None:
        return None if value is None else Badge.parse(value)


class HexUuid(TypeDecorator[UUID]):
    """A UUID in 32 hex digits, as many applications have."""

    impl = CHAR(32)
    cache_ok = True

    def process_bind_param(self, value: UUID | None, dialect: object) -> str | None:
        return None if value is None else value.hex

    def process_result_value(self, value: str | None, dialect: object) -> UUID | None:
        return None if value is None else UUID(value)


class NumberInText(TypeDecorator[int]):
    """A number that is stored as text, for which no integer is too large."""

    impl = String(40)
    cache_ok = True

    @property
    def python_type(self) -> type[int]:
        return int

    def process_bind_param(self, value: int | None, dialect: object) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: object) -> int | None:
        return None if value is None else int(value)


@dataclass(frozen=True)
class Ids:
    """A kind of primary key: its column, an id by a name, and texts that are no ids of it."""

    column: Callable[[], Column[Any]]
    name: Callable[[str], str]
    none: tuple[str, ...]
    user_id: Any = None
    assigned: bool = True
    """Whether the database or a default assigns ids."""


def number(name: str) -> str:
    """Return a number of 31 bits for a name."""
    return str(crc32(name.encode()) >> 1)


def small_number(name: str) -> str:
    """Return a number of 15 bits for a name."""
    return str(crc32(name.encode()) >> 17)


def uuid(name: str) -> str:
    """Return a UUID for a name."""
    return str(uuid5(NAMESPACE_OID, name))


NO_NUMBERS = ("unknown", "1.0", "01", "+1", " 1", "1e3", "0x1", "٣", "-0", "1" * 5_000)
NO_UUIDS = (
    "unknown",
    uuid("anna").upper(),
    uuid("anna").replace("-", ""),
    f"{{{uuid('anna')}}}",
    f"urn:uuid:{uuid('anna')}",
    f"{uuid('anna')} ",
)

KINDS = {
    "BigInteger": Ids(
        lambda: Column("no", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
        number,
        (*NO_NUMBERS, str(2**63), str(-(2**63) - 1)),
    ),
    "Integer": Ids(
        lambda: Column("no", Integer, primary_key=True), number, (*NO_NUMBERS, str(2**31))
    ),
    "Identity": Ids(
        lambda: Column("no", Integer, Identity(start=40), primary_key=True), number, NO_NUMBERS
    ),
    "SmallInteger": Ids(
        lambda: Column("no", SmallInteger, primary_key=True, autoincrement=False),
        small_number,
        (*NO_NUMBERS, "32768", "-32769"),
        assigned=False,
    ),
    "decorated number": Ids(
        lambda: Column("no", NumberInText, primary_key=True), number, NO_NUMBERS, assigned=False
    ),
    "Uuid": Ids(lambda: Column("no", Uuid, primary_key=True, default=uuid4), uuid, NO_UUIDS),
    "Uuid as text": Ids(
        lambda: Column("no", Uuid(as_uuid=False), primary_key=True, default=lambda: str(uuid4())),
        uuid,
        NO_UUIDS,
    ),
    "decorated UUID": Ids(
        lambda: Column("no", HexUuid, primary_key=True, default=uuid4),
        uuid,
        NO_UUIDS,
        user_id=UUID,
    ),
    "badge": Ids(
        lambda: Column("no", BadgeColumn, primary_key=True),
        lambda name: f"ab-{number(name)}",
        ("unknown", "ab-", "ab-01", "ab-1 "),
        user_id=UserIdType(Badge, Badge.parse),
        assigned=False,
    ),
    "text": Ids(lambda: Column("no", String(40), primary_key=True), str, (), assigned=False),
}


def tables_of(ids: Ids) -> AuthTables:
    """Return tables with an application's user table that has such ids."""
    metadata = MetaData()
    people = Table("people", metadata, ids.column(), Column("name", Text), Column("town", Text))
    return AuthTables(metadata, user=people, user_id=ids.user_id, sessions=True)


TABLES = {name: tables_of(ids) for name, ids in KINDS.items()}


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def server(request: pytest.FixtureRequest) -> SqlServer | None:
    """Return each kind of server; None is SQLite."""
    return None if request.param == "sqlite" else request.getfixturevalue(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return the name of each kind of primary key."""
    return str(request.param)


@pytest.fixture
async def adapter(
    kind: str, server: SqlServer | None, tmp_path: Path
) -> AsyncIterator[AsyncSQLAlchemyAdapter]:
    """Yield an adapter on an empty database with such a primary key."""
    tables = TABLES[kind]
    async with AsyncDatabase(tables.user.metadata, tmp_path / "app.db", server=server) as engine:
        yield AsyncSQLAlchemyAdapter(engine, tables, clock=lambda: NOW)


def key(user_id: str, key_id: str = "email:anna") -> KeyRow:
    """Return a primary key."""
    return KeyRow(
        id=key_id, user_id=user_id, hashed_password="hash", primary_key=True, expires=None
    )


def session(user_id: str, session_id: str = "one") -> SessionRow:
    """Return a live session."""
    return SessionRow(id=session_id, user_id=user_id, active_expires=NOW + 1, idle_expires=NOW + 2)


async def test_rows_have_text(kind: str, adapter: AsyncSQLAlchemyAdapter) -> None:
    """Whatever the primary key holds, each method takes the id's text, and each row has it."""
    anna, bert = KINDS[kind].name("anna"), KINDS[kind].name("bert")
    stored = await adapter.set_user(anna, {"name": "Anna"}, key(anna))
    await adapter.set_user(bert, {}, None)
    assert stored == UserRow(id=anna, attributes={"name": "Anna", "town": None})
    assert await adapter.get_user(anna) == stored
    assert await adapter.get_key("email:anna") == key(anna)
    await adapter.set_key(key(bert, "email:bert"))
    assert await adapter.get_keys_by_user_id(bert) == [key(bert, "email:bert")]
    changed = await adapter.update_user_attributes(anna, {"town": "Bonn"})
    assert changed == UserRow(id=anna, attributes={"name": "Anna", "town": "Bonn"})
    await adapter.set_session(session(anna))
    await adapter.set_session_capped(session(anna, "two"), limit=2)
    assert await adapter.get_session_and_user_by_session_id("one") == (session(anna), changed)
    renewed = await adapter.renew_session("one", session(anna, "three"), grace=1_000)
    assert renewed == await adapter.get_successor("one") == session(anna, "three")
    assert await adapter.delete_other_sessions(anna, "two")
    assert await adapter.get_sessions_by_user_id(anna) == [session(anna, "two")]
    await adapter.delete_sessions_by_user_id(anna)
    await adapter.delete_keys_by_user_id(bert)
    await adapter.delete_user(anna)
    assert await adapter.get_user(anna) is None
    assert await adapter.get_key("email:anna") is None
    assert await adapter.get_user(bert) is not None


async def test_text_that_is_no_id(kind: str, adapter: AsyncSQLAlchemyAdapter) -> None:
    """Text that the primary key can't hold is the id of no user, and never a database's error."""
    anna = KINDS[kind].name("anna")
    stored = await adapter.set_user(anna, {}, key(anna))
    await adapter.set_session(session(anna))
    for none in KINDS[kind].none:
        assert await adapter.get_user(none) is None
        assert await adapter.update_user_attributes(none, {"name": "x"}) is None
        assert await adapter.get_keys_by_user_id(none) == []
        assert await adapter.get_sessions_by_user_id(none) == []
        assert not await adapter.delete_other_sessions(none, "one")
        assert await adapter.renew_session("one", session(none, "new"), grace=0) is None
        await adapter.delete_keys_by_user_id(none)
        await adapter.delete_sessions_by_user_id(none)
        await adapter.delete_user(none)
        refused: list[Callable[[], Any]] = [
            partial(adapter.set_user, none, {}, key(none, "email:none")),
            partial(adapter.set_key, key(none, "email:none")),
            partial(adapter.set_session, session(none, "new")),
            partial(adapter.set_session_capped, session(none, "new"), limit=1),
        ]
        for call in refused:
            with pytest.raises(InvalidUserId):
                await call()
    assert await adapter.get_key("email:none") is None
    assert await adapter.get_user(anna) == stored
    assert await adapter.get_session("one") == session(anna)


# The conformance suites


class Numbers:
    """The hook of the suites for numbers."""

    def user_id(self, name: str) -> str:
        return number(name)


class Uuids:
    """The hook of the suites for UUIDs."""

    def user_id(self, name: str) -> str:
        return uuid(name)


@pytest.fixture
async def numbered(postgresql: SqlServer) -> AsyncIterator[AsyncSQLAlchemyAdapter]:
    """Yield an adapter whose users have numbers."""
    tables = TABLES["BigInteger"]
    async with AsyncDatabase(tables.user.metadata, server=postgresql) as engine:
        yield AsyncSQLAlchemyAdapter(engine, tables)


@pytest.fixture
async def with_uuids(mariadb: SqlServer) -> AsyncIterator[AsyncSQLAlchemyAdapter]:
    """Yield an adapter whose users have UUIDs."""
    tables = TABLES["Uuid"]
    async with AsyncDatabase(tables.user.metadata, server=mariadb) as engine:
        yield AsyncSQLAlchemyAdapter(engine, tables)


@pytest.mark.no_cover
class TestNumberedUsers(Numbers, AsyncUserAdapterSuite):
    """Users with numbers, and their keys."""

    @pytest.fixture
    def adapter(self, numbered: AsyncSQLAlchemyAdapter) -> AsyncSQLAlchemyAdapter:
        return numbered


@pytest.mark.no_cover
class TestNumberedSessionUsers(Numbers, AsyncSessionUserAdapterSuite):
    """Sessions together with users who have numbers."""

    @pytest.fixture
    def adapter(self, numbered: AsyncSQLAlchemyAdapter) -> AsyncSQLAlchemyAdapter:
        return numbered


@pytest.mark.no_cover
class TestNumberedSessions(Numbers, AsyncRenewingSessionAdapterSuite):
    """Sessions of users with numbers."""

    @pytest.fixture
    def adapter(self, numbered: AsyncSQLAlchemyAdapter) -> AsyncSQLAlchemyAdapter:
        return numbered

    async def create_user(self, adapter: Any, user_id: str) -> None:
        await adapter.set_user(user_id, {}, None)


@pytest.mark.no_cover
class TestUuidUsers(Uuids, AsyncUserAdapterSuite):
    """Users with UUIDs, and their keys."""

    @pytest.fixture
    def adapter(self, with_uuids: AsyncSQLAlchemyAdapter) -> AsyncSQLAlchemyAdapter:
        return with_uuids


@pytest.mark.no_cover
class TestUuidSessionUsers(Uuids, AsyncSessionUserAdapterSuite):
    """Sessions together with users who have UUIDs."""

    @pytest.fixture
    def adapter(self, with_uuids: AsyncSQLAlchemyAdapter) -> AsyncSQLAlchemyAdapter:
        return with_uuids


@pytest.mark.no_cover
class TestUuidSessions(Uuids, AsyncRenewingSessionAdapterSuite):
    """Sessions of users with UUIDs."""

    @pytest.fixture
    def adapter(self, with_uuids: AsyncSQLAlchemyAdapter) -> AsyncSQLAlchemyAdapter:
        return with_uuids

    async def create_user(self, adapter: Any, user_id: str) -> None:
        await adapter.set_user(user_id, {}, None)


# Ids that the database assigns

ASSIGNED = [kind for kind, ids in KINDS.items() if ids.assigned]


@pytest.mark.parametrize("kind", ASSIGNED)
async def test_assigned_ids(kind: str, adapter: AsyncSQLAlchemyAdapter) -> None:
    """A user gets the id that the database or a default assigns, and the key is of that user."""
    anna = await adapter.add_user({"name": "Anna"}, key)
    bert = await adapter.add_user({}, partial(key, key_id="email:bert"))
    carl = await adapter.add_user({}, None)
    assert len({anna.id, bert.id, carl.id}) == 3
    assert anna == UserRow(id=anna.id, attributes={"name": "Anna", "town": None})
    assert [await adapter.get_user(user.id) for user in (anna, bert)] == [anna, bert]
    assert await adapter.get_keys_by_user_id(anna.id) == [key(anna.id)]
    assert await adapter.get_key("email:bert") == key(bert.id, "email:bert")
    assert await adapter.get_keys_by_user_id(carl.id) == []


@pytest.mark.parametrize("kind", ["BigInteger", "Uuid"])
async def test_assigned_id_and_taken_key(adapter: AsyncSQLAlchemyAdapter) -> None:
    """With a taken key, no user is stored: of concurrent sign-ups, one succeeds."""
    calls = [partial(adapter.add_user, {"name": f"{n}"}, key) for n in range(8)]
    outcomes: list[Any] = await AsyncRacingCalls.gather_results(*calls)
    (stored,) = [outcome for outcome in outcomes if isinstance(outcome, UserRow)]
    assert [type(outcome) for outcome in outcomes if outcome is not stored] == [DuplicateKeyId] * 7
    assert await adapter.get_key("email:anna") == key(stored.id)
    names = await values(adapter, "SELECT name FROM people")
    assert names == [stored.attributes["name"]]


async def values(adapter: AsyncSQLAlchemyUserAdapter, statement: str) -> list[Any]:
    """Return the first column of a SELECT, executed outside of the adapter."""
    source: Any = adapter._source
    async with source.begin() as connection:
        return list((await connection.execute(text(statement))).scalars())


def tables_with(column: Column[Any], **options: Any) -> AuthTables:
    """Return tables with such a primary key."""
    metadata = MetaData()
    people = Table("people", metadata, column, Column("name", Text), **options)
    return AuthTables(metadata, user=people)


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ("mariadb", "(replace(uuid(), '-', ''))"),  # SQLAlchemy 2.0 makes a CHAR(32)
        ("postgresql", "gen_random_uuid()"),
    ],
)
async def test_ids_by_the_servers_default(
    request: pytest.FixtureRequest, kind: str, default: str
) -> None:
    """The id may come from a default of the database, if that can return it from an INSERT."""
    column = Column("id", Uuid, primary_key=True, server_default=text(default))
    tables = tables_with(column)
    async with AsyncDatabase(tables.user.metadata, server=request.getfixturevalue(kind)) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        anna = await adapter.add_user({"name": "Anna"}, key)
        assert str(UUID(anna.id)) == anna.id
        assert await adapter.get_keys_by_user_id(anna.id) == [key(anna.id)]


async def test_a_default_that_nobody_can_know() -> None:
    """If the id that was assigned can't be known, no user is stored, and the error says why."""
    column = Column("id", String(40), primary_key=True, server_default=text("'x'"))
    tables = tables_with(column, implicit_returning=False)
    async with AsyncDatabase(tables.user.metadata) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        with pytest.raises(ValueError, match=r"does not say which id it assigned .* 'people'"):
            await adapter.add_user({}, key)
        assert await values(adapter, "SELECT id FROM people") == []


async def test_ids_that_nobody_assigns() -> None:
    """A table whose primary key has no default is refused before anything is stored."""
    tables = tables_with(Column("id", String(40), primary_key=True))
    async with AsyncDatabase(tables.user.metadata) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        with pytest.raises(ValueError, match="user table 'people' assigns no ids"):
            await adapter.add_user({}, key)
        assert await values(adapter, "SELECT id FROM people") == []


async def test_second_sign_up_with_an_assigned_id() -> None:
    """A taken key is DuplicateKeyId, even if an application's constraint is violated first."""
    metadata = MetaData()
    people = Table(
        "people",
        metadata,
        Column("no", Integer, primary_key=True),
        Column("mail", Text, unique=True),
    )
    tables = AuthTables(metadata, user=people)
    async with AsyncDatabase(metadata) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        await adapter.add_user({"mail": "anna@example.com"}, key)
        with pytest.raises(DuplicateKeyId):
            await adapter.add_user({"mail": "anna@example.com"}, key)
        for make_key in (None, partial(key, key_id="email:other")):
            with pytest.raises(IntegrityError):
                await adapter.add_user({"mail": "anna@example.com"}, make_key)


async def test_an_auth_that_makes_other_ids() -> None:
    """If ``Auth`` makes ids that the primary key can't hold, the error says what to change."""
    columns: dict[str, Column[Any]] = {
        "holds int: give Auth user_id=int": Column("no", Integer, primary_key=True),
        "holds other text": Column("id", Uuid(as_uuid=False), primary_key=True),
    }
    for message, column in columns.items():
        tables = tables_with(column)
        async with AsyncDatabase(tables.user.metadata) as engine:
            users = AsyncSQLAlchemyUserAdapter(engine, tables)
            auth = AsyncAuth(
                users=users,
                sessions=AsyncMemoryAdapter(),
                env="DEV",
                generate_custom_user_id=lambda: "anna",
            )
            with pytest.raises(InvalidUserId, match=f"'people' {message}"):
                await auth.create_user(primary_key=None)


async def test_an_auth_with_ids_of_another_type() -> None:
    """An ``Auth`` whose ids the primary key can't hold is refused, before anything is stored."""
    tables = tables_with(Column("no", Integer, primary_key=True))
    async with AsyncDatabase(tables.user.metadata) as engine:
        users = AsyncSQLAlchemyUserAdapter(engine, tables)
        with pytest.raises(TypeError, match=r"user ids of the type int, .* give Auth user_id=int"):
            AsyncAuth(users=users, sessions=AsyncMemoryAdapter(), env="DEV")


async def test_zero_in_mariadb(mariadb: SqlServer) -> None:
    """An id of 0, in place of which MariaDB counts, is refused, and nothing is stored."""
    tables = tables_with(Column("no", Integer, primary_key=True))
    async with AsyncDatabase(tables.user.metadata, server=mariadb) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        with pytest.raises(InvalidUserId, match="stored another one"):
            await adapter.set_user("0", {}, key("0"))
        assert await values(adapter, "SELECT no FROM people") == []


async def test_unsigned_numbers_in_mariadb(mariadb: SqlServer) -> None:
    """An unsigned column has ids up to its own end."""
    column = Column("no", mysql.INTEGER(unsigned=True), primary_key=True)
    tables = tables_with(column)
    async with AsyncDatabase(tables.user.metadata, server=mariadb) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        last = await adapter.set_user(str(2**32 - 1), {}, None)
        assert await adapter.get_user(last.id) == last
        for none in ("-1", str(2**32)):
            assert await adapter.get_user(none) is None
            with pytest.raises(InvalidUserId):
                await adapter.set_user(none, {}, None)


async def test_large_numbers_in_sqlite() -> None:
    """SQLite stores 64 bits in a column of any integer type, so such ids are found there."""
    tables = tables_with(Column("no", Integer, primary_key=True))
    async with AsyncDatabase(tables.user.metadata) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        await values(adapter, f"INSERT INTO people (no) VALUES ({2**40}) RETURNING no")
        found = await adapter.get_user(str(2**40))
        assert found is not None
        assert await adapter.update_user_attributes(found.id, {"name": "Anna"}) is not None


class Concealed(HexUuid):
    """A decorator that returns something else than it says."""

    @property
    def python_type(self) -> type[Any]:
        return str

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> str | None:
        return super().process_bind_param(UUID(value), dialect)


async def test_a_decorator_that_conceals_its_type() -> None:
    """If a type returns something else than it says, the error says what to write."""
    tables = tables_with(Column("id", Concealed, primary_key=True))
    async with AsyncDatabase(tables.user.metadata) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        with pytest.raises(TypeError, match=r"is of the type UUID, not str: .* user_id=UUID"):
            await adapter.set_user(uuid("anna"), {}, None)


# How databases look ids up


@pytest.mark.parametrize("kind", ["BigInteger", "Uuid", "decorated UUID", "badge", "text"])
@pytest.mark.parametrize("server", ["mariadb", "postgresql"], indirect=True)
async def test_lookups_use_the_primary_key(
    adapter: AsyncSQLAlchemyAdapter, kind: str, server: SqlServer
) -> None:
    """A user is looked up by the index of the primary key, whatever its type."""
    plans: list[str] = []
    explain = "EXPLAIN" if server.kind == "mariadb" else "EXPLAIN (FORMAT TEXT)"

    def see(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT people"):
            if server.kind == "postgresql":  # for which a table of a few pages needs no index
                cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(f"{explain} {statement}", parameters)
            plans.append(str(cursor.fetchall()))

    names = [KINDS[kind].name(f"user {n}") for n in range(20)]
    for name in names:
        await adapter.set_user(name, {}, None)
    event.listen(Engine, "before_cursor_execute", see)
    try:
        assert await adapter.get_user(names[10]) is not None
    finally:
        event.remove(Engine, "before_cursor_execute", see)
    used = "'PRIMARY'" if server.kind == "mariadb" else "Index Scan using people_pkey"
    assert [used in plan for plan in plans] == [True], plans
    if server.kind == "mariadb":
        assert "'const'" in plans[0]


# Secrets


@pytest.mark.parametrize("kind", ["BigInteger", "Uuid", "badge"])
async def test_no_ids_in_errors(kind: str, adapter: AsyncSQLAlchemyAdapter) -> None:
    """A database's error quotes no id, also if that is a number or a UUID."""
    anna = KINDS[kind].name("anna")
    await adapter.set_user(anna, {}, None)
    with pytest.raises(IntegrityError) as caught:
        await adapter.set_user(anna, {}, key(anna))
    shown = f"{caught.value} {caught.value!r} {caught.value.orig!r} {vars(caught.value.orig)}"
    assert caught.value.params is None
    assert "people" in shown
    assert anna not in shown
    assert anna.replace("-", "") not in shown


# Tables of the library


@pytest.mark.parametrize("held", [int, UUID])
async def test_library_user_table(held: type[Any], server: SqlServer | None) -> None:
    """The library's own user table may have numbers, which the database counts, or UUIDs."""
    metadata = MetaData()
    tables = AuthTables(metadata, user_id=held, user_columns=[Column("name", Text)])
    async with AsyncDatabase(metadata, server=server) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        anna = await adapter.add_user({"name": "Anna"}, key)
        chosen = await adapter.set_user(number("bert") if held is int else uuid("bert"), {}, None)
        assert str(held(anna.id)) == anna.id
        assert await adapter.get_user(anna.id) == anna
        assert await adapter.get_user(chosen.id) == chosen
        assert await adapter.get_keys_by_user_id(anna.id) == [key(anna.id)]


async def test_numbers_are_not_used_again(server: SqlServer | None) -> None:
    """The number of a removed user is not given to the next one."""
    metadata = MetaData()
    tables = AuthTables(metadata, user_id=int)
    async with AsyncDatabase(metadata, server=server) as engine:
        adapter = AsyncSQLAlchemyUserAdapter(engine, tables)
        removed = await adapter.add_user({}, None)
        await adapter.delete_user(removed.id)
        assert (await adapter.add_user({}, None)).id != removed.id
