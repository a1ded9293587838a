"""Random cancellations, over connections that delay, split and reset replies."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final

import pytest
import redis
import redis.asyncio
from redis.asyncio import Redis, RedisCluster

from lucia import StoreUnavailable
from lucia._redis.replay import Checkpoint
from lucia._redis.transport import connections as server_module
from lucia._redis.transport.connections import AsyncServer
from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.support.proxies import NetworkFaults, splitting_proxy
from tests.support.sessions import row
from tools.servers import Cluster, Server

pytestmark = pytest.mark.slow

SESSIONS: Final = 40
WORKERS: Final = 32
CONNECTIONS: Final = 16
"""Fewer than workers, so that a lost permit is missed.

Not many fewer, so that most calls have a connection when they are cancelled.
"""

SECONDS: Final = 4.0

ENOUGH: Final = 100
"""The least number of calls that succeed, and of calls that are cancelled."""


class CancellationLoad:
    """Workers that read, list, renew and revoke sessions, and are often cancelled.

    Args:
        sessions: the adapter, through proxies.
        chance: decides which calls are cancelled, and when.
    """

    def __init__(self, sessions: AsyncRedisSessionAdapter, chance: random.Random) -> None:
        self.sessions = sessions
        self.chance = chance
        self.outcomes: Counter[str] = Counter()
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Run all workers for this time, and until enough calls succeeded and were cancelled."""
        end = asyncio.get_running_loop().time() + seconds
        try:
            # The timeout fails the test if a call hangs.
            async with asyncio.timeout(seconds + 60), asyncio.TaskGroup() as workers:
                for number in range(WORKERS):
                    workers.create_task(self._work(number, end))
        finally:
            await asyncio.gather(*self._calls, return_exceptions=True)

    async def _work(self, number: int, end: float) -> None:
        made = 0
        while (
            asyncio.get_running_loop().time() < end
            or min(self.outcomes["ok"], self.outcomes["CancelledError"]) < ENOUGH
        ):
            made += 1
            task = asyncio.ensure_future(
                self.chance.choice((self._read, self._read, self._list, self._login))(
                    f"{number}-{made}"
                )
            )
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            if self.chance.random() < 0.4:
                await asyncio.sleep(self.chance.random() ** 2 * 0.2)  # mostly early
                task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            self.outcomes["ok" if result is None else type(result).__name__] += 1
            assert result is None or isinstance(
                result, asyncio.CancelledError | StoreUnavailable | redis.ConnectionError | OSError
            ), result

    async def _read(self, _: str) -> None:
        user = f"user-{self.chance.randrange(SESSIONS)}"
        found = await self.sessions.get_session(f"id-of-{user}")
        assert found is not None
        assert (found.id, found.user_id) == (f"id-of-{user}", user)

    async def _list(self, _: str) -> None:
        user = f"user-{self.chance.randrange(SESSIONS)}"
        assert [found.id for found in await self.sessions.get_sessions_by_user_id(user)] == [
            f"id-of-{user}"
        ]

    async def _login(self, name: str) -> None:
        await self.sessions.set_session(row(f"new-{name}", f"visitor-{name}"))
        renewed = await self.sessions.renew_session(
            f"new-{name}", row(f"renewed-{name}", f"visitor-{name}"), grace=0
        )
        assert renewed is not None
        assert renewed.id == f"renewed-{name}"
        await self.sessions.delete_session(f"renewed-{name}")
        assert await self.sessions.get_session(f"renewed-{name}") is None


@pytest.fixture
def faults() -> NetworkFaults:
    """Return network faults that are off until the test turns them on."""
    return NetworkFaults(random.Random(17))  # noqa: S311 (not a secret)


@pytest.fixture
async def proxied(
    request: pytest.FixtureRequest, place: str, faults: NetworkFaults
) -> AsyncIterator[Any]:
    """Yield a client of one server or of a cluster, behind proxies."""
    async with AsyncExitStack() as stack:
        if place == "server":
            server: Server = request.getfixturevalue("redis_server")
            _empty(server.port)
            port = await stack.enter_async_context(splitting_proxy(server.port, faults))
            client: Any = Redis(port=port, max_connections=CONNECTIONS, protocol=2)
        else:
            cluster: Cluster = request.getfixturevalue("cluster")
            cluster.on_each("FLUSHALL")
            ports = {
                each: await stack.enter_async_context(splitting_proxy(each, faults))
                for each in cluster.ports
            }
            client = RedisCluster(
                host="127.0.0.1",
                port=ports[cluster.ports[0]],
                max_connections=CONNECTIONS,
                protocol=2,
                address_remap=lambda address: (address[0], ports.get(address[1], address[1])),
            )
        async with client:
            yield client


def _empty(port: int) -> None:
    with redis.Redis(port=port) as client:
        client.flushall()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[AsyncServer]:
    """Return a list that collects the adapter's servers as they are made."""
    made: list[AsyncServer] = []
    make = AsyncServer.__init__

    def remember(server: AsyncServer, *arguments: Any, **options: Any) -> None:
        make(server, *arguments, **options)
        made.append(server)

    monkeypatch.setattr(AsyncServer, "__init__", remember)
    return made


async def check_under_load(
    proxied: Any, faults: NetworkFaults, servers: list[AsyncServer], seed: int = 4, **settings: Any
) -> None:
    """Run a load, then check that all sessions can be read and all connections are free."""
    rows = [row(f"id-of-user-{number}", f"user-{number}") for number in range(SESSIONS)]
    async with AsyncRedisSessionAdapter(
        proxied, deadline=timedelta(seconds=20), **settings
    ) as sessions:
        await asyncio.gather(*map(sessions.set_session, rows))
        load = CancellationLoad(sessions, random.Random(seed))  # noqa: S311
        faults.active = True
        await load.run(SECONDS)
        faults.active = False
        async with asyncio.timeout(30):
            assert await asyncio.gather(*(sessions.get_session(each.id) for each in rows)) == rows
    assert servers
    for server in servers:
        for _ in range(CONNECTIONS):
            assert not server._permits.locked()
            await server._permits.acquire()


@pytest.mark.parametrize(
    "options",
    [{}, {"coalesce": False}, {"near_cache": timedelta(seconds=1)}],
    ids=["", "one by one", "near-cache"],
)
@pytest.mark.parametrize("place", ["server", "cluster"])
async def test_cancellations(
    proxied: Any, faults: NetworkFaults, servers: list[AsyncServer], options: Any
) -> None:
    """Cancelled calls mix up no replies, hang nothing and leak no connection permits."""
    await check_under_load(proxied, faults, servers, **options)


class LeakingSemaphore(asyncio.Semaphore):
    """A semaphore that is not released when its holder is cancelled."""

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not asyncio.CancelledError:
            self.release()


@pytest.mark.parametrize("place", ["server"])
async def test_control_leaked_permit_is_detected(
    proxied: Any,
    faults: NetworkFaults,
    servers: list[AsyncServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Control: leaked connection permits are found out."""
    monkeypatch.setattr(asyncio, "Semaphore", LeakingSemaphore)
    with pytest.raises((AssertionError, StoreUnavailable)):
        await check_under_load(proxied, faults, servers, coalesce=False)


@pytest.mark.parametrize("place", ["server"])
async def test_control_reused_connection_is_detected(
    proxied: Any,
    faults: NetworkFaults,
    servers: list[AsyncServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Control: if connections of cancelled calls are reused, wrong replies are found out.

    Not every load shows it, so several seeds are tried.
    """
    kept: list[Any] = []
    take = AsyncServer._take

    async def keep(connection: Any) -> None:
        kept.append(connection)

    async def take_kept(server: AsyncServer, seconds: float, **options: Any) -> Any:
        if kept:
            current = Checkpoint(None, server._monitor.revocations.newest_demand)
            return server_module._Pooled(kept.pop(), checkpoint=current)
        return await take(server, seconds, **options)

    async def stay_open(_: Any, **__: Any) -> None:
        """Keep the connection open; the client would close it after a cancelled call."""

    wrong: Any = None
    for seed in range(20):
        with monkeypatch.context() as fault:
            fault.setattr(server_module, "drop", keep)
            fault.setattr(AsyncServer, "_take", take_kept)
            fault.setattr(redis.asyncio.Connection, "disconnect", stay_open)
            with pytest.raises(ExceptionGroup) as caught:
                await check_under_load(proxied, faults, servers, seed, coalesce=False)
        faults.active = False
        while kept:
            await kept.pop().disconnect(nowait=True)
        wrong, _ = caught.value.split(AssertionError)
        if wrong is not None:
            break
    assert wrong is not None
