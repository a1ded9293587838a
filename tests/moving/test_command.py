"""The command line: what is skipped and why, options, output, exit codes, lost connections."""

import sqlite3
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import MetaData, create_engine, insert, text

from lucia._copy import sql
from lucia._copy.copier import Pacer
from lucia._copy.redis import RedisStore
from lucia._copy.sql import SqlStore
from lucia._redis.commands import Call, OnNode
from lucia._redis.records import encode_row
from lucia._rules.sessions import system_clock
from lucia.adapters.sqlalchemy import AuthTables
from lucia.cli import copy as command
from tests.moving.places import KEY, USERS, Place, Places, copy
from tests.moving.test_changes import is_live
from tests.support.lossy_proxy import LossyProxy
from tests.support.sessions import HOUR, row
from tools.servers import Server


def both(places: Places, one: str = "redis", other: str = "redis") -> tuple[Place, Place]:
    """Return a source and a destination."""
    return places.make(one, 0), places.make(other, 1)


def test_damaged_source(places: Places) -> None:
    """What is no live session is counted by its reason, and the rest is copied."""
    source, destination = both(places)
    with source.application() as old, source.client() as client:
        session = old.create_session(USERS[0])
        client.set("session:damaged", "no JSON", px=HOUR)
        client.hset("session:hash", "a", "b")
        client.set("session:renewed:{session:x}", "no JSON", px=HOUR)
        client.set("session:renewed:{session:y}", '{"ended":true}', px=HOUR)
        client.set("session:renewed:nobody", "no JSON", px=HOUR)
        client.lpush("session:throttle:0", "1")
        over = row("over", USERS[0], life=-HOUR)
        client.set("session:over", encode_row(over))
        half = row("half", USERS[0])
        client.set("session:half", encode_row(half), px=9_000)
        outcome = copy(source, destination, "--json")
        assert outcome.code == 1
        assert outcome.report == {
            "complete": True,
            "copied": 1,
            "skipped": {"undecodable": 3, "key_of_another_type": 1, "expired": 1, "incomplete": 1},
        }
        assert session.session_id not in outcome.out + outcome.errors
        with destination.client() as other:
            assert len(other.keys("session:*")) == 1


def test_damaged_rows(places: Places) -> None:
    """Rows that are no live session are counted by their reasons."""
    source, destination = both(places, "sqlite")
    engine = create_engine(source.url)
    sessions = AuthTables(MetaData(), sessions=True).session
    assert sessions is not None
    values: dict[str, Any] = {
        "user_id": USERS[0],
        "active_expires": 0,
        "idle_expires": system_clock() + HOUR,
        "attributes": {},
        "successor": None,
    }
    with engine.begin() as connection:
        rows: dict[str, dict[str, Any]] = {
            "sound": {},
            "over": {"idle_expires": 1},
            "damaged": {"attributes": []},
            "used": {"successor": "nobody"},
            "lost": {"successor": "nobody", "active_expires": system_clock() + HOUR},
            "forgotten": {"successor": "sound", "idle_expires": 1},
        }
        for id_, changes in rows.items():
            connection.execute(insert(sessions).values({"id": id_, **values, **changes}))
    engine.dispose()
    outcome = copy(source, destination, "--json")
    assert outcome.code == 1
    skipped = {"undecodable": 1, "expired": 1}
    assert outcome.report == {"complete": True, "copied": 1, "skipped": skipped}


def test_rows_in_a_circle(places: Places) -> None:
    """Used rows that lead to each other end no copy: they lead nowhere."""
    source, destination = both(places, "sqlite")
    with source.adapter() as old:
        old.set_session(row("sound", USERS[0]))
        old.set_session(row("first", USERS[0]))
        old.set_session(row("second", USERS[0]))
    engine = create_engine(source.url)
    with engine.begin() as connection:
        for used, successor in (("first", "second"), ("second", "first")):
            connection.execute(
                text("UPDATE auth_session SET successor = :successor WHERE id = :used"),
                {"successor": successor, "used": used},
            )
    engine.dispose()
    assert copy(source, destination, "--json").report == {"complete": True, "copied": 1}


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_taken(places: Places, kind: str) -> None:
    """A session whose id another one has, or whose index is of another type, is not copied."""
    source, destination = both(places, other=kind)
    layout = destination.layout
    with source.adapter() as old, destination.adapter() as new, destination.client() as client:
        mine, same = row("taken", USERS[0]), row("same", USERS[0])
        for each in (mine, same, row("corrupt", "mallory"), row("renewed:x", USERS[0])):
            if each.id == "renewed:x":
                with pytest.raises(ValueError, match="may not begin"):
                    old.set_session(each)
            else:
                old.set_session(each)
        theirs = row("taken", USERS[1])
        new.set_session(theirs)
        new.set_session(same)
        client.set(layout.index_key("mallory"), "no index")
        outcome = copy(source, destination, "--json")
        assert outcome.code == 2
        assert "--merge" in outcome.errors
        dry = copy(source, destination, "--json", "--dry-run", "--merge")
        assert dry.code == 1
        assert dry.report["skipped"]["id_taken"] == 1
        for _ in range(2):
            outcome = copy(source, destination, "--json", "--merge")
            assert outcome.code == 1
            skipped = {"id_taken": 1, "index_of_another_type": 1}
            assert outcome.report == {"complete": True, "unchanged": 1, "skipped": skipped}
            assert new.get_session("taken") == theirs
            assert new.get_session("corrupt") is None
        old.delete_session("taken")
        assert "id_taken" not in copy(source, destination, "--json").report["skipped"]
        assert new.get_session("taken") == theirs


def test_expired_meanwhile(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that expires between its reading and its writing is not written."""
    source, destination = both(places)
    with source.adapter() as old, destination.client() as client:
        old.set_session(row("a" * 40, life=400))
        insert_rows = RedisStore.insert

        def late(self: RedisStore, rows: Any) -> Any:
            end = system_clock() + 500
            while system_clock() < end:
                pass
            return insert_rows(self, rows)

        monkeypatch.setattr(RedisStore, "insert", late)
        report = copy(source, destination, "--json").report
        assert report["skipped"]["expired"] >= 1
        assert client.dbsize() == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_users_of_a_database(places: Places, kind: str) -> None:
    """Sessions of missing users, and those that the database refuses, are counted and skipped."""
    source, destination = both(places, other=kind)
    with source.adapter() as old, destination.adapter() as new:
        old.set_session(row("a" * 40, USERS[0]))
        old.set_session(row("b" * 40, "nobody"))
        expected = {"complete": True, "copied": 1, "skipped": {"user_missing": 1}}
        for options in (["--dry-run"], []):
            outcome = copy(source, destination, "--json", *options)
            assert outcome.code == 1
            assert outcome.report == {**expected, **({"dry_run": True} if options else {})}
        # The next run copies it if the user is there by then.
        engine = create_engine(destination.url)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO auth_user (id) VALUES ('nobody')"))
        engine.dispose()
        outcome = copy(source, destination, "--json")
        assert outcome.report == {"complete": True, "copied": 1, "unchanged": 1}
        assert new.get_session("b" * 40) == old.get_session("b" * 40)


def test_refused_by_a_database(places: Places) -> None:
    """A session that a database refuses does not keep the others from being copied."""
    source, destination = both(places, other="postgresql")
    engine = create_engine(destination.url)
    with engine.begin() as connection:
        check = "CHECK (attributes::text NOT LIKE '%refuse%')"
        connection.execute(text(f"ALTER TABLE auth_session ADD CONSTRAINT some_rule {check}"))
    engine.dispose()
    with source.adapter() as old, destination.adapter() as new:
        for number in range(5):
            old.set_session(row(f"{number}" * 40, USERS[0], noted={"x": "refuse"[: 6 - number]}))
        outcome = copy(source, destination, "--json")
        assert outcome.code == 1
        skipped = {"refused_by_destination": 1}
        assert outcome.report == {"complete": True, "copied": 4, "skipped": skipped}
        assert len(new.get_sessions_by_user_id(USERS[0])) == 4


def test_same_rows(places: Places) -> None:
    """Rows that a database has already are known again, and others with their ids are not."""
    source, destination = both(places, other="sqlite")
    with source.adapter() as old, destination.adapter() as new:
        same, mine = row("s" * 40, USERS[0]), row("t" * 40, USERS[0])
        old.set_session(same)
        old.set_session(mine)
        new.set_session(same)
        new.set_session(row("t" * 40, USERS[1]))
        outcome = copy(source, destination, "--json", "--merge")
        assert outcome.report == {"complete": True, "unchanged": 1, "skipped": {"id_taken": 1}}


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_refused_by_the_layout(places: Places, kind: str) -> None:
    """A row whose id the layout can't hold, or whose record is too long, is counted."""
    source, destination = both(places, "sqlite", kind)
    with source.adapter() as old:
        old.set_session(row("renewed:x", USERS[0]))
        old.set_session(row("a}b{c", USERS[0]))
        old.set_session(row("long", USERS[0], text="x" * 20_000))
        outcome = copy(source, destination, "--json")
        assert outcome.code == 1
        refused = outcome.report["skipped"]["refused_by_destination"]
        assert refused == (3 if kind == "cluster" else 2)


def test_dry_run(places: Places) -> None:
    """With --dry-run nothing is written, neither before nor after a first run."""
    source, destination = both(places)
    with source.application() as old, destination.client() as client:
        sessions = [old.create_session(user) for user in USERS]
        expected = {"complete": True, "dry_run": True, "copied": len(USERS)}
        assert copy(source, destination, "--json", "--dry-run").report == expected
        assert not Path("lucia-copy.sqlite").exists()
        assert client.dbsize() == 0
        assert "Nothing was written." in copy(source, destination, "--dry-run").out
        assert copy(source, destination).code == 0
        before = sorted(client.keys())
        old.invalidate_session(sessions[0].session_id)
        old.renew_session(sessions[1].session_id)
        longer = row(sessions[2].session_id, USERS[2], life=2 * HOUR)
        with source.client() as there:
            there.set(
                source.layout.session_key(longer.id), encode_row(longer), pxat=longer.idle_expires
            )
        used = old.renew_session(sessions[3].session_id)
        with source.client() as there:
            there.delete(source.layout.marker_key(sessions[3].session_id))
        assert copy(source, destination, "--json", "--dry-run").report == {
            "complete": True,
            "dry_run": True,
            "copied": 2,
            "unchanged": 4,
            "updated": 1,
            "used": 1,
            "removed": 1,
            "revoked": 1,
        }
        assert sorted(client.keys()) == before
        assert used.session_id.encode() not in b"".join(before)


def test_output(places: Places) -> None:
    """The output has counts and reasons, and no session id."""
    source, destination = both(places, other="sqlite")
    with source.application() as old:
        sessions = [old.create_session(user) for user in (*USERS, "nobody")]
        outcome = copy(source, destination)
        assert outcome.code == 1
        assert "copied" in outcome.out
        assert "the destination's table of users does not have their user" in outcome.out
        assert outcome.errors == ""
        assert not [each for each in sessions if each.session_id in outcome.out]


def test_progress(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a bar shows the progress."""
    source, destination = both(places)
    console = Console(force_terminal=True, stderr=True)
    monkeypatch.setattr(command, "error_console", lambda: console)
    with source.application() as old:
        old.create_session(USERS[0])
        with console.capture() as captured:
            assert copy(source, destination).code == 0
        assert "sessions" in captured.get()


def test_other_settings(places: Places) -> None:
    """A state file of another copy is refused; so is what is none, and one that is in use."""
    source, destination = both(places)
    with source.application() as old:
        old.create_session(USERS[0])
        assert copy(source, destination, "--state", "here").code == 0
        outcome = copy(source, places.make("redis", 2), "--state", "here")
        assert outcome.code == 2
        assert "here belongs to a copy with another to_url" in outcome.errors
        Path("other").write_text("no database " * 1_000)
        outcome = copy(source, destination, "--state", "other")
        assert outcome.code == 2
        assert "other is no state file of lucia copy" in outcome.errors
        database = sqlite3.connect("here", isolation_level=None)
        database.execute("BEGIN EXCLUSIVE")
        outcome = copy(source, destination, "--state", "here")
        assert outcome.code == 2
        assert "perhaps another copy is running with it" in outcome.errors
        database.close()
        assert copy(source, destination, "--state", "no/such/folder").code == 2
        assert stat.S_IMODE(Path("here").stat().st_mode) == 0o600


def test_lost_state_file(places: Places) -> None:
    """Without its state file, a copy into the same store is refused: it would revive sessions."""
    source, destination = both(places)
    with source.application() as old, destination.application() as new:
        sessions = [old.create_session(user) for user in USERS]
        assert copy(source, destination).code == 0
        new.invalidate_session(sessions[0].session_id)
        Path("lucia-copy.sqlite").unlink()
        outcome = copy(source, destination)
        assert outcome.code == 2
        assert "sessions that were revoked would be valid again" in outcome.errors
        assert not is_live(new, sessions[0])


def test_empty_source(places: Places) -> None:
    """If nothing that was copied is in the source any more, nothing is revoked unless asked."""
    source, destination = both(places)
    with source.application() as old, destination.application() as new:
        session = old.create_session(USERS[0])
        assert copy(source, destination).code == 0
        with source.client() as client:
            client.flushdb()
        outcome = copy(source, destination)
        assert outcome.code == 2
        assert "check its address" in outcome.errors
        assert is_live(new, session)
        outcome = copy(source, destination, "--json", "--all-revoked")
        assert outcome.report == {"complete": True, "revoked": 1}
        assert not is_live(new, session)


def test_another_source(places: Places) -> None:
    """A source that has none of what was copied, but a session of its own, revokes nothing."""
    source, destination = both(places)
    with source.application() as old, destination.application() as new:
        session = old.create_session(USERS[0])
        assert copy(source, destination).code == 0
        with source.client() as client:
            client.flushdb()
        old.create_session(USERS[1])
        outcome = copy(source, destination)
        assert outcome.code == 2
        assert "check its address" in outcome.errors
        assert is_live(new, session)


def test_source_by_its_query(places: Places, redis_server: Server) -> None:
    """A state file belongs to one database, also if the URL's query names it."""
    _, destination = both(places)
    address = f"redis://{redis_server.host}:{redis_server.port}"
    assert copy(Place(f"{address}?db=0"), destination).code == 0
    outcome = copy(Place(f"{address}?db=3"), destination)
    assert outcome.code == 2
    assert "belongs to a copy with another from_query" in outcome.errors


def test_hashes_to_plain_ids(places: Places) -> None:
    """Hashes can't be copied into a store of plain ids, and the error says what to do."""
    source, destination = both(places, "redis hashed", "redis")
    with source.application() as old, destination.client() as client:
        old.create_session(USERS[0])
        outcome = copy(source, destination)
        assert outcome.code == 2
        assert "hashes of session ids, which can't be turned back" in outcome.errors
        assert client.dbsize() == 0
        assert not Path("lucia-copy.sqlite").exists(), "it would refuse a run with the keys"


def test_state_file_of_others(places: Places) -> None:
    """An existing state file becomes its owner's alone; a symbolic link is refused."""
    source, destination = both(places)
    with source.application() as old:
        old.create_session(USERS[0])
        Path("state").touch(mode=0o666)
        Path("state").chmod(0o666)
        assert copy(source, destination, "--state", "state").code == 0
        assert Path("state").stat().st_mode & 0o777 == 0o600
        Path("link").symlink_to("state")
        assert copy(source, destination, "--state", "link").code == 2
        destination = places.make("redis", 2)
        assert copy(source, destination, "--state", ":memory:").code == 0
        assert Path(":memory:").stat().st_size > 0


def test_forgotten_keys(places: Places) -> None:
    """Without the keys, ids are copied as they are; a later run with them is an error."""
    source, destination = both(places, other="redis hashed")
    without = Place(destination.url)
    with (
        source.application() as old,
        without.application() as plain,
        destination.application() as hashed,
    ):
        session = old.create_session(USERS[0])
        assert copy(source, without).code == 0
        assert is_live(plain, session)
        assert is_live(hashed, session)
        outcome = copy(source, destination)
        assert outcome.code == 2
        assert "belongs to a copy with another id_keys" in outcome.errors


def test_markers_of_both_kinds(places: Places) -> None:
    """A plain used id with a sealed successor is sealed anew; one sealed otherwise is skipped."""
    source, destination = places.make("redis", 0), places.make("redis hashed", 1)
    raw = source
    hashed = Place(source.url, id_keys=(KEY,))
    other = Place(source.url, id_keys=(bytes(32),))
    with (
        raw.application() as before,
        hashed.application() as after,
        other.application() as wrong,
        destination.application() as new,
    ):
        used, lost = before.create_session(USERS[0]), before.create_session(USERS[1])
        successor = after.renew_session(used.session_id)
        wrong.renew_session(lost.session_id)
        outcome = copy(source, destination, "--json")
        assert outcome.code == 1
        expected = {"complete": True, "copied": 2, "used": 1, "skipped": {"undecodable": 1}}
        assert outcome.report == expected
        assert new.validate_session(used.session_id).session_id == successor.session_id


def test_keys_in_a_file(places: Places) -> None:
    """The keys can come from a file; unusable ones are refused without being shown."""
    source, destination = both(places, other="redis hashed")
    plain = Place(destination.url)
    Path("keys").write_text(f"{KEY.hex()}\n{bytes(32).hex()}\n")
    with source.application() as old, destination.application() as new:
        session = old.create_session(USERS[0])
        assert copy(source, plain, "--id-keys-file", "keys").code == 0
        assert is_live(new, session)
        for content in ("", "0011", "no hex digits"):
            Path("keys").write_text(content)
            outcome = copy(source, plain, "--id-keys-file", "keys")
            assert outcome.code == 2
            assert "key" in outcome.errors
            assert not content or content not in outcome.errors
        assert copy(source, plain, "--id-keys-file", "missing").code == 2
        Path("keys").write_bytes(b"\xff" * 32)
        outcome = copy(source, plain, "--id-keys-file", "keys")
        assert outcome.code == 2
        assert "keys is no text" in outcome.errors
        assert "xff" not in outcome.errors


def test_impossible_stores(places: Places, redis_server: Server) -> None:
    """A store that is none, is not there, or is the source itself is an error."""
    source, destination = both(places)
    database = places.make("sqlite", 3)
    missing, empty = places.folder / "missing.db", places.folder / "empty.db"
    empty.touch()
    for other, message in (
        (source, "both URLs name the same store"),
        (Place("nonsense"), "no URL of a store"),
        (Place("nonsense://secret@host/x"), "unknown kind of store 'nonsense'"),
        (Place("sqlite+aiosqlite:///x"), "is an async driver"),
        (Place("redis://127.0.0.1:1/0"), "refused"),
        (Place(destination.url, {"layout": "lucia"}), "unknown layout"),
        (Place(f"sqlite:///{missing}"), "there is no file"),
        (Place(f"sqlite:///{empty}"), "no table 'auth_session'"),
    ):
        outcome = copy(source, other)
        assert outcome.code == 2, other
        assert message in outcome.errors
        assert "secret" not in outcome.errors
    assert not missing.exists()
    outcome = copy(source, database, "--user-table", "nobody")
    assert outcome.code == 2
    assert "nobody" in outcome.errors


@pytest.mark.parametrize("word", ["EVALSHA", "SCAN", "DEL"])
def test_lost_connection_of_a_copy(places: Places, redis_server: Server, word: str) -> None:
    """A copy whose replies are lost ends with an error, and the next one loses nothing."""
    source, destination = both(places)
    with source.application() as old, destination.application() as new:
        sessions = [old.create_session(user) for user in USERS]
        with LossyProxy(redis_server.port) as proxy:
            proxy.lose(word)
            behind = Place(f"redis://127.0.0.1:{proxy.port}/1")
            outcome = copy(source, behind, "--state", "behind")
            assert outcome.code == 2, outcome
            assert proxy.lost
            proxy.lose("nothing at all")
            assert copy(source, behind, "--state", "behind", "--merge").code == 0
        assert all(is_live(new, session) for session in sessions)
        with destination.client() as client:
            assert client.keys("session:renewed:*") == []


def test_database_that_fails(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that fails ends the copy, which can go on later."""
    source, destination = both(places, other="sqlite")
    engine = create_engine(destination.url)
    with source.application() as old:
        old.create_session(USERS[0])
        total = SqlStore.is_empty

        def dropped(self: SqlStore) -> bool:
            found = total(self)
            with engine.begin() as connection:
                connection.execute(text("ALTER TABLE auth_session RENAME TO elsewhere"))
            return found

        monkeypatch.setattr(SqlStore, "is_empty", dropped)
        outcome = copy(source, destination)
        assert outcome.code == 2
        assert "run the same command again" in outcome.errors
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO auth_session"))
        assert copy(source, destination).code == 0
        engine.dispose()


def test_without_dbsize(places: Places, redis_server: Server) -> None:
    """A server that refuses DBSIZE is copied all the same."""
    source, destination = both(places)
    with source.application() as old, source.client() as client:
        old.create_session(USERS[0])
        client.execute_command("ACL", "SETUSER", "copier", "on", ">pw", "~*", "+@all", "-dbsize")
        limited = Place(source.url.replace("redis://", "redis://copier:pw@"))
        assert copy(limited, destination, "--json").report == {"complete": True, "copied": 1}
        client.execute_command("ACL", "DELUSER", "copier")


def test_unreadable_size(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of DBSIZE that is no refusal is raised."""
    source, _ = both(places)

    class Broken:
        def run(self, operation: Any) -> Any:
            command = next(operation)
            while not (isinstance(command, OnNode) and command.commands[0] == Call("DBSIZE", ())):
                command = operation.send([""])
            operation.throw(RuntimeError("broken"))

    with source.client() as client, pytest.raises(RuntimeError, match="broken"):
        RedisStore(client, Broken(), source.layout).total()


def test_rate() -> None:
    """At a rate, sessions wait for their turn; without one, nothing waits."""
    slept: list[float] = []
    pacer = Pacer(50, monotonic=lambda: 0.0, sleep=slept.append)
    assert pacer.batch == 50
    for _ in range(3):
        pacer.wait(25)
    assert slept == [0.5, 1.0]
    assert Pacer(1).batch == 1
    assert Pacer(None).batch == Pacer(1_000).batch == 100


def test_many_rows(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of several pages is read to its end."""
    source, destination = both(places, "sqlite")
    monkeypatch.setattr(sql, "PAGE_SIZE", 3)
    with source.application() as old:
        for user in USERS:
            old.create_session(user)
        report = copy(source, destination, "--json").report
        assert report == {"complete": True, "copied": len(USERS)}


def test_without_sqlalchemy(
    places: Places, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis needs no SQLAlchemy, and a database says that it needs it."""
    source, database = both(places, other="sqlite")
    places.make("redis", 1)  # an earlier test's sessions would end the copy before it writes
    with source.application() as old:
        old.create_session(USERS[0])
    monkeypatch.delitem(sys.modules, "lucia.cli.databases", raising=False)
    for module in ("sqlalchemy", "sqlalchemy.exc"):
        monkeypatch.setitem(sys.modules, module, None)
    outcome = copy(source, database)
    assert outcome.code == 2
    assert 'pip install "lucia-auth[sqlalchemy]"' in outcome.errors
    with LossyProxy(redis_server.port) as proxy:
        proxy.lose("EVALSHA")
        behind = Place(f"redis://127.0.0.1:{proxy.port}/1")
        outcome = copy(source, behind)
        assert outcome.code == 2
        assert "run the same command again" in outcome.errors
