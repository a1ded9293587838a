"""Failovers and crashes of real servers: lost revocations, their repetition, and replicas."""

import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
import valkey.exceptions

from lucia._async.auth import AsyncAuth
from lucia._compat.pause import AsyncPause
from lucia.adapters.redis import AsyncRedisSessionAdapter, Reindexed
from lucia.errors import InvalidSessionId, RevocationNotReplicated, StoreUnavailable
from tests.aio.support.rendezvous import retry_until_answered
from tests.support.acl_rights import LEAST_RIGHTS, LEAST_RIGHTS_CLUSTER
from tests.support.redis_clients import AsyncAdapters, AsyncClients
from tests.support.redis_clusters import replicated_cluster
from tests.support.redis_inspectors import Inspector
from tests.support.replication import Node, Pair, pair
from tests.support.sentinels import sentinel_pair
from tests.support.sessions import row
from tools.servers import unused_port

OUTAGE = (StoreUnavailable, redis.exceptions.ConnectionError, valkey.exceptions.ConnectionError)


@pytest.fixture(params=["redis-server", "valkey-server"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Yield a primary and its replica, of each kind of server."""
    with pair(request.param, tmp_path) as found:
        yield found


one_kind = pytest.mark.parametrize("servers", ["redis-server"], indirect=True)


async def add(adapter: AsyncRedisSessionAdapter, *session_ids: str) -> None:
    for session_id in session_ids:
        await adapter.set_session(row(session_id))


async def live(adapter: AsyncRedisSessionAdapter, *session_ids: str) -> set[str]:
    """Return the ids that have a session."""
    return {
        session_id
        for session_id in session_ids
        if await adapter.get_session(session_id) is not None
    }


async def after_outage(call: Callable[[], Any]) -> Any:
    """Return the result of the call once a server is available again."""
    end = time.monotonic() + 30
    while True:
        try:
            return await call()
        except OUTAGE:
            if time.monotonic() > end:
                raise
        await AsyncPause.seconds(0.05)


# A new primary


async def revoke_one(adapter: AsyncRedisSessionAdapter) -> None:
    await adapter.delete_session("revoked")


async def revoke_all(adapter: AsyncRedisSessionAdapter) -> None:
    await adapter.delete_sessions_by_user_id("u1")


async def revoke_others(adapter: AsyncRedisSessionAdapter) -> None:
    assert await adapter.delete_other_sessions("u1", "kept") is True


@pytest.mark.parametrize(
    ("end", "stay"),
    [(revoke_one, {"kept"}), (revoke_all, set()), (revoke_others, {"kept"})],
    ids=["one", "all", "others"],
)
async def test_revocation_is_replayed_after_failover(
    end: Callable[[AsyncRedisSessionAdapter], Any], stay: set[str], servers: Pair
) -> None:
    """A session that a failover brings back is revoked by its revoker's next command.

    Until then, it is valid for every process.
    """
    async with (
        AsyncAdapters.on(servers.server()) as one,
        AsyncAdapters.on(servers.server()) as other,
    ):
        await add(one, "kept", "revoked")
        servers.settle()
        servers.link.hold()
        await end(one)
        assert await live(other, "kept", "revoked") == stay
        servers.fail_over()
        assert await live(other, "kept", "revoked") == {"kept", "revoked"}
        assert await live(one, "revoked", "kept") == stay
        assert await live(other, "kept", "revoked") == stay
        listed = await other.get_sessions_by_user_id("u1")
        assert {each.id for each in listed} == stay
        assert servers.replica.client.script_exists("0" * 40) == [False]


async def test_replay_revokes_used_id(servers: Pair) -> None:
    """If a renewal and the revocation of its successor are lost, the used id is revoked."""
    async with (
        AsyncAdapters.on(servers.server()) as one,
        AsyncAdapters.on(servers.server()) as other,
    ):
        await add(one, "used", "goes on")
        servers.settle()
        servers.link.hold()
        assert await one.renew_session("used", row("new"), grace=60_000) is not None
        assert await one.renew_session("goes on", row("newer"), grace=60_000) is not None
        await one.delete_session("new")
        servers.fail_over()
        assert await live(other, "used", "new", "goes on") == {"used", "goes on"}
        assert await live(one, "used", "new", "goes on", "newer") == {"goes on"}
        assert await live(other, "used") == set()


async def test_replay_revokes_renewed_session(servers: Pair) -> None:
    """A session that came back and was renewed by another process is revoked with its successor."""
    async with (
        AsyncAdapters.on(servers.server()) as one,
        AsyncAdapters.on(servers.server()) as other,
    ):
        await add(one, "revoked")
        servers.settle()
        servers.link.hold()
        await one.delete_session("revoked")
        servers.fail_over()
        assert await other.renew_session("revoked", row("successor"), grace=0) is not None
        assert await live(one, "revoked", "successor") == set()


async def test_replica_that_is_not_promoted_yet(servers: Pair) -> None:
    """A replica that is not promoted yet is not used: it may lack a revocation.

    After the promotion, the revocation is repeated.
    """
    async with AsyncAdapters.on(servers.server()) as adapter:
        await add(adapter, "revoked", "kept")
        servers.settle()
        servers.link.hold()
        await adapter.delete_session("revoked")
        servers.primary.kill()
        servers.front.lead_to(servers.replica.port)
        assert servers.replica.sets() >= {"session:revoked", "session:kept"}
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                await live(adapter, "revoked", "kept")
        servers.replica.client.replicaof("NO", "ONE")
        assert await live(adapter, "revoked", "kept") == {"kept"}


@pytest.mark.parametrize("rights", [(), ("info",)], ids=["least rights", "and INFO"])
async def test_replay_without_the_right_to_info(rights: tuple[str, ...], servers: Pair) -> None:
    """Without the right to INFO replication, each lost connection counts as a failover."""
    for node in (servers.primary, servers.replica):
        node.client.acl_setuser(
            "app",
            enabled=True,
            passwords=["+pass"],
            commands=[f"+{command}" for command in (*LEAST_RIGHTS, *rights)],
            keys=["session:*", "userSession:*"],
        )
    async with AsyncAdapters.on(servers.server(), user="app") as adapter:
        await add(adapter, "revoked", "kept")
        servers.settle()
        servers.link.hold()
        await adapter.delete_session("revoked")
        before = servers.primary.client.info("commandstats").get("cmdstat_info", {"calls": 0})
        servers.fail_over()
        assert before["calls"] > 0
        assert await live(adapter, "revoked", "kept") == {"kept"}


@one_kind
@pytest.mark.parametrize("info", ["+info", "-info"])
async def test_demoted_primary(info: str, servers: Pair) -> None:
    """A server that takes no writes any more is left, and lost revocations are repeated.

    Without the right to INFO nothing but its error tells that the next server is another one.
    """
    for node in (servers.primary, servers.replica):
        rights = ("on", ">pass", "~*", "+@all", info)
        node.client.execute_command("ACL", "SETUSER", "app", *rights)
    async with AsyncAdapters.on(servers.server(), user="app") as adapter:
        await add(adapter, "revoked", "kept")
        servers.settle()
        servers.link.hold()
        await adapter.delete_session("revoked")
        servers.replica.client.replicaof("NO", "ONE")
        servers.front.target = servers.replica.port
        servers.primary.client.replicaof("127.0.0.1", unused_port())
        assert servers.replica.client.exists("session:revoked") == 1
        with pytest.raises(StoreUnavailable) as caught:
            await adapter.set_session(row("new"))
        assert not caught.value.ambiguous
        assert isinstance(caught.value.__cause__, redis.exceptions.ReadOnlyError)
        assert await live(adapter, "revoked", "kept", "new") == {"kept"}


def with_a_method_of_its_own(kind: Any) -> Any:
    """Return a class of clients that the adapter can't copy."""

    @wraps(kind.execute_command)
    def execute_command(self: Any, *words: Any, **options: Any) -> Any:
        return kind.execute_command(self, *words, **options)

    execute_command.__module__ = __name__
    return type("Own", (kind,), {"execute_command": execute_command})


@one_kind
async def test_client_that_is_used_as_it_is(servers: Pair) -> None:
    """With a client that can't be copied, revocations are repeated after each lost reply.

    ``revoke_ack`` is refused.
    """
    kind = with_a_method_of_its_own(AsyncClients.modules["redis"].Redis)
    async with (
        kind(port=servers.front.port, protocol=2, retry=None) as client,
        AsyncRedisSessionAdapter(client) as adapter,
    ):
        with pytest.raises(TypeError, match="revoke_ack needs connections of the adapter's own"):
            AsyncRedisSessionAdapter(client, revoke_ack=1)
        await add(adapter, "revoked", "kept")
        servers.settle()
        servers.link.hold()
        await adapter.delete_session("revoked")
        servers.primary.kill()
        with pytest.raises(OUTAGE):
            await adapter.get_session("kept")
        servers.fail_over()
        assert await live(adapter, "revoked", "kept") == {"kept"}


# Acknowledgements of replicas


@one_kind
async def test_wait_alone_tells_nothing(servers: Pair) -> None:
    """WAIT counts a replica without the data if its own connection has written nothing.

    So the adapter writes a key before WAIT.
    """
    servers.link.hold()
    servers.primary.client.set("written", "by another connection")
    fresh: Any = redis.Redis(port=servers.primary.port, single_connection_client=True)
    assert fresh.execute_command("DEL", "nothing") == 0
    assert fresh.execute_command("WAIT", 1, 100) == 1
    assert fresh.execute_command("SET", "written", "by this one")
    assert fresh.execute_command("WAIT", 1, 100) == 0
    fresh.close()


@pytest.mark.parametrize(
    "end", [revoke_one, revoke_all, revoke_others], ids=["one", "all", "others"]
)
async def test_not_replicated(
    end: Callable[[AsyncRedisSessionAdapter], Any], servers: Pair
) -> None:
    """A revocation without enough replicas is done on the primary, and raises an error.

    Repeating it raises again, until the replicas have it.
    """
    async with AsyncAdapters.on(
        servers.server(), revoke_ack=1, revoke_ack_timeout=timedelta(milliseconds=100)
    ) as adapter:
        await add(adapter, "kept", "revoked", "other")
        servers.settle()
        await retry_until_answered(partial(adapter.delete_session, "other"))
        assert servers.replica.client.exists("session:other") == 0
        servers.link.hold()
        for _ in range(2):
            with pytest.raises(RevocationNotReplicated, match="0 of 1 replicas") as caught:
                await end(adapter)
            assert (caught.value.wanted, caught.value.acknowledged) == (1, 0)
            assert await live(adapter, "revoked") == set()
        servers.link.flow()
        await retry_until_answered(partial(end, adapter))
        assert servers.replica.client.exists("session:revoked") == 0


@one_kind
async def test_frozen_replica(servers: Pair) -> None:
    """A frozen replica acknowledges nothing, and neither does one that does not exist."""
    servers.replica.freeze()
    async with AsyncAdapters.on(
        servers.server(), revoke_ack=1, revoke_ack_timeout=timedelta(milliseconds=100)
    ) as adapter:
        await add(adapter, "revoked")
        with pytest.raises(RevocationNotReplicated):
            await adapter.delete_session("revoked")
        servers.replica.thaw()
    async with AsyncAdapters.on(
        servers.server(), revoke_ack=1, revoke_ack_timeout=timedelta(milliseconds=100)
    ) as adapter:
        await retry_until_answered(partial(adapter.delete_session, "revoked"))
    async with AsyncAdapters.on(
        servers.server(), revoke_ack=2, revoke_ack_timeout=timedelta(seconds=2)
    ) as adapter:
        with pytest.raises(RevocationNotReplicated) as caught:
            await adapter.delete_session("revoked")
        assert (caught.value.wanted, caught.value.acknowledged) == (2, 1)


@one_kind
async def test_rights_for_asking_replicas(servers: Pair) -> None:
    """``revoke_ack`` needs the right to WAIT.

    Without it, the session is revoked, and the client's error is raised.
    """
    app = servers.primary.client
    app.acl_setuser(
        "app",
        enabled=True,
        passwords=["+pass"],
        commands=[f"+{command}" for command in LEAST_RIGHTS],
        keys=["session:*", "userSession:*"],
    )
    async with AsyncAdapters.on(
        servers.server(), user="app", revoke_ack=1, revoke_ack_timeout=timedelta(seconds=4)
    ) as adapter:
        await add(adapter, "revoked", "other")
        with pytest.raises(redis.exceptions.NoPermissionError):
            await adapter.delete_session("revoked")
        assert await live(adapter, "revoked", "other") == {"other"}
        app.acl_setuser("app", commands=["+wait"], enabled=True, reset=False)
        await adapter.delete_session("other")
        assert servers.replica.client.exists("session:other") == 0


@one_kind
async def test_sign_out_that_is_not_replicated(servers: Pair) -> None:
    """``Auth`` raises the error as well, and the session is no longer valid."""
    async with AsyncAdapters.on(
        servers.server(), revoke_ack=1, revoke_ack_timeout=timedelta(milliseconds=100)
    ) as adapter:
        auth = AsyncAuth(sessions=adapter, env="PROD")
        session = await auth.create_session("u1")
        servers.link.hold()
        with pytest.raises(RevocationNotReplicated) as caught:
            await auth.invalidate_session(session.session_id)
        assert session.session_id not in str(caught.value)
        with pytest.raises(InvalidSessionId):
            await auth.validate_session(session.session_id)
        await auth.aclose()


# Sentinel and cluster


@pytest.mark.parametrize("library", ["redis", "valkey"])
async def test_sentinel(library: str, tmp_path: Path) -> None:
    """If Sentinel promotes a replica after a kill -9, lost revocations are repeated."""
    with sentinel_pair(library, tmp_path) as group:
        async with (
            AsyncClients.behind_sentinel(group) as client,
            AsyncRedisSessionAdapter(client) as adapter,
        ):
            await add(adapter, "revoked", "kept")
            group.pair.settle()
            group.pair.link.hold()
            await adapter.delete_session("revoked")
            await adapter.delete_sessions_by_user_id("nobody")
            group.fail_over()
            assert group.pair.replica.client.exists("session:revoked") == 1
            assert (await after_outage(lambda: adapter.get_session("kept"))) is not None
            assert group.pair.replica.client.exists("session:revoked") == 0
            assert group.pair.replica.client.exists("session:kept") == 1
            await adapter.set_session(row("new"))
            assert {each.id for each in await adapter.get_sessions_by_user_id("u1")} == {
                "kept",
                "new",
            }


@pytest.mark.parametrize("info", ["+info", "-info"])
async def test_sentinel_names_another_master(info: str, tmp_path: Path) -> None:
    """If Sentinel names another master, lost revocations are repeated, though no reply was lost.

    Without the right to INFO nothing but its address tells that it is another server.
    """
    with sentinel_pair("redis", tmp_path) as group:
        for node in (group.pair.primary, group.pair.replica):
            rights = ("on", ">pass", "~*", "+@all", info)
            node.client.execute_command("ACL", "SETUSER", "app", *rights)
        async with (
            AsyncClients.behind_sentinel(group, username="app", password="pass") as client,
            AsyncRedisSessionAdapter(client) as adapter,
        ):
            await add(adapter, "revoked", "kept")
            group.pair.settle()
            group.pair.link.hold()
            await adapter.delete_session("revoked")
            group.move()
            assert group.pair.replica.client.exists("session:revoked") == 1
            assert await live(adapter, "revoked", "kept") == {"kept"}
            await adapter._driver.drop_idle()  # the next connection is one to the new master
            assert await live(adapter, "revoked", "kept") == {"kept"}
            assert group.pair.replica.client.exists("session:revoked") == 0


async def test_cluster(tmp_path: Path) -> None:
    """If a replica takes over a node's slots after a kill -9, lost revocations are repeated."""
    session_ids = [f"s{number}" for number in range(12)]
    with replicated_cluster(tmp_path) as group:
        async with (
            AsyncClients.of_cluster("redis", group.cluster) as client,
            AsyncRedisSessionAdapter(client) as adapter,
            AsyncClients.of_cluster("redis", group.cluster) as another_client,
            AsyncRedisSessionAdapter(another_client) as other,
        ):
            await add(adapter, *session_ids)
            await add(other, "kept")
            group.settle()
            number = group.number_of("session:s1")
            group.primaries[number].refuse_replicas()
            there = {
                session_id
                for session_id in session_ids
                if group.number_of(f"session:{session_id}") == number
            }
            await adapter.delete_other_sessions("u1", "kept")
            assert await live(adapter, *session_ids) == set()
            group.fail_over(number)
            assert await after_outage(lambda: live(other, *session_ids)) == there
            assert await after_outage(lambda: adapter.get_session("s1")) is None
            assert await live(other, "kept", *session_ids) == {"kept"}
            assert {each.id for each in await other.get_sessions_by_user_id("u1")} == {"kept"}


async def test_primary_that_comes_back_without_the_right_to_info(tmp_path: Path) -> None:
    """Without the right to INFO, a primary that comes back to the slot map is another server.

    It was a replica meanwhile, so it may lack revocations, though no connection to it was lost.
    """
    with replicated_cluster(tmp_path) as group:
        for node in (*group.primaries, *group.replicas):
            node.client.acl_setuser(
                "app",
                enabled=True,
                passwords=["+pass"],
                commands=[f"+{command}" for command in LEAST_RIGHTS_CLUSTER],
                keys=["session:*", "userSession:*"],
            )
        login = {"username": "app", "password": "pass"}
        number = group.number_of("session:s1")
        async with (
            AsyncClients.of_cluster("redis", group.cluster, **login) as client,
            AsyncRedisSessionAdapter(client) as adapter,
        ):
            await add(adapter, "s1", "kept")
            group.settle()
            switched = group.switch_over(number)
            await (await adapter._driver._route.get()).nodes(5)  # reads the map
            assert await live(adapter, "s1", "kept") == {"s1", "kept"}
            switched.primaries[number].refuse_replicas()
            await adapter.delete_session("s1")
            switched.fail_over(number)
            assert group.primaries[number].client.exists("session:s1") == 1
            assert await after_outage(lambda: live(adapter, "s1", "kept")) == {"kept"}


async def test_cluster_that_lost_list_entries(tmp_path: Path) -> None:
    """Logins that a failover removed from their index stay valid, and a reindex restores them."""
    with replicated_cluster(tmp_path) as group:
        async with (
            AsyncClients.of_cluster("redis", group.cluster) as client,
            AsyncRedisSessionAdapter(client) as adapter,
        ):
            await add(adapter, "before")
            group.settle()
            number = group.number_of("userSession:u1")
            session_ids = [
                f"s{each}" for each in range(20) if group.number_of(f"session:s{each}") != number
            ]
            group.primaries[number].refuse_replicas()
            await add(adapter, *session_ids)
            group.fail_over(number)
            assert await after_outage(lambda: live(adapter, *session_ids)) == set(session_ids)
            assert [
                each.id
                for each in await after_outage(lambda: adapter.get_sessions_by_user_id("u1"))
            ] == ["before"]
            assert await adapter.reindex() == Reindexed(
                sessions=len(session_ids) + 1, indexed=len(session_ids)
            )
            assert {each.id for each in await adapter.get_sessions_by_user_id("u1")} == {
                "before",
                *session_ids,
            }


async def test_cluster_that_confirms(tmp_path: Path) -> None:
    """In a cluster, the replicas of every primary have to acknowledge."""
    with replicated_cluster(tmp_path) as group:
        async with (
            AsyncClients.of_cluster("redis", group.cluster) as client,
            AsyncRedisSessionAdapter(
                client, revoke_ack=1, revoke_ack_timeout=timedelta(milliseconds=300)
            ) as adapter,
        ):
            await add(adapter, "s1", "s2", "s3", "s4")
            await retry_until_answered(partial(adapter.delete_session, "s4"))
            replica = group.replicas[group.number_of("session:s1")]
            replica.freeze()
            for _ in range(2):
                with pytest.raises(RevocationNotReplicated):
                    await adapter.delete_sessions_by_user_id("u1")
            assert await live(adapter, "s1", "s2", "s3") == set()
            replica.thaw()


# kill -9 and a restart


@pytest.fixture(params=["redis-server", "valkey-server"])
def lone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """Yield a server with an append-only file, fsynced once a second: the documented minimum."""
    node = Node(request.param, tmp_path, "--appendonly", "yes", "--appendfsync", "everysec")
    yield node
    node.close()


async def test_kill_and_restart(lone: Node) -> None:
    """After a kill -9, errors are raised; a restart loses no session and no revocation."""
    async with AsyncAdapters.on(lone.server()) as adapter, AsyncAdapters.on(lone.server()) as other:
        auth = AsyncAuth(sessions=adapter, env="PROD")
        kept, ended = await auth.create_session("u1"), await auth.create_session("u1")
        await auth.invalidate_session(ended.session_id)
        lone.kill()
        with pytest.raises(OUTAGE):
            await auth.validate_session(kept.session_id)
        lone.restart()
        assert await live(other, ended.session_id, kept.session_id) == {kept.session_id}
        assert (await auth.validate_session(kept.session_id)).session_id == kept.session_id
        await auth.aclose()


async def test_restart_without_the_last_moments(tmp_path: Path) -> None:
    """Sessions that come back with an older snapshot are revoked again by their revoker."""
    node = Node("redis-server", tmp_path)
    try:
        async with (
            AsyncAdapters.on(node.server()) as adapter,
            AsyncAdapters.on(node.server()) as other,
        ):
            await add(adapter, "kept", "revoked")
            node.client.save()
            await adapter.delete_session("revoked")
            node.kill()
            node.restart()
            assert await live(other, "kept", "revoked") == {"kept", "revoked"}
            assert await live(adapter, "kept", "revoked") == {"kept"}
            assert await live(other, "kept", "revoked") == {"kept"}
    finally:
        node.close()


# Measurements


@pytest.mark.parametrize("count", [1, 1_000])
async def test_replay_cost(count: int, servers: Pair) -> None:
    """All lost revocations are repeated before the first reply; ``-s`` prints the times."""
    session_ids = [f"session-{number}" for number in range(count)]
    patient = timedelta(seconds=4)
    async with (
        AsyncAdapters.on(servers.server(), revoke_ack=1, revoke_ack_timeout=patient) as asking,
        AsyncAdapters.on(servers.server()) as adapter,
    ):
        for session_id in session_ids[:10]:
            await asking.set_session(row(session_id))
        began = time.perf_counter()
        for session_id in session_ids[:10]:
            await asking.delete_session(session_id)
        asked = (time.perf_counter() - began) * 1_000 / len(session_ids[:10])
        with (
            Inspector.looking_at(servers.server()) as look,
            look.client.pipeline(transaction=False) as pipeline,
        ):
            for session_id in session_ids:
                look.write(row(session_id), pipeline)
            pipeline.execute()
        servers.settle()
        servers.link.hold()
        for start in range(0, count, 1_000):
            await adapter.delete_session(*session_ids[start : start + 1_000])
        servers.fail_over()
        began = time.perf_counter()
        assert await adapter.get_session("unknown") is None
        took = (time.perf_counter() - began) * 1_000
        assert servers.replica.client.keys("session:session-*") == []
        sys.stdout.write(
            f"\n{count} revoked again with the first command: {took:.1f} ms;"
            f" a revocation that a replica acknowledges: {asked:.1f} ms\n"
        )
