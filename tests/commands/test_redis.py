"""``lucia sessions list`` and ``revoke`` on Redis and Valkey, on one server and in a cluster."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

from lucia import AsyncAuth, Auth, InvalidSessionId, User
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.models import Session, SessionRow
from tests.support.acl_rights import LEAST_RIGHTS
from tests.support.command_runs import Outcome, finish, lucia, start
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.redis_servers import silent_server
from tests.support.sessions import HOUR, row
from tests.support.sql_servers import SqlServer
from tools.servers import Server, unused_port

# redis-py 7's cluster clients cause deprecation warnings themselves.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")

KEY: Final = bytes(32)
DEPLOYMENTS: Final = ["redis", "valkey", "cluster"]


@pytest.fixture(params=DEPLOYMENTS)
def inspector(request: pytest.FixtureRequest) -> Iterator[Inspector]:
    """Yield an inspector of an empty server or cluster."""
    if request.param == "cluster":
        with ClusterInspector(request.getfixturevalue("cluster")) as found:
            yield found
    else:
        with Inspector(request.getfixturevalue(f"{request.param}_server")) as found:
            yield found


one_server = pytest.mark.parametrize("inspector", ["redis"], indirect=True)


@pytest.fixture
def adapter(inspector: Inspector) -> Iterator[RedisSessionAdapter]:
    """Yield an application's adapter."""
    with RedisSessionAdapter(inspector.client) as found:
        yield found


@pytest.fixture
def auth(adapter: RedisSessionAdapter) -> Auth[User]:
    """Return an application's ``Auth``."""
    return Auth(sessions=adapter, env="DEV")


def sessions(inspector: Inspector, *arguments: object) -> Outcome:
    """Run ``lucia sessions`` on the store of an inspector."""
    return lucia("sessions", *arguments, LUCIA_STORE_URL=inspector.server.url)


def logins(auth: Auth[User], count: int, user_id: str = "alice") -> list[Session]:
    """Sign a user in several times, and return the sessions, newest first."""
    return [auth.create_session(user_id, metadata={"number": n}) for n in range(count)][::-1]


def is_live(auth: Auth[User], session: Session) -> bool:
    """Return whether the session of a user is still accepted."""
    try:
        auth.validate_session(session.session_id)
    except InvalidSessionId:
        return False
    return True


def assert_tells_no_id(outcome: Outcome, found: list[Session]) -> None:
    """Check that no session id is in the output."""
    assert not any(each.session_id in outcome.out + outcome.errors for each in found)


# list


def test_list_of_a_user(inspector: Inspector, auth: Auth[User]) -> None:
    """A user's sessions are listed by their handles, newest first, and not those of others."""
    found = logins(auth, 3)
    logins(auth, 1, "bob")
    outcome = sessions(inspector, "list", "alice")
    assert (outcome.code, outcome.errors) == (0, "")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["handle", "signed", "in", "expires", "state", "metadata"]
    assert [words[0] for words in lines[2:]] == [each.handle for each in found]
    assert lines[2][-3:] == ["active", '{"number":', "2}"]
    assert f"{found[0].created_at:%Y-%m-%d %H:%M} UTC" in outcome.out
    assert_tells_no_id(outcome, found)


def test_json_of_list(inspector: Inspector, auth: Auth[User]) -> None:
    """The JSON has each session with what the device list has."""
    found = logins(auth, 2)
    outcome = sessions(inspector, "list", "alice", "--json")
    assert outcome.report == {
        "version": 1,
        "user": "alice",
        "sessions": [
            {
                "handle": each.handle,
                "state": "active",
                "created_at": each.created_at.isoformat(),
                "active_period_expires_at": each.active_period_expires_at.isoformat(),
                "idle_period_expires_at": each.idle_period_expires_at.isoformat(),
                "metadata": dict(each.metadata),
            }
            for each in found
        ],
        "exit_code": 0,
    }
    first = datetime.fromisoformat(outcome.report["sessions"][0]["created_at"])
    assert first.utcoffset() == timedelta(0)
    assert_tells_no_id(outcome, found)


def test_list_without_sessions(inspector: Inspector, auth: Auth[User]) -> None:
    """A user without sessions is told apart from one with sessions by the exit code."""
    logins(auth, 1, "bob")
    outcome = sessions(inspector, "list", "alice")
    assert outcome == Outcome(1, "", "No sessions of user 'alice'.\n")
    outcome = sessions(inspector, "list", "alice", "--json")
    assert outcome.report == {"version": 1, "user": "alice", "sessions": [], "exit_code": 1}


@pytest.mark.parametrize("user", ["", "a\0b"])
@one_server
def test_impossible_user(inspector: Inspector, user: str) -> None:
    """A text that no user can have as an id is the id of no user."""
    assert sessions(inspector, "list", user).errors == f"There is no user {user!r}.\n"
    assert sessions(inspector, "revoke", user, "--all").code == 1


@one_server
def test_control_characters_are_not_printed(inspector: Inspector) -> None:
    """What others have stored can't control the terminal, or be read in another order."""
    hostile = "\x1b[2J\x9b\u202e"
    inspector.write(row("x" * 40, hostile, handle=hostile, noted={hostile: hostile}))
    inspector.enter("x" * 40, user_id=hostile)
    inspector.client.pexpire(inspector.layout.index_key(hostile), HOUR)
    for arguments in (("list", hostile), ("revoke", hostile, "--all"), ("list", hostile)):
        outcome = sessions(inspector, *arguments)
        assert not {"\x1b", "\x9b", "\u202e"} & {*outcome.out, *outcome.errors}
        assert "\\x1b" in outcome.out + outcome.errors


@one_server
def test_layout_and_namespaces(inspector: Inspector) -> None:
    """The options name the layout and the namespaces."""
    options = ("--layout", "lucia-v2", "--session-namespace", "shop:s")
    with RedisSessionAdapter(inspector.client, {"session": "shop:s"}, layout="lucia-v2") as adapter:
        (found,) = logins(Auth(sessions=adapter, env="DEV"), 1)
    assert sessions(inspector, "list", "alice").code == 1
    outcome = sessions(inspector, "list", "alice", "--json", *options)
    assert outcome.handles() == [found.handle]
    assert sessions(inspector, "list", "alice", "--layout", "lucia-v3") == Outcome(
        2, "", "lucia sessions list: unknown layout 'lucia-v3': expected 'default' or 'lucia-v2'\n"
    )


@one_server
def test_list_beside_legacy_writers(inspector: Inspector) -> None:
    """Beside JavaScript, an id without a session stays in the index: it may be a login."""
    inspector.fill("alice", 1)
    inspector.enter("half-done", user_id="alice")
    assert sessions(inspector, "list", "alice", "--legacy-writers").code == 0
    assert "half-done" in inspector.index("alice")
    assert sessions(inspector, "list", "alice").code == 0
    assert "half-done" not in inspector.index("alice")


# revoke


def test_revoke_one(inspector: Inspector, auth: Auth[User]) -> None:
    """A handle revokes its session and no other one."""
    found = logins(auth, 3)
    outcome = sessions(inspector, "revoke", "alice", found[1].handle)
    assert (outcome.code, outcome.errors) == (0, "")
    assert outcome.out.startswith("Revoked 1 session of user 'alice'.\n")
    assert f"revoked {found[1].handle}, signed in " in outcome.out
    assert [is_live(auth, each) for each in found] == [True, False, True]
    assert_tells_no_id(outcome, found)


def test_json_of_revoke(inspector: Inspector, auth: Auth[User]) -> None:
    """The JSON has the revoked sessions, as list shows them, and the one that was kept."""
    found = logins(auth, 2)
    listed = sessions(inspector, "list", "alice", "--json").report["sessions"]
    outcome = sessions(inspector, "revoke", "alice", "--keep", found[0].handle, "--json")
    assert outcome.report == {
        "version": 1,
        "user": "alice",
        "revoked": [listed[1]],
        "kept": listed[0],
        "exit_code": 0,
    }


def test_revoke_what_was_renewed(inspector: Inspector, auth: Auth[User]) -> None:
    """A handle revokes what its session was renewed to."""
    (used,) = logins(auth, 1)
    successor = auth.renew_session(used.session_id)
    assert sessions(inspector, "revoke", "alice", used.handle).code == 0
    assert not is_live(auth, used)
    assert not is_live(auth, successor)


def test_revoke_all(inspector: Inspector, auth: Auth[User]) -> None:
    """--all revokes all sessions of the user, and none of another user."""
    found, other = logins(auth, 3), logins(auth, 1, "bob")
    outcome = sessions(inspector, "revoke", "alice", "--all", "--json")
    assert outcome.code == 0
    assert outcome.handles("revoked") == [each.handle for each in found]
    assert outcome.report["kept"] is None
    assert not any(is_live(auth, each) for each in found)
    assert is_live(auth, other[0])
    assert sessions(inspector, "revoke", "alice", "--all") == Outcome(
        1, "", "No sessions of user 'alice'.\n"
    )


def test_keep(inspector: Inspector, auth: Auth[User]) -> None:
    """--keep revokes all sessions but one, and is done too if there is no other."""
    found = logins(auth, 3)
    for count in (2, 0):
        outcome = sessions(inspector, "revoke", "alice", "--keep", found[1].handle)
        assert outcome.code == 0
        assert outcome.out.startswith(f"Revoked {count} sessions of user 'alice'.\n")
        assert f"kept {found[1].handle}, signed in " in outcome.out
        assert [is_live(auth, each) for each in found] == [False, True, False]


def test_keep_follows_a_renewal(
    inspector: Inspector, auth: Auth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is renewed between the look for it and the revocation is kept."""
    found = logins(auth, 3)
    successors: list[Session] = []
    revoke = RedisSessionAdapter.delete_other_sessions

    def renew_first(adapter: RedisSessionAdapter, user_id: str, keep: str, /) -> bool:
        successors.append(auth.renew_session(found[1].session_id))
        return revoke(adapter, user_id, keep)

    monkeypatch.setattr(RedisSessionAdapter, "delete_other_sessions", renew_first)
    outcome = sessions(inspector, "revoke", "alice", "--keep", found[1].handle, "--json")
    assert outcome.code == 0
    assert outcome.report["kept"]["handle"] == found[1].handle
    assert sorted(outcome.handles("revoked")) == sorted([found[0].handle, found[2].handle])
    assert is_live(auth, successors[0])
    assert not is_live(auth, found[0])


@one_server
def test_keep_what_is_revoked_meanwhile(
    inspector: Inspector, auth: Auth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the session to keep is revoked at the same time, that is said, with exit code 1."""
    found = logins(auth, 2)
    revoke = RedisSessionAdapter.delete_other_sessions

    def sign_out_first(adapter: RedisSessionAdapter, user_id: str, keep: str, /) -> bool:
        auth.invalidate_session(found[0].session_id)
        return revoke(adapter, user_id, keep)

    monkeypatch.setattr(RedisSessionAdapter, "delete_other_sessions", sign_out_first)
    outcome = sessions(inspector, "revoke", "alice", "--keep", found[0].handle)
    assert outcome.code == 1
    assert "revoked by another program meanwhile" in outcome.errors
    assert not is_live(auth, found[1])


@one_server
def test_keep_what_has_gone_since_the_list(
    inspector: Inspector, auth: Auth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the session to keep is gone before the others are revoked, no session is revoked."""
    found = logins(auth, 2)
    read = RedisSessionAdapter.get_sessions_by_user_id
    reads = 0

    def sign_out_between(adapter: RedisSessionAdapter, user_id: str, /) -> list[SessionRow]:
        nonlocal reads
        reads += 1
        if reads == 2:
            auth.invalidate_session(found[0].session_id)
        return read(adapter, user_id)

    monkeypatch.setattr(RedisSessionAdapter, "get_sessions_by_user_id", sign_out_between)
    outcome = sessions(inspector, "revoke", "alice", "--keep", found[0].handle, "--json")
    assert outcome.code == 1
    assert outcome.handles("revoked") == [found[0].handle]
    assert is_live(auth, found[1])


@one_server
def test_what_is_not_revoked_is_told(
    inspector: Inspector, auth: Auth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is still there afterwards is no success."""
    logins(auth, 2)
    monkeypatch.setattr(RedisSessionAdapter, "delete_sessions_by_user_id", lambda *_: None)
    outcome = sessions(inspector, "revoke", "alice", "--all")
    assert outcome.code == 1
    assert outcome.out == "Revoked 0 sessions of user 'alice'.\n"
    assert "Not all of them were revoked" in outcome.errors


@one_server
def test_login_during_a_revocation(
    inspector: Inspector, auth: Auth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that comes after the revocation is left, and is not reported."""
    found = logins(auth, 1)
    revoke = RedisSessionAdapter.delete_sessions_by_user_id

    def sign_in_after(adapter: RedisSessionAdapter, user_id: str, /, **options: Any) -> None:
        revoke(adapter, user_id, **options)
        found.extend(logins(auth, 1))

    monkeypatch.setattr(RedisSessionAdapter, "delete_sessions_by_user_id", sign_in_after)
    outcome = sessions(inspector, "revoke", "alice", "--all", "--json")
    assert outcome.code == 0
    assert outcome.handles("revoked") == [found[0].handle]
    assert [is_live(auth, each) for each in found] == [False, True]


@one_server
@pytest.mark.parametrize("option", [(), ("--keep",)], ids=["revoke", "keep"])
@pytest.mark.parametrize("handle", ["unknown", "", "--help-me", "bobs"])
def test_unknown_handle(
    inspector: Inspector, auth: Auth[User], option: tuple[str, ...], handle: str
) -> None:
    """A handle that the user does not have revokes nothing, not even an empty one."""
    found = logins(auth, 2)
    handle = logins(auth, 1, "bob")[0].handle if handle == "bobs" else handle
    outcome = sessions(inspector, "revoke", "alice", *option, handle)
    assert outcome == Outcome(
        1, "", "No session of user 'alice' has this handle: nothing was revoked.\n"
    )
    assert all(is_live(auth, each) for each in found)


@one_server
@pytest.mark.parametrize("handle", ["-starts-with-a-hyphen", "--starts-with-two", "-h"])
def test_handle_with_a_hyphen(inspector: Inspector, handle: str) -> None:
    """A handle may begin with a hyphen, as one in 64 does."""
    for number in range(3):
        inspector.write(row(f"{number}" * 40, "alice", handle=f"{handle}{number or ''}"))
        inspector.enter(f"{number}" * 40, user_id="alice")
    inspector.client.pexpire(inspector.layout.index_key("alice"), HOUR)
    outcome = sessions(inspector, "revoke", "alice", f"{handle}1", "--json")
    assert outcome.handles("revoked") == [f"{handle}1"]
    outcome = sessions(inspector, "revoke", "alice", "--keep", handle, "--json")
    assert outcome.handles("revoked") == [f"{handle}2"]
    assert outcome.report["kept"]["handle"] == handle


@one_server
@pytest.mark.parametrize(
    "arguments", [(), ("h", "--all"), ("h", "--keep", "h"), ("--all", "--keep", "h"), ("h", "h")]
)
def test_what_to_revoke_must_be_said_once(
    inspector: Inspector, auth: Auth[User], arguments: tuple[str, ...]
) -> None:
    """Neither nothing nor two things can be asked for."""
    found = logins(auth, 1)
    outcome = sessions(inspector, "revoke", "alice", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert is_live(auth, found[0])


# Ids that are stored as hashes


@pytest.fixture
def hashing(inspector: Inspector) -> Iterator[Auth[User]]:
    """Yield an application's ``Auth`` whose ids are stored as hashes."""
    with RedisSessionAdapter(inspector.client, id_keys=[KEY]) as adapter:
        yield Auth(sessions=adapter, env="DEV")


def test_hashed_ids(inspector: Inspector, hashing: Auth[User]) -> None:
    """Where ids are stored as hashes, sessions are listed and revoked without the key."""
    found = logins(hashing, 5)
    used = hashing.renew_session(found[0].session_id)
    outcome = sessions(inspector, "list", "alice", "--json")
    assert sorted(outcome.handles()) == sorted(each.handle for each in found)
    assert sessions(inspector, "revoke", "alice", found[0].handle).code == 0
    assert not is_live(hashing, found[0])
    assert not is_live(hashing, used)
    assert sessions(inspector, "revoke", "alice", "--keep", found[1].handle).code == 0
    assert [is_live(hashing, each) for each in found] == [False, True, False, False, False]
    assert sessions(inspector, "revoke", "alice", "--all").code == 0
    assert not is_live(hashing, found[1])


def test_keep_follows_a_renewal_of_hashed_ids(
    inspector: Inspector, hashing: Auth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal is followed without the key that seals the successor's id."""
    found = logins(hashing, 2)
    successors: list[Session] = []
    revoke = RedisSessionAdapter.delete_other_sessions

    def renew_first(adapter: RedisSessionAdapter, user_id: str, keep: str, /) -> bool:
        successors.append(hashing.renew_session(found[0].session_id))
        return revoke(adapter, user_id, keep)

    monkeypatch.setattr(RedisSessionAdapter, "delete_other_sessions", renew_first)
    assert sessions(inspector, "revoke", "alice", "--keep", found[0].handle).code == 0
    assert is_live(hashing, successors[0])
    assert not is_live(hashing, found[1])


@one_server
def test_renewal_races_a_revocation_of_hashed_ids(
    inspector: Inspector, hashing: Auth[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a session is renewed to between the look for it and the revocation is revoked too."""
    (found,) = logins(hashing, 1)
    successors: list[Session] = []
    revoke = RedisSessionAdapter.delete_session

    def renew_first(adapter: RedisSessionAdapter, /, *session_ids: str) -> None:
        successors.append(hashing.renew_session(found.session_id))
        revoke(adapter, *session_ids)

    monkeypatch.setattr(RedisSessionAdapter, "delete_session", renew_first)
    assert sessions(inspector, "revoke", "alice", found.handle).code == 0
    assert not is_live(hashing, found)
    assert not is_live(hashing, successors[0])


@one_server
def test_hashed_ids_without_scripts(inspector: Inspector, hashing: Auth[User]) -> None:
    """On a server that refuses scripts, a revocation leaves nothing that shows an id."""
    found = logins(hashing, 2)
    inspector.on_each("ACL", "SETUSER", "plain", "on", ">secret", "~*", "+@all", "-@scripting")
    url = inspector.server.url.replace("//", "//plain:secret@")
    assert lucia("sessions", "revoke", "alice", found[0].handle, "--store", url).code == 0
    assert lucia("sessions", "revoke", "alice", "--all", "--store", url).code == 0
    inspector.on_each("ACL", "DELUSER", "plain")
    assert not any(is_live(hashing, each) for each in found)
    assert not any(
        each.session_id.encode() in key for each in found for key in inspector.all_keys()
    )


# Applications that run at the same time


@one_server
async def test_near_cache(inspector: Inspector) -> None:
    """What the command revokes is dropped from the near-cache of an application."""
    async with (
        AsyncRedis.from_url(inspector.server.url) as client,
        AsyncRedisSessionAdapter(client, near_cache=timedelta(seconds=5)) as adapter,
    ):
        auth = AsyncAuth(sessions=adapter, env="DEV")
        found = await auth.create_session("alice")
        for _ in range(3):
            await auth.validate_session(found.session_id)
        before = inspector.calls("mget")
        await auth.validate_session(found.session_id)
        assert inspector.calls("mget") == before, "it is not read from memory"
        process = start("sessions", "revoke", "alice", "--all", "--store", inspector.server.url)
        assert (await asyncio.to_thread(finish, process)).code == 0
        with pytest.raises(InvalidSessionId):
            await auth.validate_session(found.session_id)


@one_server
def test_rights_of_the_application(inspector: Inspector, auth: Auth[User]) -> None:
    """The application's own rights suffice to list and to revoke."""
    found = logins(auth, 3)
    rights = [f"+{right}" for right in LEAST_RIGHTS]
    keys = ("~session:*", "~userSession:*")
    inspector.on_each("ACL", "SETUSER", "nurse", "reset", "on", ">secret", *keys, *rights)
    url = inspector.server.url.replace("//", "//nurse:secret@")
    keep = ("--keep", found[1].handle)
    for words in (("list",), ("revoke", found[0].handle), ("revoke", *keep), ("revoke", "--all")):
        outcome = lucia("sessions", words[0], "alice", *words[1:], "--store", url)
        assert (outcome.code, outcome.errors) == (0, "")
    inspector.on_each("ACL", "DELUSER", "nurse")


# What can't be reached


def test_store_must_be_named() -> None:
    """Without a URL, the error says how to give it."""
    message = "name the store, with --store URL or in LUCIA_STORE_URL"
    for command in (("list", "alice"), ("revoke", "alice", "--all"), ("stats",)):
        outcome = lucia("sessions", *command)
        assert outcome == Outcome(2, "", f"lucia sessions {command[0]}: {message}\n")


@one_server
def test_variables(inspector: Inspector, auth: Auth[User]) -> None:
    """The URL may be in the variable of lucia doctor, too; LUCIA_STORE_URL comes first."""
    logins(auth, 1)
    url = inspector.server.url
    assert lucia("sessions", "list", "alice", LUCIA_REDIS_URL=url).code == 0
    both = {"LUCIA_REDIS_URL": f"{url}/5", "LUCIA_STORE_URL": url}
    assert lucia("sessions", "list", "alice", **both).code == 0


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:hunter2@127.0.0.1:{port}", "ConnectionError: "),
        ("redis://:hunt/er2@127.0.0.1", "this is no URL of a Redis server"),
        ("redis://:hunter2@127.0.0.1?socket_timeout=hunter2", "this is no URL of a Redis server"),
        ("mongodb://:hunter2@127.0.0.1", "unknown kind of store 'mongodb'"),
        ("http://:hunter2@127.0.0.1", "unknown kind of store 'http'"),
        (":hunter2@127.0.0.1", "this is no URL of a store"),
        ("unix:///nowhere/redis.sock", "ConnectionError: "),
    ],
)
def test_wrong_url(url: str, told: str) -> None:
    """A URL that leads nowhere is reported in one line, without its password."""
    outcome = lucia("sessions", "list", "alice", "--store", url.format(port=unused_port()))
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.errors
    assert outcome.errors.count("\n") == 1
    assert "hunt" not in outcome.errors


@one_server
def test_wrong_password_and_database(inspector: Inspector) -> None:
    """A wrong password, and a database number that the server does not have, are reported."""
    url = inspector.server.url
    wrong = lucia("sessions", "stats", "--store", url.replace("//", "//alice:hunter2@"))
    assert wrong.code == 2
    assert wrong.errors.startswith("lucia sessions stats: AuthenticationError: ")
    assert "hunter2" not in wrong.errors
    assert lucia("sessions", "stats", "--store", f"{url}/99") == Outcome(
        2, "", "lucia sessions stats: ResponseError: DB index is out of range\n"
    )


@one_server
@pytest.mark.parametrize("command", [("list", "alice"), ("revoke", "alice", "--all"), ("stats",)])
def test_other_database(inspector: Inspector, auth: Auth[User], command: tuple[str, ...]) -> None:
    """If the database is empty and another one is not, the other one is named."""
    logins(auth, 1)
    hint = (
        "No sessions in database 5, but other databases of this server have keys: "
        "2 in database 0. Check the number at the end of the URL.\n"
    )
    url = f"{inspector.server.url}/5"
    assert lucia("sessions", *command, "--store", url).errors == hint
    inspector.client.execute_command("SELECT", 0)
    with redis.Redis.from_url(url) as other:
        other.set("foreign", 1)
    assert hint not in lucia("sessions", *command, "--store", url).errors


class Greeting(BaseHTTPRequestHandler):
    """Answers as web servers do."""

    default_request_version = "HTTP/1.1"  # a status line, also if the request has no version

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def http_server() -> Iterator[int]:
    """Serve HTTP on a free port, and yield that."""
    with HTTPServer(("127.0.0.1", 0), Greeting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_http_server() -> None:
    """A server that speaks HTTP is reported as another one than Redis."""
    with http_server() as port:
        outcome = lucia("sessions", "stats", "--store", f"redis://127.0.0.1:{port}")
    assert (outcome.code, outcome.out) == (2, "")
    assert "not Redis: it answers in another protocol" in outcome.errors


def test_postgresql_server(postgresql: SqlServer) -> None:
    """A PostgreSQL server at a Redis URL is reported, and not waited for without end."""
    outcome = lucia("sessions", "stats", "--store", f"redis://127.0.0.1:{postgresql.port}")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.errors.startswith("lucia sessions stats: ")


def test_silent_server() -> None:
    """A server that never answers ends the command, after a time that the URL can set."""
    with silent_server() as server:
        outcome = lucia("sessions", "stats", "--store", f"{server.url}?socket_timeout=0.2")
    assert outcome.code == 2
    assert "TimeoutError" in outcome.errors


def test_damaged_index(redis_server: Server) -> None:
    """An index of another type is reported, and no session is revoked silently."""
    with Inspector(redis_server) as inspector:
        inspector.client.set(inspector.layout.index_key("alice"), "x")
        for command in (("list", "alice"), ("revoke", "alice", "--all")):
            outcome = sessions(inspector, *command)
            assert (outcome.code, outcome.out) == (2, "")
            assert "StoreCorrupt: an index of the session store is of another type" in (
                outcome.errors
            )


def test_outage_in_a_revocation(redis_server: Server) -> None:
    """A reply that is lost ends a revocation with one line and exit code 2."""
    with Inspector(redis_server) as inspector:
        inspector.fill("alice", 2)
        with LossyProxy(redis_server.port).lose("EVAL") as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            outcome = lucia("sessions", "revoke", "alice", "--all", "--store", url)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.errors.startswith("lucia sessions revoke: ")
    assert outcome.errors.count("\n") == 1
