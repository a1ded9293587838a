"""Stores of every kind to copy from and to, and an application that uses one."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from sqlalchemy import MetaData, create_engine, insert

from lucia import Auth
from lucia._redis.keys import Layout, LayoutName
from lucia.adapters.redis import RedisSessionAdapter
from lucia.adapters.sqlalchemy import AuthTables, SQLAlchemyAdapter
from tests.support.command_runs import Outcome, lucia
from tools.servers import Cluster, Server

__all__ = ["ALL_USERS", "KEY", "USERS", "CopyOutcome", "Place", "Places", "copy"]

KEY: Final = bytes(range(32))

USERS: Final = tuple(f"user-{number}" for number in range(8))
"""Users to sign in."""

ALL_USERS: Final = tuple(f"user-{number}" for number in range(50))
"""The users in the table of a database."""


class CopyOutcome(Outcome):
    """The exit code and the output of a run of ``lucia copy``."""

    @property
    def report(self) -> dict[str, Any]:
        """The report, parsed from JSON, without the version and the counts that are 0."""
        found = super().report
        assert found.pop("version") == 1
        assert found.pop("exit_code") == self.code
        found["skipped"] = {name: count for name, count in found["skipped"].items() if count}
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Place:
    """A store.

    Args:
        url: as the command takes it.
        names: the layout and the namespaces, by the command's options.
        id_keys: of an adapter that hashes ids.
        is_cluster: whether it is a cluster.
        user_id: the type of the users' ids.
    """

    url: str
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    id_keys: tuple[bytes, ...] = ()
    is_cluster: bool = False
    user_id: type[Any] = str

    @property
    def layout(self) -> Layout:
        return Layout.from_namespaces(self._namespaces, self._layout_name)

    @property
    def _layout_name(self) -> LayoutName:
        return "lucia-v2" if self.names.get("layout") == "lucia-v2" else "default"

    @property
    def _namespaces(self) -> dict[str, str]:
        return {
            name: self.names[option]
            for name, option in (
                ("session", "session-namespace"),
                ("user_session", "user-session-namespace"),
            )
            if option in self.names
        }

    @property
    def is_redis(self) -> bool:
        return self.url.startswith("redis")

    def client(self) -> Any:
        """Return a client of a Redis store."""
        cluster: Any = redis.RedisCluster
        return (cluster if self.is_cluster else redis.Redis).from_url(self.url, protocol=2)

    @contextmanager
    def adapter(self) -> Generator[Any]:
        """Yield the adapter that an application has."""
        if not self.is_redis:
            engine = create_engine(self.url, **_timeout(self.url))
            try:
                tables = AuthTables(MetaData(), user_id=self.user_id, sessions=True)
                yield SQLAlchemyAdapter(engine, tables, id_keys=self.id_keys)
            finally:
                engine.dispose()
            return
        with (
            self.client() as client,
            RedisSessionAdapter(
                client,
                self._namespaces,
                layout=self._layout_name,
                id_keys=self.id_keys,
            ) as adapter,
        ):
            yield adapter

    @contextmanager
    def application(self, **settings: Any) -> Generator[Auth[Any]]:
        """Yield an application that uses the store."""
        with self.adapter() as adapter:
            yield Auth(sessions=adapter, env="DEV", user_id=self.user_id, **settings)

    def options(self, side: str) -> list[str]:
        """Return the command's options for the store ``from`` or ``to``."""
        return [f"--{side}-{option}={value}" for option, value in self.names.items()]


def _timeout(url: str) -> dict[str, Any]:
    return {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {}


@dataclass
class Places:
    """Makes empty stores by the names of their kinds. A name begins with that of the kind."""

    request: pytest.FixtureRequest
    folder: Path
    stack: ExitStack

    def make(self, kind: str, number: int) -> Place:
        """Return an empty store; the number tells two of the same kind apart."""
        kind, _, variant = kind.partition(" ")
        names: dict[str, str] = {"layout": "lucia-v2"} if variant == "v2" else {}
        id_keys = (KEY,) if variant == "hashed" else ()
        if kind == "cluster":
            cluster: Cluster = self.request.getfixturevalue("cluster")
            self.forget(cluster, f"s{number}:*")
            names |= {
                "session-namespace": f"s{number}:session",
                "user-session-namespace": f"s{number}:index",
            }
            return Place(cluster.url, names, id_keys, is_cluster=True)
        if kind in ("redis", "valkey", "old"):
            server: Server = self.request.getfixturevalue(
                {"redis": "redis_server", "valkey": "valkey_server", "old": "old_redis_server"}[
                    kind
                ]
            )
            url = f"redis://{server.host}:{server.port}/{number}"
            with redis.Redis.from_url(url) as client:
                client.flushdb()
            return Place(url, names, id_keys)
        return self.database(f"{kind} {number}", ALL_USERS, id_keys=id_keys)

    def forget(self, cluster: Cluster, pattern: str) -> None:
        """Delete the keys that earlier tests have left."""
        client: Any
        with redis.RedisCluster.from_url(cluster.url, protocol=2) as client:
            for key in list(client.scan_iter(pattern)):
                client.delete(key)

    def database(
        self, name: str, users: Sequence[Any], *, id_keys: tuple[bytes, ...] = ()
    ) -> Place:
        """Return a database with these users, whose ids are of any one type."""
        kind, _, _ = name.partition(" ")
        if kind == "sqlite":
            url = f"sqlite:///{self.folder / f'{name}.db'}"
        else:
            server = self.request.getfixturevalue(kind)
            url = server.url(self.stack.enter_context(server.database()))
        engine = create_engine(url)
        metadata = MetaData()
        tables = AuthTables(metadata, user_id=type(users[0]), sessions=True)
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(insert(tables.user), [{"id": user} for user in users])
        engine.dispose()
        return Place(url, id_keys=id_keys, user_id=type(users[0]))


@pytest.fixture
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    """Return what makes empty stores."""
    with ExitStack() as stack:
        yield Places(request, tmp_path, stack)


def arguments(source: Place, destination: Place, *others: object) -> Sequence[str]:
    """Return the command's arguments."""
    options = [*source.options("from"), *destination.options("to")]
    return ["copy", source.url, destination.url, *options, *map(str, others)]


def environment(destination: Place) -> dict[str, str]:
    """Return the variables that the command needs."""
    return {"LUCIA_ID_KEYS": ",".join(key.hex() for key in destination.id_keys)}


def copy(source: Place, destination: Place, *others: object) -> CopyOutcome:
    """Run ``lucia copy`` in this process."""
    outcome = lucia(*arguments(source, destination, *others), **environment(destination))
    return CopyOutcome(outcome.code, outcome.out, outcome.errors)
