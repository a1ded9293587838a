"""Servers that a Redis Sentinel monitors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis

from tests.support.redis_servers import shut_down
from tests.support.replication import Pair, pair
from tools.servers import own_server, running, until, unused_port

__all__ = [
    "DOWN_AFTER_MS",
    "SentinelGroup",
    "SentinelPair",
    "own_sentinel",
    "sentinel_group",
    "sentinel_pair",
]


def _any_client(port: int) -> Any:
    return redis.Redis(port=port)


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@dataclass(frozen=True)
class SentinelGroup:
    """Two servers that a Sentinel monitors."""

    library: str
    sentinel_port: int
    name: str = "sessions"
    sentinels: list[tuple[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentinels", [("127.0.0.1", self.sentinel_port)])

    def master(self) -> tuple[str, int]:
        """Return the master's address as clients find it.

        They use SENTINEL MASTER. GET-MASTER-ADDR-BY-NAME names a new master slightly
        earlier.
        """
        with _any_client(self.sentinel_port) as sentinel:
            found = sentinel.sentinel_master(self.name)
            return found["ip"], found["port"]

    def settle(self) -> None:
        """Wait until the master has a complete replica that the Sentinel knows."""
        until(self._is_settled, 30)

    def _is_settled(self) -> bool:
        with _any_client(self.master()[1]) as client, _any_client(self.sentinel_port) as sentinel:
            replication = client.info("replication")
            known = sentinel.execute_command("SENTINEL", "REPLICAS", self.name)
            replica = replication.get("slave0", {})
            if replication["role"] != "master" or replica.get("state") != "online" or not known:
                return False
            with _any_client(int(replica["port"])) as other:
                return bool(other.dbsize() == client.dbsize())

    def fail_over(self) -> None:
        """Make the replica the master, and shut the old master down."""
        self.settle()
        before = self.master()
        with _any_client(self.sentinel_port) as sentinel:
            until(lambda: self._asked(sentinel))
        until(lambda: self.master() != before, 30)
        shut_down(before[1])

    def _asked(self, sentinel: Any) -> bool:
        try:
            return bool(sentinel.execute_command("SENTINEL", "FAILOVER", self.name))
        except redis.ResponseError:  # no good replica yet, or a failover is in progress
            return False


@contextmanager
def sentinel_group(library: str, folder: Path) -> Iterator[SentinelGroup]:
    """Start a master, its replica, and a Sentinel that monitors them."""
    program = f"{library}-server"
    at_once = ("--repl-diskless-sync-delay", "0")
    with (
        own_server(program, folder, *at_once) as master,
        own_server(program, folder, "--replicaof", master.host, str(master.port), *at_once),
    ):
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor sessions {master.host} {master.port} 1\n"
            "sentinel down-after-milliseconds sessions 2000\n"
            "sentinel failover-timeout sessions 5000\n"
        )
        with own_sentinel(program, settings) as port:
            yield SentinelGroup(library, port)


@contextmanager
def own_sentinel(program: str, settings: Path) -> Iterator[int]:
    """Start a Sentinel with these settings, and yield its port."""
    port = unused_port()
    with (
        running(program, str(settings), "--sentinel", "--port", str(port)),
        _any_client(port) as client,
    ):
        until(lambda: _answers(client))
        yield port


DOWN_AFTER_MS: Final = 1_000
"""The time after which the Sentinel considers a silent server down."""


@dataclass(frozen=True)
class SentinelPair:
    """A primary, its replica behind a link, and a Sentinel that monitors them."""

    library: str
    pair: Pair
    sentinel_port: int
    name: str = "sessions"

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", self.sentinel_port)]

    def move(self) -> None:
        """Promote the replica and make it the Sentinel's master; the primary goes on as it was."""
        self.pair.replica.client.replicaof("NO", "ONE")
        with _any_client(self.sentinel_port) as sentinel:
            sentinel.sentinel_remove(self.name)
            sentinel.sentinel_monitor(self.name, "127.0.0.1", self.pair.replica.port, 1)

    def fail_over(self) -> None:
        """Kill the primary, and wait until the Sentinel has promoted the replica."""
        self.pair.primary.kill()
        until(lambda: self.pair.replica.client.info("replication")["role"] == "master", 30)


@contextmanager
def sentinel_pair(library: str, folder: Path) -> Iterator[SentinelPair]:
    """Start a primary, its replica, and a Sentinel that monitors them."""
    program = f"{library}-server"
    with pair(program, folder) as servers:
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor sessions 127.0.0.1 {servers.primary.port} 1\n"
            f"sentinel down-after-milliseconds sessions {DOWN_AFTER_MS}\n"
            "sentinel failover-timeout sessions 60000\n"
        )
        with own_sentinel(program, settings) as port:
            client: Any
            with redis.Redis(port=port) as client:
                until(lambda: client.execute_command("SENTINEL", "REPLICAS", "sessions"), 30)
            yield SentinelPair(library, servers, port)
