"""The commands that reach one server are those in the documentation."""

import inspect
import re
from functools import partial
from typing import Any

from redis.asyncio import Redis

from lucia._redis.index import LIST
from lucia._redis.records import Marker, encode_marker, encode_row
from lucia._redis.scripts import DELETE
from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.aio.support.redis_calls import (
    MINUTE,
    forgetting_driver,
    ids,
    one_reply_type,
    renew,
    use_every_method,
)
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import HOUR, row

SCRIPTS = LIST.scripts


async def test_users_are_not_asked_for(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """A session is stored even if its user does not exist."""
    await adapter.set_session(row("one", "nobody"))
    assert ids(await adapter.get_sessions_by_user_id("nobody")) == ["one"]
    inspector.check()


def described() -> dict[str, set[str]]:
    """Return the commands of each method in the adapter's docstring; ``SCRIPT`` is a script."""
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
    """Return the names of the commands; ``SCRIPT`` is a script."""
    found = {command.removeprefix("lua ").partition(" ")[0].upper() for command in commands}
    return {"SCRIPT" if name in {"EVAL", "EVALSHA"} else name for name in found}


@one_reply_type
async def test_commands_are_the_documented_ones(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """The commands of each method in MONITOR are exactly those in the adapter's docstring."""
    documented = described()
    seen: dict[str, set[str]] = {}
    await adapter.get_session("a")  # a new connection sends more commands

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
    # An expired session, as Lucia JS leaves them.
    inspector.client.set("session:s11", encode_row(row("s11", life=-HOUR)), ex=60)
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
        (
            f"EVALSHA {SCRIPTS.create.sha} 2 session:one userSession:u1 one {record}"
            f" {one.idle_expires}"
        ),
        "lua LLEN userSession:u1",
        f"lua SET session:one {record} NX PXAT {one.idle_expires}",
        "lua LPUSH userSession:u1 one",
        "lua PTTL userSession:u1",
        f"lua PEXPIREAT userSession:u1 {one.idle_expires}",
        "MGET session:one",
        (
            f"EVALSHA {SCRIPTS.renew.sha} 4 session:one session:new userSession:u1"
            f" session:renewed:{{session:one}} {arguments}"
        ),
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
        (
            f"EVALSHA {SCRIPTS.create.sha} 2 session:one userSession:u1 one {record}"
            f" {one.idle_expires}"
        ),
        "lua LLEN userSession:u1",
        f"lua SET session:one {record} NX PXAT {one.idle_expires}",
        "lua LPUSH userSession:u1 one",
        "lua PTTL userSession:u1",
        f"lua PEXPIREAT userSession:u1 {one.idle_expires}",
        "LRANGE userSession:u1 0 -1",
        "MGET session:one",
        (
            f"EVALSHA {SCRIPTS.create_capped.sha} 3 session:new userSession:u1 session:one new"
            f" {record_of_new} {new.idle_expires} 1 1 one one"
        ),
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
    """Scripts that the server does not have are sent in full, and every method works."""
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
    """Every method works even if the scripts are flushed before each command."""
    adapter = AsyncRedisSessionAdapter(redis_client)
    adapter._driver = forgetting_driver(redis_client, inspector)
    await use_every_method(adapter, inspector)
