"""Inspect a Redis server or cluster: its keys, their expiry, and its commands."""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import redis

from lucia._redis.commands import Call
from lucia._redis.keys import RESERVED, Layout
from lucia._rules.sessions import system_clock
from lucia.models import SessionRow
from tests.support.sessions import HOUR, row
from tools.servers import Cluster, Server, until

__all__ = ["DEFAULT", "LUCIA_V2", "ClusterInspector", "Entry", "Inspector", "counting_sessions"]

DEFAULT: Final = Layout("session", "userSession")

LUCIA_V2: Final = Layout.from_namespaces(None, "lucia-v2")


class Entry(NamedTuple):
    """The contents of a key; ``expires`` is in milliseconds since the epoch, -1 for never."""

    type: str
    value: Any
    expires: int


class Inspector:
    """Reads all keys of a server, after emptying it, and writes keys that no adapter writes."""

    def __init__(self, server: Server, layout: Layout = DEFAULT, *, empties: bool = True) -> None:
        self.server = server
        self.layout = layout
        self._empties = empties
        self.client: Any = redis.Redis(host=server.host, port=server.port)
        self.blur = 0  # the possible error of :meth:`expires` in milliseconds

    @classmethod
    def looking_at(cls, server: Server, layout: Layout = DEFAULT) -> "Inspector":
        """Return an inspector that does not empty the server."""
        return cls(server, layout, empties=False)

    def __enter__(self) -> "Inspector":
        if self._empties:
            self.client.flushall()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def keys(self) -> set[str]:
        """Return the names of all keys."""
        return {key.decode(errors="surrogateescape") for key in self.all_keys()}

    def all_keys(self) -> list[bytes]:
        """Return the names of all keys as bytes."""
        return cast("list[bytes]", self.client.keys("*"))

    def on_each(self, *command: str) -> None:
        """Run a command on the server."""
        self.client.execute_command(*command)

    def census(self) -> dict[str, Entry]:
        """Return all keys with their contents."""
        found: dict[str, Entry] = {}
        for key in self.all_keys():
            kind = self.client.type(key).decode()
            read: dict[str, Any] = {
                "string": self.client.get,
                "list": self.list_at,
                "set": self.set_at,
            }
            value = read.get(kind, self.client.dump)(key)
            if kind != "none":  # otherwise the key has expired meanwhile
                found[key.decode(errors="surrogateescape")] = Entry(kind, value, self.expires(key))
        return found

    def expires(self, key: bytes | str) -> int:
        """Return when a key expires, in milliseconds since the epoch.

        Redis 6.2 has no PEXPIRETIME: then the result may be wrong by ``blur`` milliseconds.
        """
        try:
            return int(self.client.pexpiretime(key))
        except redis.ResponseError:
            self.blur = 2
        with self.client.pipeline(transaction=True) as pipeline:
            (seconds, microseconds), left = pipeline.time().pttl(key).execute()
        return seconds * 1000 + microseconds // 1000 + left if left >= 0 else int(left)

    def index(self, user_id: str = "u1") -> list[str]:
        """Return the ids in a user's index."""
        key = self.layout.index_key(user_id)
        return [
            id_.decode()
            for id_ in (self.list_at(key) if self.layout.index.type == "list" else self.set_at(key))
        ]

    def list_at(self, key: bytes | str) -> list[bytes]:
        """Return the elements of a list."""
        return cast("list[bytes]", self.client.lrange(key, 0, -1))

    def set_at(self, key: bytes | str) -> list[bytes]:
        """Return the members of a set, sorted."""
        return sorted(cast("set[bytes]", self.client.smembers(key)))

    def enter(self, *session_ids: str, user_id: str = "u1", client: Any = None) -> None:
        """Add ids to a user's index, without setting its expiry."""
        for session_id in session_ids:
            (client or self.client).execute_command(
                *_words(self.layout.index.add(self.layout.index_key(user_id), session_id)[0])
            )

    def live(self) -> set[str]:
        """Return the ids of all sessions."""
        prefix = self.layout.session_key("")
        others = tuple(prefix + word for word in RESERVED)
        return {
            key.removeprefix(prefix)
            for key in self.keys()
            if key.startswith(prefix) and not key.startswith(others)
        }

    def check(self) -> None:
        """Check that all keys are known and have an expiry, and every session is in its index."""
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
                    f"{key} expires at another time than its session"
                )
                home = index + record["user_id"]
                assert census[home].value.count(record["id"].encode()) == 1, (
                    f"{key} is not in its index exactly once"
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
                f"{key} expires before its last session"
            )

    def check_remains(self) -> None:
        """Check the keys that a crash left.

        All have an expiry, and a session that is not in its index expires within ten seconds.
        """
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
            assert whole or entry.expires <= soon, f"{id_} is incomplete and does not expire soon"

    def fill(self, user_id: str, count: int, *, life: int = HOUR) -> list[str]:
        """Store sessions of a user through a pipeline; return their ids, newest first."""
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
        """Store a session's record without its index entry."""
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
        """Make the marker of a used id older."""
        key = self.layout.marker_key(used_id)
        self.client.pexpire(key, self.client.pttl(key) - milliseconds)

    def calls(self, command: str) -> int:
        """Return how often a command was executed on this server."""
        return int(
            self.client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]
        )

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """Yield a list that gets the commands of all clients when the block is over.

        The commands are those that MONITOR shows; commands in a script begin with ``lua``.
        """
        found: list[str] = []
        with self.client.monitor() as monitor:
            yield found
            self.client.echo("the end of the block")
            while (
                command := _monitored(monitor.connection.read_response())
            ) != "ECHO the end of the block":
                if command.partition(" ")[0].upper() not in {"HELLO", "CLIENT", "SELECT", "AUTH"}:
                    found.append(command)


class ClusterInspector(Inspector):
    """An inspector of all nodes of a cluster."""

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
        """Return the names of all keys as bytes."""
        return [key for node in self.nodes for key in cast("list[bytes]", node.keys("*"))]

    def on_each(self, *command: str) -> None:
        """Run a command on each node."""
        for node in self.nodes:
            node.execute_command(*command)

    def calls(self, command: str) -> int:
        """Return how often a command was executed on all nodes together."""
        statistics: list[Any] = [node.info("commandstats") for node in self.nodes]
        return sum(
            int(each.get(f"cmdstat_{command}", {"calls": 0})["calls"]) for each in statistics
        )

    def ids(self) -> list[str]:
        """Return the ids of the nodes."""
        return [node.execute_command("CLUSTER MYID").decode() for node in self.nodes]

    def assign(self, slot: int, number: int) -> None:
        """Assign a slot without keys to a node, and wait until all nodes agree permanently."""
        for node in self.nodes:
            node.execute_command("CLUSTER SETSLOT", slot, "STABLE")
        until(lambda: self._is_assigned(slot, number))

    def _is_assigned(self, slot: int, number: int) -> bool:
        """Assign the slot, and return whether all nodes agree on its owner and on all epochs.

        The owner must have the highest epoch. Otherwise an older claim of another node may win
        later.
        """
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
    """Return the id of the node with the highest epoch, if all nodes agree on all epochs."""
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
    """Return the command in a line of MONITOR.

    The line looks like ``1339518083.1 [0 127.0.0.1:60866] "keys" "*"``.
    """
    text = line.decode() if isinstance(line, bytes) else str(line)
    origin, _, quoted = text.partition('] "')
    # Redis escapes quotes, Valkey does not.
    words = [re.sub(r"\\(.)", r"\1", word) for word in quoted.removesuffix('"').split('" "')]
    return ("lua " if origin.endswith(" lua") else "") + " ".join(words)


@contextmanager
def counting_sessions(server: Server, layout: Layout = DEFAULT) -> Iterator[list[int]]:
    """Count the sessions repeatedly in another thread while the block runs."""
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
