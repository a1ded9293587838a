"""A hundred thousand sessions: how much memory they take, and that none is left once expired.

``scripts/test tests/redis/test_many_sessions.py -s`` prints the figures. ``LUCIA_SESSIONS=1000000``
runs it with a million.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import redis.asyncio

from lucia._rules.sessions import SessionExpiry, new_session_row, system_clock
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.models import SessionRow
from tests.support.redis_inspectors import Inspector
from tools.servers import Server, own_server, until

pytestmark = pytest.mark.slow

COUNT: Final = int(os.environ.get("LUCIA_SESSIONS", "100000"))
PER_USER: Final = 4
TASKS: Final = 16
LONG: Final = timedelta(hours=1)
SHORT: Final = timedelta(seconds=8)

BROWSER: Final = {
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "address": "192.0.2.41",
}

CONTENTS: Final[Mapping[str, tuple[int, int, bool, Mapping[str, Any]]]] = {
    "as Lucia JS writes them": (COUNT, 450, False, {}),
    "with handle and time of creation": (COUNT // 4, 550, True, {}),
    "with user agent and address": (COUNT // 4, 700, True, BROWSER),
}
"""Number of sessions, bytes allowed for each, whether they have extra members, and metadata."""


def new_row(
    number: int,
    *,
    life: timedelta = LONG,
    extra: bool = True,
    metadata: Mapping[str, Any] = BROWSER,
) -> SessionRow:
    """Return a session as ``Auth`` makes it, with or without the members that Lucia JS lacks."""
    expiry = SessionExpiry(active=life / 2, idle=life / 2)
    session = new_session_row(f"user{number // PER_USER:011}", system_clock(), expiry, metadata)
    return session if extra else replace(session, attributes={})


async def create(server: Server, rows: Iterator[SessionRow]) -> None:
    """Store sessions from several tasks at once."""
    async with redis.asyncio.Redis(port=server.port, protocol=2) as client:
        adapter = AsyncRedisSessionAdapter(client)

        async def take_turns() -> None:
            for row in rows:
                await adapter.set_session(row)

        await asyncio.gather(*(take_turns() for _ in range(TASKS)))


def without_end(client: Any) -> list[bytes]:
    """Return the keys without a TTL."""
    found: list[bytes] = []
    cursor = -1
    while cursor:
        cursor, keys = client.scan(max(cursor, 0), count=1000)
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.pttl(key)
            found += [key for key, left in zip(keys, pipeline.execute(), strict=True) if left == -1]
    return found


@pytest.fixture(params=["redis-server", "valkey-server"])
def look(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inspector]:
    """Yield an inspector of a server that nobody else uses."""
    with own_server(request.param, tmp_path) as server, Inspector(server) as inspector:
        yield inspector


def memory(look: Inspector) -> int:
    """Return how many bytes the server uses."""
    return int(look.client.info("memory")["used_memory"])


async def test_memory_per_session_is_as_documented(look: Inspector) -> None:
    """A session with its index takes no more bytes than documented, and every key has a TTL."""
    lines = [machine(look)]
    for content, (count, most, extra, metadata) in CONTENTS.items():
        look.on_each("FLUSHALL", "SYNC")
        before, began = memory(look), time.monotonic()
        await create(
            look.server,
            (new_row(number, extra=extra, metadata=metadata) for number in range(count)),
        )
        seconds = time.monotonic() - began
        each = (memory(look) - before) / count
        rate = count / seconds
        lines.append(f"{count} sessions {content}: {each:.0f} bytes each, {rate:.0f} created/s")
        assert look.client.dbsize() == count + count // PER_USER
        assert without_end(look.client) == []
        assert each <= most
    sys.stdout.write("\n".join(["", *lines, ""]))


def machine(look: Inspector) -> str:
    """Describe what the figures were measured on."""
    information: Mapping[str, Any] = look.client.info("server")
    version = information.get("valkey_version", information["redis_version"])
    return (
        f"{look.server.kind} {version}, Python {sys.version.split()[0]}, "
        f"{os.cpu_count()} cores, {PER_USER} sessions per user"
    )


async def test_server_is_empty_after_last_expiry(look: Inspector) -> None:
    """When the last of many sessions has expired, the server has no keys."""
    count = COUNT // 10
    await create(look.server, (new_row(number, life=SHORT) for number in range(count)))
    assert look.client.dbsize() > 0
    assert without_end(look.client) == []
    until(lambda: look.client.dbsize() == 0, seconds=120)
