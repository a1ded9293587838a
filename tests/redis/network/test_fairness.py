"""Connections are handed out in the order of requests."""

import json
import subprocess
import sys

import pytest

from tools.servers import Server

CONTROL = pytest.param(32, marks=pytest.mark.slow)


@pytest.mark.parametrize("connections", [4, CONTROL], ids=["few connections", "control"])
def test_greenlets_share_connections(connections: int, redis_server: Server) -> None:
    """Of 32 greenlets over four connections none starves, and all get similar shares."""
    module = "tests.redis.network.gevent_worker"
    command = [sys.executable, "-m", module, str(redis_server.port), "32", str(connections), "2"]
    worker = subprocess.run(command, check=True, capture_output=True, text=True)
    calls: list[list[int]] = json.loads(worker.stdout)
    succeeded, failed = [each for each, _ in calls], [each for _, each in calls]
    assert failed == [0] * 32
    assert min(succeeded) > max(succeeded) / 4
