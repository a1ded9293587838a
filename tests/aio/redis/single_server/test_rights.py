"""The minimal rights of a Redis user on one server."""

import pytest
import redis.exceptions

from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.aio.redis.single_server.test_errors import assert_fails
from tests.aio.support.redis_calls import every_call, use_every_method
from tests.support.acl_rights import LEAST_RIGHTS
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import Inspector
from tools.servers import Server


def allow(inspector: Inspector, commands: tuple[str, ...]) -> None:
    """Create a Redis user with only these commands, and only on the adapter's keys."""
    rights = [f"+{command}" for command in commands]
    inspector.client.execute_command(
        "ACL", "SETUSER", "app", "reset", "on", ">pass", "~session:*", "~userSession:*", *rights
    )


@pytest.mark.parametrize("kind", ["redis-py as it is", "redis-py, RESP2", "valkey-py as it is"])
async def test_least_rights(kind: str, server: Server, inspector: Inspector) -> None:
    """With the documented rights, every method works."""
    allow(inspector, LEAST_RIGHTS)
    inspector.client.script_flush()
    try:
        async with AsyncClients.make(kind, server, username="app", password="pass") as client:
            await use_every_method(AsyncRedisSessionAdapter(client), inspector)
    finally:
        inspector.client.acl_deluser("app")


@pytest.mark.parametrize("missing", LEAST_RIGHTS)
async def test_each_right_is_needed(missing: str, server: Server, inspector: Inspector) -> None:
    """Without any one of the documented rights, some method raises the client's own error."""
    allow(inspector, tuple(command for command in LEAST_RIGHTS if command != missing))
    inspector.client.script_flush()
    try:
        async with AsyncClients.make(
            "redis-py as it is", server, username="app", password="pass"
        ) as client:
            with pytest.raises(
                redis.exceptions.ResponseError, match=r"(?i)no.* permissions|NOPERM"
            ):
                await use_every_method(AsyncRedisSessionAdapter(client), inspector)
    finally:
        inspector.client.acl_deluser("app")


async def test_wrong_password(server: Server, inspector: Inspector) -> None:
    """A wrong password raises the client's own error."""
    allow(inspector, LEAST_RIGHTS)
    try:
        async with AsyncClients.make_hasty(server, username="app", password="wrong") as client:
            for call in every_call(AsyncRedisSessionAdapter(client)).values():
                await assert_fails(call, "AuthenticationError")
    finally:
        inspector.client.acl_deluser("app")
