"""How databases execute the adapter's statements: by an index, whatever the number of rows."""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

import pytest
from sqlalchemy import Column, Engine, MetaData, Text, create_engine, text

from lucia import FailureRule
from lucia._rules.id_hashes import HashedIds
from lucia.adapters.sqlalchemy import AuthTables, SQLAlchemyAdapter
from lucia.models import SessionRow
from tests.support.clocks import NOW
from tests.support.databases import SentStatement, sent_statements
from tests.support.sql_servers import SqlServer

KEYS: Final = tuple(bytes([number]) * 32 for number in (1, 2))
ROWS: Final = 5_000
"""How many rows each table has: so many that a database prefers an index."""

EXPIRED: Final = 10
NAME: Final = "0" * 32

METADATA = MetaData()
TABLES = AuthTables(METADATA, user_columns=[Column("name", Text)], sessions=True)


class Stocked(NamedTuple):
    """A database with sessions, and the keys that their ids are hashed with."""

    engine: Engine
    id_keys: Sequence[bytes]

    @property
    def adapter(self) -> SQLAlchemyAdapter:
        """An adapter over it."""
        return SQLAlchemyAdapter(
            self.engine, TABLES, id_keys=self.id_keys, raw_ids="read", clock=lambda: NOW
        )


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """Yield a database of each kind with thousands of rows, whose statistics are up to date."""
    if request.param == "sqlite":
        yield from filled(f"sqlite:///{tmp_path_factory.mktemp('plans') / 'app.db'}", "ANALYZE")
        return
    server: SqlServer = request.getfixturevalue(request.param)
    names = ", ".join(METADATA.tables)
    analyze = f"ANALYZE TABLE {names}" if server.kind == "mariadb" else f"ANALYZE {names}"
    with server.database() as name:
        yield from filled(server.url(name), analyze)


@pytest.fixture(params=["raw", "hashed"])
def stocked(request: pytest.FixtureRequest, engine: Engine) -> Stocked:
    """Return the database, for ids as they are and for hashed ones."""
    return Stocked(engine, KEYS if request.param == "hashed" else ())


def filled(url: str, analyze: str) -> Iterator[Engine]:
    """Fill the database at this URL."""
    made = create_engine(url)
    METADATA.create_all(made)
    tables = METADATA.tables
    with made.begin() as connection:
        connection.execute(
            tables["auth_user"].insert(),
            [{"id": f"user-{number}", "name": "x"} for number in range(ROWS)],
        )
        connection.execute(
            tables["auth_session"].insert(),
            [
                {
                    "id": HashedIds(KEYS).stored(f"s{number}") if number % 2 else f"s{number}",
                    "user_id": f"user-{number}",
                    "active_expires": 1,
                    "idle_expires": 1 if number < EXPIRED else NOW + number,
                    "attributes": {"handle": f"h{number}"},
                }
                for number in range(ROWS)
            ],
        )
        connection.execute(
            tables["auth_key"].insert(),
            [
                {
                    "id": f"code:{number}",
                    "user_id": f"user-{number}",
                    "primary_key": False,
                    "expires": 1 if number < EXPIRED else NOW + number,
                }
                for number in range(ROWS)
            ],
        )
        connection.execute(
            tables["auth_throttle"].insert(),
            [
                {
                    "name": f"{number:032x}",
                    "failures": f"{NOW}-abc",
                    "expires": 1 if number < EXPIRED else NOW + number,
                }
                for number in range(ROWS)
            ],
        )
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(analyze))
    yield made
    made.dispose()


def explain(engine: Engine, statement: SentStatement) -> set[str]:
    """Return the indexes by which a statement is executed, and the tables that it scans."""
    kind = engine.dialect.name
    verb = "EXPLAIN QUERY PLAN" if kind == "sqlite" else "EXPLAIN"
    with engine.connect() as connection:
        rows: Sequence[Any] = connection.exec_driver_sql(
            f"{verb} {statement.text}", statement.values
        ).all()
    if kind in {"mysql", "mariadb"}:
        return {
            f"scan of {row.table}"
            if row.type in {"ALL", "index"}
            else (f"pk_{row.table}" if row.key == "PRIMARY" else row.key)
            for row in rows
            if row.table is not None
        }
    plan = "\n".join(str(row.detail if kind == "sqlite" else row[0]) for row in rows)
    scans = {f"scan of {name}" for name in re.findall(r"(?:Seq Scan on|SCAN) (\w+)", plan)}
    if kind == "sqlite":
        indexes = re.findall(r"SEARCH \w+ USING (?:COVERING )?INDEX (\w+)", plan)
        return scans | {re.sub("sqlite_autoindex_(.*)_1", r"pk_\1", name) for name in indexes}
    return scans | set(
        re.findall(r"(?:Index (?:Only )?Scan(?: Backward)? using|Bitmap Index Scan on) (\w+)", plan)
    )


def plans(stocked: Stocked, call: Any, *arguments: Any, **options: Any) -> list[set[str]]:
    """Run a method, and return how each of its statements is executed."""
    with sent_statements(stocked.engine) as sent:
        call(*arguments, **options)
    return [
        explain(stocked.engine, each)
        for each in sent
        if not re.search("VALUES|WHERE (false|0 = 1)", each.text)  # these look for nothing
    ]


def test_control_scan_is_detected(engine: Engine) -> None:
    """Control: a search by a column without an index is a scan, in every kind of database."""
    statement = SentStatement("SELECT id FROM auth_session WHERE active_expires = 5", ())
    assert explain(engine, statement) == {"scan of auth_session"}


def test_get_session(stocked: Stocked) -> None:
    """A validation is one statement, which finds the row by the primary key."""
    adapter = stocked.adapter
    session_id = "s21" if stocked.id_keys else "s22"
    assert adapter.get_session(session_id) is not None
    assert plans(stocked, adapter.get_session, session_id) == [{"pk_auth_session"}]
    both = plans(stocked, adapter.get_session_and_user_by_session_id, session_id)
    assert both == [{"pk_auth_session", "pk_auth_user"}]


def test_get_sessions_by_user_id(stocked: Stocked) -> None:
    """A user's list is found by the index on the user's id."""
    adapter = stocked.adapter
    assert plans(stocked, adapter.get_sessions_by_user_id, "user-7") == [
        {"ix_auth_session_user_id"}
    ]


def test_writes(stocked: Stocked) -> None:
    """A login, a renewal and a revocation scan no table."""
    adapter = stocked.adapter
    row = SessionRow(id="new", user_id="user-5", active_expires=NOW, idle_expires=NOW + 9)
    successor = SessionRow(id="newer", user_id="user-5", active_expires=NOW, idle_expires=NOW + 9)
    used = [
        *plans(stocked, adapter.set_session, row),
        *plans(stocked, adapter.renew_session, "new", successor, grace=0),
        *plans(stocked, adapter.delete_other_sessions, "user-5", "newer"),
        *plans(stocked, adapter.delete_session, "newer"),
    ]
    assert len(used) > 8
    assert not [name for each in used for name in each if name.startswith("scan")]


def test_failed_logins(stocked: Stocked) -> None:
    """A name of failures is found by the primary key."""
    store = stocked.adapter.throttle_store()
    rules = {NAME: FailureRule(5, 1, 1, 9, 9), f"{1:032x}": FailureRule(5, 1, 1, 9, 9)}
    first, *others = plans(stocked, store.attempt, rules)
    assert first == {"pk_auth_throttle"}
    assert not [name for each in others for name in each if name.startswith("scan")]


def test_clean_up(engine: Engine) -> None:
    """Expired rows are found by an index on the time when they expire."""
    stocked = Stocked(engine, ())
    used = plans(stocked, stocked.adapter.delete_expired, expired_for=timedelta(0), batch=50)
    assert {"ix_auth_session_idle_expires"} in used
    assert {"ix_auth_key_expires"} in used
    assert {"ix_auth_throttle_expires"} in used
    assert not [name for each in used for name in each if name.startswith("scan")]
