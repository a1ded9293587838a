"""Stored data on one server: keys, records, their expiry, and ids of every kind."""

import pytest
from redis.asyncio import Redis

from lucia._redis.keys import Layout
from lucia._redis.records import encode_row
from lucia._rules.sessions import system_clock
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.models import SessionRow
from tests.aio.support.redis_calls import MINUTE, add, ids, one_reply_type, renew
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import HOUR, row
from tools.servers import until


async def test_document_word_for_word(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """A session is a JSON record, and its user's index a list of ids; there are no other keys."""
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
    times = f'"active_expires":{end - 5},"idle_expires":{end}'
    assert inspector.census() == {
        "session:one": (
            "string",
            f'{{"id":"one","user_id":"u1",{times}}}'.encode(),
            end,
        ),
        "session:two": (
            "string",
            f'{{"id":"two","user_id":"u1",{times},"handle":"h"}}'.encode(),
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
    """With custom namespaces, all or some, every method works, and every key is in them."""
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
    """Empty, unknown and colliding namespaces are refused when the adapter is created."""
    for refused in ({"session": ""}, {"userSession": "x"}, {"session": "x", "user_session": "x"}):
        with pytest.raises(ValueError, match="namespace"):
            AsyncRedisSessionAdapter(redis_client, namespaces=refused)


async def test_times_of_keys(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """A session's key expires with the session, to the millisecond; the index with the last one.

    No key is ever without a TTL (I3).
    """
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
async def test_no_key_is_left_after_expiry(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Once all sessions have expired, no key is left."""
    for number in range(5):
        await adapter.set_session(row(f"s{number}", life=1_000 + 10 * number))
    await adapter.renew_session("s4", row("new", life=1_000), grace=0)
    inspector.age("s4", MINUTE - 150)
    until(lambda: not inspector.keys())
    assert await adapter.get_session("new") is None
    assert await adapter.get_sessions_by_user_id("u1") == []


async def test_index_of_lucia_js_gets_no_ttl(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """An index of Lucia JS, without a TTL, is used and keeps having none.

    The keys of its sessions expire in 57 years.
    """
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
    """A session that has expired by the server's clock is refused, and nothing is changed."""
    await add(adapter, "used")
    before = inspector.census()
    end = system_clock() + life
    dead = SessionRow(id="dead", user_id="u1", active_expires=0, idle_expires=end)
    with pytest.raises(ValueError, match="server's clock"):
        await adapter.set_session(dead)
    with pytest.raises(ValueError, match="server's clock"):
        await adapter.renew_session("used", dead, grace=MINUTE)
    assert inspector.census() == before


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
    """Every method works with any user id, and changes no other user's sessions."""
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
    """Every method works with any session id that a row accepts."""
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
    """An id like a marker's key can't be stored, and is unknown to the other methods."""
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
