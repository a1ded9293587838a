"""For tests of the Redis adapter: looking into a server from outside, clients of every kind in both flavours, servers of a test's own."""

import json
import os
import re
import select
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_connection, create_server, socket
from types import ModuleType
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar, cast

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
import valkey
import valkey.asyncio
import valkey.asyncio.retry
import valkey.asyncio.sentinel
import valkey.retry
import valkey.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from lucia._redis.commands import (
    Batch,
    Call,
    Command,
    Eval,
    Nodes,
    OnNode,
    Operation,
    Reply,
    Transaction,
)
from lucia._redis.records import RESERVED, Layout
from lucia._rules.sessions import system_clock
from lucia.models import SessionRow
from tools.servers import Cluster, Server, own_server, running, until, unused_port

__all__ = [
    "HOUR",
    "LEAST_RIGHTS",
    "LEAST_RIGHTS_CLUSTER",
    "LEAST_RIGHTS_PLAIN",
    "AsyncClients",
    "Clients",
    "ClusterInspector",
    "Entry",
    "Inspector",
    "LossyProxy",
    "SentinelGroup",
    "Stepper",
    "counting",
    "explore",
    "for_sets",
    "frozen",
    "own_server",
    "replay",
    "row",
    "sentinel_group",
    "shut_down",
    "silent_server",
    "tls_server",
    "until",
    "unused_port",
    "without_tls",
]

T = TypeVar("T")

HOUR: Final = 3_600_000
"""In milliseconds."""

LEAST_RIGHTS: Final = (
    "mget", "set", "del", "exists", "lpush", "lrem", "lrange", "llen", "pttl", "pexpireat", "time", "evalsha", "eval",
)  # fmt: skip
"""The commands that a server's user needs; on the keys ``session:*`` and ``userSession:*``."""

LEAST_RIGHTS_PLAIN: Final = (
    "mget", "set", "del", "lpush", "lrem", "lrange", "pttl", "pexpireat", "time", "multi", "exec",
)  # fmt: skip
"""Those of a user who may not run scripts; on the same keys."""

LEAST_RIGHTS_CLUSTER: Final = (
    "mget", "set", "del", "lpush", "lrem", "lrange", "pttl", "pexpireat", "time", "evalsha", "eval", "cluster|slots", "command",
)  # fmt: skip
"""Those of a cluster's user; on the same keys, at each node."""

DEFAULT: Final = Layout("session", "userSession")
LUCIA_V2: Final = Layout.from_namespaces(None, "lucia-v2")

_FOR_SETS: Final = {"lpush": "sadd", "lrem": "srem", "lrange": "smembers", "llen": "scard"}


def for_sets(rights: Sequence[str]) -> tuple[str, ...]:
    """The same rights for the layout ``lucia-v2``, whose keys are ``session:*`` and ``user_sessions:*``."""
    kept = [_FOR_SETS.get(right, right) for right in rights]
    return tuple(dict.fromkeys([*kept, "scard", "srandmember"]))


def row(session_id: str, user_id: str = "u1", *, life: int = HOUR, **attributes: Any) -> SessionRow:
    """A session that dies in ``life`` milliseconds from now."""
    end = system_clock() + life
    return SessionRow(
        id=session_id,
        user_id=user_id,
        active_expires=end - life // 2,
        idle_expires=end,
        attributes=attributes,
    )


class Entry(NamedTuple):
    """What a key holds; ``expires`` is in milliseconds since the epoch, -1 for never."""

    type: str
    value: Any
    expires: int


class Inspector:
    """A client of its own that looks at all keys of a server, which it empties first, and puts there what no adapter would."""

    def __init__(self, server: Server, layout: Layout = DEFAULT, *, empties: bool = True) -> None:
        self.server = server
        self.layout = layout
        self._empties = empties
        self.client: Any = redis.Redis(host=server.host, port=server.port)
        self.blur = 0  # in milliseconds

    @classmethod
    def looking_at(cls, server: Server, layout: Layout = DEFAULT) -> "Inspector":
        """One that leaves the server as it is."""
        return cls(server, layout, empties=False)

    def __enter__(self) -> "Inspector":
        if self._empties:
            self.client.flushall()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def keys(self) -> set[str]:
        """The names of all keys."""
        return {key.decode(errors="surrogateescape") for key in self.all_keys()}

    def all_keys(self) -> list[bytes]:
        """The names of all keys as they are."""
        return cast("list[bytes]", self.client.keys("*"))

    def on_each(self, *command: str) -> None:
        """Run a command on the server."""
        self.client.execute_command(*command)

    def census(self) -> dict[str, Entry]:
        """Every key and what it holds."""
        found: dict[str, Entry] = {}
        for key in self.all_keys():
            kind = self.client.type(key).decode()
            read: dict[str, Any] = {
                "string": self.client.get,
                "list": self.list_at,
                "set": self.set_at,
            }
            value = read.get(kind, self.client.dump)(key)
            if kind != "none":  # it expired meanwhile
                found[key.decode(errors="surrogateescape")] = Entry(kind, value, self.expires(key))
        return found

    def expires(self, key: bytes | str) -> int:
        """When a key expires. Redis 6.2 tells only how long that is from now, so what is found may differ by ``blur``."""
        try:
            return int(self.client.pexpiretime(key))
        except redis.ResponseError:
            self.blur = 2
        with self.client.pipeline(transaction=True) as pipeline:
            (seconds, microseconds), left = pipeline.time().pttl(key).execute()
        return seconds * 1000 + microseconds // 1000 + left if left >= 0 else int(left)

    def index(self, user_id: str = "u1") -> list[str]:
        """The ids in a user's index."""
        key = self.layout.index_key(user_id)
        return [
            id_.decode()
            for id_ in (self.list_at(key) if self.layout.index.type == "list" else self.set_at(key))
        ]

    def list_at(self, key: bytes | str) -> list[bytes]:
        """What is in a list."""
        return cast("list[bytes]", self.client.lrange(key, 0, -1))

    def set_at(self, key: bytes | str) -> list[bytes]:
        """What is in a set, in the order of the alphabet."""
        return sorted(cast("set[bytes]", self.client.smembers(key)))

    def enter(self, *session_ids: str, user_id: str = "u1", client: Any = None) -> None:
        """Put ids into a user's index, and give it no end."""
        for session_id in session_ids:
            (client or self.client).execute_command(
                *_words(self.layout.index.add(self.layout.index_key(user_id), session_id)[0])
            )

    def live(self) -> set[str]:
        """The ids of all sessions."""
        prefix = self.layout.session_key("")
        others = tuple(prefix + word for word in RESERVED)
        return {
            key.removeprefix(prefix)
            for key in self.keys()
            if key.startswith(prefix) and not key.startswith(others)
        }

    def check(self) -> None:
        """Hold all keys to the laws of the layout: nothing foreign, nothing without an end, every session in its index."""
        census = self.census()
        session, index, marker = (
            self.layout.session_key(""),
            self.layout.index_key(""),
            f"{self.layout.session}:renewed:",
        )
        latest: dict[str, int] = {}
        for key, entry in census.items():
            assert entry.expires > 0 or (
                key.startswith(index) and self.layout.index.legacy_writers
            ), f"{key} has no TTL"
            if key.startswith(marker):
                assert entry.type == "string"
                assert entry.expires <= system_clock() + 60_000 + self.blur
                assert json.loads(entry.value).keys() in ({"id", "successor", "grace"}, {"ended"})
            elif key.startswith(self.layout.throttle_key("")):
                assert entry.type == "list"
            elif key.startswith(session):
                record = json.loads(entry.value)
                assert key == session + record["id"]
                assert abs(entry.expires - record["idle_expires"]) <= self.blur, (
                    f"{key} ends at another time than its session"
                )
                home = index + record["user_id"]
                assert census[home].value.count(record["id"].encode()) == 1, (
                    f"{key} is not once in its index"
                )
                latest[home] = max(latest.get(home, 0), entry.expires)
            else:
                assert key.startswith(index), f"{key} is a foreign key"
                assert entry.type == self.layout.index.type
                assert not (self.layout.index.legacy_writers and entry.expires > 0), (
                    f"{key} has a TTL"
                )
        for key, expires in latest.items():
            assert self.layout.index.legacy_writers or census[key].expires >= expires - self.blur, (
                f"{key} ends before its last session"
            )

    def check_remains(self) -> None:
        """Hold what a crash left to the laws: no key without an end, and a session that is not whole is gone in ten seconds."""
        census, soon = self.census(), system_clock() + 10_000
        assert [key for key, entry in census.items() if entry.expires < 0] == []
        for id_ in self.live():
            entry = census[self.layout.session_key(id_)]
            record = json.loads(entry.value)
            home = census.get(self.layout.index_key(record["user_id"]))
            whole = (
                abs(entry.expires - record["idle_expires"]) <= self.blur
                and home is not None
                and id_.encode() in home.value
            )
            assert whole or entry.expires <= soon, f"{id_} is not whole and stays"

    def fill(self, user_id: str, count: int, *, life: int = HOUR) -> list[str]:
        """Store so many sessions of a user, quickly; their ids, newest first."""
        index = self.layout.index_key(user_id)
        ids = [f"{user_id}-{number}" for number in range(count)]
        with self.client.pipeline(transaction=False) as pipeline:
            for id_ in ids:
                self.write(row(id_, user_id, life=life), pipeline)
                self.enter(id_, user_id=user_id, client=pipeline)
            pipeline.pexpireat(index, system_clock() + life + HOUR)
            pipeline.execute()
        return ids[::-1]

    def write(self, session: SessionRow, client: Any = None) -> None:
        """Store a session's record, and no index entry."""
        columns = {
            "id": session.id,
            "user_id": session.user_id,
            "active_expires": session.active_expires,
        }
        record = json.dumps({**columns, "idle_expires": session.idle_expires, **session.attributes})
        (client or self.client).set(
            self.layout.session_key(session.id), record, pxat=session.idle_expires
        )

    def age(self, used_id: str, milliseconds: int) -> None:
        """Let a used id's marker be older by so much."""
        key = self.layout.marker_key(used_id)
        self.client.pexpire(key, self.client.pttl(key) - milliseconds)

    def calls(self, command: str) -> int:
        """How often a command has run on this server."""
        return int(
            self.client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]
        )

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """The commands of everybody else, as MONITOR tells them, once the block has ended; those in a script begin with ``lua``."""
        found: list[str] = []
        with self.client.monitor() as monitor:
            yield found
            self.client.echo("the end of what is watched")
            while (
                command := _monitored(monitor.connection.read_response())
            ) != "ECHO the end of what is watched":
                if command.partition(" ")[0].upper() not in {"HELLO", "CLIENT", "SELECT", "AUTH"}:
                    found.append(command)


class ClusterInspector(Inspector):
    """The same for a cluster: looks at the keys of all nodes."""

    def __init__(self, cluster: Cluster, layout: Layout = DEFAULT) -> None:
        super().__init__(Server("redis", "127.0.0.1", cluster.ports[0], Path("/nowhere")), layout)
        self.cluster = cluster
        self.client.close()
        self.client = redis.RedisCluster.from_url(cluster.url, protocol=2)
        self.nodes: list[Any] = [redis.Redis(port=port, protocol=2) for port in cluster.ports]

    def __enter__(self) -> "ClusterInspector":
        self.on_each("FLUSHALL")
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.close()
        self.client.close()

    def all_keys(self) -> list[bytes]:
        """The names of all keys as they are."""
        return [key for node in self.nodes for key in cast("list[bytes]", node.keys("*"))]

    def on_each(self, *command: str) -> None:
        """Run a command on each node."""
        for node in self.nodes:
            node.execute_command(*command)

    def calls(self, command: str) -> int:
        """How often a command has run on all nodes."""
        statistics: list[Any] = [node.info("commandstats") for node in self.nodes]
        return sum(
            int(each.get(f"cmdstat_{command}", {"calls": 0})["calls"]) for each in statistics
        )

    def ids(self) -> list[str]:
        """What the nodes call themselves."""
        return [node.execute_command("CLUSTER MYID").decode() for node in self.nodes]

    def assign(self, slot: int, number: int) -> None:
        """Give a slot that has no keys to the node of this number, and wait until no older claim of another node can take it again."""
        for node in self.nodes:
            node.execute_command("CLUSTER SETSLOT", slot, "STABLE")
        until(lambda: self._is_assigned(slot, number))

    def _is_assigned(self, slot: int, number: int) -> bool:
        """Assign it, and say whether all nodes agree on that, and on all epochs, of which the node's own is the highest."""
        owner, owner_id = self.nodes[number], self.ids()[number]
        owner.execute_command("CLUSTER BUMPEPOCH")
        for node in (owner, *self.nodes):
            node.execute_command("CLUSTER SETSLOT", slot, "NODE", owner_id)
        maps = [node.execute_command("CLUSTER SLOTS") for node in self.nodes]
        owners = {
            port for slots in maps for first, last, (_, port, *_) in slots if first <= slot <= last
        }
        return owners == {self.cluster.ports[number]} and _newest(self.nodes) == owner_id


def _newest(nodes: Sequence[Any]) -> str | None:
    """The id of the cluster's node with the highest epoch, if all nodes say the same of each."""
    said = [
        {
            each["node_id"]: int(each["epoch"])
            for each in node.execute_command("CLUSTER NODES").values()
        }
        for node in nodes
    ]
    return max(said[0], key=said[0].__getitem__) if all(each == said[0] for each in said) else None


def _words(call: Call) -> list[Any]:
    return [call.name, *call.arguments]


def _monitored(line: Any) -> str:
    """The command in a line of MONITOR, which looks like ``1339518083.1 [0 127.0.0.1:60866] "keys" "*"``."""
    text = line.decode() if isinstance(line, bytes) else str(line)
    origin, _, quoted = text.partition('] "')
    words = [
        re.sub(r"\\(.)", r"\1", word) for word in quoted.removesuffix('"').split('" "')
    ]  # Valkey does not escape quotes
    return ("lua " if origin.endswith(" lua") else "") + " ".join(words)


@contextmanager
def counting(server: Server, layout: Layout = DEFAULT) -> Iterator[list[int]]:
    """How many sessions there were at each of many looks by somebody else, while the block runs."""
    found: list[int] = []
    ended = threading.Event()

    def look() -> None:
        with Inspector.looking_at(server, layout) as inspector:
            while not ended.is_set():
                found.append(len(inspector.live()))
                ended.wait(0.0005)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        until(lambda: found)
        yield found
    finally:
        ended.set()
        watcher.join()


# Operations, step by step


class Stepper(Generic[T]):
    """An operation that a test runs one command at a time."""

    def __init__(self, client: Any, operation: Generator[Command, Reply, T]) -> None:
        self._client = client
        self._operation = operation
        self.commands: list[Command] = []
        self.done = False
        self.result: T | None = None
        self._advance(None)

    def _advance(self, reply: Reply, error: Exception | None = None) -> None:
        try:
            self.commands.append(
                self._operation.send(reply) if error is None else self._operation.throw(error)
            )
        except StopIteration as end:
            self.done, self.result = True, end.value
        except BaseException:
            self.done = True
            raise

    def step(self, count: int = 1) -> "Stepper[T]":
        """Execute its next commands."""
        for _ in range(count):
            assert not self.done
            assert len(self.commands) < 1_000, "it does not come to its end"
            self._advance(*self._outcome(self.commands[-1]))
        return self

    def fail(self, error: Exception) -> "Stepper[T]":
        """Let its next command fail, which is not executed."""
        self._advance(None, error)
        return self

    def lose_reply(self, error: Exception) -> "Stepper[T]":
        """Execute its next command, and let the reply be lost."""
        self._execute(self.commands[-1])
        return self.fail(error)

    def finish(self) -> T:
        """Execute it to its end and give its result."""
        while not self.done:
            self.step()
        return cast("T", self.result)

    def _outcome(self, command: Command) -> tuple[Reply, Exception | None]:
        try:
            return self._execute(command), None
        except redis.RedisError as error:
            return None, error

    def _execute(self, command: Command) -> Reply:
        if isinstance(command, Batch):
            return [self._execute(each) for each in command.commands]
        if isinstance(command, Transaction):
            with self._client.pipeline(transaction=True) as pipeline:
                for each in command.commands:
                    pipeline.execute_command(each.name, *map(_encoded, each.arguments))
                return pipeline.execute()
        if isinstance(command, Nodes):
            return [""]
        if isinstance(command, OnNode):
            return [self._execute(each) for each in command.commands]
        if isinstance(command, Call):
            return self._client.execute_command(command.name, *map(_encoded, command.arguments))
        if isinstance(command, Eval):
            keys, arguments = map(_encoded, command.keys), map(_encoded, command.arguments)
            return self._client.execute_command(
                "EVAL", command.script.text, len(command.keys), *keys, *arguments
            )
        return self._client.connection_pool.disconnect()


def _encoded(argument: str | bytes | int) -> bytes | int:
    return argument.encode() if isinstance(argument, str) else argument


def replay(operation: Operation[T], *replies: Reply) -> tuple[list[Command], T]:
    """What an operation asks for and returns when it gets these replies."""
    commands = [next(operation), *map(operation.send, replies[:-1])]
    try:
        operation.send(replies[-1])
    except StopIteration as end:
        return commands, end.value
    raise AssertionError("it asks for more")


def explore(begin: Callable[[], Sequence[Stepper[Any]]], check: Callable[[], None]) -> int:
    """Run operations in every order of their steps, each order from the beginning, and check what each leads to.

    Args:
        begin: prepares the server and gives the operations.
        check: raises if what they led to is against a law.

    Returns:
        How many orders there were.
    """
    planned: list[int] = []
    for count in range(1, 100_000):
        choices = _run(begin(), planned)
        check()
        while choices and choices[-1][0] + 1 == choices[-1][1]:
            choices.pop()
        if not choices:
            return count
        planned = [chosen for chosen, _ in choices]
        planned[-1] += 1
    raise AssertionError("more orders than a test can run")


def _run(operations: Sequence[Stepper[Any]], planned: Sequence[int]) -> list[tuple[int, int]]:
    choices: list[tuple[int, int]] = []
    while running := [operation for operation in operations if not operation.done]:
        chosen = planned[len(choices)] if len(choices) < len(planned) else 0
        choices.append((chosen, len(running)))
        running[chosen].step()
    return choices


# Clients

_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "redis-py as it is": {},
    "redis-py, RESP2": {"protocol": 2},
    "redis-py, RESP3": {"protocol": 3},
    "redis-py, text": {"decode_responses": True},
    "redis-py, Latin-1": {"decode_responses": True, "encoding": "latin-1"},
    "redis-py, strict ASCII": {
        "decode_responses": True,
        "encoding": "ascii",
        "encoding_errors": "strict",
    },
    "redis-py, one connection": {"single_connection_client": True},
    "redis-py, blocking pool": {"pool": "BlockingConnectionPool"},
    "redis-py, unix socket": {"socket": True},
    "valkey-py as it is": {},
    "valkey-py, RESP3": {"protocol": 3},
    "valkey-py, text": {"decode_responses": True},
    "valkey-py, Latin-1": {"decode_responses": True, "encoding": "latin-1"},
    "valkey-py, one connection": {"single_connection_client": True},
    "valkey-py, blocking pool": {"pool": "BlockingConnectionPool"},
    "valkey-py, unix socket": {"socket": True},
}


_RETRIES: Final[Mapping[tuple[str, str], Any]] = {
    ("asynchronous", "redis"): AsyncRetry,
    ("asynchronous", "valkey"): valkey.asyncio.retry.Retry,
    ("blocking", "redis"): Retry,
    ("blocking", "valkey"): valkey.retry.Retry,
}


def _make(
    kind: str, server: Server, modules: Mapping[str, ModuleType], changes: Mapping[str, Any]
) -> Any:
    library = kind.partition("-py")[0]
    module = modules[library]
    client_class = getattr(module, library.capitalize())
    options: dict[str, Any] = {
        "host": server.host,
        "port": server.port,
        **_OPTIONS[kind],
        **changes,
    }
    if pool := options.pop("pool", None):
        return client_class.from_pool(getattr(module, pool)(**options))
    if options.pop("socket", False):
        del options["host"], options["port"]
        return client_class(unix_socket_path=str(server.socket), **options)
    return client_class(**options)


class WatchedBySentinel(Protocol):
    """Servers that a Sentinel watches."""

    @property
    def library(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def sentinels(self) -> list[tuple[str, int]]: ...


class AsyncClients:
    """Clients of every kind, asynchronous."""

    kinds: Final = tuple(_OPTIONS)
    modules: Final[Mapping[str, ModuleType]] = {"redis": redis.asyncio, "valkey": valkey.asyncio}
    sentinels: Final[Mapping[str, Any]] = {
        "redis": redis.asyncio.sentinel.Sentinel,
        "valkey": valkey.asyncio.sentinel.Sentinel,
    }

    @classmethod
    def make(cls, kind: str, server: Server, **changes: Any) -> Any:
        """A client, which the test closes."""
        return _make(kind, server, cls.modules, changes)

    @classmethod
    def of_cluster(cls, library: str, cluster: Cluster, **options: Any) -> Any:
        """A client of the cluster, which the test closes."""
        found = getattr(cls.modules[library], f"{library.capitalize()}Cluster")
        return found(host="127.0.0.1", port=cluster.ports[0], **options)

    @classmethod
    def retrying(cls, library: str, count: int) -> Mapping[str, Any]:
        """Options of a client that sends a command again so often."""
        return {"retry": _RETRIES["asynchronous", library](NoBackoff(), count)}

    @classmethod
    def make_hasty(cls, server: Server, **changes: Any) -> Any:
        """A redis-py client that tries once."""
        return cls.make("redis-py, RESP2", server, retry=AsyncRetry(NoBackoff(), 0), **changes)

    @classmethod
    @asynccontextmanager
    async def behind_sentinel(
        cls, group: "WatchedBySentinel", **options: Any
    ) -> AsyncIterator[Any]:
        """A client of the group's master, whichever that is."""
        sentinel = cls.sentinels[group.library](group.sentinels, socket_timeout=5)
        try:
            async with sentinel.master_for(group.name, socket_timeout=5, **options) as client:
                yield client
        finally:
            for each in sentinel.sentinels:
                await each.aclose()


class Clients:
    """Clients of every kind."""

    kinds: Final = tuple(_OPTIONS)
    modules: Final[Mapping[str, ModuleType]] = {"redis": redis, "valkey": valkey}
    sentinels: Final[Mapping[str, Any]] = {
        "redis": redis.sentinel.Sentinel,
        "valkey": valkey.sentinel.Sentinel,
    }

    @classmethod
    def make(cls, kind: str, server: Server, **changes: Any) -> Any:
        """A client, which the test closes."""
        return _make(kind, server, cls.modules, changes)

    @classmethod
    def of_cluster(cls, library: str, cluster: Cluster, **options: Any) -> Any:
        """A client of the cluster, which the test closes."""
        found = getattr(cls.modules[library], f"{library.capitalize()}Cluster")
        return found(host="127.0.0.1", port=cluster.ports[0], **options)

    @classmethod
    def retrying(cls, library: str, count: int) -> Mapping[str, Any]:
        """Options of a client that sends a command again so often."""
        return {"retry": _RETRIES["blocking", library](NoBackoff(), count)}

    @classmethod
    def make_hasty(cls, server: Server, **changes: Any) -> Any:
        """A redis-py client that tries once."""
        return cls.make("redis-py, RESP2", server, retry=Retry(NoBackoff(), 0), **changes)

    @classmethod
    @contextmanager
    def behind_sentinel(cls, group: "WatchedBySentinel", **options: Any) -> Iterator[Any]:
        """A client of the group's master, whichever that is."""
        sentinel = cls.sentinels[group.library](group.sentinels, socket_timeout=5)
        try:
            with sentinel.master_for(group.name, socket_timeout=5, **options) as client:
                yield client
        finally:
            for each in sentinel.sentinels:
                each.close()


# Servers of a test's own


@contextmanager
def silent_server() -> Iterator[Server]:
    """A port that takes connections and never answers."""
    with create_server(("127.0.0.1", 0)) as listening:
        yield Server("redis", "127.0.0.1", int(listening.getsockname()[1]), Path("/nowhere"))


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """A server whose process is stopped: connections are taken by the system, and nothing is answered."""
    with _any_client(server.port) as client:
        process = int(client.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


class LossyProxy:
    """Stands before a server, passes everything on, and loses the replies to some commands: the client sees a closed connection.

    Args:
        port: the server's.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._word = b""
        self._count = self._passed_on = 0
        self._halves = False
        self.lost = 0

    def __enter__(self) -> "LossyProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def lose(
        self, word: str, count: int = 1_000, *, after: int = 0, halves: bool = False
    ) -> "LossyProxy":
        """From now on, lose the replies to that many commands that hold this word; or a half of each, and the connection stays open.

        Args:
            word: in the commands.
            count: how many replies are lost.
            after: how many are passed on before.
            halves: whether the half of a reply comes.
        """
        self._word, self._count, self._passed_on, self._halves, self.lost = (
            word.encode(),
            count,
            after,
            halves,
            0,
        )
        return self

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket) -> None:
        with suppress(OSError), near, create_connection(("127.0.0.1", self._target)) as far:
            while True:
                readable, _, _ = select.select([near, far], [], [])
                source, target = (far, near) if far in readable else (near, far)
                data = source.recv(1 << 16)
                target.sendall(data)
                if not data:
                    return
                if source is near and self._loses(data):
                    reply = far.recv(1 << 16)
                    if self._halves:
                        near.sendall(reply[: len(reply) // 2])
                    self.lost += 1
                    while (
                        self._halves
                        and select.select([near, far], [], [])[0] == [far]
                        and far.recv(1 << 16)
                    ):
                        pass  # the other half
                    return

    def _loses(self, data: bytes) -> bool:
        """Whether this holds a command whose reply is to be lost."""
        if self._word not in data or not self._count:
            return False
        if self._passed_on:
            self._passed_on -= 1
            return False
        self._count -= 1
        return True


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[Server, Path]]:
    """A server that also speaks TLS, at the port that is given, and the certificate to trust."""
    key, certificate, port = folder / "key.pem", folder / "certificate.pem", unused_port()
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    request = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    )
    subprocess.run([*request, *names], check=True, capture_output=True)
    files = (
        "--tls-cert-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--tls-ca-cert-file",
        str(certificate),
    )
    with own_server(
        "redis-server", folder, "--tls-port", str(port), *files, "--tls-auth-clients", "no"
    ) as server:
        yield Server("redis", server.host, port, server.socket), certificate


def without_tls(server: Server) -> Server:
    """The same server at the port without TLS, which the unix socket is named after."""
    return Server(server.kind, server.host, int(server.socket.stem), server.socket)


def shut_down(port: int) -> None:
    """End a server, and do not try again when the connection is lost."""
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
        client.shutdown(nosave=True)


def _any_client(port: int) -> Any:
    return redis.Redis(port=port)


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@dataclass(frozen=True)
class SentinelGroup:
    """Two servers that a Sentinel watches."""

    library: str
    sentinel_port: int
    name: str = "sessions"
    sentinels: list[tuple[str, int]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentinels", [("127.0.0.1", self.sentinel_port)])

    def master(self) -> tuple[str, int]:
        """Where clients find the master by now: GET-MASTER-ADDR-BY-NAME, which they do not ask, tells the new one a little earlier."""
        with _any_client(self.sentinel_port) as sentinel:
            found = sentinel.sentinel_master(self.name)
            return found["ip"], found["port"]

    def settle(self) -> None:
        """Wait until the master has a replica that has everything, and Sentinel knows it."""
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
        """Make the replica the master, and end the one that was."""
        self.settle()
        before = self.master()
        with _any_client(self.sentinel_port) as sentinel:
            until(lambda: self._asked(sentinel))
        until(lambda: self.master() != before, 30)
        shut_down(before[1])

    def _asked(self, sentinel: Any) -> bool:
        try:
            return bool(sentinel.execute_command("SENTINEL", "FAILOVER", self.name))
        except redis.ResponseError:  # no good replica yet, or a failover is under way
            return False


@contextmanager
def sentinel_group(library: str, folder: Path) -> Iterator[SentinelGroup]:
    """A master, its replica, and a Sentinel that watches them."""
    program = f"{library}-server"
    at_once = ("--repl-diskless-sync-delay", "0")
    with (
        own_server(program, folder, *at_once) as master,
        own_server(program, folder, "--replicaof", master.host, str(master.port), *at_once),
    ):
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor sessions {master.host} {master.port} 1\n"
            "sentinel down-after-milliseconds sessions 2000\nsentinel failover-timeout sessions 5000\n"
        )
        with own_sentinel(program, settings) as port:
            yield SentinelGroup(library, port)


@contextmanager
def own_sentinel(program: str, settings: Path) -> Iterator[int]:
    """A Sentinel with these settings."""
    port = unused_port()
    with (
        running(program, str(settings), "--sentinel", "--port", str(port)),
        _any_client(port) as client,
    ):
        until(lambda: _answers(client))
        yield port
