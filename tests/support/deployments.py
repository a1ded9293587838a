"""The places where sessions may be, each with a look from outside and a client: one server, a cluster, a server without scripts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
import redis

from tests.support.redis_clients import Clients
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tools.servers import Cluster, Server

__all__ = ["WITHOUT_SCRIPTS", "Deployment", "open_deployment"]

WITHOUT_SCRIPTS: Final = ", no scripts"


@dataclass(frozen=True)
class Deployment:
    """An emptied place.

    Args:
        url: what a client of another process takes.
    """

    inspector: Inspector
    client: Any
    url: str


@contextmanager
def open_deployment(request: pytest.FixtureRequest, name: str) -> Iterator[Deployment]:
    """A place by its name: ``cluster``, or what the fixture of a server begins with, maybe with ``, no scripts`` after it."""
    if name == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        with (
            ClusterInspector(cluster) as look,
            Clients.of_cluster("redis", cluster, protocol=2) as client,
        ):
            yield Deployment(look, client, cluster.url)
        return
    server: Server = request.getfixturevalue(f"{name.removesuffix(WITHOUT_SCRIPTS)}_server")
    with (
        Inspector(server) as inspector,
        _user(inspector, refuses=name.endswith(WITHOUT_SCRIPTS)) as login,
    ):
        url = f"redis://{login}{server.host}:{server.port}"
        with redis.Redis.from_url(url, protocol=2) as client:
            yield Deployment(inspector, client, url)


@contextmanager
def _user(inspector: Inspector, *, refuses: bool) -> Iterator[str]:
    """What a URL begins with for everybody, or for a user who may run no scripts."""
    if not refuses:
        yield ""
        return
    inspector.on_each(
        "ACL", "SETUSER", "scriptless", "reset", "on", ">secret", "~*", "+@all", "-@scripting"
    )
    yield "scriptless:secret@"
    inspector.on_each("ACL", "DELUSER", "scriptless")
