"""The doctor finds what is wrong, and nothing else, while sessions change between its commands."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from lucia._redis.cluster import PROVISIONAL_MS, ScriptedSteps
from lucia._redis.commands import Call
from lucia._redis.doctor.findings import Examined, Finding, Kind, RepairOptions
from lucia._redis.doctor.index import RESTARTS
from lucia._redis.doctor.keys import KeyExaminer
from lucia._redis.records import encode_row
from lucia._redis.repair import Repair, ScriptedRepairs
from lucia._rules.sessions import new_session_id, system_clock
from tests.support.redis_inspectors import DEFAULT, Inspector
from tests.support.sessions import HOUR, row
from tests.support.stepped_operations import Stepper
from tools.servers import Server

INDEX = "userSession:u1"

LOST = redis.ConnectionError("the connection was lost")


@pytest.fixture
def inspector(redis_server: Server) -> Iterator[Inspector]:
    """Yield an inspector of an emptied server."""
    with Inspector(redis_server) as found:
        yield found


def doctor(**options: bool) -> KeyExaminer:
    """Return an examiner of the default layout that fixes."""
    return KeyExaminer(
        DEFAULT, ScriptedSteps(), ScriptedRepairs(), RepairOptions(fix=True, **options)
    )


def examine(
    inspector: Inspector, *names: str, others: bool = False, **options: bool
) -> Stepper[Examined]:
    """Start an examination of these keys, one command at a time."""
    return Stepper(
        inspector.client,
        doctor(**options).examine("", [name.encode() for name in names], others=others),
    )


def findings(examination: Stepper[Examined]) -> list[Finding]:
    """Finish an examination, and return its findings."""
    return examination.finish().findings


def test_incomplete_session_is_no_finding(inspector: Inspector) -> None:
    """A session with no index entry and at most ten seconds left is not a finding.

    It is being created.
    """
    inspector.client.set("session:s", encode_row(row("s")), px=PROVISIONAL_MS)
    assert findings(examine(inspector, "session:s")) == []


def test_session_that_is_just_over(inspector: Inspector) -> None:
    """A session that expired less than a minute ago is not a finding: clocks differ."""
    inspector.client.set("session:s", encode_row(row("s", life=-30_000)))
    assert findings(examine(inspector, "session:s")) == []
    inspector.client.set("session:s", encode_row(row("s", life=-90_000)))
    assert [finding.kind for finding in findings(examine(inspector, "session:s"))] == [
        Kind.DEAD_SESSION
    ]


def test_end_in_whole_seconds(inspector: Inspector) -> None:
    """A key may expire up to a second from its session: Lucia JS writes whole seconds."""
    session = row("s")
    inspector.client.set("session:s", encode_row(session), exat=session.idle_expires // 1_000)
    inspector.client.lpush(INDEX, "s")
    inspector.client.pexpireat(INDEX, session.idle_expires)
    assert findings(examine(inspector, "session:s", INDEX)) == []


def test_what_is_gone_meanwhile(inspector: Inspector) -> None:
    """A key that is gone, also an index that goes while it is read, is not a finding."""
    assert (
        findings(
            examine(
                inspector,
                "session:s",
                INDEX,
                "session:renewed:x",
                "session:throttle:x",
                "bare",
                others=True,
            )
        )
        == []
    )
    inspector.client.rpush(INDEX, "x")
    examination = examine(inspector, INDEX).step()
    inspector.client.delete(INDEX)
    assert findings(examination) == []


def test_session_revoked_meanwhile_is_no_finding(inspector: Inspector) -> None:
    """A session that is revoked while it is examined is not reported as unindexed."""
    inspector.write(row("s"))
    examination = examine(inspector, "session:s").step()
    inspector.client.delete("session:s")
    assert findings(examination) == []


def test_session_that_changes_meanwhile(inspector: Inspector) -> None:
    """A session that changes after it was read is not fixed."""
    inspector.client.set("session:s", encode_row(row("s", life=-2 * HOUR)))
    examination = examine(inspector, "session:s").step()
    inspector.client.set("session:s", encode_row(row("s")))
    assert [finding.fixed for finding in findings(examination)] == [False]
    assert inspector.client.exists("session:s") == 1


def test_entry_that_goes_meanwhile(inspector: Inspector) -> None:
    """An id that is removed from its index just after its session is not a finding."""
    inspector.write(row("s"))
    inspector.client.lpush(INDEX, "s", "t")
    inspector.client.pexpire(INDEX, 2 * HOUR)
    examination = examine(inspector, INDEX).step(3)
    inspector.client.lrem(INDEX, 0, "t")
    assert findings(examination) == []


def test_index_that_is_gone_before_it_is_fixed(inspector: Inspector) -> None:
    """A dead entry whose index is gone before it is removed counts as fixed."""
    inspector.client.lpush(INDEX, "dead")
    inspector.client.pexpire(INDEX, HOUR)
    examination = examine(inspector, INDEX)
    while examination.commands[-1] != Call("TYPE", (INDEX.encode(),)):
        examination.step()
    inspector.client.delete(INDEX)
    assert findings(examination) == [Finding(Kind.DEAD_ENTRY, fixed=True, user_id="u1")]


def test_login_while_an_index_is_read(inspector: Inspector) -> None:
    """An index whose expiry a login extends while it is read is not a finding."""
    inspector.write(row("s"))
    inspector.client.lpush(INDEX, "s")
    inspector.client.pexpireat(INDEX, system_clock() + HOUR)
    examination = examine(inspector, INDEX).step()
    inspector.write(row("t", life=2 * HOUR))
    inspector.client.lpush(INDEX, "t")
    inspector.client.pexpireat(INDEX, system_clock() + 3 * HOUR)
    assert findings(examination) == []


def _endless(inspector: Inspector) -> Stepper[Examined]:
    """Store an index of several pages without an expiry, whose newest session expires last."""
    inspector.fill("u1", 1_200)
    last = row("last", life=5 * HOUR)
    inspector.write(last)
    inspector.client.lpush(INDEX, "last")
    inspector.client.persist(INDEX)
    return examine(inspector, INDEX)


def _goes_on(command: Any) -> bool:
    """Return whether the next command reads a page after the first."""
    return isinstance(command, Call) and command.name == "LRANGE" and command.arguments[2] != -1


def test_revocations_while_index_expiry_is_set(inspector: Inspector) -> None:
    """An index that loses entries while it is read is read again, and eventually left alone."""
    for times, fixed in ((1, True), (10 * RESTARTS, False)):
        examination, gone = _endless(inspector), 0
        while not examination.done:
            is_second = inspector.client.ttl(INDEX) > 0
            if is_second and _goes_on(examination.commands[-1]) and gone < times:
                inspector.client.rpop(INDEX)
                gone += 1
            examination.step()
        assert examination.result is not None
        assert examination.result.findings == [Finding(Kind.INDEX_WITHOUT_TTL, fixed, "u1")]
        assert (
            inspector.client.pttl(INDEX) > 4 * HOUR if fixed else inspector.client.pttl(INDEX) == -1
        )
        inspector.client.flushall()


def test_lost_connections_are_no_refusals(inspector: Inspector) -> None:
    """A lost connection is an error, even during a command that may be refused."""
    with pytest.raises(redis.ConnectionError):
        examine(inspector, "foreign", others=True).step().fail(LOST)
    with pytest.raises(redis.ConnectionError):
        Stepper(inspector.client, doctor().examine_server("")).fail(LOST)


def test_refused_server_settings_are_none(inspector: Inspector) -> None:
    """Anything that a server refuses to report is None, and so is an unknown policy."""
    server = Stepper(inspector.client, doctor().examine_server(""))
    for _ in range(4):
        server.fail(redis.ResponseError("unknown command"))
    assert server.result == (None, None, None)


def test_bare_session_whose_place_is_taken(inspector: Inspector) -> None:
    """A bare session does not overwrite a key; only a list with a user's session is deleted."""
    session = row(new_session_id(), "u1")
    inspector.client.set(session.id, encode_row(session))
    inspector.client.rpush("u1", session.id)
    inspector.client.set(f"session:{session.id}", "taken")
    found = findings(examine(inspector, session.id, "u1", others=True, move_bare=True))
    assert {(finding.kind, finding.fixed) for finding in found} == {
        (Kind.BARE_SESSION, False),
        (Kind.BARE_INDEX, False),
    }
    assert inspector.client.get(f"session:{session.id}") == b"taken"
    assert inspector.client.exists(session.id, "u1") == 2


def test_long_bare_index(inspector: Inspector) -> None:
    """A bare index of several pages is moved completely."""
    session = row(new_session_id(), "u1")
    inspector.client.set(session.id, encode_row(session))
    inspector.client.rpush("u1", session.id, *(new_session_id() for _ in range(1_100)))
    found = findings(examine(inspector, "u1", others=True, move_bare=True))
    assert [(finding.kind, finding.fixed) for finding in found] == [
        (Kind.BARE_SESSION, True),
        (Kind.BARE_INDEX, True),
    ]
    assert inspector.keys() == {f"session:{session.id}", INDEX}
    inspector.check()


def test_lists_of_others(inspector: Inspector) -> None:
    """A list without session ids, and an id without its session, are not findings."""
    inspector.client.rpush("a list", "x")
    inspector.client.rpush("u1", new_session_id())
    name = new_session_id()
    inspector.client.set(name, "x")
    found = findings(examine(inspector, "a list", "u1", name, others=True, move_bare=True))
    assert found == [Finding(Kind.BARE_INDEX, fixed=False, user_id="u1")]


def test_expired_session_is_not_indexed(inspector: Inspector) -> None:
    """An expired session is not added to an index."""
    assert not Stepper(
        inspector.client, Repair(DEFAULT, ScriptedSteps()).add_to_index(row("s", life=-1))
    ).finish()
    assert inspector.keys() == set()
