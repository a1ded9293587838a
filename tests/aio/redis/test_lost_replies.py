"""Lost replies: no blind retries, a deadline that holds, and errors that say what is known."""

import time
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis.exceptions
import valkey.exceptions

from lucia import AsyncAuth, AsyncAuthRequest
from lucia._redis.index import LIST
from lucia._redis.scripts import DELETE, REPLACE_WITH_MARKER
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import StoreUnavailable
from tests.aio.redis.test_failover import with_a_method_of_its_own
from tests.aio.support.rendezvous import retry_until_answered
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.redis_servers import frozen
from tests.support.requests import Exchange
from tests.support.sessions import row
from tools.servers import Cluster, Server, own_server, unused_port

MINUTE: Final = 60_000
SOON: Final = timedelta(seconds=0.3)
PATIENCE: Final = 10.0
"""Seconds for a call to end: far more than its deadline, less than the clients' own timeouts."""

CONNECTION_ERRORS: Final = (redis.exceptions.ConnectionError, valkey.exceptions.ConnectionError)

KINDS: Final = ("redis", "valkey", "cluster of redis", "cluster of valkey")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each library, for one server and for a cluster."""
    return str(request.param)


@pytest.fixture
def inspector(kind: str, request: pytest.FixtureRequest) -> Generator[Inspector]:
    """Yield an inspector of the emptied server or cluster."""
    if kind.startswith("cluster"):
        with ClusterInspector(request.getfixturevalue("cluster")) as found:
            yield found
    else:
        with Inspector(request.getfixturevalue(f"{kind}_server")) as found:
            yield found


@pytest.fixture
def proxies(kind: str, inspector: Inspector) -> Generator[dict[int, LossyProxy]]:
    """Yield a proxy before each node, by the node's port."""
    with ExitStack() as stack:
        ports = (
            inspector.cluster.ports
            if isinstance(inspector, ClusterInspector)
            else (inspector.server.port,)
        )
        yield {port: stack.enter_context(LossyProxy(port)) for port in ports}


@pytest.fixture
async def adapter(
    kind: str, proxies: dict[int, LossyProxy]
) -> AsyncIterator[AsyncRedisSessionAdapter]:
    """Yield an adapter behind the proxies, over a client that retries everything ten times.

    The servers have all scripts.
    """
    library = kind.split()[-1]
    first = next(iter(proxies.values()))
    retrying = AsyncClients.retrying(library, 10)
    if kind.startswith("cluster"):
        reach = partial(through, {port: proxy.port for port, proxy in proxies.items()})
        client = AsyncClients.of_cluster(
            library, Cluster((first.port,)), address_remap=reach, **retrying
        )
    else:
        client = AsyncClients.make(
            f"{library}-py as it is",
            Server("redis", "127.0.0.1", first.port, Path("/nowhere")),
            **retrying,
        )
    async with client, AsyncRedisSessionAdapter(client) as found:
        for number in range(12):  # so that each node has the scripts
            await found.set_session(row(f"w{number}", f"v{number}"))
            await found.renew_session(f"w{number}", row(f"x{number}", f"v{number}"), grace=0)
            await found.delete_sessions_by_user_id(f"v{number}")
            await found.delete_session(f"x{number}")
        yield found


def through(ports: dict[int, int], address: tuple[str, int]) -> tuple[str, int]:
    """Return the address of the proxy before a node."""
    return address[0], ports.get(address[1], address[1])


def lose(proxies: dict[int, LossyProxy], word: str, count: int = 1_000) -> None:
    """Lose replies of each node."""
    for proxy in proxies.values():
        proxy.lose(word, count)


def lost(proxies: dict[int, LossyProxy]) -> int:
    """Return how many replies have been lost."""
    return sum(proxy.lost for proxy in proxies.values())


# Retries


async def test_a_login_is_sent_once(
    kind: str,
    adapter: AsyncRedisSessionAdapter,
    proxies: dict[int, LossyProxy],
    inspector: Inspector,
) -> None:
    """A login whose reply is lost is sent once, even if the client retries; the error says so."""
    words = (
        ("\r\nNX\r\n", LIST.scripts.push.sha, "PEXPIREAT")
        if kind.startswith("cluster")
        else (LIST.scripts.create.sha,)
    )
    for number, word in enumerate(words):
        lose(proxies, word)
        with pytest.raises(StoreUnavailable, match="may have been done or not") as raised:
            await adapter.set_session(row(f"s{number}", handle="h"))
        assert raised.value.ambiguous
        assert isinstance(raised.value.__cause__, CONNECTION_ERRORS)
        assert lost(proxies) == 1
        lose(proxies, "", 0)
    await adapter.delete_sessions_by_user_id("u1")
    assert "s0" not in inspector.index()


@pytest.mark.parametrize("kind", ["redis"])
async def test_control_retrying_client_repeats_login(
    kind: str, proxies: dict[int, LossyProxy], inspector: Inspector
) -> None:
    """Control: a client that can't be copied sends the same login as often as it retries."""
    (proxy,) = proxies.values()
    of_its_own = with_a_method_of_its_own(AsyncClients.modules["redis"].Redis)
    async with of_its_own(
        port=proxy.port, protocol=2, **AsyncClients.retrying("redis", 3)
    ) as client:
        adapter = AsyncRedisSessionAdapter(client)
        await adapter.set_session(row("so that it knows the script"))
        lose(proxies, LIST.scripts.create.sha)
        with pytest.raises(StoreUnavailable):
            await adapter.set_session(row("again and again"))
        assert lost(proxies) == 4
    assert "again and again" in inspector.live()


async def test_a_renewal_is_sent_once(
    kind: str, adapter: AsyncRedisSessionAdapter, proxies: dict[int, LossyProxy]
) -> None:
    """A renewal whose reply is lost is sent once; a retry by the caller gets the same successor."""
    await adapter.set_session(row("used"))
    lose(proxies, REPLACE_WITH_MARKER.sha if kind.startswith("cluster") else LIST.scripts.renew.sha)
    with pytest.raises(StoreUnavailable) as raised:
        await adapter.renew_session("used", row("new"), grace=MINUTE)
    assert raised.value.ambiguous
    assert lost(proxies) == 1
    lose(proxies, "", 0)
    found = await adapter.renew_session("used", row("newer"), grace=MINUTE)
    assert found is not None
    assert found.id == "new"


async def test_a_read_is_sent_twice(
    adapter: AsyncRedisSessionAdapter, proxies: dict[int, LossyProxy]
) -> None:
    """A read whose reply is lost is retried once; if lost again, nothing was changed."""
    await adapter.set_session(row("one"))
    lose(proxies, "MGET", 1)
    assert await adapter.get_session("one") is not None
    assert lost(proxies) == 1
    lose(proxies, "MGET")
    with pytest.raises(StoreUnavailable) as raised:
        await adapter.get_session("one")
    assert not raised.value.ambiguous
    assert isinstance(raised.value.__cause__, CONNECTION_ERRORS)
    assert lost(proxies) == 2


async def test_revocation_is_sent_twice(
    adapter: AsyncRedisSessionAdapter, proxies: dict[int, LossyProxy], inspector: Inspector
) -> None:
    """A revocation whose reply is lost is retried once; if lost again, it is ambiguous."""
    for number in range(2):
        await adapter.set_session(row(f"s{number}"))
    lose(proxies, DELETE.sha, 1)
    await adapter.delete_session("s0")
    assert (lost(proxies), inspector.live()) == (1, {"s1"})
    lose(proxies, DELETE.sha)
    with pytest.raises(StoreUnavailable) as raised:
        await adapter.delete_session("s1")
    assert raised.value.ambiguous
    assert lost(proxies) == 2
    lose(proxies, "", 0)
    await adapter.delete_session("s1")
    assert inspector.live() == set()


# No server


@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_a_request_while_nothing_listens(library: str, tmp_path: Path) -> None:
    """A refused connection is StoreUnavailable for all requests with a session, like a timeout.

    No cookie is changed.
    """
    nowhere = Server("redis", "127.0.0.1", unused_port(), tmp_path)
    adapter = AsyncRedisSessionAdapter(AsyncClients.make(f"{library}-py as it is", nowhere))
    auth = AsyncAuth(sessions=adapter, env="DEV")
    calls: list[Callable[[AsyncAuthRequest[Any]], Any]] = [
        lambda request: request.validate(),
        lambda request: request.sign_in("ann"),
        lambda request: request.sign_out(),
        lambda request: request.renew(),
    ]
    for call in calls:
        exchange = Exchange("a" * 40)
        with pytest.raises(StoreUnavailable) as raised:
            await call(auth.handle_request(exchange.context))
        assert not raised.value.ambiguous
        assert isinstance(raised.value.__cause__, CONNECTION_ERRORS)
        assert (exchange.cookies, exchange.headers.keys() - {"vary"}) == ([], set())
    assert await auth.handle_request(Exchange().context).validate() is None
    await adapter.aclose()


LOADS_SLOWLY: Final = {
    "--enable-debug-command": "yes",
    "--key-load-delay": "20000",  # microseconds
    "--loading-process-events-interval-bytes": "1024",
    "--rdbcompression": "no",
}


async def test_a_server_that_is_loading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is still loading its data is StoreUnavailable."""
    options = [word for option in LOADS_SLOWLY.items() for word in option]
    with own_server("redis-server", tmp_path, *options) as server:
        async with (
            AsyncClients.make("redis-py as it is", server) as client,
            AsyncRedisSessionAdapter(client) as adapter,
        ):
            await adapter.set_session(row("one"))
            outcomes: list[object] = []
            with Inspector(server) as inspector, ThreadPoolExecutor(1) as threads:
                inspector.client.mset({f"filler{number}": "x" * 1_000 for number in range(100)})
                reloading = threads.submit(inspector.client.execute_command, "DEBUG", "RELOAD")
                while not reloading.done():
                    for call in calls_of(adapter).values():
                        outcomes += await AsyncRacingCalls.gather_results(call)
            failed = [outcome for outcome in outcomes if isinstance(outcome, StoreUnavailable)]
            assert "BusyLoadingError" in {type(error.__cause__).__name__ for error in failed}
    assert caplog.records[0].__dict__["event"] == "store_unavailable"


# The deadline


def calls_of(adapter: AsyncRedisSessionAdapter) -> dict[str, Callable[[], Any]]:
    """Return a call of each method."""
    return {
        "get_session": partial(adapter.get_session, "one"),
        "get_sessions_by_user_id": partial(adapter.get_sessions_by_user_id, "u1"),
        "set_session": partial(adapter.set_session, row("two")),
        "renew_session": partial(adapter.renew_session, "one", row("three"), grace=MINUTE),
        "get_successor": partial(adapter.get_successor, "one"),
        "delete_session": partial(adapter.delete_session, "one"),
        "delete_sessions_by_user_id": partial(adapter.delete_sessions_by_user_id, "u1"),
        "delete_other_sessions": partial(adapter.delete_other_sessions, "u1", "one"),
    }


WRITES_FIRST: Final = {"set_session", "renew_session", "delete_session"}
"""Methods whose first command on one server is a write."""


@pytest.mark.parametrize("library", ["redis", "valkey"])
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "connecting"])
async def test_a_frozen_server(library: str, connected: bool, tmp_path: Path) -> None:
    """With a frozen server, every method raises at the deadline, and works again later.

    The error says whether the method may have written.
    """
    with own_server("redis-server", tmp_path) as server:
        async with (
            AsyncClients.make(f"{library}-py as it is", server) as client,
            AsyncRedisSessionAdapter(client, deadline=SOON) as adapter,
        ):
            for name in calls_of(adapter):
                await retry_until_answered(partial(adapter.set_session, row("one")))
                if not connected:
                    await adapter.aclose()
                with frozen(server):
                    began = time.monotonic()
                    with pytest.raises(StoreUnavailable) as raised:
                        await calls_of(adapter)[name]()
                    assert SOON.total_seconds() / 2 < time.monotonic() - began < PATIENCE
                    assert raised.value.ambiguous is (connected and name in WRITES_FIRST)
                await retry_until_answered(partial(adapter.delete_sessions_by_user_id, "u1"))
                assert await retry_until_answered(partial(adapter.get_session, "one")) is None


async def test_no_connection_is_free(tmp_path: Path) -> None:
    """Waiting for a connection ends at the deadline; later, all connections are free again."""
    with own_server("redis-server", tmp_path) as server:
        client = AsyncClients.make("redis-py as it is", server, max_connections=2)
        async with client, AsyncRedisSessionAdapter(client, deadline=SOON) as adapter:
            await retry_until_answered(partial(adapter.set_session, row("one")))
            with frozen(server):
                began = time.monotonic()
                outcomes = await AsyncRacingCalls.gather_results(
                    *[partial(adapter.get_session, "one")] * 8
                )
                assert time.monotonic() - began < PATIENCE
            assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
            found = await AsyncRacingCalls.gather_results(
                *[partial(retry_until_answered, partial(adapter.get_session, "one"))] * 8
            )
            assert [getattr(each, "id", each) for each in found] == ["one"] * 8


@pytest.mark.parametrize("kind", ["redis"])
async def test_partial_reply_counts_as_lost(kind: str, proxies: dict[int, LossyProxy]) -> None:
    """Half a reply counts as none; the connection is not used again.

    A blocking call may take two deadlines.
    """
    (proxy,) = proxies.values()
    client = AsyncClients.make(
        "redis-py as it is", Server("redis", "127.0.0.1", proxy.port, Path("/nowhere"))
    )
    async with client, AsyncRedisSessionAdapter(client, deadline=SOON) as adapter:
        await retry_until_answered(partial(adapter.set_session, row("one")))
        proxy.lose("MGET", halves=True)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await adapter.get_session("one")
        assert time.monotonic() - began < PATIENCE
        assert proxy.lost == 1
        proxy.lose("", 0)
        assert await retry_until_answered(partial(adapter.get_session, "one")) is not None


async def test_a_reply_that_comes_late(tmp_path: Path) -> None:
    """A late reply to a command that was given up is never taken for another command's."""
    with own_server("redis-server", tmp_path) as server:
        client = AsyncClients.make("redis-py as it is", server)
        async with client, AsyncRedisSessionAdapter(client, deadline=SOON) as adapter:
            await retry_until_answered(partial(adapter.set_session, row("one")))
            await retry_until_answered(partial(adapter.set_session, row("two", "u2")))
            with frozen(server), pytest.raises(StoreUnavailable):
                await adapter.get_sessions_by_user_id("u1")
            assert [
                each.id
                for each in await retry_until_answered(
                    partial(adapter.get_sessions_by_user_id, "u2")
                )
            ] == ["two"]
