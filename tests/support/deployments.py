"""The kinds of Redis deployment: a single server, a cluster, and a server without scripts."""

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
    """An emptied deployment, with a client and an inspector.

    Args:
        url: the URL for clients in other processes.
    """

    inspector: Inspector
    client: Any
    url: str


@contextmanager
def open_deployment(request: pytest.FixtureRequest, name: str) -> Iterator[Deployment]:
    """Open a deployment by its name.

    The name is ``cluster``, or the prefix of a server fixture's name, optionally with ``, no
    scripts``.
    """
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
    """Yield the login part of a URL: empty, or that of a user that may not run scripts."""
    if not refuses:
        yield ""
        return
    inspector.on_each(
        "ACL", "SETUSER", "scriptless", "reset", "on", ">secret", "~*", "+@all", "-@scripting"
    )
    yield "scriptless:secret@"
    inspector.on_each("ACL", "DELUSER", "scriptless")
