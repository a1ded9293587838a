"""Call an adapter from many greenlets over few connections, and print what each of them got.

Usage: ``python -m tests.redis.network.gevent_worker PORT GREENLETS CONNECTIONS SECONDS``.

Prints JSON: a pair for each greenlet, of how many of its calls succeeded and how many failed.
"""

# ruff: noqa: E402
from gevent import monkey  # type: ignore[import-untyped]

monkey.patch_all()

import json
import sys
import time
from datetime import timedelta

import gevent
import redis

from lucia import StoreUnavailable
from lucia.adapters.redis import RedisSessionAdapter


def call_for(seconds: float, adapter: RedisSessionAdapter) -> tuple[int, int]:
    """Call the adapter for this many seconds; return how many calls succeeded and failed."""
    succeeded = failed = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            adapter.get_session("nobody")
            succeeded += 1
        except StoreUnavailable:
            failed += 1
    return succeeded, failed


def main(port: int, greenlets: int, connections: int, seconds: float) -> None:
    """Run all greenlets for this many seconds. The deadline of each call is half of that."""
    client = redis.Redis(port=port, max_connections=connections)
    with client, RedisSessionAdapter(client, deadline=timedelta(seconds=seconds / 2)) as adapter:
        calls = [gevent.spawn(call_for, seconds, adapter) for _ in range(greenlets)]
        gevent.joinall(calls, raise_error=True)
    sys.stdout.write(json.dumps([each.value for each in calls]))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
