"""The Redis session adapter on real servers: the document word for word, its commands, times and errors, and values of others."""

import inspect
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
import valkey.exceptions
from redis.asyncio import Redis

from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._compat.pause import AsyncPause
from lucia._redis.commands import Command
from lucia._redis.index import LIST
from lucia._redis.records import MAX_RECORD_BYTES, Layout, Marker, encode_marker, encode_row
from lucia._redis.scripts import DELETE
from lucia._rules.sessions import system_clock
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import DuplicateSessionId, StoreCorrupt, StoreUnavailable
from lucia.models import SessionRow
from tests.redis_tools import (
    HOUR,
    LEAST_RIGHTS,
    AsyncClients,
    Inspector,
    own_server,
    row,
    sentinel_group,
    silent_server,
    until,
    unused_port,
)
from tests.servers import Server

SCRIPTS = LIST.scripts
MINUTE = 60_000
SECRET = "SecretSecretSecretSecretSecretSecretABCD"
OTHER_SECRET = "AnotherAnotherAnotherAnotherAnotherABCDE"


@pytest.fixture
def inspector(server: Server) -> Iterator[Inspector]:
    """A look into the same server from outside, emptied."""
    with Inspector(server) as found:
        yield found


@pytest.fixture
def adapter(inspector: Inspector, redis_client: Redis) -> AsyncRedisSessionAdapter:
    """An adapter on an emptied server, over clients that give bytes or text."""
    return AsyncRedisSessionAdapter(redis_client)


one_reply_type = pytest.mark.parametrize("decode_responses", [False], ids=["bytes"])


def ids(rows: list[SessionRow]) -> list[str]:
    """The sessions' ids."""
    return [each.id for each in rows]


async def add(adapter: AsyncRedisSessionAdapter, *session_ids: str, user_id: str = "u1") -> None:
    """Store sessions of a user."""
    for session_id in session_ids:
        await adapter.set_session(row(session_id, user_id))


async def renew(
    adapter: AsyncRedisSessionAdapter, used_id: str, successor_id: str, grace: int = MINUTE
) -> str | None:
    """Renew a session of the user u1; the id that came of it."""
    found = await adapter.renew_session(used_id, row(successor_id), grace=grace)
    return None if found is None else found.id


async def use_every_method(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Go through the whole life of sessions, each kind of answer included."""
    first = row("sessión-1", "üser:{1}", handle="ü", metadata=[1, None])
    await adapter.set_session(first)
    await adapter.set_session(first)
    assert await adapter.get_session("sessión-1") == first
    assert await adapter.get_session("unknown") is None
    with pytest.raises(DuplicateSessionId):
        await adapter.set_session(row("sessión-1", "other"))
    for number in range(2, 18):
        await adapter.set_session(row(f"s{number}", "üser:{1}"))
    assert len(await adapter.get_sessions_by_user_id("üser:{1}")) == 17
    second = row("sessión-2", "üser:{1}")
    assert await adapter.renew_session("sessión-1", second, grace=MINUTE) == second
    assert await adapter.renew_session("sessión-1", row("late", "üser:{1}"), grace=MINUTE) == second
    assert await adapter.get_successor("sessión-1") == second
    assert await adapter.delete_other_sessions("üser:{1}", "sessión-1") is True
    assert await adapter.get_sessions_by_user_id("üser:{1}") == [second]
    inspector.client.set("session:original", encode_row(row("copy", "üser:{1}")), ex=60)
    assert await adapter.get_session("original") is None
    inspector.client.delete("session:original", "session:sessión-2")
    assert await adapter.get_sessions_by_user_id("üser:{1}") == []
    assert inspector.index("üser:{1}") == []
    await add(adapter, "a", "b", "c")
    await adapter.delete_session("a", "unknown")
    assert sorted(ids(await adapter.get_sessions_by_user_id("u1"))) == ["b", "c"]
    await adapter.delete_sessions_by_user_id("u1")
    await add(adapter, "d", "e")
    newest = await adapter.set_session_capped(row("f", created_at=system_clock()), limit=1)
    assert await adapter.get_sessions_by_user_id("u1") == [newest]
    await adapter.delete_session("f")
    assert inspector.live() == set()
    inspector.check()


# The document


async def test_document_word_for_word(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """``session:{id}`` holds the JSON text of the row as it is, ``userSession:{user}`` the list of ids; there is no other key."""
    end = system_clock() + HOUR
    await adapter.set_session(
        SessionRow(id="one", user_id="u1", active_expires=end - 5, idle_expires=end)
    )
    await adapter.set_session(
        SessionRow(
            id="two",
            user_id="u1",
            active_expires=end - 5,
            idle_expires=end,
            attributes={"handle": "h"},
        )
    )
    assert inspector.census() == {
        "session:one": (
            "string",
            f'{{"id":"one","user_id":"u1","active_expires":{end - 5},"idle_expires":{end}}}'.encode(),
            end,
        ),
        "session:two": (
            "string",
            f'{{"id":"two","user_id":"u1","active_expires":{end - 5},"idle_expires":{end},"handle":"h"}}'.encode(),
            end,
        ),
        "userSession:u1": ("list", [b"two", b"one"], end),
    }


@pytest.mark.parametrize(
    ("namespaces", "session", "index"),
    [
        ({"session": "app"}, "app", "userSession"),
        ({"user_session": "app"}, "session", "app"),
        ({"session": "a:s", "user_session": "a:u"}, "a:s", "a:u"),
    ],
)
@one_reply_type
async def test_namespaces(
    redis_client: Redis, inspector: Inspector, namespaces: dict[str, str], session: str, index: str
) -> None:
    """With namespaces of one's own, given whole or in part, every method works and every key lies in them."""
    adapter = AsyncRedisSessionAdapter(redis_client, namespaces=namespaces)
    await add(adapter, "one", "two")
    assert await renew(adapter, "one", "new") == "new"
    assert inspector.keys() == {
        f"{session}:two",
        f"{session}:new",
        f"{session}:renewed:{{{session}:one}}",
        f"{index}:u1",
    }
    with Inspector.looking_at(inspector.server, Layout(session, index)) as look:
        look.check()
        assert await adapter.delete_other_sessions("u1", "one") is True
        assert look.live() == {"new"}


@one_reply_type
async def test_refused_namespaces(redis_client: Redis) -> None:
    """Namespaces that are empty, unknown or collide are refused when the adapter is made."""
    for refused in ({"session": ""}, {"userSession": "x"}, {"session": "x", "user_session": "x"}):
        with pytest.raises(ValueError, match="namespace"):
            AsyncRedisSessionAdapter(redis_client, namespaces=refused)


async def test_users_are_not_asked_for(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """A session is stored although its user is nowhere."""
    await adapter.set_session(row("one", "nobody"))
    assert ids(await adapter.get_sessions_by_user_id("nobody")) == ["one"]
    inspector.check()


async def test_connections_of_its_own(server: Server, inspector: Inspector) -> None:
    """The adapter makes no more connections than the client may have, sends the client nothing, closes its own, and leaves the client."""
    async with AsyncClients.make(
        "redis-py as it is", server, client_name="application", max_connections=1
    ) as client:
        await client.ping()
        connections = connections_named(inspector, "application")
        async with AsyncRedisSessionAdapter(client) as adapter:
            await use_every_method(adapter, inspector)
            assert len(connections_named(inspector, "application")) == 2
        until(lambda: connections_named(inspector, "application") == connections)
        assert await client.ping()
        await adapter.aclose()
        assert await adapter.get_session("unknown") is None
        assert len(connections_named(inspector, "application")) == 2
        await adapter.aclose()


def connections_named(inspector: Inspector, name: str) -> set[str]:
    """The ids of the connections to the server that have this name."""
    return {each["id"] for each in inspector.client.client_list() if each["name"] == name}


@pytest.mark.parametrize("kind", AsyncClients.kinds)
async def test_every_kind_of_client(kind: str, server: Server, inspector: Inspector) -> None:
    """The adapter does the same over each kind of client, whatever its encoding, protocol, pool or way to the server."""
    async with AsyncClients.make(kind, server) as client:
        await use_every_method(AsyncRedisSessionAdapter(client), inspector)


# Commands


def described() -> dict[str, set[str]]:
    """The commands of each method by the class's documentation; ``SCRIPT`` for a script."""
    table = inspect.cleandoc(AsyncRedisSessionAdapter.__doc__ or "").split("method      ")[1]
    found: dict[str, set[str]] = {}
    method = ""
    for line in table.splitlines():
        if match := re.match(r"``([a-z_]+)``  ", line):
            method = match[1]
            found[method] = set()
        if method and not line.startswith("="):
            text = line[33:]
            found[method] |= set(re.findall(r"``([A-Z]+)\b", text)) | (
                {"SCRIPT"} if "script" in text else set()
            )
            for other in re.findall(r"``([a-z_]+)``", text):
                found[method] |= found.get(other, set())
            if "the same" in text:
                found[method] |= found["delete_sessions_by_user_id"]
        if method and line.startswith("="):
            break
    return found


def names(commands: list[str]) -> set[str]:
    """The commands' names; ``SCRIPT`` for a script."""
    found = {command.removeprefix("lua ").partition(" ")[0].upper() for command in commands}
    return {"SCRIPT" if name in {"EVAL", "EVALSHA"} else name for name in found}


@one_reply_type
async def test_commands_are_the_documented_ones(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """What MONITOR shows of each method are the commands in the class's documentation, no more and no fewer."""
    documented = described()
    seen: dict[str, set[str]] = {}
    await adapter.get_session("a")  # a new connection asks for more

    async def monitor(method: str, *arguments: Any, **options: Any) -> None:
        with inspector.watched() as commands:
            await getattr(adapter, method)(*arguments, **options)
        seen[method] = seen.get(method, set()) | names(commands)

    await monitor("get_session", "a")
    for number in range(15):
        await monitor("set_session", row(f"s{number}"))
    inspector.client.delete("session:s7", "session:s8")
    await monitor("set_session", row("s15", life=2 * HOUR))
    await monitor("renew_session", "s0", row("new", life=3 * HOUR), grace=MINUTE)
    await monitor("get_successor", "s0")
    inspector.client.delete("session:s10")
    inspector.client.set(
        "session:s11", encode_row(row("s11", life=-HOUR)), ex=60
    )  # dead, as the original's are that live on
    await monitor("get_sessions_by_user_id", "u1")
    await monitor("delete_session", "s1")
    await monitor("delete_other_sessions", "u1", "s0")
    inspector.fill("u1", 1001)
    await monitor("delete_sessions_by_user_id", "u1")
    inspector.fill("u1", 1001)
    await renew(adapter, "u1-0", "renewed")
    await monitor("delete_other_sessions", "u1", "u1-5")
    await monitor("set_session_capped", row("s16", life=4 * HOUR), limit=1)
    assert seen.keys() == documented.keys()
    for method, commands in documented.items():
        assert seen[method] - commands == set(), method
    assert seen["get_session"] == documented["get_session"] == {"MGET"}
    assert documented["set_session"] == seen["set_session"]
    assert documented["renew_session"] == seen["renew_session"]
    assert documented["set_session_capped"] == seen["set_session_capped"]
    assert documented["get_successor"] == seen["get_successor"]
    assert documented["get_sessions_by_user_id"] == seen["get_sessions_by_user_id"]
    assert documented["delete_session"] == seen["delete_session"]
    assert documented["delete_sessions_by_user_id"] == seen["delete_sessions_by_user_id"]
    assert documented["delete_other_sessions"] == seen["delete_other_sessions"]


async def test_literal_commands(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Each method sends exactly these commands, with these keys and arguments."""
    for script in (
        SCRIPTS.create,
        SCRIPTS.create_capped,
        SCRIPTS.renew,
        DELETE,
        SCRIPTS.revoke,
        SCRIPTS.prune,
    ):
        inspector.client.script_load(script.text)
    one, new = row("one"), row("new", life=2 * HOUR)
    record, record_of_new = encode_row(one).decode(), encode_row(new).decode()
    marker = encode_marker(Marker("one", "new", MINUTE)).decode()
    arguments = f"one new {record_of_new} {new.idle_expires} {marker} 60000"
    with inspector.watched() as commands:
        await adapter.set_session(one)
        await adapter.get_session("one")
        await adapter.renew_session("one", new, grace=MINUTE)
        await adapter.get_successor("one")
        await adapter.get_sessions_by_user_id("u1")
        await adapter.delete_other_sessions("u1", "one")
        await adapter.delete_session("one")
        await adapter.delete_sessions_by_user_id("u1")
        await adapter.set_session(one)
        await adapter.set_session_capped(new, limit=1)
    assert [command for command in commands if "TIME" not in command] == [
        "INFO replication",
        f"EVALSHA {SCRIPTS.create.sha} 2 session:one userSession:u1 one {record} {one.idle_expires}",
        "lua LLEN userSession:u1",
        f"lua SET session:one {record} NX PXAT {one.idle_expires}",
        "lua LPUSH userSession:u1 one",
        "lua PTTL userSession:u1",
        f"lua PEXPIREAT userSession:u1 {one.idle_expires}",
        "MGET session:one",
        f"EVALSHA {SCRIPTS.renew.sha} 4 session:one session:new userSession:u1 session:renewed:{{session:one}} {arguments}",
        "lua MGET session:one",
        "lua LLEN userSession:u1",
        f"lua SET session:new {record_of_new} NX PXAT {new.idle_expires}",
        f"lua SET session:renewed:{{session:one}} {marker} PX 60000",
        "lua DEL session:one",
        "lua LPUSH userSession:u1 new",
        "lua PTTL userSession:u1",
        f"lua PEXPIREAT userSession:u1 {new.idle_expires}",
        "lua LREM userSession:u1 0 one",
        "MGET session:renewed:{session:one}",
        "PTTL session:renewed:{session:one}",
        "MGET session:new",
        "LRANGE userSession:u1 0 -1",
        "MGET session:new",
        "MGET session:one",
        "MGET session:renewed:{session:one}",
        "MGET session:new",
        "LRANGE userSession:u1 0 -1",
        f"EVALSHA {SCRIPTS.revoke.sha} 2 userSession:u1 session:new 1 new",
        "lua EXISTS session:new",
        "lua LRANGE userSession:u1 0 -1",
        f"EVALSHA {DELETE.sha} 2 session:one session:renewed:{{session:one}}",
        "lua MGET session:one session:renewed:{session:one}",
        "lua DEL session:one",
        f"EVALSHA {DELETE.sha} 2 session:new session:renewed:{{session:new}}",
        "lua MGET session:new session:renewed:{session:new}",
        "lua DEL session:new",
        "LREM userSession:u1 0 new",
        "LRANGE userSession:u1 0 -1",
        f"EVALSHA {SCRIPTS.create.sha} 2 session:one userSession:u1 one {record} {one.idle_expires}",
        "lua LLEN userSession:u1",
        f"lua SET session:one {record} NX PXAT {one.idle_expires}",
        "lua LPUSH userSession:u1 one",
        "lua PTTL userSession:u1",
        f"lua PEXPIREAT userSession:u1 {one.idle_expires}",
        "LRANGE userSession:u1 0 -1",
        "MGET session:one",
        f"EVALSHA {SCRIPTS.create_capped.sha} 3 session:new userSession:u1 session:one new {record_of_new} {new.idle_expires} 1 1 one one",
        "lua LRANGE userSession:u1 0 -1",
        "lua EXISTS session:one",
        f"lua SET session:new {record_of_new} NX PXAT {new.idle_expires}",
        "lua DEL session:one",
        "lua LREM userSession:u1 -1 one",
        "lua LPUSH userSession:u1 new",
        "lua PTTL userSession:u1",
        f"lua PEXPIREAT userSession:u1 {new.idle_expires}",
    ]


async def test_scripts_that_the_server_forgot(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Scripts that the server does not know, before each call anew, are sent whole, and every method works."""
    inspector.client.config_resetstat()
    for call in (
        partial(adapter.set_session, row("one")),
        partial(adapter.set_session, row("two")),
        partial(adapter.renew_session, "one", row("new"), grace=MINUTE),
        partial(adapter.delete_other_sessions, "u1", "one"),
        partial(adapter.delete_session, "one"),
        partial(adapter.set_session, row("three")),
        partial(adapter.set_session_capped, row("four"), limit=1),
        partial(adapter.delete_sessions_by_user_id, "u1"),
    ):
        inspector.client.script_flush()
        await call()
        inspector.check()
    assert inspector.live() == set()
    assert inspector.calls("script|load") == 0


async def test_scripts_that_the_server_forgets_at_once(
    redis_client: Redis, inspector: Inspector
) -> None:
    """Every method works where each script is forgotten between any two commands."""
    adapter = AsyncRedisSessionAdapter(redis_client)
    adapter._driver = forgetting_driver(redis_client, inspector)
    await use_every_method(adapter, inspector)


def forgetting_driver(client: Any, inspector: Inspector) -> AsyncRedisDriver:
    """One before whose commands the scripts are flushed."""

    class ForgettingDriver(AsyncRedisDriver):
        async def _send(self, command: Command, *arguments: Any, **options: Any) -> Any:
            inspector.on_each("SCRIPT", "FLUSH")
            return await super()._send(command, *arguments, **options)

    return ForgettingDriver(client)


# Times


async def test_times_of_keys(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A session's key ends when the session does, to the millisecond, the index with its last session; no key is ever without an end."""
    lives = [HOUR, 3 * HOUR, 2 * HOUR, 1_000 * 24 * HOUR, HOUR // 2]
    for number, life in enumerate(lives):
        await adapter.set_session(row(f"s{number}", life=life))
        inspector.check()
    census = inspector.census()
    assert census["userSession:u1"].expires == census["session:s3"].expires
    for number in range(5):
        await adapter.renew_session(
            f"s{number}", row(f"n{number}", life=2_000 * 24 * HOUR + number), grace=0
        )
        inspector.check()
    await adapter.delete_session("n4")
    inspector.check()
    await adapter.delete_sessions_by_user_id("u1")
    inspector.check()


@one_reply_type
async def test_everything_ends(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Once the sessions' time is over, every key is gone by itself."""
    for number in range(5):
        await adapter.set_session(row(f"s{number}", life=1_000 + 10 * number))
    await adapter.renew_session("s4", row("new", life=1_000), grace=0)
    inspector.age("s4", MINUTE - 150)
    until(lambda: not inspector.keys())
    assert await adapter.get_session("new") is None
    assert await adapter.get_sessions_by_user_id("u1") == []


async def test_index_of_the_original(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """An index that the original wrote, without an end and with sessions that end in 57 years, is read and keeps having no end."""
    old = row("old", life=10 * HOUR)
    record = encode_row(old)
    inspector.client.set("session:old", record, ex=old.idle_expires // 1000)
    inspector.client.lpush("userSession:u1", "old")
    await adapter.set_session(row("new"))
    assert inspector.census()["userSession:u1"] == ("list", [b"new", b"old"], -1)
    assert await adapter.get_session("old") == old
    assert await adapter.renew_session("old", row("newer"), grace=MINUTE) is not None
    assert inspector.census()["userSession:u1"] == ("list", [b"newer", b"new"], -1)
    assert ids(await adapter.get_sessions_by_user_id("u1")) == ["newer", "new"]
    await adapter.delete_sessions_by_user_id("u1")
    assert inspector.live() == set()
    inspector.check()


@pytest.mark.parametrize("life", [-HOUR, -1, 0])
async def test_already_expired(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, life: int
) -> None:
    """A session that is dead by the server's clock is refused, be it new or a successor, and nothing is changed."""
    await add(adapter, "used")
    before = inspector.census()
    end = system_clock() + life
    dead = SessionRow(id="dead", user_id="u1", active_expires=0, idle_expires=end)
    with pytest.raises(ValueError, match="server's clock"):
        await adapter.set_session(dead)
    with pytest.raises(ValueError, match="server's clock"):
        await adapter.renew_session("used", dead, grace=MINUTE)
    assert inspector.census() == before


# Creation


async def test_same_id_twice(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A second session with an id is refused and changes nothing; the very same session once more is no error and is in the index once."""
    session = row("one", handle="h")
    await adapter.set_session(session)
    await add(adapter, "two")
    before = inspector.census()
    for other in (row("one"), row("one", "u2"), row("one", life=2 * HOUR, handle="h")):
        with pytest.raises(DuplicateSessionId):
            await adapter.set_session(other)
    with pytest.raises(DuplicateSessionId):
        await adapter.renew_session("two", session, grace=MINUTE)
    with pytest.raises(DuplicateSessionId):
        await adapter.renew_session("two", row("two"), grace=MINUTE)
    assert inspector.census() == before
    await adapter.set_session(session)
    assert inspector.index() == ["one", "two"]
    inspector.check()


async def test_same_call_at_once(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """The same session stored many times at once is stored once; of different sessions with one id one is stored."""
    session = row("same")
    assert (
        await AsyncRacingCalls.gather_results(*[partial(adapter.set_session, session)] * 10)
        == [None] * 10
    )
    outcomes = await AsyncRacingCalls.gather_results(
        *(partial(adapter.set_session, row("one", handle=number)) for number in range(10))
    )
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, DuplicateSessionId) for outcome in outcomes) == 9
    inspector.check()


async def test_too_long(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A record of more than 16 KiB is refused, be it of a new session or of a successor, and nothing is stored."""
    await add(adapter, "used")
    before = inspector.census()
    with pytest.raises(ValueError, match="16384"):
        await adapter.set_session(row("long", metadata="x" * MAX_RECORD_BYTES))
    with pytest.raises(ValueError, match="16384"):
        await adapter.renew_session("used", row("long", metadata="x" * MAX_RECORD_BYTES), grace=0)
    assert inspector.census() == before


# Renewal


@pytest.mark.parametrize("grace", [0, MINUTE])
async def test_renewals_at_once(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, grace: int
) -> None:
    """However many calls renew one session at once, there is one successor: all get it within the grace, one gets it without."""
    await add(adapter, "used", "other")
    outcomes = await AsyncRacingCalls.gather_results(
        *(partial(renew, adapter, "used", f"new{number}", grace) for number in range(16))
    )
    (winner,) = inspector.live() - {"other"}
    assert outcomes.count(winner) == (16 if grace else 1)
    assert set(outcomes) == ({winner} if grace else {winner, None})
    assert await adapter.get_session("used") is None
    inspector.check()


async def test_lost_reply(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A renewal that is sent again since its reply was lost gets the same successor, also after the grace."""
    await add(adapter, "used")
    successor = row("new")
    for _ in range(3):
        assert await adapter.renew_session("used", successor, grace=1_000) == successor
        inspector.age("used", 2_000)
    assert await renew(adapter, "used", "later") is None
    assert inspector.live() == {"new"}
    inspector.check()


async def test_grace(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A used id leads to its successor until the grace is over by the server's clock; ending it after that still ends the successor."""
    await add(adapter, "used")
    await renew(adapter, "used", "new", 30_000)
    inspector.age("used", 25_000)
    assert await renew(adapter, "used", "other") == "new"
    assert await adapter.get_successor("used") == await adapter.get_session("new")
    inspector.age("used", 10_000)
    assert await renew(adapter, "used", "other") is None
    assert await adapter.get_successor("used") is None
    assert await adapter.delete_other_sessions("u2", "used") is False
    assert inspector.live() == {"new"}
    await adapter.delete_session("used")
    assert inspector.live() == set()
    inspector.check()


async def test_after_the_marker(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """60 seconds after a renewal the used id is unknown: it leads nowhere, and ending it ends nothing."""
    await add(adapter, "used")
    await renew(adapter, "used", "new")
    inspector.age("used", MINUTE)
    assert inspector.keys() == {"session:new", "userSession:u1"}
    assert await renew(adapter, "used", "other") is None
    await adapter.delete_session("used")
    assert inspector.live() == {"new"}


async def test_chain(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A used id leads over all renewals to the live session while each is within its grace; one that is not breaks the chain."""
    await add(adapter, "s0")
    for number in range(4):
        assert await renew(adapter, f"s{number}", f"s{number + 1}", 30_000) == f"s{number + 1}"
    for number in range(4):
        assert await renew(adapter, f"s{number}", "other") == "s4"
    inspector.age("s2", 31_000)
    assert [await adapter.get_successor(f"s{number}") is None for number in range(5)] == [
        True,
        True,
        True,
        False,
        True,
    ]
    await adapter.delete_session("s0")
    assert inspector.live() == set()
    inspector.check()


async def test_renewal_of_nothing(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """An unknown, ended or dead session has no successor, and nothing is stored."""
    await add(adapter, "ended")
    await adapter.delete_session("ended")
    await add(adapter, "dead", user_id="u2")
    inspector.client.pexpire("session:dead", 1)
    until(lambda: not inspector.live())
    before = inspector.census()
    for used_id in ("unknown", "ended", "dead"):
        assert await renew(adapter, used_id, "new") is None
        assert await adapter.get_successor(used_id) is None
    assert inspector.census() == before


# Ending


async def test_ending(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Several sessions of several users are ended in one call, with unknown, repeated and used ids among them; or none at all."""
    await add(adapter, "a1", "a2", "a3")
    await add(adapter, "b1", "b2", user_id="u2")
    await renew(adapter, "a2", "a4")
    await adapter.delete_session()
    await adapter.delete_session("a1", "unknown", "b1", "a2", "a2")
    assert inspector.live() == {"a3", "b2"}
    assert (inspector.index("u1"), inspector.index("u2")) == (["a3"], ["b2"])
    inspector.check()


async def test_last_session(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """With the last session of a user the index is gone too."""
    await add(adapter, "one")
    await adapter.delete_session("one")
    assert inspector.keys() == set()


@one_reply_type
@pytest.mark.parametrize("keep", ["", "live", "renewed", "foreign", "unknown"])
@pytest.mark.parametrize("count", [0, 1, 1_000, 1_001, 5_500])
async def test_sign_out_everywhere(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, count: int, keep: str
) -> None:
    """However many sessions there are, all are ended but the one to keep, if that is a live one of this user; others' are left alone."""
    inspector.fill("u1", count)
    await add(adapter, "live", "used")
    await renew(adapter, "used", "successor")
    await add(adapter, "foreign", user_id="u2")
    if keep:
        kept = await adapter.delete_other_sessions("u1", "used" if keep == "renewed" else keep)
        assert kept is (keep in {"live", "renewed"})
    else:
        await adapter.delete_sessions_by_user_id("u1")
    expected = {"live": {"live"}, "renewed": {"successor"}}.get(keep, set())
    assert inspector.live() == {"foreign"} | expected
    assert set(inspector.index()) == expected
    inspector.check()


async def test_sign_out_during_logins(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """A sign-out everywhere while people log in and renew ends every session from before, and leaves none without its index entry."""
    for turn in range(5):
        old = {f"{turn}-old{number}" for number in range(6)}
        await add(adapter, *sorted(old))
        await AsyncRacingCalls.gather_results(
            *(partial(adapter.set_session, row(f"{turn}-login{number}")) for number in range(10)),
            partial(adapter.delete_sessions_by_user_id, "u1"),
            *(
                partial(renew, adapter, f"{turn}-old{number}", f"{turn}-new{number}")
                for number in range(6)
            ),
        )
        assert {each for each in inspector.live() if "-login" not in each} == set()
        inspector.check()


async def test_keeping_during_renewals(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """A session that is kept while it is renewed is kept as its one successor."""
    for turn in range(5):
        await add(adapter, f"{turn}-kept", f"{turn}-other")
        await AsyncRacingCalls.gather_results(
            *(
                partial(renew, adapter, f"{turn}-kept", f"{turn}-new{number}")
                for number in range(4)
            ),
            partial(adapter.delete_other_sessions, "u1", f"{turn}-kept"),
        )
        (kept,) = inspector.live()
        assert kept.startswith(f"{turn}-new")
        assert inspector.index() == [kept]
        inspector.check()


# Foreign and corrupt values


def put_hash(client: Any, key: str) -> None:
    client.hset(key, "field", "value")


def put_list(client: Any, key: str) -> None:
    client.rpush(key, "element")


def put_set(client: Any, key: str) -> None:
    client.sadd(key, "member")


def put_sorted_set(client: Any, key: str) -> None:
    client.zadd(key, {"member": 1})


def put_stream(client: Any, key: str) -> None:
    client.xadd(key, {"field": "value"})


def put_string(client: Any, key: str) -> None:
    client.set(key, "garbage")


Put = Callable[[Any, str], None]
no_string = pytest.mark.parametrize(
    "put", [put_hash, put_list, put_set, put_sorted_set, put_stream]
)
no_list = pytest.mark.parametrize(
    "put", [put_hash, put_string, put_set, put_sorted_set, put_stream]
)


@one_reply_type
@no_string
async def test_session_key_of_another_type(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, put: Put
) -> None:
    """A session's key with a value of another type is no session, can't be renewed or taken, and is gone when the id is ended."""
    put(inspector.client, "session:x")
    before = inspector.census()
    assert await adapter.get_session("x") is None
    assert await renew(adapter, "x", "new") is None
    assert await adapter.delete_other_sessions("u1", "x") is False
    with pytest.raises(DuplicateSessionId):
        await adapter.set_session(row("x"))
    assert inspector.census() == before
    await adapter.delete_session("x")
    assert inspector.keys() == set()


@one_reply_type
@no_string
async def test_indexed_session_of_another_type(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, put: Put
) -> None:
    """A listed session whose key holds another type is not listed, not pruned, and gone after a sign-out everywhere."""
    await add(adapter, "one", "x")
    inspector.client.delete("session:x")
    put(inspector.client, "session:x")
    assert ids(await adapter.get_sessions_by_user_id("u1")) == ["one"]
    assert inspector.index() == ["x", "one"]
    await adapter.delete_sessions_by_user_id("u1")
    assert inspector.keys() == set()


@one_reply_type
@no_list
async def test_index_of_another_type(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, put: Put
) -> None:
    """An index of another type is a clear error without an id; nothing is half written; and a session can still be read and ended."""
    await add(adapter, SECRET)
    inspector.client.delete("userSession:u1")
    put(inspector.client, "userSession:u1")
    before = inspector.census()
    for call in (
        partial(adapter.set_session, row(OTHER_SECRET)),
        partial(adapter.renew_session, SECRET, row(OTHER_SECRET), grace=MINUTE),
        partial(adapter.get_sessions_by_user_id, "u1"),
        partial(adapter.delete_sessions_by_user_id, "u1"),
        partial(adapter.delete_other_sessions, "u1", SECRET),
    ):
        with pytest.raises(StoreCorrupt) as raised:
            await call()
        assert_hides_ids(raised.value)
        assert isinstance(raised.value.__cause__, redis.exceptions.ResponseError)
        assert inspector.census() == before
    assert await adapter.get_session(SECRET) is not None
    with pytest.raises(StoreCorrupt):
        await adapter.delete_session(SECRET)
    assert inspector.live() == set()


@one_reply_type
async def test_ending_in_spite_of_an_index(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """If an index can't be written to, the sessions and what they were renewed to are ended all the same, before the error is raised."""
    await add(adapter, "a", "used")
    await renew(adapter, "used", "new")
    await add(adapter, "b", user_id="u2")
    inspector.client.set("userSession:u1", "garbage")
    with pytest.raises(StoreCorrupt):
        await adapter.delete_session("a", "used", "b")
    assert inspector.live() == set()


@one_reply_type
@no_string
async def test_marker_of_another_type(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, put: Put
) -> None:
    """A marker's key with a value of another type leads nowhere and hinders nothing; a renewal writes its own in its place."""
    await add(adapter, "used")
    put(inspector.client, "session:renewed:{session:used}")
    assert await adapter.get_successor("used") is None
    assert await renew(adapter, "used", "new") == "new"
    assert await adapter.get_successor("used") is not None
    inspector.check()
    put_hash(inspector.client, "session:renewed:{session:new}")
    await adapter.delete_session("new")
    assert await renew(adapter, "new", "newer") is None
    assert inspector.client.exists("session:new", "session:newer") == 0


@pytest.mark.parametrize(
    "garbage",
    [
        "garbage",
        b"\xff\x00",
        "",
        "[]",
        "{}",
        '{"id":"x"}',
        '{"successor":1}',
        '{"id":"used","successor":"used","grace":60000}',
    ],
)
@one_reply_type
async def test_corrupt_values(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, garbage: Any, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """A value that is no record or no marker is no session and leads nowhere, and can be ended."""
    await add(adapter, "x", "live")
    inspector.client.set("session:x", garbage)
    inspector.client.set("session:renewed:{session:used}", garbage, px=MINUTE)
    assert await adapter.get_session("x") is None
    assert ids(await adapter.get_sessions_by_user_id("u1")) == ["live"]
    assert await adapter.get_successor("used") is None
    assert await renew(adapter, "used", "new") is None
    assert [line.levelno for line in caplog.records] == [logging.WARNING] * 2
    assert all("garbage" not in line.getMessage() for line in caplog.records)
    await adapter.delete_session("x", "used")
    assert inspector.live() == {"live"}


async def test_record_of_another_session(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    """Another session's record under an id's key is never returned: the connection is dropped and the record read once more."""
    await add(adapter, "mine", user_id="u1")
    await add(adapter, SECRET, user_id="u2")
    inspector.client.copy(f"session:{SECRET}", "session:mine", replace=True)
    before, connections = inspector.calls("mget"), connections_named(inspector, "")
    assert await adapter.get_session("mine") is None
    assert inspector.calls("mget") == before + 2
    assert not connections <= connections_named(inspector, "")
    assert await adapter.get_sessions_by_user_id("u1") == []
    assert await adapter.delete_other_sessions("u2", "mine") is False
    assert len(caplog.records) >= 2
    assert_hides_ids(*(line.getMessage() for line in caplog.records))


@pytest.mark.parametrize("kind", ["redis-py, one connection", "valkey-py, one connection"])
@pytest.mark.parametrize("crossed", ["another's record", "nothing like it", "another's marker"])
async def test_crossed_replies(
    kind: str, crossed: str, server: Server, inspector: Inspector
) -> None:
    """A reply that was left on the connection by somebody else is noticed; the connection is dropped, and the right record read."""
    async with AsyncClients.make(kind, server) as client:
        adapter = AsyncRedisSessionAdapter(client)
        await add(adapter, "mine", "used")
        await renew(adapter, "used", "new")
        await add(adapter, "others", "used2", user_id="u2")
        await adapter.renew_session("used2", row("new2", "u2"), grace=MINUTE)
        connection = await idle_connection(adapter)
        if crossed == "another's record":
            await connection.send_command("MGET", "session:others")
        elif crossed == "another's marker":
            await connection.send_command("MGET", "session:renewed:{session:used2}")
        else:
            await connection.send_command("PING")
        if crossed == "another's marker":
            found = await adapter.get_successor("used")
            assert found is not None
            assert (found.id, found.user_id) == ("new", "u1")
        else:
            found = await adapter.get_session("mine")
            assert found is not None
            assert (found.id, found.user_id) == ("mine", "u1")
        assert await adapter.get_session("others") is not None


async def idle_connection(adapter: AsyncRedisSessionAdapter) -> Any:
    """The connection that the adapter's next command goes over."""
    route: Any = await adapter._driver._route.get()
    return route._server._idle[-1].connection


async def test_entries_of_others(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """An index entry that names another user's session, twice or not, is not listed; one that is there twice is listed once."""
    await add(adapter, "mine")
    await add(adapter, "others", user_id="u2")
    inspector.client.rpush("userSession:u1", "others", "mine", "others", "mine")
    assert ids(await adapter.get_sessions_by_user_id("u1")) == ["mine"]
    assert ids(await adapter.get_sessions_by_user_id("u2")) == ["others"]
    assert await adapter.delete_other_sessions("u2", "mine") is False
    await adapter.delete_session("mine")
    assert inspector.index() == ["others", "others"]
    await adapter.delete_sessions_by_user_id("u1")
    assert inspector.index() == []


@one_reply_type
async def test_thousands_of_dead_entries(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Reading a user's list takes thousands of dead ids out of the index, and leaves the live ones in their order."""
    inspector.client.rpush("userSession:u1", *(f"dead{number}" for number in range(2_000)))
    await add(adapter, "one")
    inspector.client.lpush("userSession:u1", *(f"dead{number}" for number in range(1_000)))
    await add(adapter, "two")
    assert ids(await adapter.get_sessions_by_user_id("u1")) == ["two", "one"]
    assert inspector.index() == ["two", "one"]


# Ids


USER_IDS = {
    "unicode": "üser-🦊-用户",
    "colons": "a:b::c:",
    "braces": "{a}{b}}{",
    "a namespace": "session:one",
    "quotes": "a'b\"c`d\\e",
    "newlines": "a\r\nb\n\x01c\t",
    "spaces": "  a b  ",
    "glob": "*?[a]",
    "10 kB": "ü" * 5_000,
}


@one_reply_type
@pytest.mark.parametrize("user_id", USER_IDS.values(), ids=USER_IDS)
async def test_any_user_id(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, user_id: str
) -> None:
    """Every method works with any user id, and touches no other user's sessions."""
    await add(adapter, "other", user_id=user_id[:-1] + "x")
    await adapter.set_session(row("one", user_id))
    await adapter.set_session(row("two", user_id))
    assert ids(await adapter.get_sessions_by_user_id(user_id)) == ["two", "one"]
    assert await adapter.renew_session("one", row("new", user_id), grace=0) is not None
    inspector.check()
    assert await adapter.delete_other_sessions(user_id, "two") is True
    assert inspector.live() == {"two", "other"}
    await adapter.delete_session("two")
    await adapter.delete_sessions_by_user_id(user_id)
    assert inspector.live() == {"other"}


@one_reply_type
@pytest.mark.parametrize(
    "session_id", [*USER_IDS.values(), "one:two", "a}b"], ids=[*USER_IDS, "colon", "brace"]
)
async def test_any_session_id(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, session_id: str
) -> None:
    """Every method works with any id that a row takes."""
    session = row(session_id[:200])
    await adapter.set_session(session)
    assert await adapter.get_session(session.id) == session
    assert await renew(adapter, session.id, f"new {session.id}") == f"new {session.id}"
    assert await adapter.get_successor(session.id) is not None
    inspector.check()
    await adapter.delete_session(session.id)
    assert inspector.live() == set()


async def test_ids_that_begin_like_a_marker(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """An id that would make a marker's key is refused where it would be stored, and is no session elsewhere."""
    await add(adapter, "used")
    await renew(adapter, "used", "new")
    before = inspector.census()
    evil = "renewed:{session:used}"
    with pytest.raises(ValueError, match="may not begin with 'renewed:'"):
        await adapter.set_session(row(evil))
    with pytest.raises(ValueError, match="may not begin with 'renewed:'"):
        await renew(adapter, "new", evil)
    assert await adapter.get_session(evil) is None
    assert await renew(adapter, evil, "newer") is None
    await adapter.delete_session(evil)
    assert inspector.census() == before


# Errors


def assert_hides_ids(*shown: BaseException | str) -> None:
    """Neither of the secret ids, nor half of one, is in what would be shown."""
    for each in shown:
        chain = (
            "".join(traceback.format_exception(each)) + repr(each)
            if isinstance(each, BaseException)
            else each
        )
        for secret in (SECRET, OTHER_SECRET):
            assert secret[:12] not in chain
            assert secret[-12:] not in chain


def every_call(adapter: AsyncRedisSessionAdapter) -> dict[str, Callable[[], Any]]:
    """A call of each method with secret ids."""
    return {
        "get_session": partial(adapter.get_session, SECRET),
        "get_sessions_by_user_id": partial(adapter.get_sessions_by_user_id, "u1"),
        "set_session": partial(adapter.set_session, row(OTHER_SECRET)),
        "set_session_capped": partial(adapter.set_session_capped, row(OTHER_SECRET), limit=9),
        "renew_session": partial(adapter.renew_session, SECRET, row(OTHER_SECRET), grace=MINUTE),
        "get_successor": partial(adapter.get_successor, SECRET),
        "delete_session": partial(adapter.delete_session, SECRET, OTHER_SECRET),
        "delete_sessions_by_user_id": partial(adapter.delete_sessions_by_user_id, "u1"),
        "delete_other_sessions": partial(adapter.delete_other_sessions, "u1", SECRET),
    }


WRITES = ("set_session", "set_session_capped", "renew_session")
ENDS = ("delete_session", "delete_sessions_by_user_id", "delete_other_sessions")


async def assert_fails(call: Callable[[], Any], expected: str) -> None:
    """The call raises the client's own error, which shows no id."""
    with pytest.raises((redis.exceptions.RedisError, valkey.exceptions.ValkeyError)) as raised:
        await call()
    assert type(raised.value).__name__ == expected
    assert type(raised.value).__module__.partition(".")[0] in {"redis", "valkey"}
    assert_hides_ids(raised.value)


@pytest.mark.parametrize("kind", ["redis-py as it is", "valkey-py as it is"])
async def test_server_without_memory(kind: str, server: Server, inspector: Inspector) -> None:
    """A server that is out of memory refuses logins with the client's own error and changes nothing; reading and ending work."""
    async with AsyncClients.make(kind, server) as client:
        adapter = AsyncRedisSessionAdapter(client)
        await add(adapter, SECRET)
        await use_scripts(adapter)
        before = inspector.census()
        inspector.client.config_set("maxmemory", 1)
        try:
            calls = every_call(adapter)
            for method in WRITES:
                await assert_fails(calls[method], "OutOfMemoryError")
            assert inspector.census() == before
            assert await adapter.get_session(SECRET) is not None
            await adapter.delete_session(SECRET)
            await adapter.delete_sessions_by_user_id("u1")
            assert inspector.live() == set()
        finally:
            inspector.client.config_set("maxmemory", 0)


async def use_scripts(adapter: AsyncRedisSessionAdapter) -> None:
    """Make the server know every script."""
    await add(adapter, "1", "2", user_id="u9")
    await adapter.set_session_capped(row("4", "u9"), limit=9)
    await adapter.renew_session("1", row("3", "u9"), grace=0)
    await adapter.delete_session("3")
    await adapter.delete_sessions_by_user_id("u9")


@pytest.mark.parametrize("kind", ["redis-py as it is", "valkey-py as it is"])
async def test_server_that_is_a_replica(kind: str, server: Server, inspector: Inspector) -> None:
    """A replica is not used, not even to read: its answers may be older than a revocation."""
    async with (
        AsyncClients.make(kind, server) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        await add(adapter, SECRET)
        inspector.client.replicaof("127.0.0.1", str(unused_port()))
        try:
            calls = every_call(adapter)
            await assert_fails(
                calls["set_session"], "ReadOnlyError"
            )  # the connection was open before
            for call in calls.values():
                with pytest.raises(StoreUnavailable) as raised:
                    await call()
                assert not raised.value.ambiguous
        finally:
            inspector.client.replicaof("NO", "ONE")
        await adapter.delete_sessions_by_user_id("u1")
        assert inspector.live() == set()


@pytest.mark.parametrize("kind", ["redis-py as it is", "valkey-py as it is"])
async def test_user_without_rights(kind: str, server: Server, inspector: Inspector) -> None:
    """A server's user without rights gets the client's own error from every method."""
    inspector.client.acl_setuser(
        "nobody", enabled=True, nopass=True, reset=True, commands=["+ping"]
    )
    try:
        async with AsyncClients.make(kind, server, username="nobody", password="x") as client:
            for call in every_call(AsyncRedisSessionAdapter(client)).values():
                await assert_fails(call, "NoPermissionError")
    finally:
        inspector.client.acl_deluser("nobody")


async def test_server_without_scripts(tmp_path: Path) -> None:
    """A server that does not know the commands quotes their arguments in its errors: no part of an id is left there."""
    renamed = [
        word for name in ("EVALSHA", "MGET", "LRANGE") for word in ("--rename-command", name, "")
    ]
    with own_server("redis-server", tmp_path, *renamed) as server:
        async with AsyncClients.make("redis-py as it is", server) as client:
            for call in every_call(AsyncRedisSessionAdapter(client)).values():
                await assert_fails(call, "ResponseError")


async def test_no_server(tmp_path: Path) -> None:
    """Without a server every method says that nothing was changed, with the client's error as the cause."""
    nowhere = Server("redis", "127.0.0.1", unused_port(), tmp_path / "none")
    async with AsyncClients.make_hasty(nowhere) as client:
        for call in every_call(AsyncRedisSessionAdapter(client)).values():
            with pytest.raises(
                StoreUnavailable,
                match="can't be reached or did not answer in time; nothing was changed",
            ) as raised:
                await call()
            assert not raised.value.ambiguous
            assert isinstance(
                raised.value.__cause__,
                (redis.exceptions.ConnectionError, valkey.exceptions.ConnectionError),
            )
            assert_hides_ids(raised.value)


async def test_server_that_does_not_answer() -> None:
    """If the server does not answer a connection in time, every method says that nothing was changed."""
    with silent_server() as server:
        async with AsyncClients.make_hasty(server) as client:
            for call in every_call(
                AsyncRedisSessionAdapter(client, deadline=timedelta(seconds=0.05))
            ).values():
                with pytest.raises(StoreUnavailable) as raised:
                    await call()
                assert not raised.value.ambiguous
                assert_hides_ids(raised.value)


# Rights


def allow(inspector: Inspector, commands: tuple[str, ...]) -> None:
    """Make a user of the server who may run these commands on the adapter's keys, and nothing else."""
    rights = [f"+{command}" for command in commands]
    inspector.client.execute_command(
        "ACL", "SETUSER", "app", "reset", "on", ">pass", "~session:*", "~userSession:*", *rights
    )


@pytest.mark.parametrize("kind", ["redis-py as it is", "redis-py, RESP2", "valkey-py as it is"])
async def test_least_rights(kind: str, server: Server, inspector: Inspector) -> None:
    """A server's user with the documented rights can do all that the adapter does."""
    allow(inspector, LEAST_RIGHTS)
    inspector.client.script_flush()
    try:
        async with AsyncClients.make(kind, server, username="app", password="pass") as client:
            await use_every_method(AsyncRedisSessionAdapter(client), inspector)
    finally:
        inspector.client.acl_deluser("app")


@pytest.mark.parametrize("missing", LEAST_RIGHTS)
async def test_each_right_is_needed(missing: str, server: Server, inspector: Inspector) -> None:
    """Without any one of the documented rights something fails, with the client's own error."""
    allow(inspector, tuple(command for command in LEAST_RIGHTS if command != missing))
    inspector.client.script_flush()
    try:
        async with AsyncClients.make(
            "redis-py as it is", server, username="app", password="pass"
        ) as client:
            with pytest.raises(
                redis.exceptions.ResponseError, match=r"(?i)no.* permissions|NOPERM"
            ):
                await use_every_method(AsyncRedisSessionAdapter(client), inspector)
    finally:
        inspector.client.acl_deluser("app")


async def test_wrong_password(server: Server, inspector: Inspector) -> None:
    """A refused password is the client's own error."""
    allow(inspector, LEAST_RIGHTS)
    try:
        async with AsyncClients.make_hasty(server, username="app", password="wrong") as client:
            for call in every_call(AsyncRedisSessionAdapter(client)).values():
                await assert_fails(call, "AuthenticationError")
    finally:
        inspector.client.acl_deluser("app")


# Sentinel


async def persist(call: Callable[[], Any], expected: object) -> None:
    """Repeat the call until it gives that: for a moment there is no connection."""
    for _ in range(200):
        with suppress(
            redis.exceptions.ConnectionError, valkey.exceptions.ConnectionError, StoreUnavailable
        ):
            if await call() == expected:
                return
        await AsyncPause.seconds(0.05)
    raise TimeoutError


@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_failover(library: str, tmp_path: Path) -> None:
    """Behind Sentinel the adapter finds the new master, which does not know the scripts, and every method works there."""
    with sentinel_group(library, tmp_path) as group:
        async with AsyncClients.behind_sentinel(group) as client:
            adapter = AsyncRedisSessionAdapter(client)
            await use_scripts(adapter)
            await add(adapter, "used", "ended", "other")
            group.fail_over()
            await persist(partial(renew, adapter, "used", "new"), "new")
            assert ids(await adapter.get_sessions_by_user_id("u1")) == ["new", "other", "ended"]
            await adapter.delete_session("ended")
            assert await adapter.delete_other_sessions("u1", "used") is True
            with Inspector.looking_at(Server("redis", *group.master(), tmp_path)) as look:
                assert look.live() == {"new"}
                look.check()
                assert look.calls("evalsha") > 0
                assert look.calls("script|load") == 0
