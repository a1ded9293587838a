"""Real Redis and Valkey servers: fixtures for one of each kind, and servers for a single test.

This is a pytest plugin. Each test process has its own servers, on free ports. A server that is not
installed is an error, never a skip.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
import redis
from pytest_redis import factories
from pytest_redis.executor import RedisExecutor
from redis.backoff import NoBackoff
from redis.retry import Retry

from tools.servers import (
    Cluster,
    Kind,
    Server,
    own_cluster,
    own_server,
    path_of,
    unused_port,
)

__all__ = [
    "cluster",
    "decode_responses",
    "frozen",
    "old_redis_process",
    "old_redis_server",
    "redis_process",
    "redis_server",
    "server",
    "shut_down",
    "silent_server",
    "tls_server",
    "valkey_process",
    "valkey_server",
    "without_tls",
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
    """Return a running ``redis-server``."""
    return _server("redis", redis_process)


@pytest.fixture(scope="session")
def old_redis_server(old_redis_process: RedisExecutor) -> Server:
    """Return a running ``redis-server`` 6.2, which ``scripts/setup`` installs into the venv."""
    return _server("redis", old_redis_process)


@pytest.fixture(scope="session")
def valkey_server(valkey_process: RedisExecutor) -> Server:
    """Return a running ``valkey-server``."""
    return _server("valkey", valkey_process)


@pytest.fixture(scope="session", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Server:
    """Return each kind of server in turn; parametrize it with ``old_redis`` for Redis 6.2."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture(params=[False, True], ids=["bytes", "str"])
def decode_responses(request: pytest.FixtureRequest) -> bool:
    """Return both settings of a client in turn; parametrize it for a single one."""
    return bool(request.param)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield a cluster of three ``redis-server`` nodes, with a third of the slots each."""
    with own_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@contextmanager
def silent_server() -> Iterator[Server]:
    """Yield a server that accepts connections and never answers."""
    with create_server(("127.0.0.1", 0)) as listening:
        yield Server("redis", "127.0.0.1", int(listening.getsockname()[1]), Path("/nowhere"))


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stop a server's process: connections are still accepted, but nothing replies."""
    client: Any
    with redis.Redis(port=server.port) as client:
        process = int(client.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[Server, Path]]:
    """Start a server with a TLS port, and yield the server at that port and its certificate."""
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
    """Return the same server at its port without TLS; its socket file is named after that port."""
    return Server(server.kind, server.host, int(server.socket.stem), server.socket)


def shut_down(port: int) -> None:
    """Shut a server down, without retrying when the connection is lost."""
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
        client.shutdown(nosave=True)
