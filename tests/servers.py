"""Real servers for the tests, one of each kind for a test process, on free ports: a pytest plugin.

A server that is not installed is an error, never a skip.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_redis import factories
from pytest_redis.executor import RedisExecutor

from tools.servers import Cluster, Kind, Server, own_cluster, path_of

__all__ = [
    "Cluster",
    "Server",
    "cluster",
    "old_redis_server",
    "redis_server",
    "server",
    "valkey_server",
]

redis_process = factories.redis_proc(executable=path_of("redis-server"))
old_redis_process = factories.redis_proc(
    executable=str(Path(sys.prefix, "bin", "redis-server-6.2"))
)
valkey_process = factories.redis_proc(executable=path_of("valkey-server"))


def _server(kind: Kind, process: RedisExecutor) -> Server:
    return Server(kind, str(process.host), int(process.port), Path(process.unixsocket))


@pytest.fixture(scope="session")
def redis_server(redis_process: RedisExecutor) -> Server:
    """A running ``redis-server``."""
    return _server("redis", redis_process)


@pytest.fixture(scope="session")
def old_redis_server(old_redis_process: RedisExecutor) -> Server:
    """A running ``redis-server`` 6.2, which ``scripts/setup`` installs beside the interpreter."""
    return _server("redis", old_redis_process)


@pytest.fixture(scope="session")
def valkey_server(valkey_process: RedisExecutor) -> Server:
    """A running ``valkey-server``."""
    return _server("valkey", valkey_process)


@pytest.fixture(scope="session", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of server in turn; ``parametrize`` it with ``old_redis`` for Redis 6.2."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture(params=[False, True], ids=["bytes", "str"])
def decode_responses(request: pytest.FixtureRequest) -> bool:
    """Both ways a client may give its answers; ``parametrize`` it to have one."""
    return bool(request.param)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of ``redis-server``, each with a third of the slots."""
    with own_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes
