"""``lucia sessions`` on SQLite, PostgreSQL and MariaDB."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import (
    CHAR,
    JSON,
    BigInteger,
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    create_engine,
    insert,
    select,
)
from sqlalchemy.types import TypeEngine

from lucia import Auth, SessionExpiry, User
from lucia._rules.sessions import new_session_row, system_clock
from lucia.adapters.sqlalchemy import AuthTables, SQLAlchemyAdapter
from lucia.models import Session, SessionRow
from tests.support.command_runs import Outcome, lucia
from tests.support.lossy_proxy import LossyProxy
from tests.support.sessions import HOUR
from tests.support.sql_servers import SqlServer

ALICE, BOB = UUID(int=7), UUID(int=8)
TYPES: Final[dict[str, tuple[TypeEngine[Any], Any, Any]]] = {
    "text": (String(40), "alice", "bob"),
    "int": (BigInteger().with_variant(Integer, "sqlite"), 7, 8),
    "uuid": (Uuid(), ALICE, BOB),
    "text of 32": (CHAR(32), "a" * 32, "b" * 32),
}
"""By name: a type of user ids, and the ids of two users."""


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an empty database."""
    if request.param == "sqlite":
        path = tmp_path / "app.db"
        path.touch()
        yield f"sqlite:///{path}"
    else:
        server: SqlServer = request.getfixturevalue(request.param)
        with server.database() as name:
            yield server.url(name)


sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


class Application:
    """An application's tables, with users of any type, and rows as the library writes them."""

    def __init__(self, url: str, ids: str = "text", *, refers: bool = True) -> None:
        kind, self.alice, self.bob = TYPES[ids]
        self.url = url
        self.engine: Engine = create_engine(url)
        self.metadata = MetaData()
        self.users = Table("people", self.metadata, Column("number", kind, primary_key=True))
        self.sessions = Table(
            "auth_session",
            self.metadata,
            Column("id", String(255), primary_key=True),
            Column("user_id", kind, *([ForeignKey(self.users.c.number)] if refers else [])),
            Column("active_expires", BigInteger),
            Column("idle_expires", BigInteger),
            Column("attributes", JSON),
            Column("successor", String(255)),
        )
        self.metadata.create_all(self.engine)
        with self.engine.begin() as connection:
            for user in (self.alice, self.bob):
                connection.execute(insert(self.users).values(number=user))

    def sign_in(self, user: Any, *, life: int = HOUR, successor: str | None = None) -> SessionRow:
        """Store a session."""
        made = new_session_row("x", system_clock(), SessionExpiry(), {"agent": "Firefox"})
        with self.engine.begin() as connection:
            connection.execute(
                insert(self.sessions).values(
                    id=made.id,
                    user_id=user,
                    active_expires=system_clock() + life,
                    idle_expires=system_clock() + life,
                    attributes=dict(made.attributes),
                    successor=successor,
                )
            )
        return made

    def ids(self) -> set[str]:
        """Return the ids of all rows of sessions."""
        with self.engine.connect() as connection:
            return {*connection.scalars(select(self.sessions.c.id))}

    def run(self, *arguments: object) -> Outcome:
        """Run ``lucia sessions`` on this database."""
        return lucia("sessions", *arguments, LUCIA_STORE_URL=self.url)

    def close(self) -> None:
        """Drop the tables, and close the connections."""
        self.metadata.drop_all(self.engine)
        self.engine.dispose()


@pytest.fixture(params=list(TYPES))
def application(request: pytest.FixtureRequest, url: str) -> Iterator[Application]:
    """Yield an application's database, with user ids of each type."""
    found = Application(url, request.param)
    yield found
    found.close()


@pytest.fixture
def plain(url: str) -> Iterator[Application]:
    """Yield an application's database, with user ids that are text."""
    found = Application(url)
    yield found
    found.close()


def handle(session: SessionRow) -> str:
    """Return the handle of a session."""
    return str(session.attributes["handle"])


# Each command, with each type of user ids


def test_list_of_a_user(application: Application) -> None:
    """A user's sessions are listed, whatever the type of the user's id is; nothing is written."""
    found = [application.sign_in(application.alice) for _ in range(2)]
    over = application.sign_in(application.alice, life=-HOUR)
    used = application.sign_in(application.alice, successor="s" * 40)
    application.sign_in(application.bob)
    outcome = application.run("list", application.alice, "--json")
    assert outcome.code == 0
    assert sorted(outcome.handles()) == sorted(map(handle, found))
    assert outcome.report["user"] == str(application.alice)
    assert outcome.report["sessions"][0]["metadata"] == {"agent": "Firefox"}
    assert not any(each.id in outcome.out for each in found)
    assert application.ids() >= {over.id, used.id}
    assert handle(found[0]) in application.run("list", application.alice).out


def test_revoke(application: Application) -> None:
    """One session is revoked, or all but one, or all, and none of another user."""
    found = [application.sign_in(application.alice) for _ in range(4)]
    other = application.sign_in(application.bob)
    assert application.run("revoke", application.alice, handle(found[0])).code == 0
    assert application.ids() == {other.id, *(each.id for each in found[1:])}
    outcome = application.run("revoke", application.alice, "--keep", handle(found[1]), "--json")
    assert outcome.report["kept"]["handle"] == handle(found[1])
    assert sorted(outcome.handles("revoked")) == sorted(map(handle, found[2:]))
    assert application.ids() == {other.id, found[1].id}
    assert application.run("revoke", application.alice, handle(other)).code == 1
    assert application.run("revoke", application.alice, "--all").code == 0
    assert application.ids() == {other.id}


def test_stats(application: Application) -> None:
    """Live sessions and their users are counted: no used ones, and none that are over."""
    for user in (application.alice, application.alice, application.bob):
        application.sign_in(user)
    application.sign_in(application.alice, life=-HOUR)
    application.sign_in(application.alice, successor="s" * 40)
    assert application.run("stats") == Outcome(
        0, "Live sessions: 3\nUsers with a live session: 2\n", ""
    )
    report = application.run("stats", "--json").report
    assert report == {
        "version": 1,
        "exact": True,
        "read": 3,
        "sessions": {"estimate": 3, "low": 3, "high": 3},
        "users": {"estimate": 2, "low": 2, "high": 2},
        "exit_code": 0,
    }


def test_unknown_user(application: Application) -> None:
    """A user who does not exist is told apart from one who is not signed in."""
    alice, nobody = str(application.alice), "9" if application.alice == 7 else str(UUID(int=9))
    assert application.run("list", alice).errors == f"No sessions of user {alice!r}.\n"
    assert application.run("list", nobody) == Outcome(1, "", f"There is no user {nobody!r}.\n")
    assert application.run("revoke", nobody, "--all").code == 1


@sqlite
@pytest.mark.parametrize(("ids", "user"), [("int", "alice"), ("int", "007"), ("uuid", "a-b")])
def test_text_that_is_no_id(url: str, ids: str, user: str) -> None:
    """A text that is no id of the users' type is the id of no user."""
    application = Application(url, ids)
    assert application.run("list", user) == Outcome(1, "", f"There is no user {user!r}.\n")
    application.close()


# With the library's own tables


def test_own_tables(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the library's own tables under other names, --keep follows a renewal."""
    metadata, engine = MetaData(), create_engine(url)
    tables = AuthTables(
        metadata,
        user_columns=[Column("name", Text)],
        sessions=True,
        user_table="users",
        session_table="logins",
    )
    metadata.create_all(engine)
    adapter = SQLAlchemyAdapter(engine, tables)
    auth: Auth[User] = Auth(sessions=adapter, users=adapter, env="DEV")
    user = auth.create_user(primary_key=None, attributes={"name": "Alice"})
    kept, other = (auth.create_session(user.user_id) for _ in range(2))
    successors: list[Session] = []
    revoke = SQLAlchemyAdapter.delete_other_sessions

    def renew_first(adapter: SQLAlchemyAdapter, user_id: str, keep: str, /) -> bool:
        successors.append(auth.renew_session(kept.session_id))
        return revoke(adapter, user_id, keep)

    monkeypatch.setattr(SQLAlchemyAdapter, "delete_other_sessions", renew_first)
    options = ("--store", url, "--session-table", "logins", "--json")
    outcome = lucia("sessions", "revoke", user.user_id, "--keep", kept.handle, *options)
    assert outcome.code == 0
    assert outcome.handles("revoked") == [other.handle]
    assert auth.validate_session(successors[0].session_id).handle == kept.handle
    metadata.drop_all(engine)
    engine.dispose()


@sqlite
def test_sessions_that_refer_to_nothing(url: str) -> None:
    """Without a foreign key nobody knows who is a user, unless their table is named."""
    application = Application(url, refers=False)
    application.sign_in("alice")
    assert application.run("list", "alice").code == 0
    assert application.run("list", "nobody").errors == "No sessions of user 'nobody'.\n"
    named = ("--user-table", "people")
    assert application.run("list", "alice", *named).code == 0
    assert application.run("list", "nobody", *named).errors == "There is no user 'nobody'.\n"
    application.close()


# What can't be used


@sqlite
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--session-table", "logins"), "the database has no table 'logins'"),
        (("--session-table", "people"), "the table 'people' has no column id, user_id, active_exp"),
        (("--user-table", "persons"), "the database has no table 'persons'"),
        (("--user-table", "membership"), "the primary key of 'membership' is not one column"),
        (("--session-table", "blobs"), "the users' ids are of the type BLOB"),
        (("--session-table", "untyped"), "the users' ids are of the type NULL"),
    ],
)
def test_wrong_tables(plain: Application, options: tuple[str, ...], told: str) -> None:
    """A table that is missing, or is another one, is reported with what to do."""
    with plain.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE membership (a INTEGER, b TEXT, PRIMARY KEY (a, b))"
        )
        for name, kind in (("blobs", "BLOB"), ("untyped", "")):
            connection.exec_driver_sql(
                f"CREATE TABLE {name} (id TEXT PRIMARY KEY, user_id {kind}, active_expires BIGINT,"
                " idle_expires BIGINT, attributes JSON, successor TEXT)"
            )
    outcome = plain.run("list", "alice", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.errors


@sqlite
def test_sample(plain: Application) -> None:
    """A database counts by itself, so there is no sample."""
    message = "lucia sessions stats: --sample is for Redis: a database counts by one statement\n"
    assert plain.run("stats", "--sample", 100) == Outcome(2, "", message)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:///nowhere.db", "there is no file 'nowhere.db'"),
        ("sqlite://", "the database has no table 'auth_session'"),
        ("sqlite:///:memory:", "the database has no table 'auth_session'"),
        ("postgresql+asyncpg://u:hunter2@h/d", "'postgresql+asyncpg' is an async driver"),
        ("postgresql+psycopg://u:hunter2@h:port/d", "this is no URL of a store"),
        (
            "postgresql+psycopg2://u:hunter2@h/d",
            "'postgresql+psycopg2' needs psycopg2: pip install",
        ),
        ("nothing+psycopg://u:hunter2@h/d", "unknown kind of store 'nothing+psycopg'"),
    ],
)
def test_wrong_url(url: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that can't be used is reported in one line, without its password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    outcome = lucia("sessions", "stats", "--store", url)
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.errors
    assert outcome.errors.count("\n") == 1
    assert "hunter2" not in outcome.errors
    assert not list(tmp_path.iterdir()), "it has created a file"


def test_wrong_database(sql_server: SqlServer) -> None:
    """A database that does not exist is reported as its driver does, in one line."""
    outcome = lucia("sessions", "stats", "--store", sql_server.url("nowhere"))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.errors.startswith("lucia sessions stats: OperationalError: ")
    assert "nowhere" in outcome.errors
    assert outcome.errors.count("\n") == 1


def test_without_sqlalchemy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SQLAlchemy, the error names the command that installs it."""
    monkeypatch.delitem(sys.modules, "lucia.cli.databases", raising=False)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    outcome = lucia("sessions", "stats", "--store", "sqlite:///app.db")
    assert outcome.code == 2
    assert 'needs SQLAlchemy 2: pip install "lucia-auth[sqlalchemy]"' in outcome.errors


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("command", "word"), [(("stats",), "count("), (("revoke", "alice", "--all"), "DELETE")]
)
def test_connection_lost_by_a_driver(
    plain: Application, command: tuple[str, ...], word: str
) -> None:
    """A connection that is lost ends the command with the driver's error and exit code 2."""
    plain.sign_in("alice")
    port = plain.engine.url.port
    assert port is not None
    with LossyProxy(port).lose(word) as proxy:
        url = plain.url.replace(f":{port}/", f":{proxy.port}/")
        outcome = lucia("sessions", *command, "--store", url)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.errors.startswith(f"lucia sessions {command[0]}: OperationalError: ")
    assert outcome.errors.count("\n") == 1
