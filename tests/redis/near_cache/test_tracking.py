"""The tracking connection of the near-cache on real servers: what is cached, and how long."""

import asyncio
import logging
from collections.abc import AsyncIterator, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.exceptions
from redis._parsers.resp3 import _AsyncRESP3Parser
from redis.cache import CacheConfig

from lucia._redis.transport.near_cache_entries import ENTRY_SECONDS, Entries
from lucia._redis.transport.retries import BatchRejected, NoReply
from lucia._redis.transport.tracking import REFUSED_SECONDS
from lucia.adapters.redis import RedisSessionAdapter
from tests.support.acl_rights import NEAR_RIGHTS
from tests.support.clocks import ManualClock
from tests.support.near_cache import (
    LEASE,
    FillsLate,
    HasNoLease,
    OnlyDrops,
    Tracking,
    tracking,
    wait_until,
)
from tests.support.proxies import HoldingProxy, holding_proxy
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import Inspector
from tests.support.redis_servers import frozen, silent_server
from tools.servers import Server, own_server, unused_port

KEY, OTHER = b"session:a", b"session:b"

PUSH = b">2\r\n$10\r\ninvalidate"


@pytest.fixture
def inspector(server: Server) -> Generator[Inspector]:
    """Yield an inspector of a server with two records."""
    with Inspector(server) as found:
        found.client.mset({KEY: b"A", OTHER: b"B"})
        yield found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def near(inspector: Inspector, clock: ManualClock) -> AsyncIterator[Tracking]:
    """Yield a tracking connection without a proxy."""
    async with tracking(
        AsyncClients.make("redis-py as it is", inspector.server), Entries(clock=clock)
    ) as found:
        yield found


@pytest.fixture
async def proxy(inspector: Inspector) -> AsyncIterator[HoldingProxy]:
    """Yield a proxy in front of the server."""
    async with holding_proxy(inspector.server.port) as found:
        yield found


def client_of(proxy: HoldingProxy) -> Any:
    """Return a client that connects to the proxy."""
    return redis.asyncio.Redis(port=proxy.port)


def on(server: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", server, indirect=True)


ALL = on(["redis", "valkey", "old_redis"])
ONE = on(["redis"])


# Cached records and invalidations


@ALL
async def test_a_record_that_is_read(near: Tracking) -> None:
    """A record that was read is cached. A missing one is not."""
    assert near.held(KEY) is None
    assert await near.read(KEY, b"nobody's") == [b"A", None]
    assert near.held(KEY) == b"A"
    assert len(near.entries) == 1
    assert near.sent == 1


@ALL
@pytest.mark.parametrize("kind", AsyncClients.kinds)
async def test_key_changed_by_another_client_is_dropped(
    inspector: Inspector, clock: ManualClock, kind: str
) -> None:
    """A key that another client deletes or changes is dropped, with every kind of client."""
    async with tracking(AsyncClients.make(kind, inspector.server), Entries(clock=clock)) as near:
        assert await near.read(KEY, OTHER) == [b"A", b"B"]
        inspector.client.delete(KEY)
        await wait_until(lambda: near.held(KEY) is None)
        assert near.held(OTHER) == b"B"
        inspector.client.set(OTHER, b"new")
        await wait_until(lambda: near.held(OTHER) is None)
        assert await near.read(OTHER) == [b"new"]
        assert near.held(OTHER) == b"new"


@ALL
async def test_what_expires(near: Tracking, inspector: Inspector) -> None:
    """A key that expires is dropped."""
    await near.read(KEY)
    inspector.client.pexpire(KEY, 5)
    await wait_until(lambda: near.held(KEY) is None)


@ALL
@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
async def test_an_emptied_server(near: Tracking, inspector: Inspector, command: str) -> None:
    """When the server is emptied, all entries are dropped."""
    await near.read(KEY, OTHER)
    inspector.client.execute_command(command)
    await wait_until(lambda: len(near.entries) == 0)
    inspector.client.flushall()
    assert await near.read(KEY) == [None]


async def test_a_full_table(inspector: Inspector, clock: ManualClock) -> None:
    """A key that the server stops tracking, because its table is full, is dropped."""
    keys = [b"session:%d" % number for number in range(200)]
    inspector.client.mset(dict.fromkeys(keys, b"A"))
    inspector.client.config_set("tracking-table-max-keys", 10)
    try:
        async with tracking(
            AsyncClients.make("redis-py as it is", inspector.server), Entries(clock=clock)
        ) as near:
            await near.read(*keys)
            await wait_until(lambda: len(near.entries) <= 10)
            inspector.client.delete(*keys)
            await wait_until(lambda: len(near.entries) == 0)
    finally:
        inspector.client.config_set("tracking-table-max-keys", 1_000_000)


# A reply overtaken by its invalidation


async def overtaken(proxy: HoldingProxy, inspector: Inspector, entries: Entries) -> bool:
    """Return whether a record is used whose invalidation arrives together with it."""
    async with tracking(client_of(proxy), entries) as near:
        await near.read(OTHER)
        proxy.close()
        read = asyncio.ensure_future(near.read(KEY))
        await wait_until(lambda: proxy.held)
        inspector.client.delete(KEY)
        await wait_until(lambda: PUSH in proxy.held)
        proxy.open()
        assert await read == [b"A"]
        return near.held(KEY) is not None


async def test_invalidation_behind_reply_wins(
    proxy: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """A record whose invalidation arrives right behind it is not used."""
    assert not await overtaken(proxy, inspector, Entries(clock=clock))


async def test_control_late_fill_returns_stale_record(
    proxy: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """Control: a cache that is filled by the waiting tasks uses the record."""
    assert await overtaken(proxy, inspector, FillsLate(clock))


# Revoked by this process, over another connection


async def own_end(proxy: HoldingProxy, inspector: Inspector, entries: Entries) -> bool:
    """Return whether a record is used that this process deleted while it was read.

    The reply arrives after the deletion and before the invalidation.
    """
    async with tracking(client_of(proxy), entries) as near:
        await near.read(OTHER)
        proxy.close()
        read = asyncio.ensure_future(near.read(KEY))
        await wait_until(lambda: proxy.held)
        with entries.dropping([KEY]):
            inspector.client.delete(KEY)
            await wait_until(lambda: PUSH in proxy.held)
        proxy.let_go(proxy.held.index(PUSH))
        assert await read == [b"A"]
        return near.held(KEY) is not None


async def test_record_deleted_during_read_is_not_cached(
    proxy: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """A record that this process deletes while it is read is not used."""
    assert not await own_end(proxy, inspector, Entries(clock=clock))


async def test_control_drop_only_cache_returns_deleted_record(
    proxy: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """Control: a cache that only drops entries uses the record."""
    assert await own_end(proxy, inspector, OnlyDrops(clock=clock))


async def test_an_own_change_at_once(near: Tracking, inspector: Inspector) -> None:
    """A key is dropped before this process changes it, and can be cached again afterwards."""
    await near.read(KEY, OTHER)
    with near.entries.dropping([KEY]):
        assert (near.held(KEY), near.held(OTHER)) == (None, b"B")
        assert await near.read(KEY) == [b"A"]
        assert near.held(KEY) is None
        inspector.client.set(KEY, b"new")
    await near.read(KEY)
    assert near.held(KEY) == b"new"


# A silent connection


async def last_use(
    proxy: HoldingProxy, inspector: Inspector, clock: ManualClock, entries: Entries, *, both: bool
) -> float:
    """Return how long a deleted record is used while the link passes nothing.

    The resolution is a hundredth of the lease.
    """
    async with tracking(client_of(proxy), entries) as near:
        await near.read(KEY)
        proxy.close(both=both)
        begin = clock.now
        inspector.client.delete(KEY)
        while near.held(KEY) is not None and clock.now < begin + 2 * LEASE:
            clock.now += LEASE / 100
            await asyncio.sleep(LEASE / 100)
        return clock.now - begin


@pytest.mark.parametrize("both", [False, True])
async def test_the_lease_ends(
    proxy: HoldingProxy, inspector: Inspector, clock: ManualClock, both: bool
) -> None:
    """Over a link that passes nothing, a record is used until the lease ends and no longer.

    This holds whether or not commands still reach the server.
    """
    assert (
        LEASE * 0.98
        < await last_use(proxy, inspector, clock, Entries(clock=clock), both=both)
        < LEASE * 1.02
    )


async def test_control_no_lease_returns_stale_record(
    proxy: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """Control: a cache without a lease uses the record for longer."""
    assert await last_use(proxy, inspector, clock, HasNoLease(clock=clock), both=True) > LEASE * 1.9


async def test_the_lease_begins_when_it_was_asked(proxy: HoldingProxy, clock: ManualClock) -> None:
    """The lease begins when a command is sent, however late its reply arrives."""
    async with tracking(client_of(proxy), Entries(clock=clock)) as near:
        await near.read(OTHER)
        link: Any = near.tracked._link
        link._beater.cancel()
        proxy.close()
        begin = clock.now
        read = asyncio.ensure_future(near.read(KEY))
        await wait_until(lambda: proxy.held)
        clock.now = begin + LEASE / 2
        proxy.open()
        await read
        assert near.held(KEY) == b"A"
        clock.now = begin + LEASE
        assert near.held(KEY) is None


async def test_heartbeats_extend_the_lease(near: Tracking, clock: ManualClock) -> None:
    """Without requests, heartbeats extend the lease, up to five seconds per record."""
    await near.read(KEY)
    begin = clock.now
    while clock.now < begin + ENTRY_SECONDS - LEASE:
        clock.now += LEASE / 2
        await wait_until(
            lambda: near.entries.get(KEY) is not None and _lease_of(near) > clock.now + LEASE / 2
        )
        assert near.held(KEY) == b"A"
    clock.now = begin + ENTRY_SECONDS
    assert near.held(KEY) is None
    await wait_until(lambda: len(near.entries) == 0)


def _lease_of(near: Tracking) -> float:
    link: Any = near.tracked._link
    return float(link._lease.ends)


async def test_heartbeats_stop_without_entries(
    near: Tracking, inspector: Inspector, clock: ManualClock
) -> None:
    """After five seconds without records, heartbeats stop until one is read."""
    await near.read(KEY)
    clock.now += ENTRY_SECONDS
    link: Any = near.tracked._link
    await wait_until(lambda: not link._filled.is_set())
    calls = inspector.calls("mget")
    await asyncio.sleep(LEASE)
    assert inspector.calls("mget") == calls
    await near.read(KEY)
    await wait_until(lambda: inspector.calls("mget") > calls + 1)


async def test_heartbeat_replies_are_not_cached(near: Tracking, inspector: Inspector) -> None:
    """Replies to heartbeats are not cached."""
    await near.read(KEY)
    inspector.client.set(KEY, b"new")
    await wait_until(lambda: near.held(KEY) is None)
    calls = inspector.calls("mget")
    await wait_until(lambda: inspector.calls("mget") > calls + 1)
    assert near.held(KEY) is None


# A lost connection


async def test_a_lost_connection(near: Tracking, inspector: Inspector) -> None:
    """When the connection is lost, all its entries are dropped, and the next read reconnects."""
    await near.read(KEY, OTHER)
    inspector.client.client_kill_filter(_type="normal", skipme=True)
    await wait_until(lambda: len(near.entries) == 0)
    inspector.client.delete(KEY)
    assert await near.read(KEY, OTHER) == [None, b"B"]
    assert (near.held(KEY), near.held(OTHER)) == (None, b"B")


async def test_entries_are_dropped_before_callers_see_the_error(
    proxy: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """Entries are dropped before callers learn that the connection is lost."""
    seen: list[int] = []
    async with tracking(client_of(proxy), Entries(clock=clock)) as near:
        await near.read(KEY)
        proxy.close()

        async def wait() -> None:
            with pytest.raises(NoReply) as raised:
                await near.read(OTHER)
            seen.append(len(near.entries))
            assert raised.value.sent

        waiting = [asyncio.ensure_future(wait()) for _ in range(3)]
        await wait_until(lambda: proxy.held)
        inspector.client.client_kill_filter(_type="normal", skipme=True)
        await asyncio.gather(*waiting)
    assert seen == [0, 0, 0]


async def test_a_read_that_gets_no_answer(proxy: HoldingProxy, clock: ManualClock) -> None:
    """When one read times out, the connection is closed, and all its reads fail."""
    async with tracking(client_of(proxy), Entries(clock=clock)) as near:
        await near.read(KEY)
        proxy.close(both=True)
        other = asyncio.ensure_future(near.read(OTHER))
        await asyncio.sleep(0)
        for read in (near.read(OTHER, seconds=0.05), other):
            with pytest.raises(NoReply) as raised:
                await read
            assert (raised.value.error, raised.value.sent) == (None, True)
        assert len(near.entries) == 0
        assert near.entries._readings == set()
        proxy.open()
        assert await near.read(KEY) == [b"A"]


async def test_unanswered_heartbeat_closes_connection(
    proxy: HoldingProxy, clock: ManualClock
) -> None:
    """A connection that does not answer a heartbeat is closed."""
    async with tracking(client_of(proxy), Entries(clock=clock), seconds=0.2) as near:
        await near.read(KEY)
        link: Any = near.tracked._link
        proxy.close(both=True)
        await wait_until(lambda: not link.is_open)
        proxy.open()
        assert await near.read(KEY) == [b"A"]


async def test_a_connection_that_is_dropped(near: Tracking) -> None:
    """Dropping the connection drops its entries, and the next read reconnects."""
    near.tracked.drop()
    await near.read(KEY)
    first: Any = near.tracked._link
    near.tracked.drop()
    near.tracked.drop()
    assert len(near.entries) == 0
    await near.read(KEY)
    assert near.tracked._link is not first
    await near.tracked.aclose()
    await near.tracked.aclose()
    assert await near.read(KEY) == [b"A"]


async def test_a_connection_that_the_client_closed(near: Tracking) -> None:
    """A connection closed by the client is replaced, not reopened without tracking."""
    await near.read(KEY)
    link: Any = near.tracked._link
    await link._connection.disconnect(nowait=True)
    assert await near.read(KEY) == [b"A"]
    assert near.tracked._link is not link
    assert near.held(KEY) == b"A"


async def test_closing_while_it_is_made(near: Tracking, inspector: Inspector) -> None:
    """A connection that is closed while it is opened serves only the reads that wait for it."""
    before = len(inspector.client.client_list())
    with frozen(inspector.server):
        read = asyncio.ensure_future(near.read(KEY))
        await asyncio.sleep(0.05)
        await near.tracked.aclose()
    assert await read == [b"A"]
    assert near.held(KEY) is None
    await near.read(KEY)
    assert near.held(KEY) == b"A"
    await wait_until(lambda: len(inspector.client.client_list()) == before + 1)


async def test_a_closed_connection_over_which_nothing_comes(
    near: Tracking, inspector: Inspector
) -> None:
    """A connection that is to close after its next reply closes before another opens."""
    await near.read(KEY)
    before = len(inspector.client.client_list())
    link: Any = near.tracked._link
    link.retire()
    await near.read(KEY)
    assert near.tracked._link is not link
    await wait_until(lambda: len(inspector.client.client_list()) == before)


async def test_reads_that_are_cancelled(proxy: HoldingProxy, clock: ManualClock) -> None:
    """A cancelled read does not affect others, and its reply is cached."""
    async with tracking(client_of(proxy), Entries(clock=clock)) as near:
        await near.read(KEY)
        near.entries.flush()
        link: Any = near.tracked._link
        proxy.close()
        cancelled = asyncio.ensure_future(near.read(KEY))
        other = asyncio.ensure_future(near.read(OTHER))
        await wait_until(lambda: proxy.held)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        proxy.open()
        assert await other == [b"B"]
        assert near.held(KEY) == b"A"
        assert near.tracked._link is link


async def test_first_reads_at_the_same_time(near: Tracking, inspector: Inspector) -> None:
    """Concurrent first reads share one new connection."""
    before = inspector.client.info("stats")["total_connections_received"]
    assert await asyncio.gather(*(near.read(KEY) for _ in range(20))) == [[b"A"]] * 20
    assert inspector.client.info("stats")["total_connections_received"] == before + 1


async def test_a_server_that_is_frozen(near: Tracking, inspector: Inspector) -> None:
    """If the connection does not open in time, the error says that nothing was sent."""
    with frozen(inspector.server), pytest.raises(NoReply) as raised:
        await near.read(KEY, seconds=0.05)
    assert (raised.value.error, raised.value.sent) == (None, False)


async def test_a_server_that_is_not_there(clock: ManualClock) -> None:
    """If the connection is refused, the error is the client's own."""
    with silent_server() as server:
        pass
    async with tracking(
        AsyncClients.make("redis-py as it is", server), Entries(clock=clock)
    ) as near:
        with pytest.raises(NoReply) as raised:
            await near.read(KEY)
        assert isinstance(raised.value.error, redis.exceptions.ConnectionError)


# Unexpected replies


async def test_error_reply_drops_all_entries(near: Tracking, inspector: Inspector) -> None:
    """An error reply is returned as it is, and all entries are dropped."""
    await near.read(KEY)
    (error, records) = await near.ask(("MGET",), ("MGET", OTHER))
    assert isinstance(error, redis.exceptions.ResponseError)
    assert records == [b"B"]
    assert len(near.entries) == 0
    await near.read(KEY)
    assert near.held(KEY) == b"A"


async def test_several_reads_at_once(near: Tracking) -> None:
    """Commands sent together are answered in order, and all records are cached."""
    assert await near.ask(("MGET", KEY), ("MGET", OTHER, b"nobody's")) == [[b"A"], [b"B", None]]
    assert (near.held(KEY), near.held(OTHER)) == (b"A", b"B")


def _is_lost(link: Any) -> bool:
    return not link.is_open


async def test_unexpected_reply_closes_connection(proxy: HoldingProxy, clock: ManualClock) -> None:
    """An unexpected reply closes the connection and drops its entries."""
    for reply in (b"+what\r\n", b"*1\r\n:5\r\n"):
        async with tracking(client_of(proxy), Entries(clock=clock)) as near:
            await near.read(KEY)
            link: Any = near.tracked._link
            proxy.held = reply
            proxy.let_go(len(reply))
            await wait_until(partial(_is_lost, link))
            assert len(near.entries) == 0


async def test_a_reply_to_another_command(proxy: HoldingProxy, clock: ManualClock) -> None:
    """A caller whose reply can't be to its command gets an error."""
    async with tracking(client_of(proxy), Entries(clock=clock)) as near:
        await near.read(KEY)
        proxy.close(both=True)
        read = asyncio.ensure_future(near.read(OTHER))
        await asyncio.sleep(0)
        proxy.held = b"*1\r\n:5\r\n"
        proxy.let_go(len(proxy.held))
        with pytest.raises(NoReply):
            await read
        assert len(near.entries) == 0


async def test_the_last_reply(proxy: HoldingProxy, clock: ManualClock) -> None:
    """After an error on which clients disconnect, later commands on the connection fail."""
    async with tracking(client_of(proxy), Entries(clock=clock)) as near:
        await near.read(KEY)
        proxy.close(both=True)
        first = asyncio.ensure_future(near.ask(("MGET", KEY), ("MGET", OTHER)))
        second = asyncio.ensure_future(near.ask(("MGET", KEY)))
        await asyncio.sleep(0)
        proxy.held = b"-LOADING the data set\r\n"
        proxy.let_go(len(proxy.held))
        (error,) = await first
        assert isinstance(error, redis.exceptions.BusyLoadingError)
        with pytest.raises(NoReply):
            await second


# Servers and clients without tracking


async def test_a_user_who_may_not_track(
    inspector: Inspector, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """If the server refuses tracking, reads are not cached, and one log line says why."""
    inspector.on_each(
        "ACL",
        "SETUSER",
        "reader",
        "reset",
        "on",
        ">secret",
        "~*",
        "+mget",
        "+info",
        "+client|setinfo",
    )
    try:
        client = AsyncClients.make(
            "redis-py as it is", inspector.server, username="reader", password="secret"
        )
        async with tracking(client, Entries(clock=clock)) as near:
            for _ in range(2):
                assert await near.ask(("MGET", KEY)) == ["plain"]
            assert near.plain == [(("MGET", KEY),)] * 2
            inspector.on_each("ACL", "SETUSER", "reader", "+client|tracking")
            assert await near.ask(("MGET", KEY)) == ["plain"]
            clock.now += REFUSED_SECONDS
            assert await near.read(KEY) == [b"A"]
            inspector.on_each("ACL", "SETUSER", "reader", "-client|tracking")
            near.tracked.drop()
            assert await near.ask(("MGET", KEY)) == ["plain"]
        (line,) = [
            record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
        ]
        assert line.startswith(
            "the near cache is off, and each session is read from the server, "
            "since the server refuses CLIENT TRACKING ON: "
        )
    finally:
        inspector.on_each("ACL", "DELUSER", "reader")


async def test_server_without_resp3_is_not_cached(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without RESP3 on the server, reads are not cached.

    The server quotes the password in its refusal; the log line does not.
    """
    with own_server("redis-server", tmp_path, "--rename-command", "HELLO", "") as server:
        client = AsyncClients.make(
            "redis-py, RESP2", server, username="default", password="a secret word"
        )
        async with tracking(client, Entries(clock=clock)) as near:
            assert await near.ask(("MGET", KEY)) == ["plain"]
    (line,) = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert line.endswith("since the server does not speak RESP3")
    assert "secret" not in caplog.text


@pytest.mark.skipif(
    redis.__version__ < "8",
    reason="redis-py 7 reads such a connection by RESP2, as a client without RESP3 does",
)
@ONE
async def test_an_application_that_connects_in_its_own_way(
    inspector: Inspector, clock: ManualClock
) -> None:
    """If the application's ``redis_connect_func`` leaves RESP2, RESP3 is negotiated after it."""

    async def connect(connection: Any) -> None:
        connection._parser.on_connect(connection)

    async with tracking(
        redis.asyncio.Redis(port=inspector.server.port, redis_connect_func=connect),
        Entries(clock=clock),
    ) as near:
        await near.read(KEY)
        assert near.held(KEY) == b"A"
        inspector.client.delete(KEY)
        await wait_until(lambda: near.held(KEY) is None)


class Deaf(_AsyncRESP3Parser):
    """A parser without push messages, as in a client that only has RESP2."""

    @property
    def set_invalidation_push_handler(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> Any:
        raise AttributeError


@ONE
async def test_client_without_push_is_not_cached(
    inspector: Inspector, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without push messages in the client, reads are not cached."""
    client = AsyncClients.make("redis-py as it is", inspector.server)
    client.connection_pool.connection_kwargs["parser_class"] = Deaf
    async with tracking(client, Entries(clock=clock)) as near:
        assert await near.ask(("MGET", KEY)) == ["plain"]
    (line,) = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert line.endswith("since Deaf of the client does not support pushes")


async def test_writes_use_other_connections(near: Tracking) -> None:
    """Writes are sent on other connections."""
    assert await near.tracked.exchange(
        [("DEL", KEY)], 30, only_reads=False, sending=lambda: None
    ) == ["plain"]


async def test_changed_history_stops_reads_until_replay(
    near: Tracking, inspector: Inspector
) -> None:
    """If a new connection finds another history, nothing is read until the replay is done."""
    near.revocations.met(None, b"another")
    near.revocations.revoked(["ended"], near.revocations.newest_demand)
    with pytest.raises(BatchRejected):
        await near.read(KEY)
    assert (near.moved, near.sent, len(near.entries)) == (1, 0, 0)
    near.revocations.done(near.revocations.block(), near.revocations.newest_demand)
    assert await near.read(KEY) == [b"A"]
    assert near.moved == 1


@pytest.fixture
def always_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the connection before each read."""
    monkeypatch.setattr("lucia._redis.transport.settings.IDLE_CHECK_SECONDS", -1.0)


@pytest.mark.usefixtures("always_checked")
async def test_a_connection_that_is_checked(near: Tracking) -> None:
    """A check that finds no change has no effect."""
    for _ in range(3):
        assert await near.read(KEY) == [b"A"]
    assert near.moved == 0
    assert near.held(KEY) == b"A"


@ONE
@pytest.mark.usefixtures("always_checked")
async def test_a_history_that_changes_meanwhile(near: Tracking, inspector: Inspector) -> None:
    """If the server's role or history changes on an open connection, its reads fail."""
    await near.read(KEY)
    near.revocations.revoked(["ended"], near.revocations.newest_demand)
    inspector.client.replicaof("127.0.0.1", str(unused_port()))
    try:
        with pytest.raises(NoReply):
            await near.read(KEY)
    finally:
        inspector.client.replicaof("NO", "ONE")
    with pytest.raises(BatchRejected):
        await near.read(KEY)
    near.revocations.done(near.revocations.block(), near.revocations.newest_demand)
    assert await near.read(KEY) == [b"A"]
    inspector.client.replicaof("127.0.0.1", str(unused_port()))
    inspector.client.replicaof("NO", "ONE")  # a new history on the same connection
    moved = near.moved
    with pytest.raises(NoReply):
        await near.read(KEY)
    assert near.moved == moved + 1
    assert near.held(KEY) is None
    with pytest.raises(BatchRejected):
        await near.read(KEY)


async def test_a_server_that_was_replaced(near: Tracking) -> None:
    """Once another connection has met a newer history, this one is not used."""
    await near.read(KEY)
    near.revocations.met(None, b"newer")
    with pytest.raises(NoReply):
        await near.read(KEY)
    assert near.held(KEY) is None


@ONE
@pytest.mark.usefixtures("always_checked")
async def test_a_check_that_nobody_answers(proxy: HoldingProxy, clock: ManualClock) -> None:
    """If the connection is dropped during a check, the reads behind it fail."""
    async with tracking(redis.asyncio.Redis(port=proxy.port), Entries(clock=clock)) as near:
        await near.read(KEY)
        proxy.close()
        reading = asyncio.ensure_future(near.read(KEY))
        await asyncio.sleep(0.05)
        near.tracked.drop()
        with pytest.raises(NoReply):
            await reading
        proxy.open()


@ONE
async def test_a_server_that_is_busy(
    near: Tracking, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If tracking is refused with BUSY, one read fails and the next one asks for it again."""

    async def busy(*_: Any) -> Any:
        return [b"", b"", redis.ResponseError("BUSY a script runs")]

    with monkeypatch.context() as patch:
        patch.setattr("lucia._redis.transport.tracking.read_replies", busy)
        with pytest.raises(NoReply):
            await near.read(KEY)
    assert await near.read(KEY) == [b"A"]
    assert near.plain == []


async def test_the_least_rights(inspector: Inspector, clock: ManualClock) -> None:
    """The documented rights are enough to read and track."""
    inspector.on_each(
        "ACL",
        "SETUSER",
        "reader",
        "reset",
        "on",
        ">secret",
        "~session:*",
        *(f"+{each}" for each in NEAR_RIGHTS),
    )
    try:
        client = AsyncClients.make(
            "redis-py as it is", inspector.server, username="reader", password="secret"
        )
        async with tracking(client, Entries(clock=clock)) as near:
            await near.read(KEY)
            assert near.held(KEY) == b"A"
            inspector.client.delete(KEY)
            await wait_until(lambda: near.held(KEY) is None)
    finally:
        inspector.on_each("ACL", "DELUSER", "reader")


# The cache of the sync client


@ONE
async def test_the_clients_own_cache(proxy: HoldingProxy, inspector: Inspector) -> None:
    """The cache of redis-py's sync client has no lease, so such a client is refused.

    If the link passes nothing, that cache returns deleted records.
    """
    with redis.Redis(port=proxy.port, protocol=3, cache_config=CacheConfig()) as client:
        assert await asyncio.to_thread(client.get, KEY) == b"A"
        proxy.close(both=True)
        inspector.client.delete(KEY)
        await asyncio.sleep(2 * LEASE)
        assert await asyncio.to_thread(client.get, KEY) == b"A"
        with pytest.raises(TypeError):
            RedisSessionAdapter(client)
