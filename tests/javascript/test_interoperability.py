"""A Python and a JavaScript service on the same keys.

With the layout ``lucia-v2`` the service is Lucia JS from npm. With the default layout it is a small
program that does what the documentation of Lucia JS describes.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import pytest
import redis

from lucia import Auth, InvalidSessionId, SessionExpiry
from lucia.adapters.redis import RedisSessionAdapter
from tests.javascript.service import Kind, Service, ServiceError, install, running
from tools.servers import Server

LayoutName = Literal["default", "lucia-v2"]
LAYOUTS: dict[LayoutName, tuple[Kind, str]] = {
    "default": ("documented", "userSession"),
    "lucia-v2": ("original", "user_sessions"),
}
HOUR = 3_600_000

pytestmark = pytest.mark.slow


@dataclass
class Side:
    """Both services on the keys of one server.

    Args:
        theirs: the JavaScript service, whose sessions are active for an hour.
        hasty: another one, whose sessions are idle at once.
        ours: the Python service, whose sessions are active for an hour.
        ours_hasty: another one, whose sessions are idle at once.
        index: the namespace of the indexes.
        client: reads the keys.
    """

    layout: LayoutName
    theirs: Service
    hasty: Service
    ours: Auth[Any]
    ours_hasty: Auth[Any]
    index: str
    client: Any

    def record(self, session_id: str) -> Any:
        """Return the record of a session."""
        return json.loads(self.client.get(f"session:{session_id}"))

    def indexed(self, user_id: str) -> set[str]:
        """Return the ids in a user's index."""
        key = f"{self.index}:{user_id}"
        ids = (
            self.client.lrange(key, 0, -1)
            if self.layout == "default"
            else self.client.smembers(key)
        )
        return {id_.decode() for id_ in ids}


@pytest.fixture(scope="module")
def packages() -> None:
    """Install the npm packages."""
    install()


@pytest.fixture(params=list(LAYOUTS))
def both(request: pytest.FixtureRequest, redis_server: Server, packages: None) -> Iterator[Side]:
    """Yield both services, for each layout."""
    layout: LayoutName = request.param
    kind, index = LAYOUTS[layout]
    client: Any = redis.Redis.from_url(redis_server.url)
    with (
        client,
        running(kind, redis_server.url, HOUR) as theirs,
        running(kind, redis_server.url, -1) as hasty,
    ):
        client.flushall()
        with RedisSessionAdapter(client, layout=layout, legacy_writers=True) as sessions:
            hour, moment = timedelta(hours=1), timedelta(milliseconds=1)
            ours = Auth(
                sessions=sessions,
                env="DEV",
                session_expires_in=SessionExpiry(active=hour, idle=hour),
            )
            ours_hasty = Auth(
                sessions=sessions,
                env="DEV",
                session_expires_in=SessionExpiry(active=moment, idle=hour),
            )
            yield Side(layout, theirs, hasty, ours, ours_hasty, index, client)


def is_dead(read: Callable[[str], object], session_id: str) -> bool:
    """Return whether one of the services finds no live session with this id."""
    try:
        read(session_id)
    except InvalidSessionId:
        return True
    except ServiceError as error:
        if str(error) != "AUTH_INVALID_SESSION_ID":
            raise
        return True
    return False


def read_by_theirs(both: Side) -> Callable[[str], object]:
    """Return a function that reads a session with the JavaScript service."""
    return lambda session_id: both.theirs.call("read", session_id)


def test_they_read_ours(both: Side) -> None:
    """The JavaScript service reads all members of a Python session, and lists it."""
    session = both.ours.create_session("alice", metadata={"via": "python"})
    read = both.theirs.call("read", session.session_id)
    assert read == both.record(session.session_id)
    assert read["user_id"] == "alice"
    assert read["noted"] == {"via": "python"}
    assert both.theirs.call("list", "alice") == [session.session_id]


def test_we_read_theirs(both: Side) -> None:
    """The Python service validates and lists a JavaScript session, and keeps its members."""
    session_id = both.theirs.call("create", "alice", {"theme": "dark"})
    session = both.ours.validate_session(session_id)
    assert (session.session_id, session.user_id, session.state, session.fresh) == (
        session_id,
        "alice",
        "active",
        False,
    )
    assert [device.handle for device in both.ours.get_all_user_sessions("alice")] == [
        session.handle
    ]
    assert both.record(session_id)["theme"] == "dark"


def test_they_end_ours(both: Side) -> None:
    """A Python session revoked by the JavaScript service is not found or listed."""
    session = both.ours.create_session("alice")
    both.theirs.call("end", session.session_id)
    assert is_dead(both.ours.validate_session, session.session_id)
    assert both.ours.get_all_user_sessions("alice") == []
    assert both.indexed("alice") == set()


def test_we_end_theirs(both: Side) -> None:
    """A JavaScript session revoked by the Python service is not found or listed.

    It is revoked by its id or its handle.
    """
    first, second = both.theirs.call("create", "alice"), both.theirs.call("create", "alice")
    handle = both.ours.validate_session(second).handle
    both.ours.invalidate_session(first)
    assert both.ours.invalidate_user_session("alice", handle)
    assert is_dead(read_by_theirs(both), first)
    assert is_dead(read_by_theirs(both), second)
    assert both.theirs.call("list", "alice") == []
    assert both.indexed("alice") == set()


def test_they_end_all(both: Side) -> None:
    """The JavaScript sign-out everywhere revokes all sessions of the user and no others."""
    sessions = [both.ours.create_session("alice").session_id, both.theirs.call("create", "alice")]
    other = both.ours.create_session("bob").session_id
    both.theirs.call("endAll", "alice")
    assert all(is_dead(both.ours.validate_session, each) for each in sessions)
    assert both.ours.validate_session(other).user_id == "bob"


def test_we_end_all(both: Side) -> None:
    """The Python sign-out everywhere revokes all sessions of the user and no others."""
    sessions = [both.ours.create_session("alice").session_id, both.theirs.call("create", "alice")]
    other = both.theirs.call("create", "bob")
    both.ours.invalidate_all_user_sessions("alice")
    assert all(is_dead(read_by_theirs(both), each) for each in sessions)
    assert both.theirs.call("read", other)["user_id"] == "bob"
    assert both.indexed("alice") == set()


def test_we_keep_theirs(both: Side) -> None:
    """The Python sign-out everywhere can keep a JavaScript session."""
    ours, theirs = both.ours.create_session("alice").session_id, both.theirs.call("create", "alice")
    assert both.ours.invalidate_all_user_sessions("alice", keep=theirs)
    assert both.theirs.call("read", theirs)["id"] == theirs
    assert is_dead(read_by_theirs(both), ours)


def test_we_renew_theirs(both: Side) -> None:
    """A JavaScript session renewed by the Python service can be read and listed.

    The used id is dead for the JavaScript service.
    """
    used = both.hasty.call("create", "alice", {"theme": "dark"})
    session = both.ours.validate_session(used)
    assert session.fresh
    assert session.session_id != used
    assert both.theirs.call("read", session.session_id)["theme"] == "dark"
    assert both.theirs.call("list", "alice") == [session.session_id]
    assert is_dead(read_by_theirs(both), used)


def test_they_renew_ours(both: Side) -> None:
    """A Python session renewed by the JavaScript service is active and listed."""
    session = both.ours_hasty.create_session("alice", metadata={"via": "python"})
    while both.ours.get_session(session.session_id).state == "active":
        pass
    renewed = both.theirs.call("renew", session.session_id)
    ours = both.ours.validate_session(renewed)
    assert (ours.state, ours.fresh) == ("active", False)
    assert ours.handle in {device.handle for device in both.ours.get_all_user_sessions("alice")}
    if both.layout == "lucia-v2":  # Lucia 2 renews in place, under the same id
        assert (renewed, ours.handle, ours.metadata) == (
            session.session_id,
            session.handle,
            {"via": "python"},
        )


def test_we_end_what_they_renewed(both: Side) -> None:
    """The Python sign-out everywhere revokes a session that the JavaScript service renewed.

    The used id is dead too.
    """
    session = both.ours_hasty.create_session("alice")
    renewed = both.theirs.call("renew", session.session_id)
    both.ours.invalidate_all_user_sessions("alice")
    assert is_dead(read_by_theirs(both), session.session_id)
    assert is_dead(read_by_theirs(both), renewed)


def lost_logins(both: Side, ours: Auth[Any]) -> set[str]:
    """Return live JavaScript logins that are in no index.

    The Python service signs the user out during each of a login's two commands and between them.
    """

    def amid_sign_outs(method: str, parameter: Any) -> Any:
        both.theirs.send(method, parameter)
        while not both.theirs.has_answered():
            ours.invalidate_all_user_sessions("alice")
        return both.theirs.receive()

    ids: list[str] = []
    for _ in range(30):
        session = amid_sign_outs("beginCreate", "alice")
        ours.invalidate_all_user_sessions("alice")
        amid_sign_outs("endCreate", session)
        ids.append(session["id"])
    return {each for each in ids if not is_dead(ours.validate_session, each)} - both.indexed(
        "alice"
    )


@pytest.mark.parametrize("both", ["default"], indirect=True)
def test_their_logins_stay_reachable(both: Side) -> None:
    """During sign-outs a live JavaScript login stays indexed, so the next sign-out revokes it."""
    assert lost_logins(both, both.ours) == set()
    both.ours.invalidate_all_user_sessions("alice")
    assert both.theirs.call("list", "alice") == []


@pytest.mark.parametrize("both", ["default"], indirect=True)
def test_control_js_logins_are_lost_without_legacy_writers(both: Side) -> None:
    """Control: without ``legacy_writers`` such logins are lost."""
    with RedisSessionAdapter(both.client, layout=both.layout) as alone:
        assert lost_logins(both, Auth(sessions=alone, env="DEV")) != set()


def test_an_index_of_both_has_no_expiry(both: Side) -> None:
    """With ``legacy_writers`` an index has no TTL, whoever wrote first.

    JavaScript logins would not extend it.
    """
    both.ours.create_session("alice")
    both.theirs.call("create", "bob")
    both.ours.create_session("bob")
    assert [both.client.pttl(f"{both.index}:{user}") for user in ("alice", "bob")] == [-1, -1]
