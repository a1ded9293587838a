"""Log lines: when each one is written, that none has a secret, and that they are limited."""

import logging
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import MetaData

from lucia import (
    AsyncAuth,
    InvalidCredentials,
    LuciaError,
    PrimaryKey,
    RevocationNotReplicated,
    StoreUnavailable,
    TooManyAttempts,
    User,
    _logs,
)
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyUserAdapter, AuthTables
from tests.aio.support.minimal_adapters import AsyncDictionaryAdapter
from tests.aio.support.watched_store import AsyncWatchedStore, StoreDownError
from tests.support.clocks import Time
from tests.support.databases import AsyncDatabase
from tests.support.passwords import CHEAP
from tests.support.redis_servers import frozen
from tests.support.requests import OWN_ORIGIN, Exchange
from tools.servers import Server, own_server

PASSWORD = "correct horse battery staple"
WRONG = "a wrong guess"
ALICE = PrimaryKey("username", "alice@example.com", PASSWORD)
ADDRESS = "203.0.113.9"
FAST = timedelta(milliseconds=500)


class Lines:
    """The lines that the library has logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the events since the last call, with their fields."""
        records = [record for record in self._caplog.records if record.name.startswith("lucia")]
        self._caplog.clear()
        return [(event := record.__dict__["event"], fields_of(event, record)) for record in records]


def fields_of(event: str, record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields declared for the event, and check its logger and level."""
    declared = _logs.EVENTS[event]
    assert (record.name, record.levelno) == (declared.logger, declared.level)
    counted = () if declared.most is None else ("suppressed",)
    return {field: record.__dict__[field] for field in (*declared.fields, *counted)}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Capture every line of the library."""
    caplog.set_level(logging.DEBUG, "lucia")
    return Lines(caplog)


@pytest.fixture
async def redis_auth(redis_server: Server) -> AsyncIterator[AsyncAuth[User]]:
    """Yield an ``Auth`` with sessions in Redis."""
    async with Redis.from_url(redis_server.url) as client:
        await client.flushall()
        async with AsyncRedisSessionAdapter(client) as adapter:
            yield AsyncAuth(users=AsyncMemoryAdapter(), sessions=adapter, env="DEV", hash=CHEAP)


async def test_sign_in(auth: AsyncAuth[User], lines: Lines) -> None:
    """A sign-in writes one line, with the user's id, and with the provider if a key was used."""
    user = await auth.create_user(primary_key=ALICE)
    assert lines.take() == []
    await auth.handle_request(Exchange().context).sign_in(user.user_id)
    await auth.handle_request(Exchange().context).sign_in_with_key(
        "username", "alice@example.com", PASSWORD
    )
    assert lines.take() == [
        ("signed_in", {"user_id": user.user_id, "provider_id": None}),
        ("signed_in", {"user_id": user.user_id, "provider_id": "username"}),
    ]


async def test_refusal(auth: AsyncAuth[User], lines: Lines) -> None:
    """A refusal is logged with its reason; of an unknown key, only the provider is logged."""
    user = await auth.create_user(primary_key=ALICE)
    used: Callable[..., Any] = auth.use_key
    for call in (used, auth.create_session_with_key):
        for name, reason, whose in (
            ("alice@example.com", "InvalidPassword", user.user_id),
            ("nobody", "InvalidKeyId", None),
        ):
            with pytest.raises(InvalidCredentials):
                await call("username", name, WRONG)
            fields = {
                "reason": reason,
                "provider_id": "username",
                "user_id": whose,
                "suppressed": 0,
            }
            assert lines.take() == [("credentials_refused", fields)]
    await auth.use_key("username", "alice@example.com", PASSWORD)
    assert lines.take() == []


async def test_overtaken_sign_in(
    auth: AsyncAuth[User], store: AsyncWatchedStore, lines: Lines
) -> None:
    """If the key is removed during a sign-in, only a refusal is logged."""
    user = await auth.create_user(primary_key=None)
    await auth.create_key(
        user.user_id, provider_id="email", provider_user_id="x", password=PASSWORD
    )
    store.after["set_session"] = partial(auth.delete_key, "email", "x")
    with pytest.raises(InvalidCredentials):
        await auth.create_session_with_key("email", "x", PASSWORD)
    fields = {
        "reason": "InvalidPassword",
        "provider_id": "email",
        "user_id": user.user_id,
        "suppressed": 0,
    }
    assert lines.take() == [("credentials_refused", fields)]


async def test_throttling_does_not_flood(
    auth: AsyncAuth[User], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Throttled attempts write one line a minute for each key and address.

    The next line has the number of suppressed ones.
    """
    seconds = Time(0)
    monkeypatch.setattr(_logs, "_limiter", _logs.Limiter(seconds))

    async def guess(name: str, address: str | None, times: int = 20) -> list[dict[str, Any]]:
        for _ in range(times):
            with pytest.raises((TooManyAttempts, InvalidCredentials)):
                await auth.use_key("username", name, WRONG, address=address)
        return [fields for event, fields in lines.take() if event == "sign_in_throttled"]

    told = {"provider_id": "username", "address": ADDRESS, "retry_after": 1, "suppressed": 0}
    assert await guess("alice", ADDRESS) == [told]
    assert await guess("bob", ADDRESS) == []
    assert await guess("alice", "198.51.100.1") == []
    seconds.now += 61
    assert [fields["suppressed"] for fields in await guess("alice", ADDRESS, 1)] == [49]
    assert [fields["address"] for fields in await guess("carol", "2001:db8:1:2::7")] == [
        "2001:db8:1:2::/64"
    ]
    assert [fields["address"] for fields in await guess("dave", None)] == [None]

    monkeypatch.setattr(_logs.Limiter, "admit", lambda *_: 0)  # control: no line is suppressed
    assert len(await guess("erin", None)) == 15


async def test_sign_out(auth: AsyncAuth[User], lines: Lines) -> None:
    """A sign-out writes one line, with the user's id if it is known, and none without a session."""
    session = await auth.create_session("alice")
    lines.take()
    await auth.handle_request(Exchange(session.session_id).context).sign_out()
    assert lines.take() == [("signed_out", {"user_id": "alice"})]
    await auth.handle_request(Exchange(session.session_id).context).sign_out()
    await auth.handle_request(Exchange().context).sign_out()
    assert lines.take() == []


async def test_sign_out_from_a_store_that_tells_nothing(lines: Lines, time: Time) -> None:
    """If the store does not return what it revoked, the user is known only from a validation."""
    auth = AsyncAuth(sessions=AsyncDictionaryAdapter(), env="DEV", clock=time)
    for validates, user_id in ((True, "alice"), (False, None)):
        session = await auth.create_session("alice")
        request = auth.handle_request(Exchange(session.session_id).context)
        if validates:
            await request.validate()
        lines.take()
        await request.sign_out()
        assert [fields for event, fields in lines.take() if event == "signed_out"] == [
            {"user_id": user_id}
        ]


@pytest.mark.parametrize("where", ["memory", "redis"])
async def test_revocation(
    auth: AsyncAuth[User], redis_auth: AsyncAuth[User], lines: Lines, where: str
) -> None:
    """A revocation is logged with its user and the number of revoked sessions."""
    subject = auth if where == "memory" else redis_auth
    user = await subject.create_user(primary_key=ALICE)
    sessions = [await subject.create_session(user.user_id) for _ in range(6)]
    lines.take()

    def told(count: int | None) -> list[tuple[str, dict[str, Any]]]:
        return [("sessions_revoked", {"user_id": user.user_id, "count": count})]

    await subject.invalidate_session(sessions[0].session_id)
    assert lines.take() == told(1)
    await subject.invalidate_session(sessions[0].session_id)
    await subject.invalidate_session("no id")
    assert lines.take() == []
    devices = await subject.get_all_user_sessions(user.user_id)
    other = next(device.handle for device in devices if device.handle != sessions[-1].handle)
    assert await subject.invalidate_user_session(user.user_id, other)
    assert lines.take() == told(1)
    await subject.invalidate_all_user_sessions(user.user_id, keep=sessions[-1].session_id)
    assert lines.take() == told(3)
    await subject.update_key_password("username", "alice@example.com", "another password")
    assert lines.take() == told(1)
    await subject.invalidate_all_user_sessions(user.user_id)
    assert lines.take() == told(0)
    await subject.create_session(user.user_id)
    lines.take()
    await subject.delete_user(user.user_id)
    assert lines.take() == told(1)


async def test_revocation_that_nobody_counts(lines: Lines) -> None:
    """An adapter with five methods, or for users only, does not count revoked sessions."""
    metadata = MetaData()
    tables = AuthTables(metadata)
    async with AsyncDatabase(metadata) as engine:
        users = AsyncSQLAlchemyUserAdapter(engine, tables)
        auth = AsyncAuth(users=users, sessions=AsyncDictionaryAdapter(), env="DEV", hash=CHEAP)
        user = await auth.create_user(primary_key=ALICE)
        await auth.create_session(user.user_id)
        lines.take()
        await auth.delete_user(user.user_id)
        await auth.aclose()
    assert lines.take() == [("sessions_revoked", {"user_id": user.user_id, "count": None})]


async def test_revocation_without_scripts(scriptless_client: Redis, lines: Lines) -> None:
    """Revocations are logged with their counts on servers without scripts too."""
    async with AsyncRedisSessionAdapter(scriptless_client) as adapter:
        auth = AsyncAuth(sessions=adapter, env="DEV")
        session = await auth.create_session("alice")
        await auth.create_session("alice")
        lines.take()
        await auth.invalidate_session(session.session_id)
        await auth.invalidate_all_user_sessions("alice")
    assert lines.take() == [("sessions_revoked", {"user_id": "alice", "count": 1})] * 2


async def test_revocation_that_fails(
    auth: AsyncAuth[User], store: AsyncWatchedStore, lines: Lines
) -> None:
    """A failed revocation is an error in the log, once a minute for each user.

    This includes revocations that are a part of another call.
    """
    user = await auth.create_user(primary_key=ALICE)
    session = await auth.create_session(user.user_id)
    lines.take()
    store.failing = {
        "delete_sessions_by_user_id": StoreDownError("down"),
        "delete_session": StoreDownError("down"),
    }
    for _ in range(3):
        with pytest.raises(StoreDownError):
            await auth.invalidate_all_user_sessions(user.user_id)
    with pytest.raises(LuciaError):
        await auth.update_key_password("username", "alice@example.com", PASSWORD)
    with pytest.raises(StoreDownError):
        await auth.handle_request(Exchange(session.session_id).context).sign_out()
    assert lines.take() == [
        (
            "revocation_failed",
            {"user_id": user.user_id, "reason": "StoreDownError", "suppressed": 0},
        ),
        ("revocation_failed", {"user_id": None, "reason": "StoreDownError", "suppressed": 4 - 1}),
    ]


async def test_revocation_that_no_replica_confirmed(redis_server: Server, lines: Lines) -> None:
    """A revocation that too few replicas confirmed is an error in the log."""
    async with Redis.from_url(redis_server.url) as client:
        await client.flushall()
        async with AsyncRedisSessionAdapter(
            client, revoke_ack=1, revoke_ack_timeout=timedelta(milliseconds=10)
        ) as adapter:
            auth = AsyncAuth(sessions=adapter, env="DEV")
            session = await auth.create_session("alice")
            with pytest.raises(RevocationNotReplicated):
                await auth.invalidate_session(session.session_id)
    fields = {"user_id": "alice", "reason": "RevocationNotReplicated", "suppressed": 0}
    assert lines.take() == [
        ("signed_in", {"user_id": "alice", "provider_id": None}),
        ("revocation_failed", fields),
    ]


async def test_store_unavailable_and_available_again(tmp_path: Path, lines: Lines) -> None:
    """An outage writes a line when it begins, and one with the failures when it ends."""
    seconds = Time(0)
    with own_server("redis-server", tmp_path) as server:
        async with (
            Redis.from_url(server.url) as client,
            AsyncRedisSessionAdapter(client, deadline=FAST) as adapter,
        ):
            auth = AsyncAuth(sessions=adapter, env="DEV")
            session = await auth.create_session("alice")
            adapter._driver.outage._clock = seconds
            lines.take()
            with frozen(server):
                for _ in range(3):
                    with pytest.raises(StoreUnavailable):
                        await auth.get_session(session.session_id)
                    seconds.now += 1
            await auth.get_session(session.session_id)
            assert lines.take() == [("store_unavailable", {"reason": "StoreUnavailable"})]
            seconds.now += 10
            await auth.get_session(session.session_id)
            await auth.get_session(session.session_id)
            assert lines.take() == [("store_available", {"failures": 3, "seconds": 2})]
            with frozen(server), pytest.raises(StoreUnavailable):
                await auth.invalidate_session(session.session_id)
            seconds.now += 10
            await auth.create_session("alice")
            assert [event for event, _ in lines.take()] == [
                "store_unavailable",
                "revocation_failed",
                "store_available",
                "signed_in",
            ]


@pytest.mark.parametrize(
    "wrong", [{"db": 99}, {"username": "nobody", "password": "wrong"}], ids=["database", "user"]
)
async def test_a_server_that_refuses_is_no_outage(
    redis_server: Server, lines: Lines, wrong: dict[str, Any]
) -> None:
    """A server that refuses a connection with an error, which is raised, is no outage."""
    async with (
        Redis.from_url(redis_server.url, **wrong) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        auth = AsyncAuth(sessions=adapter, env="DEV")
        for call in (partial(auth.get_session, "0" * 40), partial(auth.create_session, "alice")):
            with pytest.raises(
                RedisError, match=r"DB index is out of range|invalid username-password"
            ):
                await call()
        assert not adapter._driver.outage.is_on
    assert lines.take() == []


async def test_corrupt_index(
    redis_auth: AsyncAuth[User], redis_server: Server, lines: Lines
) -> None:
    """An index of another type is an error in the log, once a minute."""
    async with Redis.from_url(redis_server.url) as client:
        await client.set("userSession:alice", "x")
    for _ in range(3):
        with pytest.raises(LuciaError):
            await redis_auth.create_session("alice")
    assert lines.take() == [("store_corrupt", {"suppressed": 0})]


async def test_no_line_tells_a_secret(
    redis_auth: AsyncAuth[User], redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """No line and no field has a session id, a password, a hash or a key's name, in any call."""
    caplog.set_level(logging.DEBUG)
    auth = redis_auth
    secrets = {PASSWORD, WRONG, "alice@example.com", "token-of-the-reset", "another password"}

    async def fails(call: Callable[[], Any]) -> None:
        with pytest.raises(LuciaError):
            await call()

    user = await auth.create_user(primary_key=ALICE)
    assert auth._users is not None
    await auth.create_single_use_key(
        user.user_id,
        provider_id="reset",
        provider_user_id="token-of-the-reset",
        password=None,
        expires_in=timedelta(1),
    )
    secrets.update(
        row.hashed_password
        for row in await auth._users.get_keys_by_user_id(user.user_id)
        if row.hashed_password
    )
    sessions = [
        await auth.create_session_with_key("username", "alice@example.com", PASSWORD)
        for _ in range(5)
    ]
    secrets.update(session.session_id for session in sessions)
    for name in ("alice@example.com", "token-of-the-reset"):
        for _ in range(7):
            await fails(
                partial(auth.create_session_with_key, "username", name, WRONG, address=ADDRESS)
            )
    await auth.use_key("reset", "token-of-the-reset", None)
    await fails(partial(auth.use_key, "reset", "token-of-the-reset", None))
    renewed = await auth.renew_session(sessions[0].session_id)
    secrets.add(renewed.session_id)
    await auth.handle_request(Exchange(sessions[1].session_id).context).sign_out()
    foreign = auth.handle_request(
        Exchange(sessions[2].session_id, origin="https://evil.example").context
    )
    await fails(partial(foreign.sign_in, user.user_id))
    await auth.invalidate_session(sessions[2].session_id)
    await auth.invalidate_user_session(
        user.user_id, (await auth.get_all_user_sessions(user.user_id))[0].handle
    )
    async with Redis.from_url(redis_server.url) as client:
        await client.set(f"session:{sessions[3].session_id}", "no record")
        await fails(partial(auth.validate_session, sessions[3].session_id))
        await auth.update_key_password("username", "alice@example.com", "another password")
        await client.set(f"userSession:{user.user_id}", "no index")
        await fails(partial(auth.invalidate_all_user_sessions, user.user_id))
        await client.delete(f"userSession:{user.user_id}")
    with frozen(redis_server):
        short = AsyncRedisSessionAdapter(Redis.from_url(redis_server.url), deadline=FAST)
        async with short:
            await fails(
                partial(
                    AsyncAuth(sessions=short, env="DEV").validate_session, sessions[4].session_id
                )
            )
    await auth.delete_user(user.user_id)

    written = {
        record.__dict__["event"] for record in caplog.records if record.name.startswith("lucia")
    }
    assert written == {
        "signed_in", "credentials_refused", "sign_in_throttled", "signed_out",
        "sessions_revoked", "revocation_failed",
        "cross_site_request", "record_ignored", "store_corrupt", "store_unavailable",
    }  # fmt: skip
    text = text_of(caplog)
    assert user.user_id in text
    assert OWN_ORIGIN in text
    assert not [secret for secret in secrets if secret in text]
    _logs.signed_in(renewed.session_id)  # control: a secret in a field is found
    assert [secret for secret in secrets if secret in text_of(caplog)] == [renewed.session_id]


def text_of(caplog: pytest.LogCaptureFixture) -> str:
    """Return everything that was logged, with all fields."""
    return "\n".join([caplog.text, *(repr(record.__dict__) for record in caplog.records)])
