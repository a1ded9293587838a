"""Tables of the SQLAlchemy adapters, their operations by statement, and redacted errors."""

import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ClauseElement,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    create_engine,
    func,
    inspect,
    make_url,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship
from sqlalchemy.types import UserDefinedType
from sqlmodel import AutoString

from lucia._rules.database_errors import retry_pause
from lucia._rules.throttling import FailureRule
from lucia._rules.user_ids import UserIdType
from lucia._sqlalchemy import statements as steps
from lucia._sqlalchemy.at_rest import PlainIds
from lucia._sqlalchemy.cleanup import CleanupOptions, delete_rows, expiring_tables, find_expired
from lucia._sqlalchemy.columns import KeyColumns
from lucia._sqlalchemy.rows import StatementResult
from lucia._sqlalchemy.sources import hide_parameters, was_rolled_back
from lucia._sqlalchemy.statements import Steps
from lucia._sqlalchemy.tables import AuthTables, check_throttle
from lucia._sqlalchemy.throttling import Names, count_attempt, judge_attempt, take_back
from lucia.errors import InvalidUserId
from lucia.models import UNSET, KeyRow, SessionRow

DIALECTS = {
    name: make_url(f"{name}://").get_dialect()()
    for name in ("sqlite", "postgresql", "mysql", "oracle", "mssql")
}

KEY = KeyRow(id="email:a", user_id="u1", hashed_password=None, primary_key=True, expires=None)
RULE = FailureRule(2, 1, 1, 9, 9)
SESSION = SessionRow(id="s1", user_id="u1", active_expires=1, idle_expires=2)


@pytest.fixture
def tables() -> AuthTables:
    """Return the library's own tables."""
    return AuthTables(MetaData(), user_columns=[Column("email", Text)], sessions=True)


def statements(
    operation: Steps[Any], answers: Sequence[StatementResult], dialect: str = "sqlite"
) -> tuple[list[str], Any]:
    """Run an operation with these answers, and return its statements and its result.

    If the operation is not done by then, it is returned in place of the result.
    """
    sent: list[str] = []
    try:
        statement = next(operation)
        for answer in answers:
            assert isinstance(statement, ClauseElement)
            sent.append(" ".join(str(statement.compile(dialect=DIALECTS[dialect])).split()))
            statement = operation.send(answer)
    except StopIteration as end:
        return sent, end.value
    return sent, operation


def nothing() -> StatementResult:
    """Return an answer without rows, of a statement that changed none."""
    return StatementResult((), 0)


# Tables


def test_created_tables() -> None:
    """The metadata has four tables with named constraints, and indexes on user id and expiry."""
    metadata = MetaData()
    AuthTables(metadata, sessions=True)
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    made = inspect(engine)
    assert sorted(made.get_table_names()) == [
        "auth_key",
        "auth_session",
        "auth_throttle",
        "auth_user",
    ]
    assert [column["name"] for column in made.get_columns("auth_user")] == ["id"]
    for name in ("auth_key", "auth_session"):
        assert made.get_pk_constraint(name)["name"] == f"pk_{name}"
        expires = "expires" if name == "auth_key" else "idle_expires"
        assert {index["name"] for index in made.get_indexes(name)} == {
            f"ix_{name}_user_id",
            f"ix_{name}_{expires}",
        }
        (reference,) = made.get_foreign_keys(name)
        assert (reference["name"], reference["referred_table"]) == (
            f"fk_{name}_user_id",
            "auth_user",
        )
    nullable = {
        table: {column["name"] for column in made.get_columns(table) if column["nullable"]}
        for table in ("auth_key", "auth_session")
    }
    assert nullable == {"auth_key": {"hashed_password", "expires"}, "auth_session": {"successor"}}
    assert made.get_pk_constraint("auth_throttle")["name"] == "pk_auth_throttle"
    assert [index["name"] for index in made.get_indexes("auth_throttle")] == [
        "ix_auth_throttle_expires"
    ]
    engine.dispose()


def test_sessions_are_made_where_wanted() -> None:
    """Without ``sessions`` there is no table of sessions or of failed logins."""
    metadata = MetaData()
    made = AuthTables(metadata)
    assert (made.session, made.throttle) == (None, None)
    with pytest.raises(ValueError, match=r"count no failed logins.*sessions=True"):
        check_throttle(made)
    assert sorted(metadata.tables) == ["auth_key", "auth_user"]


def test_names_and_schema() -> None:
    """The tables have the given names and the metadata's schema."""
    metadata = MetaData(schema="app")
    AuthTables(
        metadata,
        sessions=True,
        user_table="person",
        key_table="person_key",
        session_table="person_session",
        throttle_table="person_throttle",
    )
    assert sorted(metadata.tables) == [
        "app.person",
        "app.person_key",
        "app.person_session",
        "app.person_throttle",
    ]


def test_reference_has_the_users_type() -> None:
    """The reference to an application's user table has the type of its id."""
    metadata = MetaData()
    people = Table("people", metadata, Column("no", Uuid(as_uuid=False), primary_key=True))
    made = AuthTables(metadata, user=people)
    assert isinstance(made.key.c.user_id.type, Uuid)


def test_incomplete_models() -> None:
    """Tables can be made while the user class refers to a class defined later."""

    class Base(DeclarativeBase):
        pass

    class Member(Base):
        __tablename__ = "member"
        id: Mapped[str] = mapped_column(primary_key=True)
        posts: Mapped[list["Post"]] = relationship()

    made = AuthTables(Base.metadata, user=Member)

    class Post(Base):
        __tablename__ = "post"
        id: Mapped[str] = mapped_column(primary_key=True)
        author: Mapped[str] = mapped_column(ForeignKey("member.id"))

    assert (made.user, made.user_id) == (Member.__table__, Member.__table__.c.id)
    assert made.attributes == {}


def test_only_columns_are_attributes() -> None:
    """Computed properties of a mapped class are no attributes."""

    class Base(DeclarativeBase):
        pass

    class Member(Base):
        __tablename__ = "member"
        id: Mapped[str] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column("mail")
        email_length = column_property(func.length(email))

    assert dict(AuthTables(Base.metadata, user=Member).attributes) == {
        "email": Member.__table__.c.mail
    }


class Opaque(UserDefinedType[str]):
    """A type that does not say what it holds, by the error of SQLAlchemy 2.0; 2.1 says `object`."""

    @property
    def python_type(self) -> type[Any]:
        raise NotImplementedError


def wrong_tables(metadata: MetaData) -> Iterator[tuple[type[Exception], str, Any]]:
    """Yield user tables that can't be used, with the expected errors."""

    class Base(DeclarativeBase):
        pass

    Base.metadata = metadata

    class Person(Base):
        __tablename__ = "person"
        id: Mapped[str] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__ = {  # noqa: RUF012
            "polymorphic_on": "kind",
            "polymorphic_identity": "person",
        }

    class Employee(Person):
        __tablename__ = "employee"
        id: Mapped[str] = mapped_column(ForeignKey("person.id"), primary_key=True)
        __mapper_args__ = {"polymorphic_identity": "employee"}  # noqa: RUF012

    yield ValueError, "'Employee' spans several tables", Employee
    yield TypeError, "mapped class or a Table, not <class 'object'>", object
    yield TypeError, "mapped class or a Table, not 'auth_user'", "auth_user"
    yield TypeError, "mapped class or a Table", Person(id="u1")
    yield (
        ValueError,
        "'a'.* primary key of one column.* it has 0",
        Table("a", metadata, Column("x", Text)),
    )
    two = Table(
        "b", metadata, Column("x", Text, primary_key=True), Column("y", Text, primary_key=True)
    )
    yield ValueError, "'b'.* primary key of one column.* it has 2", two
    yield (
        TypeError,
        "'c' holds float: say by AuthTables",
        Table("c", metadata, Column("x", Float, primary_key=True)),
    )
    yield (
        TypeError,
        "'d' holds values of an unknown type: say by",
        Table("d", metadata, Column("x", Opaque, primary_key=True)),
    )
    yield (
        ValueError,
        "'e' belongs to another MetaData",
        Table("e", MetaData(), Column("x", Text, primary_key=True)),
    )
    yield (
        ValueError,
        "'f' has an attribute 'id'",
        Table("f", metadata, Column("x", Text, primary_key=True), Column("id", Text)),
    )


def test_wrong_user_tables() -> None:
    """An unusable user table is refused, and the message says which and why."""
    metadata = MetaData()
    for kind, message, user in wrong_tables(metadata):
        with pytest.raises(kind, match=message):
            AuthTables(metadata, user=user)


def key_table(metadata: MetaData, name: str, **changes: Column[Any]) -> Table:
    """Return an application's table for keys, with some columns changed, added or left out."""
    columns: dict[str, Column[Any] | None] = {
        "id": Column("id", String(255), primary_key=True),
        "user_id": Column("user_id", String(255)),
        "hashed_password": Column("hashed_password", String(255)),
        "primary_key": Column("primary_key", Boolean),
        "expires": Column("expires", BigInteger),
        **changes,
    }
    return Table(name, metadata, *(column for column in columns.values() if column is not None))


def wrong_key_tables(metadata: MetaData) -> Iterator[tuple[type[Exception], str, Any]]:
    """Yield key tables that can't be used, with the expected errors."""
    yield TypeError, "key must be a mapped class or a Table, not 'keys'", "keys"
    yield ValueError, "key table 'a' belongs to another MetaData", key_table(MetaData(), "a")
    none: Any = None
    yield (
        ValueError,
        "key table 'b' has no expires: it needs id, user_id, hashed_password, primary_key, expires",
        key_table(metadata, "b", expires=none),
    )
    yield (
        ValueError,
        "'c' has no user_id and no expires",
        key_table(metadata, "c", expires=none, user_id=Column("owner", String(255))),
    )
    yield (
        ValueError,
        "'d' needs an id that is its primary key or unique",
        key_table(metadata, "d", id=Column("id", String(255))),
    )
    yield (
        ValueError,
        "'e' needs a hashed_password that may be NULL",
        key_table(metadata, "e", hashed_password=Column("hashed_password", Text, nullable=False)),
    )
    yield (
        ValueError,
        "'f' needs a BigInteger as expires",
        key_table(metadata, "f", expires=Column("expires", Integer)),
    )
    yield (
        ValueError,
        "'g' has a column kind that is NOT NULL and has no default",
        key_table(metadata, "g", kind=Column("kind", Text, nullable=False)),
    )


def test_wrong_key_tables() -> None:
    """An unusable table for keys is refused, and the message says which and why."""
    metadata = MetaData()
    for number, (kind, message, key) in enumerate(wrong_key_tables(metadata)):
        with pytest.raises(kind, match=message):
            AuthTables(metadata, key=key, user_table=f"user_{number}")


def test_key_tables_with_columns_that_fill_themselves() -> None:
    """A table for keys may have more columns, and its id may be unique in each way to say so."""
    metadata = MetaData()
    more: dict[str, Column[Any]] = {
        "number": Column("number", Integer, primary_key=True),
        "made": Column("made", Text, nullable=False, server_default="x"),
        "kind": Column("kind", Text, nullable=False, default="y"),
        "note": Column("note", Text),
    }
    key_id = Column("id", String(255), unique=True)
    tables = AuthTables(metadata, key=key_table(metadata, "a", id=key_id, **more))
    assert list(tables.keys.columns) == list(KeyColumns._fields)
    indexed = key_table(metadata, "b", id=Column("id", String(255), unique=True, index=True))
    made = AuthTables(metadata, key=indexed, user_table="other_user")
    assert made.key is indexed


def test_own_session_table() -> None:
    """An application's table for sessions needs no ``sessions=True``, and all of our columns."""
    metadata = MetaData()
    columns: list[Column[Any]] = [
        Column("id", String(255), primary_key=True),
        Column("user_id", String(255)),
        Column("active_expires", BigInteger),
        Column("idle_expires", BigInteger),
        Column("attributes", JSON),
        Column("successor", String(255)),
    ]
    own = Table("own_session", metadata, *columns)
    assert AuthTables(metadata, session=own).session is own
    without = Table("without", metadata, Column("id", String(255), primary_key=True))
    with pytest.raises(ValueError, match="session table 'without' has no user_id and no active_ex"):
        AuthTables(metadata, session=without, user_table="other_user", key_table="other_key")


# Types of user ids


def test_what_a_primary_key_holds() -> None:
    """The type of ids is that of the column, or what the application says."""
    cases: list[tuple[Any, Any, type[Any]]] = [
        (String(40), None, str),
        (Integer(), None, int),
        (BigInteger().with_variant(Integer(), "sqlite"), None, int),
        (Uuid(), None, UUID),
        (Uuid(as_uuid=False), None, str),
        (AutoString(), None, str),
        (Opaque(), UUID, UUID),
        (Float(), UserIdType(float, float), float),
    ]
    for column_type, setting, held in cases:
        metadata = MetaData()
        people = Table("people", metadata, Column("id", column_type, primary_key=True))
        ids = AuthTables(metadata, user=people, user_id=setting).user_ids.ids
        assert ids.python_type is held


def test_user_id_that_contradicts_the_column() -> None:
    """A setting that the column's type contradicts is refused."""
    metadata = MetaData()
    people = Table("people", metadata, Column("id", Integer, primary_key=True))
    with pytest.raises(TypeError, match="'people' holds int, not UUID as user_id says"):
        AuthTables(metadata, user=people, user_id=UUID)


def test_made_user_ids() -> None:
    """Without a user table, ids are text, numbers that the database counts, or random UUIDs."""
    text_id, number, uuid = (
        AuthTables(MetaData(), user_id=held).user_id for held in (str, int, UUID)
    )
    assert isinstance(text_id.type, String)
    assert isinstance(number.type, BigInteger)
    assert number.table.autoincrement_column is number
    assert isinstance(uuid.type, Uuid)
    assert uuid.default is not None
    with pytest.raises(TypeError, match="give the table that holds them, as user="):
        AuthTables(MetaData(), user_id=UserIdType(float, float))


def test_user_and_user_columns() -> None:
    """``user_columns`` together with ``user`` is refused."""
    metadata = MetaData()
    people = Table("people", metadata, Column("no", String, primary_key=True))
    with pytest.raises(ValueError, match="either user= or user_columns="):
        AuthTables(metadata, user=people, user_columns=[Column("email", Text)])


def test_no_attributes() -> None:
    """The error for an unknown attribute says so if the table has none."""
    with pytest.raises(ValueError, match="no attribute email; its attributes are: none"):
        AuthTables(MetaData()).attribute_values({"email": "x"})


# Statements


@pytest.mark.parametrize("dialect", DIALECTS)
def test_statements_are_portable(tables: AuthTables, dialect: str) -> None:
    """Each operation compiles for every kind of database."""
    names = Names(PlainIds(), {"a": RULE})
    operations = [
        steps.set_user(tables, "u1", {"email": "a"}, KEY),
        steps.delete_user(tables, "u1"),
        steps.update_user_attributes(tables, "u1", {"email": "a"}),
        steps.set_key(tables, KEY),
        steps.update_key_password(tables, "email:a", "new", None),
        steps.update_key_password(tables, "email:a", "new", UNSET),
        steps.delete_non_primary_key(tables, ["email:a"]),
        steps.set_session(tables, SESSION),
        steps.get_session_and_user(tables, PlainIds(), "s1"),
        steps.renew_session(tables, PlainIds(), "s0", SESSION, 0, 5),
        steps.delete_other_sessions(tables, "u1", ["s1"], 5),
        steps.set_session_capped(tables, SESSION, 3, 5),
        judge_attempt(tables, names, lambda: 5),
        count_attempt(tables, names, ["a"], "word", lambda: 5),
        take_back(tables, Names(PlainIds(), {"a": "5-a"})),
        find_expired(
            expiring_tables(tables)["sessions"], CleanupOptions(lambda: 5, timedelta(0), 9)
        ),
    ]
    first = [
        statements(operation, [nothing()], dialect)[0][0]
        for operation in operations[:3] + operations[4:7] + operations[8:]
    ]
    refused = [operations[3], operations[7]]
    for operation in refused:
        with pytest.raises(InvalidUserId):
            statements(operation, [nothing()], dialect)
    assert {text.split()[0] for text in first} == {"INSERT", "DELETE", "UPDATE", "SELECT"}


def test_before_a_savepoint(tables: AuthTables) -> None:
    """Before a SAVEPOINT a write that changes nothing begins SQLite's transaction.

    Other databases need none.
    """
    (statement,) = steps.before_savepoint(tables, "sqlite")
    assert str(statement).split() == ["DELETE", "FROM", "auth_key", "WHERE", "false"]
    assert steps.before_savepoint(tables, "postgresql") == []


def test_writes_begin_with_a_write(tables: AuthTables) -> None:
    """An operation that writes begins with a write.

    SQLite refuses a transaction that reads, waits and then writes.
    """
    operations = [
        steps.set_user(tables, "u1", {}, KEY),
        steps.delete_user(tables, "u1"),
        steps.update_user_attributes(tables, "u1", {"email": "a"}),
        steps.update_key_password(tables, "email:a", "new", None),
        steps.delete_non_primary_key(tables, ["email:a"]),
        steps.delete_sessions(tables, ["s1"], 5),
        steps.delete_sessions_by_user_id(tables, "u1"),
        steps.delete_other_sessions(tables, "u1", ["s1"], 5),
        steps.renew_session(tables, PlainIds(), "s0", SESSION, 0, 5),
        steps.set_session_capped(tables, SESSION, 3, 5),
        count_attempt(tables, Names(PlainIds(), {"a": RULE}), ["a"], "word", lambda: 5),
        count_attempt(tables, Names(PlainIds(), {"a": RULE}), [], "word", lambda: 5),
        take_back(tables, Names(PlainIds(), {"a": "5-a"})),
        delete_rows(
            expiring_tables(tables)["keys"], ["a"], CleanupOptions(lambda: 5, timedelta(0), 9)
        ),
    ]
    insert = next(steps.add_user(AuthTables(MetaData(), user_id=int), {}, None))
    assert str(insert).startswith("INSERT")
    verbs = {statements(operation, [nothing()])[0][0].split()[0] for operation in operations}
    assert verbs == {"INSERT", "DELETE", "UPDATE"}


@pytest.mark.parametrize(
    ("dialect", "lock"),
    [
        ("postgresql", "FOR NO KEY UPDATE"),
        ("mysql", "FOR UPDATE"),
        ("oracle", "FOR UPDATE"),
        ("sqlite", ""),
        ("mssql", ""),
    ],
)
def test_logins_within_a_cap_go_one_at_a_time(tables: AuthTables, dialect: str, lock: str) -> None:
    """The user's row is locked before sessions are counted.

    SQLite is locked by a write before. SQL Server locks no row.
    """
    sent, _ = statements(
        steps.set_session_capped(tables, SESSION, 3, 5),
        [nothing(), nothing(), StatementResult((), 1), nothing()],
        dialect,
    )
    assert [text.split()[0] for text in sent] == ["DELETE", "SELECT", "INSERT", "SELECT"]
    assert "FROM auth_user WHERE" in sent[1]
    assert sent[1].partition("FROM auth_user WHERE")[2].partition("FOR ")[1:] == (
        lock and "FOR ",
        lock.removeprefix("FOR "),
    )


def test_sign_out_everywhere_looks_again(tables: AuthTables) -> None:
    """A DELETE that removed rows is repeated.

    A renewal that was committed meanwhile left a successor that it could not see.
    """
    answers = [StatementResult((), 2), StatementResult((), 1), nothing()]
    sent, result = statements(steps.delete_sessions_by_user_id(tables, "u1"), answers)
    assert sent == ["DELETE FROM auth_session WHERE auth_session.user_id = ?"] * 3
    assert result == 3


def test_keeping_one_looks_again(tables: AuthTables) -> None:
    """The other sessions are deleted until none is seen, whatever the row count."""
    another: Any = ("s2",)
    answers = [
        StatementResult((), 1),
        nothing(),
        StatementResult([another], 0),
        StatementResult((), 1),
        nothing(),
    ]
    sent, result = statements(steps.delete_other_sessions(tables, "u1", ["s1"], 5), answers)
    assert [text.split()[0] for text in sent] == ["UPDATE", "DELETE", "SELECT", "DELETE", "SELECT"]
    assert result == (True, 1)


def test_why_refused(tables: AuthTables) -> None:
    """A violated constraint means `InvalidUserId` if the user is missing.

    Without a known reason the result is None.
    """
    found: Any = ("u1",)
    assert isinstance(
        statements(steps.why_refused(tables, key_id="k", user_id="u1"), [nothing(), nothing()])[1],
        InvalidUserId,
    )
    assert (
        statements(
            steps.why_refused(tables, key_id="k", user_id="u1"),
            [nothing(), StatementResult([found], 0)],
        )[1]
        is None
    )


# Errors


def driver_error(*args: object, **attributes: object) -> DBAPIError:
    """Return a driver's error as SQLAlchemy wraps it."""
    cause = Exception(*args)
    vars(cause).update(attributes)
    return DBAPIError("SELECT 1", None, cause)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (driver_error(1213, "Deadlock found when trying to get lock"), True),
        (driver_error(1020, "Record has changed since last read"), True),
        (driver_error("Deadlock found when trying to get lock", errno=1213), True),
        (driver_error("deadlock detected", pgcode="40P01"), True),
        (driver_error("could not serialize access", sqlstate="40001"), True),
        (driver_error(1205, "Lock wait timeout exceeded", sqlstate="HY000"), False),
        (driver_error(2013, "Lost connection to server during query"), False),
        (driver_error({"C": "08006"}), False),
        (driver_error(), False),
    ],
)
def test_which_transactions_were_rolled_back(error: DBAPIError, expected: bool) -> None:
    """Only error codes of a rollback are retried, in whichever attribute they are."""
    assert was_rolled_back(error) is expected


def test_pauses_before_another_attempt() -> None:
    """The pause before a retry is random and at most a tenth of a second."""
    assert max(retry_pause(1) for _ in range(100)) <= 0.01
    assert max(retry_pause(100) for _ in range(100)) <= 0.1
    assert len({retry_pause(1) for _ in range(100)}) > 1


class Quoting(Exception):
    """An error that quotes values in an attribute, as asyncpg's do."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def violated(detail: str, parameters: Any) -> IntegrityError:
    """Return an error whose driver's error and its cause quote values."""
    cause = Quoting(detail)
    driver = ValueError(f"unique constraint: {detail}", 23505)
    error = IntegrityError("INSERT INTO auth_session …", parameters, driver)
    driver.__cause__ = cause
    error.__cause__ = driver
    return error


@pytest.mark.parametrize(
    "parameters",
    [
        ("the-id-of-a-session", 5, None, b"raw"),
        {"id": "the-id-of-a-session"},
        [("another", 1), ("the-id-of-a-session", 2)],
        [{"id": "the-id-of-a-session"}],
    ],
)
def test_hidden_values(parameters: Any) -> None:
    """Values are redacted in the error, the driver's error and its cause.

    This holds for all forms of parameters.
    """
    error = violated("Key (id)=(the-id-of-a-session) exists", parameters)
    hide_parameters(error)
    driver: Any = error.orig
    texts = [str(error), str(driver), str(driver.__cause__), driver.__cause__.detail]
    assert all(
        "the-id-of-a-session" not in text and "Key (id)=([hidden]) exists" in text for text in texts
    )
    assert driver.args[1] == 23505


def test_hidden_beginnings() -> None:
    """A long value that the database truncates is redacted too."""
    secret = "$scrypt$" + "0123456789" * 9
    error = violated(f"Failing row contains ({secret[:64]}...)", (secret,))
    hide_parameters(error)
    assert secret[:20] not in str(error)


def test_hidden_values_of_other_types() -> None:
    """Numbers, UUIDs, bytes and dates are redacted too, in the ways that databases quote them."""
    uuid, number, photo, born = (
        UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        1234567890,
        bytes(range(200, 210)),
        date(1999, 12, 31),
    )
    text = f"({uuid}, {uuid.hex}, {number}, \\x{photo.hex()}, {born}) exists"
    error = violated(text, (uuid, [number], {"photo": photo}, born, None, True, uuid.hex))
    hide_parameters(error)
    assert str(error).count("[hidden]") == 5
    assert not any(
        quoted in str(error) for quoted in (str(uuid), uuid.hex, "1234567890", "c8c9", "1999")
    )


def test_hidden_rows() -> None:
    """A row that PostgreSQL quotes is redacted: it has values that the statement does not."""
    error = violated("Failing row contains (u1, the-hash,\n null).", ("u1",))
    hide_parameters(error)
    assert "Failing row contains ([hidden])" in str(error)
    assert "the-hash" not in f"{error} {error.__cause__} {vars(error.__cause__)}"


def test_short_values_stay() -> None:
    """Short values are not redacted, so that the text stays readable."""
    error = violated("user_id in table user", ("user",))
    hide_parameters(error)
    assert "user_id in table user" in str(error)


# Import


def test_missing_sqlalchemy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SQLAlchemy the import error says what to install."""
    hidden = [
        name
        for name in sys.modules
        if name.partition(".")[0] == "sqlalchemy" or name.endswith(".sqlalchemy")
    ]
    for name in [*hidden, "lucia._sqlalchemy.tables", "lucia._sqlalchemy.statements"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ImportError, match=r'pip install "lucia-auth\[sqlalchemy\]"'):
        import lucia.adapters.sqlalchemy  # noqa: F401


def test_other_import_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that fails for another reason raises its own error."""
    monkeypatch.delitem(sys.modules, "lucia.adapters.sqlalchemy", raising=False)
    monkeypatch.setitem(sys.modules, "lucia._async.stores.sqlalchemy", None)
    with pytest.raises(ImportError, match=r"lucia\._async\.stores\.sqlalchemy"):
        import lucia.adapters.sqlalchemy  # noqa: F401
