"""Users whose ids are no text: integers and UUIDs, in every database and in both directions."""

from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import pytest
from sqlalchemy import CHAR, Column, MetaData, Table, create_engine, insert

from lucia.adapters.sqlalchemy import AuthTables, SQLAlchemyAdapter
from tests.moving.places import Place, Places, copy
from tests.support.sessions import row

ALICE: Final = UUID("5b6b3f1c-60a5-4a53-9c1b-0d5f2c1f7e10")
BOB: Final = UUID("0197b5f0-3f4a-7c26-8c39-6d0f1e9b2a44")

TYPES: Final[dict[str, tuple[Any, Any]]] = {"int": (7, 8), "uuid": (ALICE, BOB)}
"""By name, the ids of two users."""


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
@pytest.mark.parametrize("ids", TYPES)
def test_user_ids(places: Places, kind: str, ids: str) -> None:
    """Sessions keep their users, from a database to Redis and on to another database."""
    users = TYPES[ids]
    first, last = (places.database(f"{kind} {number}", users) for number in range(2))
    between = replace(places.make("redis", 0), user_id=type(users[0]))
    with first.application() as old, between.application() as new, last.application() as newest:
        sessions = [old.create_session(user) for user in users]
        for source, destination, application in ((first, between, new), (between, last, newest)):
            state = f"--state={application is new}"
            outcome = copy(source, destination, state, "--json")
            assert outcome.report == {"complete": True, "copied": len(users)}
            for session in sessions:
                assert application.validate_session(session.session_id).user_id == session.user_id
            # A later run knows them again, and finds by their users those that were revoked.
            assert copy(source, destination, state).code == 0
        revoked = sessions.pop()
        new.invalidate_session(revoked.session_id)
        outcome = copy(between, last, "--state=False", "--json")
        assert outcome.report == {"complete": True, "unchanged": 1, "revoked": 1}
        assert newest.get_all_user_sessions(revoked.user_id) == []


def texts_of_32(places: Places, *users: str) -> Place:
    """Return a database whose users' ids are text, in a column as SQLAlchemy makes for UUIDs."""
    url = f"sqlite:///{places.folder / 'app.db'}"
    engine = create_engine(url)
    metadata = MetaData()
    people = Table("people", metadata, Column("number", CHAR(32), primary_key=True))
    tables = AuthTables(metadata, user=people, sessions=True)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(people), [{"number": user} for user in users])
    adapter = SQLAlchemyAdapter(engine, tables)
    for number, user in enumerate(users):
        adapter.set_session(row(f"{number}" * 40, user))
    engine.dispose()
    return Place(url)


@pytest.mark.parametrize(
    ("user", "options", "stored"),
    [
        ("alice", (), "alice"),
        ("f" * 32, (), "f" * 32),  # hex digits, but no UUID has these
        (UUID(int=7).hex, (), UUID(int=7).hex),
        (UUID(int=7).hex, ("--user-id", "uuid"), str(UUID(int=7))),
        (ALICE.hex, (), str(ALICE)),
        (ALICE.hex, ("--user-id", "text"), ALICE.hex),
    ],
)
def test_ids_in_a_column_of_32_characters(
    places: Places, user: str, options: tuple[str, ...], stored: str
) -> None:
    """Ids of 32 characters are UUIDs if all of them can be, or as the option says."""
    source, destination = texts_of_32(places, user), places.make("redis", 0)
    assert copy(source, destination, *options).code == 0
    with destination.adapter() as adapter:
        assert adapter.get_session("0" * 40).user_id == stored


def test_one_id_that_is_no_uuid(places: Places) -> None:
    """One id that is no UUID makes all of them text."""
    source = texts_of_32(places, ALICE.hex, ALICE.hex[:31])
    destination = places.make("redis", 0)
    assert copy(source, destination, "--json").report == {"complete": True, "copied": 2}


@pytest.mark.parametrize(
    ("ids", "option"), [("int", "text"), ("int", "uuid"), ("text", "int"), ("text", "uuid")]
)
def test_ids_of_another_type(places: Places, ids: str, option: str) -> None:
    """An option that the column's type contradicts is an error that names that type."""
    source = places.database("sqlite", TYPES.get(ids, ("alice", "bob")))
    outcome = copy(source, places.make("redis", 0), "--user-id", option)
    assert outcome.code == 2
    assert f"--user-id says {option}, but" in outcome.errors


def test_sessions_that_refer_to_no_users(places: Places) -> None:
    """Where no foreign key names the table of users, the command has to be told its name."""
    url = f"sqlite:///{places.folder / 'app.db'}"
    engine = create_engine(url)
    metadata = MetaData()
    with_users = AuthTables(metadata, sessions=True)
    assert with_users.session is not None
    for constraint in list(with_users.session.foreign_key_constraints):
        with_users.session.constraints.remove(constraint)
    metadata.create_all(engine)
    engine.dispose()
    destination = places.make("redis", 0)
    outcome = copy(Place(url), destination)
    assert outcome.code == 2
    assert "--user-table" in outcome.errors
    assert copy(Place(url), destination, "--user-table", "auth_user").code == 0
