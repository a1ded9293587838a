"""The demo records the commands that its session adapter sends on its own connections."""

from collections.abc import AsyncIterator, Iterator

import pytest

from examples.demo.redis_view import Log, Recorded, RedisView
from lucia.adapters.redis import AsyncRedisSessionAdapter
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import row
from tools.servers import Server


@pytest.fixture
def inspector(redis_server: Server) -> Iterator[Inspector]:
    """Yield an inspector of an emptied server with a user that has a password."""
    with Inspector(redis_server) as found:
        found.on_each("ACL", "SETUSER", "demo", "reset", "on", ">pass", "~*", "+@all")
        yield found
        found.on_each("ACL", "DELUSER", "demo")


@pytest.fixture
async def view(redis_server: Server, inspector: Inspector) -> AsyncIterator[RedisView]:
    """Yield a view of the server, as that user."""
    found = RedisView.connect(redis_server.url.replace("//", "//demo:pass@"), "Redis", bytes(32))
    yield found
    await found.close()


async def live(adapter: AsyncRedisSessionAdapter, session_id: str) -> None:
    """Create, read and revoke a session."""
    await adapter.set_session(row(session_id))
    await adapter.get_session(session_id)
    await adapter.delete_session(session_id)


async def test_what_is_recorded_is_what_arrives(
    view: RedisView, inspector: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    """Commands and replies are recorded as the server gets and sends them, except handshakes."""
    async with AsyncRedisSessionAdapter(view.client) as adapter:
        await live(adapter, "one")
        before = view.log.count
        with inspector.watched() as arrived:
            await live(adapter, "two")
    recorded = view.log.since(before)
    assert [b" ".join(command.arguments).decode() for command in recorded] == [
        each for each in arrived if not each.startswith("lua ")
    ]
    assert [(command.name, type(command.reply)) for command in recorded] == [
        ("EVALSHA", int),
        ("MGET", list),
        ("EVALSHA", list),
        ("LREM", int),
    ]
    assert {command.name for command in view.log.commands} - {"EVAL"} == {"EVALSHA", "MGET", "LREM"}
    assert caplog.records == []


async def test_a_reply_that_never_came(view: RedisView) -> None:
    """A command that lost its reply is not recorded, and the next one gets its own reply."""
    connection = await view.client.connection_pool.get_connection()
    await connection.send_command("GET", "one")
    await connection.disconnect()
    await connection.connect()
    await connection.send_command("EXISTS", "two")
    await connection.read_response()
    assert [(command.name, command.reply) for command in view.log.commands] == [("EXISTS", 0)]
    await view.client.connection_pool.release(connection)


def test_the_log_is_bounded() -> None:
    """The log keeps the last commands, and returns those after a given position."""
    log = Log()
    for number in range(1_500):
        log.note(Recorded((b"GET", b"%d" % number), None))
    assert log.count == 1_500
    assert len(log.commands) == 1_000
    assert [command.keys for command in log.since(1_498)] == [("1498",), ("1499",)]
    assert log.since(1_500) == []
    assert log.since(0) == list(log.commands)
