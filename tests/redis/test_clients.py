"""Accepted clients, redacted errors, and processes with the same settings."""

import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis
import redis.asyncio
import valkey
import valkey.asyncio
from redis.cache import CacheConfig
from redis.cluster import LoadBalancingStrategy

from lucia._redis.commands import Batch, Call, DropConnections, Eval, Transaction
from lucia._redis.index import LIST
from lucia._redis.transport.client_errors import (
    is_no_script,
    is_wrong_type,
    redact,
    refuses_scripts,
)
from lucia._redis.transport.clients import is_cluster
from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from tests.support.redis_clients import AsyncClients, Clients
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import row
from tools.servers import Cluster, Server

SECRET = "s" * 40
OTHER = "t" * 40
KEY = f"session:{SECRET}"


@pytest.fixture
def inspector(redis_server: Server) -> Iterator[Inspector]:
    """Yield an inspector of an empty server."""
    with Inspector(redis_server) as found:
        yield found


# Accepted and refused clients


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: "redis://localhost",
        object,
        lambda: redis.ConnectionPool(),
        lambda: redis.Redis,
        lambda: redis.Redis().pipeline(),
        lambda: valkey.Valkey().pipeline(),
        lambda: redis.Redis(protocol=3, cache_config=CacheConfig()),
        redis.asyncio.Redis,
        valkey.asyncio.Valkey,
        lambda: redis.asyncio.RedisCluster(host="localhost"),
        lambda: valkey.asyncio.ValkeyCluster(host="localhost"),
    ],
)
def test_refused_clients(make: Callable[[], Any]) -> None:
    """The sync adapter refuses values that are no client, pipelines and async clients.

    It also refuses clients with a client-side cache.
    """
    with pytest.raises(TypeError):
        RedisSessionAdapter(make())


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: redis.asyncio.Redis().pipeline(),
        lambda: valkey.asyncio.Valkey().pipeline(),
        lambda: redis.asyncio.RedisCluster(host="localhost").pipeline(),
        lambda: redis.asyncio.RedisCluster(
            host="localhost", load_balancing_strategy=LoadBalancingStrategy.RANDOM_REPLICA
        ),
        lambda: valkey.asyncio.ValkeyCluster(host="localhost", read_from_replicas=True),
        redis.Redis,
        valkey.Valkey,
    ],
)
def test_refused_clients_of_the_other_flavour(make: Callable[[], Any]) -> None:
    """The async adapter refuses values that are no client, pipelines and sync clients.

    It also refuses clients that read from replicas.
    """
    with pytest.raises(TypeError):
        AsyncRedisSessionAdapter(make())


@pytest.mark.parametrize(
    ("adapter", "make", "words"),
    [
        (
            RedisSessionAdapter,
            object,
            "expected a Redis client such as redis.Redis or redis.asyncio.Redis, got object",
        ),
        (
            RedisSessionAdapter,
            redis.asyncio.Redis,
            "such as redis.Redis; for the Redis given here use AsyncRedisSessionAdapter",
        ),
        (
            AsyncRedisSessionAdapter,
            redis.Redis,
            "such as redis.asyncio.Redis; for the Redis given here use RedisSessionAdapter",
        ),
        (
            AsyncRedisSessionAdapter,
            lambda: valkey.asyncio.ValkeyCluster(host="localhost", read_from_replicas=True),
            "the ValkeyCluster given reads from replicas, .*: let it read from primaries",
        ),
        (
            RedisSessionAdapter,
            lambda: redis.Redis(protocol=3, cache_config=CacheConfig()),
            "has a client-side cache",
        ),
    ],
)
def test_refusals_say_what_to_do(adapter: type[Any], make: Callable[[], Any], words: str) -> None:
    """A refusal names what was given and what to give instead."""
    with pytest.raises(TypeError, match=words):
        adapter(make())


def test_accepted_clients() -> None:
    """Unconnected clients of both libraries and of Sentinel are accepted without a command."""
    sentinel: Any = Clients.sentinels["redis"]([("localhost", 1)])
    for client in (
        redis.Redis(port=1),
        redis.StrictRedis(port=1),
        valkey.Valkey(port=1),
        sentinel.master_for("x"),
    ):
        RedisSessionAdapter(client)
    later: Any = AsyncClients.sentinels["redis"]([("localhost", 1)])
    for waiting in (
        redis.asyncio.Redis(port=1),
        valkey.asyncio.Valkey(port=1),
        later.master_for("x"),
    ):
        AsyncRedisSessionAdapter(waiting)


@pytest.mark.parametrize(
    "options", [{"protocol": 3, "cache_config": CacheConfig()}, {"read_from_replicas": True}]
)
@pytest.mark.filterwarnings("ignore:.*read_from_replicas:DeprecationWarning")
def test_refused_cluster_clients(cluster: Cluster, options: dict[str, Any]) -> None:
    """A cluster client that may return stale data is refused."""
    with (
        redis.RedisCluster(host="127.0.0.1", port=cluster.ports[0], **options) as client,
        pytest.raises(TypeError, match="revoked sessions"),
    ):
        RedisSessionAdapter(client)


@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_cluster_clients(cluster: Cluster, library: str) -> None:
    """Cluster clients of both libraries and flavours are accepted; their pipelines are not."""
    with Clients.of_cluster(library, cluster) as client:
        RedisSessionAdapter(client)
        with pytest.raises(TypeError, match="expected a Redis client"):
            RedisSessionAdapter(client.pipeline())
    AsyncRedisSessionAdapter(AsyncClients.of_cluster(library, cluster))


@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_sentinels_client_of_replicas(library: str) -> None:
    """Sentinel's client for replicas is refused, in both libraries and flavours."""
    pairs: tuple[tuple[Any, Any], ...] = (
        (RedisSessionAdapter, Clients),
        (AsyncRedisSessionAdapter, AsyncClients),
    )
    for adapter, clients in pairs:
        sentinel = clients.sentinels[library]([("localhost", 1)])
        with pytest.raises(TypeError, match=r"reads from replicas, .*: let it read from primaries"):
            adapter(sentinel.slave_for("x"))


def test_no_client_library_is_imported() -> None:
    """Importing the adapter imports neither client library."""
    program = (
        "import sys, lucia.adapters.redis; print(sorted({'redis', 'valkey'} & sys.modules.keys()))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


def test_same_kinds_in_both_flavours() -> None:
    """The tests use the same kinds of clients in both flavours."""
    assert AsyncClients.kinds == Clients.kinds


# Errors


def shown(error: BaseException) -> str:
    """Return all text that a log of the error would show."""
    return (
        "".join(traceback.format_exception(error)) + repr(error) + "".join(map(repr, _chain(error)))
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "text",
    [
        f"ERR unknown key {KEY}",
        f"ERR '{SECRET}' and '{OTHER}'",
        (
            "ERR unknown command 'EVALSHA', "
            f"with args beginning with: 'abc' '2' '{KEY}' 'session:{OTHER[:20]}"
        ),
        (
            "ERR unknown command `EVALSHA`, "
            f"with args beginning with: `abc`, `2`, `session:{OTHER[:3]}"
        ),
    ],
)
def test_text_without_arguments(text: str) -> None:
    """A command's keys and arguments are redacted, even if the server truncated them."""
    error = redis.ResponseError(text)
    redact(
        error,
        Eval(
            LIST.scripts.create,
            (KEY, f"session:{OTHER}"),
            (SECRET.encode(), OTHER, 1_800_000_000_000),
        ),
    )
    assert "sss" not in str(error)
    assert "ttt" not in str(error)
    assert str(error).startswith("ERR ")


def test_text_with_short_words() -> None:
    """Short arguments such as numbers are not redacted."""
    error = redis.ResponseError("ERR value of LRANGE 0 is out of range", 0)
    redact(error, Call("LRANGE", (KEY, 0, -1)))
    assert error.args == ("ERR value of LRANGE 0 is out of range", 0)


def test_longer_secrets_first() -> None:
    """A key is redacted as a whole even if another argument is a part of it."""
    error = redis.ResponseError(f"ERR {KEY}")
    redact(error, Call("X", (SECRET, KEY)))
    assert str(error) == "ERR <redacted>"


def test_errors_behind_an_error() -> None:
    """Causes and contexts are redacted too, even if they form a circle."""
    error, cause, context = (
        redis.ConnectionError(f"1 {KEY}"),
        OSError(5, f"2 {KEY}"),
        ValueError(f"3 {KEY}"),
    )
    error.__cause__, cause.__context__, context.__context__ = cause, context, error
    redact(error, Call("MGET", (KEY,)))
    assert [each.args for each in (error, cause, context)] == [
        ("1 <redacted>",),
        (5, "2 <redacted>"),
        ("3 <redacted>",),
    ]


def test_command_without_arguments() -> None:
    """An error of ``DropConnections`` has no arguments to redact."""
    error = redis.ConnectionError(f"{SECRET}")
    redact(error, DropConnections())
    assert error.args == (SECRET,)


@pytest.mark.parametrize(
    "make",
    [lambda calls: Batch(calls), lambda calls: Transaction(calls)],
    ids=["batch", "transaction"],
)
def test_text_of_many_commands(make: Callable[[tuple[Call, ...]], Any]) -> None:
    """The arguments of all commands of a batch or transaction are redacted."""
    error = redis.ResponseError(f"ERR {KEY} {OTHER} LRANGE")
    redact(error, make((Call("LPUSH", (KEY,)), Call("LREM", (OTHER.encode(), 0)))))
    assert str(error) == "ERR <redacted> <redacted> LRANGE"


@pytest.mark.parametrize("cut", range(20, 60, 7))
def test_text_of_pipelines(cut: int) -> None:
    """The command that clients quote in a pipeline's error is removed as a whole.

    This holds wherever they truncate it, and if they quote it twice.
    """
    command = f"LPUSH userSession:u1 {SECRET}) of pipeline"[:cut]
    quoted = (
        "Command # 1 (x) of pipeline caused error: "
        f"Command # 1 ({command}... ) of pipeline caused error: "
    )
    error = redis.ResponseError(f"{quoted}WRONGTYPE")
    redact(error, Transaction((Call("LPUSH", ("userSession:u1", SECRET)),)))
    assert str(error) == "WRONGTYPE"
    assert is_wrong_type(error)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (
            "User app has no permissions to run the 'evalsha' command",
            True,
        ),  # Redis 7 and 8, Valkey 8
        (
            "this user has no permissions to run the 'evalsha' command or its subcommand",
            True,
        ),  # Redis 6.2
        ("unknown command 'EVALSHA', with args beginning with: 'abc'", True),
        ("unknown command `EVALSHA`, with args beginning with: `abc`, ", True),
        ("unknown command 'evalsha'", True),
        ("User app has no permissions to run the 'eval' command", False),
        ("User app has no permissions to run the 'set' command", False),
        ("ACL failure in script: User app has no permissions to run the 'set' command", False),
        ("No permissions to access a key", False),
        ("unknown command 'MGET', with args beginning with: 'evalsha'", False),
        ("NOSCRIPT No matching script. Please use EVAL.", False),
    ],
)
@pytest.mark.parametrize("library", [redis, valkey])
def test_refused_scripts(library: Any, text: str, refused: bool) -> None:
    """Refused scripts are recognised in every server version, and not other refusals."""
    assert refuses_scripts(library.ResponseError(text)) is refused
    assert refuses_scripts(library.exceptions.NoPermissionError(text)) is refused
    assert not refuses_scripts(library.ConnectionError(text))


def test_clusters_by_their_clients() -> None:
    """Cluster clients, and classes derived from them, are recognised."""

    class OwnCluster(redis.asyncio.RedisCluster):
        pass

    assert [
        is_cluster(client)
        for client in (OwnCluster(host="localhost"), valkey.asyncio.ValkeyCluster(host="localhost"))
    ] == [True, True]
    assert not is_cluster(redis.Redis())


@pytest.mark.parametrize("library", [redis, valkey])
def test_kinds_of_errors(library: Any) -> None:
    """NOSCRIPT and WRONGTYPE are recognised in both libraries' errors."""
    assert is_no_script(library.exceptions.NoScriptError("No matching script"))
    assert not is_no_script(library.ResponseError("ERR"))
    assert is_wrong_type(library.ResponseError("WRONGTYPE Operation against a key"))
    assert is_wrong_type(
        library.ResponseError("ERR Error running script: WRONGTYPE Operation against a key")
    )
    assert not is_wrong_type(library.ResponseError("ERR"))
    assert not is_wrong_type(ValueError("WRONGTYPE"))


def test_script_is_not_shown() -> None:
    """The repr of a script shows its name, not its text."""
    assert repr(LIST.scripts.create) == "Script(name='create')"


# Two processes

CHILD = """
import sys
import redis
from lucia.adapters.redis import RedisSessionAdapter
from lucia import SessionRow, LuciaError

port, call, own_id, end = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
adapter = RedisSessionAdapter(redis.Redis(port=port), namespaces={"session": "session"})
adapter.get_session("connect")
print("ready", flush=True)
sys.stdin.readline()
if call == "renew":
    successor = SessionRow(id=own_id, user_id="u1", active_expires=end - 1, idle_expires=end)
    renewed = adapter.renew_session("used", successor, grace=60_000)
    print(renewed and renewed.id)
elif call == "delete":
    print(adapter.delete_session("used"))
else:
    print(adapter.delete_sessions_by_user_id("u1"))
"""


def in_processes(inspector: Inspector, calls: Sequence[str]) -> list[str]:
    """Make each call in a process of its own, all at once, and return what they printed."""
    end = row("x").idle_expires
    commands = [
        [
            sys.executable,
            "-c",
            CHILD,
            str(inspector.server.port),
            call,
            f"successor-{number}",
            str(end),
        ]
        for number, call in enumerate(calls)
    ]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=30)[0].strip() for process in processes]


def test_two_processes_renew(inspector: Inspector) -> None:
    """Processes that renew one session at the same time get one successor."""
    with redis.Redis(port=inspector.server.port) as client:
        RedisSessionAdapter(client).set_session(row("used"))
        winners = in_processes(inspector, ["renew", "renew", "renew"])
    assert len(set(winners)) == 1
    assert inspector.live() == set(winners)
    inspector.check()


@pytest.mark.parametrize("other", ["delete", "delete all"])
def test_revocation_while_other_processes_renew(inspector: Inspector, other: str) -> None:
    """A session that is revoked while other processes renew it is revoked with its successor."""
    with redis.Redis(port=inspector.server.port) as client:
        RedisSessionAdapter(client).set_session(row("used"))
        in_processes(inspector, ["renew", other, "renew"])
    assert inspector.live() == set()
    inspector.check()


def test_processes_with_other_namespaces(inspector: Inspector) -> None:
    """Adapters with different namespaces do not see each other's sessions."""
    with redis.Redis(port=inspector.server.port) as client:
        one = RedisSessionAdapter(client)
        other = RedisSessionAdapter(
            client, namespaces={"session": "other", "user_session": "otherUsers"}
        )
        one.set_session(row("same"))
        assert other.get_session("same") is None
        other.set_session(row("same", "u2"))
        other.delete_sessions_by_user_id("u1")
        one.delete_session("unknown")
        assert inspector.keys() == {"session:same", "userSession:u1", "other:same", "otherUsers:u2"}
        other.delete_session("same")
    assert inspector.keys() == {"session:same", "userSession:u1"}
