"""The Redis adapters on fakeredis: the suites, and what docs/testing.md says of it."""

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from fakeredis import (
    FakeAsyncRedis,
    FakeAsyncValkey,
    FakeRedis,
    FakeServer,
    FakeValkey,
)

from lucia import (
    AsyncAuth,
    Auth,
    InvalidPassword,
    PrimaryKey,
    ScryptHash,
    StoreUnavailable,
    TooManyAttempts,
    User,
)
from lucia._redis.transport.topology import topology_of
from lucia._rules.id_hashes import HashedIds
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.models import SessionRow, handle_of
from lucia.testing import AsyncRenewingSessionAdapterSuite, RenewingSessionAdapterSuite
from tools import fakeredis_table
from tools.fakeredis_table import Broken, Results

ID_KEYS: Final = (b"current key".ljust(32), b"older key".ljust(32))


# The suites with hashed ids. Those without run for the table, in processes of their own.


class Hashed:
    """The suites over hashed ids, whose lists have the hash and the handle of each."""

    def as_listed(self, row: SessionRow) -> SessionRow:
        """Return the row as its user's list has it."""
        attributes = {"handle": handle_of(row), **row.attributes}
        return replace(row, id=HashedIds(ID_KEYS).stored(row.id), attributes=attributes)


@pytest.mark.no_cover
class TestSync(Hashed, RenewingSessionAdapterSuite):
    """The suite with a sync client; afterwards every key has an expiry."""

    @pytest.fixture
    def adapter(self) -> Iterator[RedisSessionAdapter]:
        with FakeRedis(decode_responses=True) as client:
            yield RedisSessionAdapter(client, id_keys=ID_KEYS)
            keys: Any = client.keys()
            assert [key for key in keys if client.pttl(key) == -1] == []


@pytest.mark.no_cover
class TestAsync(Hashed, AsyncRenewingSessionAdapterSuite):
    """The suite with an async client; afterwards every key has an expiry."""

    @pytest.fixture
    async def adapter(self) -> AsyncIterator[AsyncRedisSessionAdapter]:
        async with FakeAsyncRedis() as client:
            yield AsyncRedisSessionAdapter(client, id_keys=ID_KEYS)
            assert [key for key in await client.keys() if await client.pttl(key) == -1] == []


# The table


@pytest.mark.no_cover
def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The page says which requirements hold, with Lua and without, and which do not."""
    assert fakeredis_table.main(["--check"]) == 0, capsys.readouterr().err


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Return a page with an empty table."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{fakeredis_table.BEGIN}{fakeredis_table.END}after\n")
    return page


def use_results(monkeypatch: pytest.MonkeyPatch, **lua: bool) -> None:
    """Let the suites have the same results with Lua, but for these, and without."""
    all_hold = dict.fromkeys(["test_get", "test_cap", "test_renew_again", "test_list"], True)
    with_lua = Results(True, all_hold | lua, all_hold | {"test_list": False})
    plain = Results(False, {**all_hold, "test_cap": False}, {**all_hold, "test_list": False})
    monkeypatch.setattr(fakeredis_table, "measured", lambda: (with_lua, plain))


def test_writing_the_table(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is written between its markers, and is out of date if a result is another one."""
    use_results(monkeypatch, test_get=False)
    assert fakeredis_table.main(["--check"], page) == 1
    assert "out of date" in capsys.readouterr().err
    assert fakeredis_table.main([], page) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{fakeredis_table.BEGIN}With fakeredis ")
    assert text.endswith(f" |\n{fakeredis_table.END}after\n")
    assert " 1 of the 4 requirements hold everywhere" in text
    cells = [line.split(" | ")[2:] for line in text.splitlines() if line.startswith("| [")]
    assert cells == [
        ["holds without `lua`", "holds |"],
        ["holds", "**does not hold** |"],
        ["holds", "holds |"],
        ["holds with `lua`", "holds |"],
    ]
    page.write_text(text.replace("With fakeredis 2", "With fakeredis 9"))
    assert fakeredis_table.main(["--check"], page) == 0
    use_results(monkeypatch)
    assert fakeredis_table.main(["--check"], page) == 1


def test_a_new_requirement(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A test that has no topic is an error."""
    use_results(monkeypatch, test_unheard_of=True)
    assert fakeredis_table.main([], page) == 1
    assert "test_unheard_of has no topic" in capsys.readouterr().err


def test_processes_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a run of the suites fails, or has scripts where it should have none, it is an error."""
    program = tmp_path / "program.py"
    monkeypatch.setattr(fakeredis_table, "__file__", str(program))
    program.write_text("raise SystemExit('no fakeredis')")
    with pytest.raises(Broken, match="no fakeredis"):
        fakeredis_table.measured()
    program.write_text("print('[true, {}, {}]')")
    with pytest.raises(Broken, match="scripts without lupa"):
        fakeredis_table.measured()


# What else the page says


@pytest.mark.parametrize("client", [FakeRedis, FakeAsyncRedis, FakeValkey, FakeAsyncValkey])
def test_passthrough(client: Any) -> None:
    """The adapters send their commands through a client of fakeredis, which opens no socket."""
    assert topology_of(client()) is None


def test_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """An adapter warns once that it uses the client as it is."""
    with caplog.at_level(logging.WARNING):
        adapter = RedisSessionAdapter(FakeRedis())
        assert adapter.get_session("unknown") is None
    assert [record.msg.split(",")[0] for record in caplog.records] == ["this %s can't be copied"]


def test_outage() -> None:
    """``server.connected = False`` is an outage: nothing is lost by it."""
    server = FakeServer()
    auth: Auth[User] = Auth(
        sessions=RedisSessionAdapter(FakeRedis(server=server), id_keys=ID_KEYS), env="DEV"
    )
    session = auth.create_session("anna")
    server.connected = False
    with pytest.raises(StoreUnavailable):
        auth.validate_session(session.session_id)
    server.connected = True
    assert auth.validate_session(session.session_id).user_id == "anna"


async def test_async_outage() -> None:
    """``server.connected = False`` is an outage of the async adapter, too."""
    server = FakeServer()
    auth: AsyncAuth[User] = AsyncAuth(
        sessions=AsyncRedisSessionAdapter(FakeAsyncRedis(server=server), id_keys=ID_KEYS), env="DEV"
    )
    session = await auth.create_session("anna")
    server.connected = False
    with pytest.raises(StoreUnavailable):
        await auth.validate_session(session.session_id)
    server.connected = True
    assert (await auth.validate_session(session.session_id)).user_id == "anna"


KEY: Final = ("username", "anna")


def test_wrong_passwords() -> None:
    """The sync adapter counts wrong passwords there, for all who share the server."""
    server = FakeServer()
    users = MemoryAdapter()
    auths: list[Auth[User]] = [
        Auth(
            users=users,
            sessions=RedisSessionAdapter(FakeRedis(server=server), id_keys=ID_KEYS),
            env="DEV",
            hash=ScryptHash(ln=4, r=1, p=1),
        )
        for _ in range(2)
    ]
    auths[0].create_user(primary_key=PrimaryKey(*KEY, "correct horse"))
    for _ in range(5):
        with pytest.raises(InvalidPassword):
            auths[0].use_key(*KEY, "battery staple")
    with pytest.raises(TooManyAttempts):
        auths[1].use_key(*KEY, "correct horse")


async def test_async_wrong_passwords() -> None:
    """The async adapter counts wrong passwords there, for all who share the server."""
    server = FakeServer()
    users = AsyncMemoryAdapter()
    auths: list[AsyncAuth[User]] = [
        AsyncAuth(
            users=users,
            sessions=AsyncRedisSessionAdapter(FakeAsyncRedis(server=server), id_keys=ID_KEYS),
            env="DEV",
            hash=ScryptHash(ln=4, r=1, p=1),
        )
        for _ in range(2)
    ]
    await auths[0].create_user(primary_key=PrimaryKey(*KEY, "correct horse"))
    for _ in range(5):
        with pytest.raises(InvalidPassword):
            await auths[0].use_key(*KEY, "battery staple")
    with pytest.raises(TooManyAttempts):
        await auths[1].use_key(*KEY, "correct horse")


def test_revoke_ack() -> None:
    """``revoke_ack`` is refused."""
    with pytest.raises(TypeError, match="revoke_ack needs connections of the adapter's own"):
        RedisSessionAdapter(FakeRedis(), revoke_ack=1)


async def test_near_cache() -> None:
    """``near_cache`` has no effect: what somebody else revokes is revoked at once."""
    server = FakeServer()
    near, other = (
        AsyncRedisSessionAdapter(
            FakeAsyncRedis(server=server), id_keys=ID_KEYS, near_cache=near_cache
        )
        for near_cache in (timedelta(seconds=3), None)
    )
    auth: AsyncAuth[User] = AsyncAuth(sessions=near, env="DEV")
    session = await auth.create_session("anna")
    await auth.validate_session(session.session_id)
    await other.delete_session(session.session_id)
    assert await near.get_session(session.session_id) is None
