"""The collations of the library's columns, in the databases themselves and in what Alembic makes of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import _render_cmd_body
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from lucia._sqlalchemy.tables import AuthTables, equals, is_one_of
from tests.support.sql_servers import SqlServer


def library_tables() -> MetaData:
    """All of the library's tables."""
    metadata = MetaData()
    AuthTables(metadata, user_columns=[Column("name", Text)], sessions=True)
    return metadata


def application_tables(*, collation: str | None = None) -> MetaData:
    """The library's tables beside an application's own users, whose table may have a collation of its own."""
    metadata = MetaData()
    options: dict[str, Any] = (
        {} if collation is None else {"mariadb_charset": "utf8mb4", "mariadb_collate": collation}
    )
    people = Table(
        "people",
        metadata,
        Column("id", String(40), primary_key=True),
        Column("name", Text),
        **options,
    )
    AuthTables(metadata, user=people, sessions=True)
    return metadata


METADATA = {
    "library": library_tables(),
    "application": application_tables(),
    "other collation": application_tables(collation="utf8mb4_general_ci"),
}


@pytest.fixture
def connection(sql_server: SqlServer) -> Iterator[Connection]:
    """A connection to an empty database on each server."""
    with sql_server.database() as name:
        engine = create_engine(sql_server.url(name))
        with engine.connect() as made:
            yield made
        engine.dispose()


def migration(connection: Connection) -> MigrationContext:
    """Return Alembic's view of the database."""
    return MigrationContext.configure(
        connection, opts={"compare_type": True, "target_metadata": MetaData()}
    )


@pytest.mark.parametrize("case", METADATA)
def test_alembic_finds_no_difference(connection: Connection, case: str) -> None:
    """What ``create_all`` makes is what Alembic compares with: right afterwards there is nothing to migrate."""
    METADATA[case].create_all(connection)
    connection.commit()
    assert compare_metadata(migration(connection), METADATA[case]) == []


@pytest.mark.parametrize("case", METADATA)
def test_alembic_makes_the_tables(connection: Connection, case: str) -> None:
    """The migration that Alembic writes by itself needs no import of this library, runs, and makes the same tables."""
    context = migration(connection)
    directives: Any = produce_migrations(context, METADATA[case])
    options = {
        "sqlalchemy_module_prefix": "sa.",
        "alembic_module_prefix": "op.",
        "user_module_prefix": None,
    }
    rendering = AutogenContext(context, METADATA[case], opts=options)
    body = _render_cmd_body(directives.upgrade_ops, rendering)
    source = "\n".join(["import sqlalchemy as sa", *rendering.imports, body])
    assert "lucia" not in source
    assert "utf8mb4_nopad_bin" in source
    exec(source, {"op": Operations(context)})  # noqa: S102 # Alembic's own text
    connection.commit()
    assert compare_metadata(migration(connection), METADATA[case]) == []


def collations(server: SqlServer, metadata: MetaData) -> dict[tuple[str, str], str]:
    """Return the collation of each column of text that MariaDB makes of these tables."""
    with server.database() as name:
        engine = create_engine(server.url(name))
        metadata.create_all(engine)
        with engine.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT table_name, column_name, collation_name FROM information_schema.columns WHERE table_schema = :name"
                ),
                {"name": name},
            )
            found = {(table, column): collation for table, column, collation in rows}
        engine.dispose()
    return found


@pytest.mark.parametrize("case", ["application", "other collation"])
def test_columns_in_mariadb(mariadb: SqlServer, case: str) -> None:
    """The library's own ids and hashes are compared byte for byte; references have the collation of the user's id, as they must."""
    found = collations(mariadb, METADATA[case])
    for table, column in (
        ("auth_key", "id"),
        ("auth_key", "hashed_password"),
        ("auth_session", "id"),
        ("auth_session", "successor"),
    ):
        assert found[table, column] == "utf8mb4_nopad_bin"
    expected = found["people", "id"]
    assert expected.endswith("_ci")
    assert (expected == "utf8mb4_general_ci") is (case == "other collation")
    assert {found[table, "user_id"] for table in ("auth_key", "auth_session")} == {expected}


def test_mariadb_under_the_name_of_mysql(mariadb: SqlServer) -> None:
    """A URL that says ``mysql`` makes the same tables in a MariaDB that knows MySQL's collations, as from 11.4.5 on."""
    with mariadb.database() as name:
        engine = create_engine(mariadb.url(name).replace("mariadb+", "mysql+"))
        METADATA["library"].create_all(engine)
        users = METADATA["library"].tables["auth_user"]
        with engine.begin() as connection:
            connection.execute(users.insert(), [{"id": text} for text in ("id", "ID", "id ", "íd")])
            assert (
                connection.execute(select(func.count()).where(users.c.id == "id")).scalar_one() == 1
            )
        engine.dispose()


@pytest.mark.parametrize(
    ("url", "collation"),
    [
        ("mariadb+pymysql://", "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"),
        ("mysql+pymysql://", "CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"),
        ("mssql://", "NVARCHAR(255) COLLATE Latin1_General_100_BIN2"),
    ],
)
def test_declared_collations(url: str, collation: str) -> None:
    """Each database that ignores case by default is told not to, for each id and hash of the library's own tables."""
    dialect = make_url(url).get_dialect()()
    for name, count in (("auth_user", 1), ("auth_key", 3), ("auth_session", 3)):
        assert (
            str(CreateTable(METADATA["library"].tables[name]).compile(dialect=dialect)).count(
                collation
            )
            == count
        )


def test_no_collation_where_none_is_needed() -> None:
    """PostgreSQL, SQLite and Oracle compare every byte by default, and their tables say nothing about it."""
    for name in ("postgresql", "sqlite", "oracle"):
        dialect = make_url(f"{name}://").get_dialect()()
        for table in METADATA["library"].tables.values():
            assert "COLLATE" not in str(CreateTable(table).compile(dialect=dialect))


def test_statements_compare_bytes(mariadb: SqlServer) -> None:
    """The conditions of the adapters are exact, whatever the column's collation is; a plain comparison there is not."""
    table = Table("t", MetaData(), Column("id", String(40), primary_key=True))
    with mariadb.database() as name:
        engine = create_engine(mariadb.url(name))
        table.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(table.insert(), {"id": "josé"})
            with pytest.raises(IntegrityError):
                connection.execute(table.insert(), {"id": "JOSE "})

        def found(condition: Any) -> int:
            with engine.connect() as connection:
                return int(
                    connection.execute(
                        select(func.count()).select_from(table).where(condition)
                    ).scalar_one()
                )

        for other in ("JOSÉ", "jose", "josé ", "jose\u0301", "josé\u200b"):
            assert found(table.c.id == other) == 1
            assert found(equals(table.c.id, other)) == 0
            assert found(is_one_of(table.c.id, [other, "x"])) == 0
        assert found(equals(table.c.id, "josé")) == found(is_one_of(table.c.id, ["x", "josé"])) == 1
        engine.dispose()


def test_exact_conditions_elsewhere() -> None:
    """Databases that compare every byte by default get the plain comparison alone, also among other conditions."""
    column = METADATA["library"].tables["auth_key"].c.id
    condition = equals(column, "a") & (column != "b")
    for name in ("postgresql", "sqlite", "oracle", "mssql"):
        text_ = str(condition.compile(dialect=make_url(f"{name}://").get_dialect()()))
        assert text_.count("auth_key.id") == 2
        assert "CAST" not in text_.replace("::VARCHAR", "")
        assert "= 1" not in text_
