"""Real servers for the tests, one of each kind for a test process, on free ports: a pytest plugin.

A server that is not installed is an error, never a skip.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from pytest_redis import factories
from pytest_redis.executor import RedisExecutor

__all__ = ["Server", "redis_server", "server", "valkey_server"]


@dataclass(frozen=True)
class Server:
    """A running server that belongs to this test process alone, so that a test may flush it.

    Args:
        kind: which program it is.
        socket: its unix socket.
    """

    kind: Literal["redis", "valkey"]
    host: str
    port: int
    socket: Path

    @property
    def url(self) -> str:
        """What ``from_url`` of a Redis client takes."""
        return f"redis://{self.host}:{self.port}"

    @classmethod
    def of(cls, kind: Literal["redis", "valkey"], process: RedisExecutor) -> "Server":
        return cls(kind, str(process.host), int(process.port), Path(process.unixsocket))


def _path(program: str) -> str:
    """Where the program is; its bare name if it is nowhere, so that the fixture fails with it."""
    return shutil.which(program) or program


redis_process = factories.redis_proc(executable=_path("redis-server"))
valkey_process = factories.redis_proc(executable=_path("valkey-server"))


@pytest.fixture(scope="session")
def redis_server(redis_process: RedisExecutor) -> Server:
    """A running ``redis-server``."""
    return Server.of("redis", redis_process)


@pytest.fixture(scope="session")
def valkey_server(valkey_process: RedisExecutor) -> Server:
    """A running ``valkey-server``."""
    return Server.of("valkey", valkey_process)


@pytest.fixture(scope="session", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of server in turn."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture(params=[False, True], ids=["bytes", "str"])
def decode_responses(request: pytest.FixtureRequest) -> bool:
    """Both ways a client may give its answers; ``parametrize`` it to have one."""
    return bool(request.param)
