"""Walks while Lucia JS and the application write, and in bounded memory."""

import threading
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis

from lucia._redis.doctor import index as index_doctor
from lucia._redis.doctor.findings import Kind, RepairOptions
from lucia._redis.doctor.walk import State, Walk
from lucia._redis.keys import Layout
from lucia._redis.records import encode_row
from lucia._rules.sessions import new_session_id
from lucia._sync.stores.redis.driver import RedisDriver
from lucia.adapters.redis import RedisSessionAdapter
from lucia.models import SessionRow
from tests.doctor import damaged_stores
from tests.doctor.damaged_stores import LAYOUTS, DamagedStore, doctor
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.sessions import HOUR, row
from tools.servers import Cluster, Server


class Harness:
    """Walks over a server with a clock that the test moves."""

    def __init__(
        self, inspector: Inspector, layout: Layout, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self.inspector = inspector
        self.layout = layout
        self.seconds = 0.0
        self.told: list[int] = []
        self._meanwhile = meanwhile

    def _sleep(self, seconds: float) -> None:
        if not self.seconds:
            self._meanwhile()
        self.seconds += max(seconds, 0.5)

    def _progress(self, looked_at: int, total: int | None, waiting: int) -> None:
        assert total is None or looked_at >= 0
        self.told.append(waiting)

    def walk(self, *, fix: bool) -> tuple[dict[str, int], int]:
        """Return what was found, and how much of it is not fixed."""
        with closing(RedisDriver(self.inspector.client)) as driver:
            walk = Walk(
                driver,
                self.layout,
                RepairOptions(fix=fix),
                State({}),
                others=True,
                path=None,
                progress=self._progress,
                monotonic=lambda: self.seconds,
                sleep=self._sleep,
            )
            walk.run()
        total = walk.state.total()
        return dict(total.found), total.not_fixed()


def test_state_file_is_saved_every_second(redis_server: Server, tmp_path: Path) -> None:
    """The state file is written at most every second, and deleted at the end."""
    file, count = tmp_path / "state.json", 4_000
    seconds: list[float] = [0.0]
    saved: list[State] = []

    def progress(looked_at: int, total: int | None, waiting: int) -> None:
        assert looked_at
        assert total
        assert not waiting
        seconds[0] += 0.4
        if file.exists():
            saved.append(State.read(file, {}))

    def walk(inspector: Inspector, state: State) -> int:
        with closing(RedisDriver(inspector.client)) as driver:
            begun = Walk(
                driver,
                inspector.layout,
                RepairOptions(),
                state,
                others=True,
                path=file,
                progress=progress,
                monotonic=lambda: seconds[0],
            )
            begun.run()
            return state.total().keys["session"]

    with Inspector(redis_server) as inspector:
        inspector.fill("ada", count)
        assert walk(inspector, State({})) == count
        assert not file.exists()
        reached = [state.total().keys["session"] for state in saved]
        assert 0 < reached[0] < reached[-1] < count
        assert len(set(reached)) < len(reached)
        assert walk(inspector, saved[0]) == count


@pytest.mark.parametrize("name", LAYOUTS)
def test_legacy_writers(redis_server: Server, name: str) -> None:
    """With legacy writers, entries are examined twice, and indexes lose their expiry."""
    layout = Layout.from_namespaces(None, damaged_stores.name_of(name), legacy_writers=True)
    with Inspector(redis_server, LAYOUTS[name]) as inspector:
        patient = DamagedStore(inspector)
        kept, lost, late, ended = (row(new_session_id(), "u1") for _ in range(4))
        for session in (kept, lost, ended):
            inspector.client.set(
                layout.session_key(session.id), encode_row(session), pxat=session.idle_expires
            )
        early = row(new_session_id(), "u1")
        inspector.client.set(
            layout.session_key(early.id), encode_row(early), pxat=early.idle_expires
        )
        for session in (kept, late):
            patient.add("u1", session.id)
        patient.add("u1", "dead for ever")
        patient.add("u1", "dead, and gone from the index")
        patient.session("u2")
        patient.add("u2", kept.id)

        def meanwhile() -> None:
            inspector.client.set(
                layout.session_key(late.id), encode_row(late), pxat=late.idle_expires
            )
            patient.add("u1", early.id)
            inspector.client.delete(layout.session_key(ended.id))
            (inspector.client.lrem if layout.index.type == "list" else _srem(inspector))(
                layout.index_key("u1"), 0, "dead, and gone from the index"
            )

        found = {
            Kind.DEAD_ENTRY: 1,
            Kind.UNINDEXED_SESSION: 1,
            Kind.INDEX_WITH_TTL: 1,
            Kind.FOREIGN_ENTRY: 1,
        }
        harness = Harness(inspector, layout, meanwhile)
        assert harness.walk(fix=False) == (found, 4)
        assert 60 <= harness.seconds < 70
        assert max(harness.told) == 60
        assert Harness(inspector, layout).walk(fix=True) == (found, 0)
        assert Harness(inspector, layout).walk(fix=True) == ({}, 0)
        ids = (
            inspector.client.lrange("userSession:u1", 0, -1)
            if layout.index.type == "list"
            else inspector.client.smembers("user_sessions:u1")
        )
        assert set(ids) == {session.id.encode() for session in (kept, lost, late, early)}
        assert inspector.client.ttl(layout.index_key("u1")) == -1


def _srem(inspector: Inspector) -> Callable[..., Any]:
    return lambda key, _, id_: inspector.client.srem(key, id_)


def test_walk_pauses_when_many_keys_are_deferred(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk pauses for the second examination when too many keys are deferred."""
    monkeypatch.setattr("lucia._redis.doctor.walk.MAX_DEFERRED", 700)
    layout = Layout.from_namespaces(None, legacy_writers=True)
    with Inspector(redis_server) as inspector:
        for number in range(2_000):
            inspector.client.lpush(f"userSession:u{number}", "dead")
        harness = Harness(inspector, layout)
        assert harness.walk(fix=True) == ({Kind.DEAD_ENTRY: 2_000}, 0)
        assert harness.seconds >= 2 * 60
        assert inspector.keys() == set()


# One very long index


@pytest.mark.parametrize("name", LAYOUTS)
def test_very_long_index(redis_server: Server, name: str) -> None:
    """An index of many pages gets the expiry of its last session, wherever that is."""
    layout = LAYOUTS[name]
    with Inspector(redis_server, layout) as inspector:
        patient = DamagedStore(inspector)
        last = patient.session("u1", life=9 * HOUR)
        ids = [f"{number:040}" for number in range(3_000)]
        with inspector.client.pipeline(transaction=False) as pipeline:
            for number, id_ in enumerate(ids):
                if number % 2:
                    inspector.write(row(id_, "u1"), pipeline)
                (pipeline.lpush if layout.index.type == "list" else pipeline.sadd)(
                    layout.index_key("u1"), id_
                )
            pipeline.persist(layout.index_key("u1"))
            if layout.index.type == "list":
                pipeline.lpush(layout.index_key("u1"), ids[1], ids[999])
            pipeline.execute()
        twice = {Kind.DUPLICATE_ENTRY: 2} if layout.index.type == "list" else {}
        found, left = Harness(inspector, layout).walk(fix=True)
        assert found == {Kind.DEAD_ENTRY: 1_500, Kind.INDEX_WITHOUT_TTL: 1, **twice}
        assert left == 0
        assert Harness(inspector, layout).walk(fix=True) == ({}, 0)
        assert inspector.client.pexpiretime(layout.index_key("u1")) >= last.idle_expires


# Bounded memory


def test_bloom_filter_collisions_are_not_duplicates(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id is a duplicate only if the list has it twice, whatever the Bloom filter says."""
    monkeypatch.setattr(index_doctor, "_FILTER_BITS", 8)
    with Inspector(redis_server) as inspector:
        ids = inspector.fill("u1", 20)
        assert Harness(inspector, LAYOUTS["default"]).walk(fix=True) == ({}, 0)
        inspector.enter(ids[7], user_id="u1")
        assert Harness(inspector, LAYOUTS["default"]).walk(fix=True) == (
            {Kind.DUPLICATE_ENTRY: 1},
            0,
        )
        assert sorted(inspector.index("u1")) == sorted(ids)


def _peak(inspector: Inspector) -> int:
    """Return the peak memory of a walk, in bytes."""
    tracemalloc.start()
    try:
        Harness(inspector, LAYOUTS["default"]).walk(fix=False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_bounded_memory(redis_server: Server) -> None:
    """A walk over six times as many sessions takes no more memory."""
    with Inspector(redis_server) as inspector:
        peaks: list[int] = []
        for count in (200, 2_000, 12_000):
            inspector.client.flushall()
            inspector.fill("a-user-with-a-very-long-index-and-name", count // 2)
            for number in range(10):
                inspector.fill(f"another-user-with-a-long-name-{number}", count // 20)
            peaks.append(_peak(inspector))
        assert peaks[2] - peaks[1] < 10_000 * 100 // 2


# Concurrent applications


class Application:
    """A thread in which users log in, renew and log out. It records what must be left."""

    def __init__(self, client: Any, layout: str, seed: int) -> None:
        self.adapter = RedisSessionAdapter(client, layout=damaged_stores.name_of(layout))
        self.live: dict[str, str] = {}
        self.ended: set[str] = set()
        self.errors: list[Exception] = []
        self._random = Random(seed)  # noqa: S311  # not a secret
        self._users = [f"user-{seed}-{number}" for number in range(3)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Application":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def close(self) -> None:
        """Close the adapter's connections."""
        self.adapter.close()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._step()
            except Exception as error:
                self.errors.append(error)

    def _step(self) -> None:
        user_id = self._random.choice(self._users)
        mine = [id_ for id_, owner in self.live.items() if owner == user_id]
        chance = self._random.random()
        if chance < 0.4 or not mine:
            new = self._new(user_id)
            self.adapter.set_session(new)
            self.live[new.id] = user_id
        elif chance < 0.6:
            used, new = mine[0], self._new(user_id)
            assert self.adapter.renew_session(used, new, grace=0) == new
            self._ended(used)
            self.live[new.id] = user_id
        elif chance < 0.95:
            self.adapter.delete_session(mine[0])
            self._ended(mine[0])
        else:
            self.adapter.delete_sessions_by_user_id(user_id)
            self._ended(*mine)

    def _new(self, user_id: str) -> SessionRow:
        return row(new_session_id(), user_id)

    def _ended(self, *ids: str) -> None:
        self.ended.update(ids)
        for id_ in ids:
            del self.live[id_]

    def check(self) -> None:
        """Check that revoked sessions stay revoked, and live ones are in their index."""
        assert self.errors == []
        assert len(self.ended) > 20
        for user_id in self._users:
            listed = {session.id for session in self.adapter.get_sessions_by_user_id(user_id)}
            assert listed == {id_ for id_, owner in self.live.items() if owner == user_id}
        for id_ in self.ended:
            assert self.adapter.get_session(id_) is None


def _live_beside(inspector: Inspector, address: str, layout: str, clients: list[Any]) -> None:
    """Damage and fix a store, again and again, while applications use it."""
    applications = [Application(client, layout, seed) for seed, client in enumerate(clients)]
    with applications[0], applications[1]:
        for number in range(4):
            patient = DamagedStore(inspector)
            for user in range(20):
                patient.session(
                    f"patient-{number}-{user}", indexed=user % 2 == 0, whole=user % 3 == 0
                )
            outcome = doctor(address, "--layout", layout, "--json", "--fix")
            assert (outcome.counts("left"), outcome.errors) == ({}, "")
            assert outcome.counts()[Kind.UNINDEXED_SESSION] == 10
    for application in applications:
        application.check()
        application.close()
    assert {
        kind
        for kind, count in doctor(address, "--layout", layout, "--json").counts().items()
        if count
    } <= {Kind.DEAD_ENTRY}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fix_while_application_runs(server: Server, layout: str) -> None:
    """Fixing a store in use revokes no session, revives none, and indexes the live ones."""
    with (
        Inspector(server, LAYOUTS[layout]) as inspector,
        redis.Redis(host=server.host, port=server.port) as one,
        redis.Redis(host=server.host, port=server.port) as other,
    ):
        _live_beside(inspector, server.url, layout, [one, other])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fix_while_application_runs_in_a_cluster(cluster: Cluster, layout: str) -> None:
    """Fixing a cluster in use, where every change has several steps, is as safe."""
    with ClusterInspector(cluster, LAYOUTS[layout]) as inspector:
        clients: list[Any] = [
            redis.RedisCluster.from_url(cluster.url, protocol=2) for _ in range(2)
        ]
        _live_beside(inspector, cluster.url, layout, clients)
        for client in clients:
            client.close()


def test_fix_while_application_runs_without_scripts(redis_server: Server) -> None:
    """Fixing a server in use that refuses scripts is as safe."""
    with Inspector(redis_server) as inspector:
        inspector.client.acl_setuser(
            "plain",
            enabled=True,
            passwords=["+secret"],
            commands=["+@all", "-@scripting"],
            keys=["*"],
        )
        address = redis_server.url.replace("//", "//plain:secret@")
        clients: list[Any] = [redis.Redis.from_url(address) for _ in range(2)]
        _live_beside(inspector, address, "default", clients)
        for client in clients:
            client.close()
        inspector.client.acl_deluser("plain")
