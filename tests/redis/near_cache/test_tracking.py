"""The connection on which a server tells of changes, on real servers: what is kept of what comes over it, and how long that is used."""

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
    """Somebody else, who has put two records on an empty server."""
    with Inspector(server) as found:
        found.client.mset({KEY: b"A", OTHER: b"B"})
        yield found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def near(inspector: Inspector, clock: ManualClock) -> AsyncIterator[Tracking]:
    """A connection without a proxy."""
    async with tracking(
        AsyncClients.make("redis-py as it is", inspector.server), Entries(clock=clock)
    ) as found:
        yield found


@pytest.fixture
async def dam(inspector: Inspector) -> AsyncIterator[HoldingProxy]:
    """A proxy, before the server."""
    async with holding_proxy(inspector.server.port) as found:
        yield found


def behind(dam: HoldingProxy) -> Any:
    """A client that connects to the proxy."""
    return redis.asyncio.Redis(port=dam.port)


def on(server: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", server, indirect=True)


ALL = on(["redis", "valkey", "old_redis"])
ONE = on(["redis"])


# What is kept, and what the server tells


@ALL
async def test_a_record_that_is_read(near: Tracking) -> None:
    """What is read is kept, but what is not there is not."""
    assert near.held(KEY) is None
    assert await near.read(KEY, b"nobody's") == [b"A", None]
    assert near.held(KEY) == b"A"
    assert len(near.entries) == 1
    assert near.sent == 1


@ALL
@pytest.mark.parametrize("kind", AsyncClients.kinds)
async def test_what_somebody_else_ends(inspector: Inspector, clock: ManualClock, kind: str) -> None:
    """What another program ends or changes is gone as soon as the server says so, though the clock stands; whatever the client is like."""
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
    """What expires is gone."""
    await near.read(KEY)
    inspector.client.pexpire(KEY, 5)
    await wait_until(lambda: near.held(KEY) is None)


@ALL
@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
async def test_an_emptied_server(near: Tracking, inspector: Inspector, command: str) -> None:
    """When the server is emptied, so is the memory."""
    await near.read(KEY, OTHER)
    inspector.client.execute_command(command)
    await wait_until(lambda: len(near.entries) == 0)
    inspector.client.flushall()
    assert await near.read(KEY) == [None]


async def test_a_full_table(inspector: Inspector, clock: ManualClock) -> None:
    """What the server forgets that it was read, since it remembers only so many keys, is gone."""
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


# An answer that is overtaken by its end


async def overtaken(dam: HoldingProxy, inspector: Inspector, entries: Entries) -> bool:
    """Whether an ended record is used, where the answer and the word that it is no longer so come at the same time."""
    async with tracking(behind(dam), entries) as near:
        await near.read(OTHER)
        dam.close()
        read = asyncio.ensure_future(near.read(KEY))
        await wait_until(lambda: dam.held)
        inspector.client.delete(KEY)
        await wait_until(lambda: PUSH in dam.held)
        dam.open()
        assert await read == [b"A"]
        return near.held(KEY) is not None


async def test_an_answer_that_is_outdated_when_it_comes(
    dam: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """A record is not used when the word that it is gone came right behind it."""
    assert not await overtaken(dam, inspector, Entries(clock=clock))


async def test_control_of_overtaking(
    dam: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """A cache that is filled by those who wait uses it, and the test sees that."""
    assert await overtaken(dam, inspector, FillsLate(clock))


# What this process ends itself, over another connection


async def own_end(dam: HoldingProxy, inspector: Inspector, entries: Entries) -> bool:
    """Whether a record that this process ended is used, where it was read before, but the answer comes after that, before the push."""
    async with tracking(behind(dam), entries) as near:
        await near.read(OTHER)
        dam.close()
        read = asyncio.ensure_future(near.read(KEY))
        await wait_until(lambda: dam.held)
        with entries.dropping([KEY]):
            inspector.client.delete(KEY)
            await wait_until(lambda: PUSH in dam.held)
        dam.let_go(dam.held.index(PUSH))
        assert await read == [b"A"]
        return near.held(KEY) is not None


async def test_an_own_end(dam: HoldingProxy, inspector: Inspector, clock: ManualClock) -> None:
    """A record that this process ended is not used, though its read's answer comes later, and the server's word later still."""
    assert not await own_end(dam, inspector, Entries(clock=clock))


async def test_control_of_own_ends(
    dam: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """A cache that only drops uses it, and the test sees that."""
    assert await own_end(dam, inspector, OnlyDrops(clock=clock))


async def test_an_own_change_at_once(near: Tracking, inspector: Inspector) -> None:
    """What this process ends is gone before the command is sent, and what it changed can be read anew once that is over."""
    await near.read(KEY, OTHER)
    with near.entries.dropping([KEY]):
        assert (near.held(KEY), near.held(OTHER)) == (None, b"B")
        assert await near.read(KEY) == [b"A"]
        assert near.held(KEY) is None
        inspector.client.set(KEY, b"new")
    await near.read(KEY)
    assert near.held(KEY) == b"new"


# A connection that says nothing


async def last_use(
    dam: HoldingProxy, inspector: Inspector, clock: ManualClock, entries: Entries, *, both: bool
) -> float:
    """For how long a record is used that is ended behind a link that passes nothing any more, in steps of a hundredth of the lease."""
    async with tracking(behind(dam), entries) as near:
        await near.read(KEY)
        dam.close(both=both)
        begin = clock.now
        inspector.client.delete(KEY)
        while near.held(KEY) is not None and clock.now < begin + 2 * LEASE:
            clock.now += LEASE / 100
            await asyncio.sleep(LEASE / 100)
        return clock.now - begin


@pytest.mark.parametrize("both", [False, True])
async def test_the_lease_ends(
    dam: HoldingProxy, inspector: Inspector, clock: ManualClock, both: bool
) -> None:
    """Behind a black hole, whether commands still arrive at the server or not, a record is used until the lease ends, and no longer."""
    assert (
        LEASE * 0.98
        < await last_use(dam, inspector, clock, Entries(clock=clock), both=both)
        < LEASE * 1.02
    )


async def test_control_of_the_lease(
    dam: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """A cache without a lease uses it for longer, and the test sees that."""
    assert await last_use(dam, inspector, clock, HasNoLease(clock=clock), both=True) > LEASE * 1.9


async def test_the_lease_begins_when_it_was_asked(dam: HoldingProxy, clock: ManualClock) -> None:
    """An answer says what was so when it was asked for: the lease begins then, however late the answer comes."""
    async with tracking(behind(dam), Entries(clock=clock)) as near:
        await near.read(OTHER)
        link: Any = near.tracked._link
        link._beater.cancel()
        dam.close()
        begin = clock.now
        read = asyncio.ensure_future(near.read(KEY))
        await wait_until(lambda: dam.held)
        clock.now = begin + LEASE / 2
        dam.open()
        await read
        assert near.held(KEY) == b"A"
        clock.now = begin + LEASE
        assert near.held(KEY) is None


async def test_the_lease_goes_on(near: Tracking, clock: ManualClock) -> None:
    """While nobody asks, the connection itself does, so that a record is used longer than the lease, but no more than five seconds."""
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


async def test_nothing_is_asked_for_nothing(
    near: Tracking, inspector: Inspector, clock: ManualClock
) -> None:
    """A connection over which nothing came for five seconds asks nothing, until something comes again."""
    await near.read(KEY)
    clock.now += ENTRY_SECONDS
    link: Any = near.tracked._link
    await wait_until(lambda: not link._filled.is_set())
    calls = inspector.calls("mget")
    await asyncio.sleep(LEASE)
    assert inspector.calls("mget") == calls
    await near.read(KEY)
    await wait_until(lambda: inspector.calls("mget") > calls + 1)


async def test_what_the_heart_reads_is_not_kept(near: Tracking, inspector: Inspector) -> None:
    """What the connection asks for by itself is a sign of life alone."""
    await near.read(KEY)
    inspector.client.set(KEY, b"new")
    await wait_until(lambda: near.held(KEY) is None)
    calls = inspector.calls("mget")
    await wait_until(lambda: inspector.calls("mget") > calls + 1)
    assert near.held(KEY) is None


# A connection that is lost


async def test_a_lost_connection(near: Tracking, inspector: Inspector) -> None:
    """When the connection is lost, nothing is used any more that came over it; the next read makes another."""
    await near.read(KEY, OTHER)
    inspector.client.client_kill_filter(_type="normal", skipme=True)
    await wait_until(lambda: len(near.entries) == 0)
    inspector.client.delete(KEY)
    assert await near.read(KEY, OTHER) == [None, b"B"]
    assert (near.held(KEY), near.held(OTHER)) == (None, b"B")


async def test_nothing_is_left_when_others_learn_of_it(
    dam: HoldingProxy, inspector: Inspector, clock: ManualClock
) -> None:
    """Who waits for an answer learns that the connection is lost after nothing is used any more."""
    seen: list[int] = []
    async with tracking(behind(dam), Entries(clock=clock)) as near:
        await near.read(KEY)
        dam.close()

        async def wait() -> None:
            with pytest.raises(NoReply) as raised:
                await near.read(OTHER)
            seen.append(len(near.entries))
            assert raised.value.sent

        waiting = [asyncio.ensure_future(wait()) for _ in range(3)]
        await wait_until(lambda: dam.held)
        inspector.client.client_kill_filter(_type="normal", skipme=True)
        await asyncio.gather(*waiting)
    assert seen == [0, 0, 0]


async def test_a_read_that_gets_no_answer(dam: HoldingProxy, clock: ManualClock) -> None:
    """When the time of one read is over, the connection is given up, and all that wait on it learn that there is no answer."""
    async with tracking(behind(dam), Entries(clock=clock)) as near:
        await near.read(KEY)
        dam.close(both=True)
        other = asyncio.ensure_future(near.read(OTHER))
        await asyncio.sleep(0)
        for read in (near.read(OTHER, seconds=0.05), other):
            with pytest.raises(NoReply) as raised:
                await read
            assert (raised.value.error, raised.value.sent) == (None, True)
        assert len(near.entries) == 0
        assert near.entries._readings == set()
        dam.open()
        assert await near.read(KEY) == [b"A"]


async def test_a_sign_of_life_that_does_not_come(dam: HoldingProxy, clock: ManualClock) -> None:
    """A connection that does not answer what it is asked for nobody is given up too."""
    async with tracking(behind(dam), Entries(clock=clock), seconds=0.2) as near:
        await near.read(KEY)
        link: Any = near.tracked._link
        dam.close(both=True)
        await wait_until(lambda: not link.is_open)
        dam.open()
        assert await near.read(KEY) == [b"A"]


async def test_a_connection_that_is_dropped(near: Tracking) -> None:
    """After a doubt nothing is used, and the next read makes another connection; where there is none, nothing is to be done."""
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
    """A client's connection that is closed is not opened again behind our back, since nobody would tell of changes on it."""
    await near.read(KEY)
    link: Any = near.tracked._link
    await link._connection.disconnect(nowait=True)
    assert await near.read(KEY) == [b"A"]
    assert near.tracked._link is not link
    assert near.held(KEY) == b"A"


async def test_closing_while_it_is_made(near: Tracking, inspector: Inspector) -> None:
    """A connection that is closed while it is made serves those who wait for it, and nobody else; none is left open."""
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
    """One that is to be closed after the next answer is closed before another one is made, too."""
    await near.read(KEY)
    before = len(inspector.client.client_list())
    link: Any = near.tracked._link
    link.retire()
    await near.read(KEY)
    assert near.tracked._link is not link
    await wait_until(lambda: len(inspector.client.client_list()) == before)


async def test_reads_that_are_cancelled(dam: HoldingProxy, clock: ManualClock) -> None:
    """Who stops waiting harms nobody: the answer comes, and counts, and the others get theirs."""
    async with tracking(behind(dam), Entries(clock=clock)) as near:
        await near.read(KEY)
        near.entries.flush()
        link: Any = near.tracked._link
        dam.close()
        cancelled = asyncio.ensure_future(near.read(KEY))
        other = asyncio.ensure_future(near.read(OTHER))
        await wait_until(lambda: dam.held)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        dam.open()
        assert await other == [b"B"]
        assert near.held(KEY) == b"A"
        assert near.tracked._link is link


async def test_first_reads_at_the_same_time(near: Tracking, inspector: Inspector) -> None:
    """Reads that find no connection make one between them."""
    before = inspector.client.info("stats")["total_connections_received"]
    assert await asyncio.gather(*(near.read(KEY) for _ in range(20))) == [[b"A"]] * 20
    assert inspector.client.info("stats")["total_connections_received"] == before + 1


async def test_a_server_that_is_frozen(near: Tracking, inspector: Inspector) -> None:
    """If a connection can't be made in time, that is told, and nothing was sent."""
    with frozen(inspector.server), pytest.raises(NoReply) as raised:
        await near.read(KEY, seconds=0.05)
    assert (raised.value.error, raised.value.sent) == (None, False)


async def test_a_server_that_is_not_there(clock: ManualClock) -> None:
    """If no connection can be made, that is the client's own error."""
    with silent_server() as server:
        pass
    async with tracking(
        AsyncClients.make("redis-py as it is", server), Entries(clock=clock)
    ) as near:
        with pytest.raises(NoReply) as raised:
            await near.read(KEY)
        assert isinstance(raised.value.error, redis.exceptions.ConnectionError)


# What else a server may answer


async def test_an_error_is_a_doubt(near: Tracking, inspector: Inspector) -> None:
    """An error is given back as it is, and after it nothing is used that was kept before."""
    await near.read(KEY)
    (error, records) = await near.ask(("MGET",), ("MGET", OTHER))
    assert isinstance(error, redis.exceptions.ResponseError)
    assert records == [b"B"]
    assert len(near.entries) == 0
    await near.read(KEY)
    assert near.held(KEY) == b"A"


async def test_several_reads_at_once(near: Tracking) -> None:
    """Commands that are sent together are answered in their order, and each is kept."""
    assert await near.ask(("MGET", KEY), ("MGET", OTHER, b"nobody's")) == [[b"A"], [b"B", None]]
    assert (near.held(KEY), near.held(OTHER)) == (b"A", b"B")


def _is_lost(link: Any) -> bool:
    return not link.is_open


async def test_replies_that_nobody_expects(dam: HoldingProxy, clock: ManualClock) -> None:
    """A reply to no command, or of another shape, ends the connection, and what came over it."""
    for reply in (b"+what\r\n", b"*1\r\n:5\r\n"):
        async with tracking(behind(dam), Entries(clock=clock)) as near:
            await near.read(KEY)
            link: Any = near.tracked._link
            dam.held = reply
            dam.let_go(len(reply))
            await wait_until(partial(_is_lost, link))
            assert len(near.entries) == 0


async def test_a_reply_to_another_command(dam: HoldingProxy, clock: ManualClock) -> None:
    """Who gets a reply that can't be to the command learns that there is no answer."""
    async with tracking(behind(dam), Entries(clock=clock)) as near:
        await near.read(KEY)
        dam.close(both=True)
        read = asyncio.ensure_future(near.read(OTHER))
        await asyncio.sleep(0)
        dam.held = b"*1\r\n:5\r\n"
        dam.let_go(len(dam.held))
        with pytest.raises(NoReply):
            await read
        assert len(near.entries) == 0


async def test_the_last_reply(dam: HoldingProxy, clock: ManualClock) -> None:
    """After a reply upon which clients close the connection, it is not used any more; those behind it learn that."""
    async with tracking(behind(dam), Entries(clock=clock)) as near:
        await near.read(KEY)
        dam.close(both=True)
        first = asyncio.ensure_future(near.ask(("MGET", KEY), ("MGET", OTHER)))
        second = asyncio.ensure_future(near.ask(("MGET", KEY)))
        await asyncio.sleep(0)
        dam.held = b"-LOADING the data set\r\n"
        dam.let_go(len(dam.held))
        (error,) = await first
        assert isinstance(error, redis.exceptions.BusyLoadingError)
        with pytest.raises(NoReply):
            await second


# Where there can be no such connection


async def test_a_user_who_may_not_track(
    inspector: Inspector, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the server refuses to tell of changes, all is read the plain way, and one line says why."""
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
            "the near cache is off, and each session is read from the server, since the server refuses CLIENT TRACKING ON: "
        )
    finally:
        inspector.on_each("ACL", "DELUSER", "reader")


async def test_a_server_of_old(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """So it is where the server does not know the newer protocol; in its refusal it quotes the password, and that line does not."""
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
    reason="redis-py 7 reads such a connection by RESP2: then it is as with a client of old",
)
@ONE
async def test_an_application_that_connects_in_its_own_way(
    inspector: Inspector, clock: ManualClock
) -> None:
    """Where the application's own way to connect leaves the older protocol, over which nothing is told, the newer one is asked for."""

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
    """A parser that knows no pushes, as one of a client that knows RESP2 alone."""

    @property
    def set_invalidation_push_handler(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise AttributeError


@ONE
async def test_a_client_of_old(
    inspector: Inspector, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """So it is where the client can't hand on what the server tells."""
    client = AsyncClients.make("redis-py as it is", inspector.server)
    client.connection_pool.connection_kwargs["parser_class"] = Deaf
    async with tracking(client, Entries(clock=clock)) as near:
        assert await near.ask(("MGET", KEY)) == ["plain"]
    (line,) = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert line.endswith("since Deaf of the client does not support pushes")


async def test_what_is_no_read(near: Tracking) -> None:
    """What changes something goes the plain way."""
    assert await near.tracked.exchange(
        [("DEL", KEY)], 30, only_reads=False, sending=lambda: None
    ) == ["plain"]


async def test_another_history(near: Tracking, inspector: Inspector) -> None:
    """Where a connection finds another history than was known, nothing is read before what was ended is ended again."""
    near.revocations.met(None, b"another")
    near.revocations.revoked(["ended"], near.revocations.changes)
    with pytest.raises(BatchRejected):
        await near.read(KEY)
    assert (near.moved, near.sent, len(near.entries)) == (1, 0, 0)
    near.revocations.done(near.revocations.block(), near.revocations.changes)
    assert await near.read(KEY) == [b"A"]
    assert near.moved == 1


@pytest.fixture
def always_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read is preceded by a check."""
    monkeypatch.setattr("lucia._redis.transport.settings.IDLE_CHECK_SECONDS", -1.0)


@pytest.mark.usefixtures("always_checked")
async def test_a_connection_that_is_checked(near: Tracking) -> None:
    """A check that tells nothing new goes unnoticed."""
    for _ in range(3):
        assert await near.read(KEY) == [b"A"]
    assert near.moved == 0
    assert near.held(KEY) == b"A"


@ONE
@pytest.mark.usefixtures("always_checked")
async def test_a_history_that_changes_meanwhile(near: Tracking, inspector: Inspector) -> None:
    """Where a server lost its history while the connection stayed open, no answer of it is taken, nor of a replica."""
    await near.read(KEY)
    near.revocations.revoked(["ended"], near.revocations.changes)
    inspector.client.replicaof("127.0.0.1", str(unused_port()))
    try:
        with pytest.raises(NoReply):
            await near.read(KEY)
    finally:
        inspector.client.replicaof("NO", "ONE")
    with pytest.raises(BatchRejected):
        await near.read(KEY)
    near.revocations.done(near.revocations.block(), near.revocations.changes)
    assert await near.read(KEY) == [b"A"]
    inspector.client.replicaof("127.0.0.1", str(unused_port()))
    inspector.client.replicaof("NO", "ONE")  # another history, on the same connection
    moved = near.moved
    with pytest.raises(NoReply):
        await near.read(KEY)
    assert near.moved == moved + 1
    assert near.held(KEY) is None
    with pytest.raises(BatchRejected):
        await near.read(KEY)


async def test_a_server_that_was_replaced(near: Tracking) -> None:
    """Once another connection has met a newer history, this one is not read from any more."""
    await near.read(KEY)
    near.revocations.met(None, b"newer")
    with pytest.raises(NoReply):
        await near.read(KEY)
    assert near.held(KEY) is None


@ONE
@pytest.mark.usefixtures("always_checked")
async def test_a_check_that_nobody_answers(dam: HoldingProxy, clock: ManualClock) -> None:
    """A connection that is given up amid a check is lost to those who wait for what comes behind it."""
    async with tracking(redis.asyncio.Redis(port=dam.port), Entries(clock=clock)) as near:
        await near.read(KEY)
        dam.close()
        reading = asyncio.ensure_future(near.read(KEY))
        await asyncio.sleep(0.05)
        near.tracked.drop()
        with pytest.raises(NoReply):
            await reading
        dam.open()


@ONE
async def test_a_server_that_is_busy(
    near: Tracking, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal for the moment is an error of this read, and the next one asks the server again to tell of changes."""

    async def busy(*_: Any) -> Any:
        return [b"", b"", redis.ResponseError("BUSY a script runs")]

    with monkeypatch.context() as patch:
        patch.setattr("lucia._redis.transport.tracking.read_replies", busy)
        with pytest.raises(NoReply):
            await near.read(KEY)
    assert await near.read(KEY) == [b"A"]
    assert near.plain == []


async def test_the_least_rights(inspector: Inspector, clock: ManualClock) -> None:
    """A user needs no other rights than to read and to track."""
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


# What the synchronous adapter would have


@ONE
async def test_the_clients_own_cache(dam: HoldingProxy, inspector: Inspector) -> None:
    """The cache of redis-py's synchronous client has no lease: behind a black hole it goes on with what was ended. So it is refused."""
    with redis.Redis(port=dam.port, protocol=3, cache_config=CacheConfig()) as client:
        assert await asyncio.to_thread(client.get, KEY) == b"A"
        dam.close(both=True)
        inspector.client.delete(KEY)
        await asyncio.sleep(2 * LEASE)
        assert await asyncio.to_thread(client.get, KEY) == b"A"
        with pytest.raises(TypeError):
            RedisSessionAdapter(client)
