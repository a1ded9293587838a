"""The Redis session adapter in a cluster and on servers that refuse scripts."""

import time
from collections.abc import AsyncIterator, Callable, Generator
from datetime import timedelta
from functools import partial
from typing import Any, Final

import pytest
import redis.exceptions
import valkey.exceptions

from lucia import AsyncAuth, Session
from lucia._async.stores.redis.driver import AsyncRedisDriver
from lucia._compat.pause import AsyncPause
from lucia._redis.cluster import ScriptedSteps
from lucia._redis.commands import Call, Operation, Transaction
from lucia._redis.records import encode_row
from lucia._testing.racing_calls import AsyncRacingCalls
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.errors import ConcurrentlyRevoked, StoreCorrupt
from tests.aio.support.redis_calls import (
    OTHER_SECRET,
    REVOCATIONS,
    SECRET,
    WRITES,
    add,
    assert_hides_ids,
    every_call,
    forgetting_driver,
    ids,
    renew,
    use_every_method,
)
from tests.aio.support.rendezvous import AsyncRendezvousDriver, AsyncSlowBatchDriver
from tests.model.controls import CreateThenDelete, LuciaJsProtocol, SurplusBeforeCreate
from tests.support.acl_rights import LEAST_RIGHTS, LEAST_RIGHTS_CLUSTER, LEAST_RIGHTS_PLAIN
from tests.support.redis_clients import AsyncClients
from tests.support.redis_inspectors import DEFAULT, ClusterInspector, Inspector
from tests.support.sessions import row
from tools.servers import Server, own_server

# redis-py 7's cluster clients cause deprecation warnings themselves.
pytestmark = [
    pytest.mark.no_cover,
    pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning"),
]

MINUTE: Final = 60_000
KEYS: Final = ("~session:*", "~userSession:*")
EVERYTHING_BUT_SCRIPTS: Final = ("~*", "+@all", "-@scripting")

KINDS: Final = (
    "cluster of redis",
    "cluster of redis, text",
    "cluster of valkey",
    "redis",
    "valkey, text",
    "cluster of redis, no scripts",
)
"""Clusters with the clients of both libraries, and both kinds of server without scripts."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return each kind of deployment."""
    return str(request.param)


@pytest.fixture
def inspector(kind: str, request: pytest.FixtureRequest) -> Generator[Inspector, None, None]:
    """Yield an inspector of the emptied deployment."""
    if kind.startswith("cluster"):
        with ClusterInspector(request.getfixturevalue("cluster")) as found:
            yield found
    else:
        with Inspector(request.getfixturevalue(f"{kind.partition(',')[0]}_server")) as found:
            yield found


def allow(inspector: Inspector, *rights: str) -> None:
    """Create the Redis user "app" with these rights, on each node."""
    inspector.on_each("ACL", "SETUSER", "app", "reset", "on", ">pass", *rights)


def make_client(kind: str, inspector: Inspector) -> Any:
    """Return a client of the deployment for this user."""
    options: dict[str, Any] = {
        "username": "app",
        "password": "pass",
        "decode_responses": "text" in kind,
    }
    if isinstance(inspector, ClusterInspector):
        return AsyncClients.of_cluster(
            "valkey" if "valkey" in kind else "redis", inspector.cluster, **options
        )
    return AsyncClients.make(f"{inspector.server.kind}-py as it is", inspector.server, **options)


def has_scripts(kind: str) -> bool:
    """Return whether scripts are allowed in this kind of deployment."""
    return "no scripts" not in kind and (kind.startswith("cluster") or "scripts" in kind)


@pytest.fixture
async def client(kind: str, inspector: Inspector) -> AsyncIterator[Any]:
    """Yield a client with all rights, except scripts where they are to be refused."""
    allow(inspector, *(("~*", "+@all") if has_scripts(kind) else EVERYTHING_BUT_SCRIPTS))
    async with make_client(kind, inspector) as found:
        yield found
    inspector.on_each("ACL", "DELUSER", "app")


@pytest.fixture
async def adapter(client: Any) -> AsyncIterator[AsyncRedisSessionAdapter]:
    """Yield an adapter with a long deadline, for many concurrent calls on a busy machine."""
    async with AsyncRedisSessionAdapter(client, deadline=timedelta(seconds=30)) as adapter:
        yield adapter


of_one_kind = pytest.mark.parametrize("kind", ["cluster of redis"])
of_servers = pytest.mark.parametrize("kind", ["redis", "valkey, text"])


# Every method


async def test_every_method(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """Every method works, leaves no key without a TTL, and each session in its index."""
    await use_every_method(adapter, inspector)


async def test_sign_out_everywhere(adapter: AsyncRedisSessionAdapter, inspector: Inspector) -> None:
    """More sessions than fit into a batch are revoked, except the one to keep and other users'."""
    await add(adapter, "foreign", user_id="u2")
    for number in range(520):
        inspector.write(row(f"s{number}"))
    inspector.client.lpush("userSession:u1", *(f"s{number}" for number in range(520)))
    inspector.client.expire("userSession:u1", 7_200)
    assert await adapter.delete_other_sessions("u1", "s300") is True
    assert inspector.live() == {"foreign", "s300"}
    inspector.check()
    await adapter.delete_sessions_by_user_id("u1")
    assert inspector.live() == {"foreign"}
    assert inspector.index() == []


@pytest.mark.parametrize("grace", [0, MINUTE])
async def test_renewals_at_once(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, grace: int
) -> None:
    """Concurrent renewals store one successor: all calls get it within the grace, else one does."""
    await add(adapter, "used", "other")
    outcomes = await AsyncRacingCalls.gather_results(
        *(partial(renew, adapter, "used", f"new{number}", grace) for number in range(16))
    )
    (winner,) = inspector.live() - {"other"}
    assert outcomes.count(winner) == (16 if grace else 1)
    assert set(outcomes) == ({winner} if grace else {winner, None})
    assert await adapter.get_session("used") is None
    inspector.check()


# Unknown and refused scripts


@of_one_kind
async def test_scripts_that_one_node_forgot(
    adapter: AsyncRedisSessionAdapter, inspector: ClusterInspector
) -> None:
    """A script that one node does not have is sent to this node in full."""
    for number in range(9):
        inspector.nodes[number % 3].script_flush()
        await add(adapter, f"a{number}", f"b{number}", user_id=f"u{number}")
        inspector.nodes[(number + 1) % 3].script_flush()
        assert (
            await adapter.renew_session(f"a{number}", row(f"c{number}", f"u{number}"), grace=MINUTE)
            is not None
        )
        inspector.nodes[(number + 2) % 3].script_flush()
        assert await adapter.delete_other_sessions(f"u{number}", f"a{number}") is True
        inspector.check()
    assert inspector.live() == {f"c{number}" for number in range(9)}
    assert inspector.calls("script|load") == 0


@of_one_kind
async def test_scripts_that_all_nodes_forget_at_once(client: Any, inspector: Inspector) -> None:
    """Every method works even if the scripts are flushed before each command."""
    adapter = AsyncRedisSessionAdapter(client)
    adapter._driver = forgetting_driver(client, inspector)
    await use_every_method(adapter, inspector)


async def test_one_attempt(
    kind: str, adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """If scripts are refused, only one is tried; from then on, only plain commands are sent."""
    inspector.on_each("CONFIG", "RESETSTAT")
    inspector.on_each("ACL", "LOG", "RESET")
    await adapter.get_session("x")
    await adapter.get_successor("x")
    await adapter.delete_session("unknown")
    await add(adapter, "a", "b")
    await renew(adapter, "a", "c")
    await adapter.delete_sessions_by_user_id("u1")
    assert inspector.live() == set()
    nodes = inspector.nodes if isinstance(inspector, ClusterInspector) else [inspector.client]
    refused = [entry["object"] for node in nodes for entry in node.acl_log()]
    rejected = sum(
        node.info("commandstats").get("cmdstat_evalsha", {"rejected_calls": 0})["rejected_calls"]
        for node in nodes
    )
    if has_scripts(kind):
        assert (refused, inspector.calls("evalsha") > 0) == ([], True)
    else:
        assert (refused, rejected, inspector.calls("evalsha"), inspector.calls("eval")) == (
            ["evalsha"],
            1,
            0,
            0,
        )


@pytest.mark.parametrize("method", [*WRITES, *REVOCATIONS])
async def test_refused_in_any_method(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, method: str
) -> None:
    """Any method can be the first to find scripts refused, and still does its work once."""
    inspector.write(session := row(SECRET, handle="h"))
    inspector.client.lpush("userSession:u1", SECRET)
    inspector.client.pexpireat("userSession:u1", session.idle_expires + MINUTE)
    await every_call(adapter)[method]()
    both = {SECRET, OTHER_SECRET}
    expected = {
        "set_session": both,
        "set_session_capped": both,
        "renew_session": {OTHER_SECRET},
        "delete_other_sessions": {SECRET},
    }
    assert inspector.live() == expected.get(method, set())
    inspector.check()
    assert ids(await adapter.get_sessions_by_user_id("u1")) == [
        id_ for id_ in (OTHER_SECRET, SECRET) if id_ in inspector.live()
    ]


@pytest.mark.parametrize("program", ["redis-server", "valkey-server"])
async def test_server_that_has_no_scripts(
    program: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A server without the commands for scripts is treated like one that refuses them."""
    renamed = [word for name in ("EVALSHA", "EVAL") for word in ("--rename-command", name, "")]
    with (
        own_server(program, tmp_path_factory.mktemp("server"), *renamed) as server,
        Inspector(server) as inspector,
    ):
        async with AsyncClients.make("redis-py as it is", server) as client:
            await use_every_method(AsyncRedisSessionAdapter(client), inspector)


@pytest.mark.parametrize("server", ["old_redis"], indirect=True)
@pytest.mark.parametrize("decode_responses", [False])
async def test_old_server_without_scripts(server: Server, scriptless_client: Any) -> None:
    """On Redis 6.2 without scripts, a login raises the client's error and leaves nothing."""
    with pytest.raises(redis.exceptions.ResponseError, match="pexpireat"):
        await AsyncRedisSessionAdapter(scriptless_client).set_session(row(SECRET))
    with Inspector.looking_at(server) as inspector:
        assert inspector.keys() == set()


@of_servers
async def test_evalsha_without_eval(inspector: Inspector, kind: str) -> None:
    """A user with EVALSHA but without EVAL gets the client's own error.

    Such a server is not treated as one without scripts.
    """
    allow(
        inspector,
        *KEYS,
        *(f"+{right}" for right in (*LEAST_RIGHTS, *LEAST_RIGHTS_PLAIN) if right != "eval"),
        "-eval",
    )
    inspector.client.script_flush()
    async with make_client(kind, inspector) as client:
        with pytest.raises(
            (redis.exceptions.NoPermissionError, valkey.exceptions.NoPermissionError),
            match="'eval'",
        ):
            await add(AsyncRedisSessionAdapter(client), "one")
    inspector.on_each("ACL", "DELUSER", "app")
    assert inspector.keys() == set()


# Rights


def rights_for(kind: str) -> tuple[str, ...]:
    """Return the minimal rights in this kind of deployment."""
    if not kind.startswith("cluster"):
        return LEAST_RIGHTS_PLAIN
    return (
        LEAST_RIGHTS_CLUSTER
        if has_scripts(kind)
        else (*LEAST_RIGHTS_PLAIN, "cluster|slots", "command", "asking")
    )


@pytest.mark.parametrize(
    "kind",
    [
        "cluster of redis",
        "cluster of valkey",
        "redis",
        "valkey, text",
        "cluster of redis, no scripts",
    ],
)
async def test_least_rights(kind: str, inspector: Inspector) -> None:
    """With the documented rights, every method works."""
    allow(inspector, *KEYS, *(f"+{right}" for right in rights_for(kind)))
    inspector.on_each("SCRIPT", "FLUSH")
    async with make_client(kind, inspector) as client:
        await use_every_method(AsyncRedisSessionAdapter(client), inspector)
    inspector.on_each("ACL", "DELUSER", "app")


REFUSALS: Final = (
    redis.exceptions.RedisError,
    redis.exceptions.RedisClusterException,
    valkey.exceptions.ValkeyError,
    valkey.exceptions.ValkeyClusterException,
)


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        # ASKING is needed only while a slot moves: tests/redis/cluster/test_removed_nodes.py.
        *(("cluster of redis", right) for right in LEAST_RIGHTS_CLUSTER if right != "asking"),
        *(("redis", right) for right in LEAST_RIGHTS_PLAIN),
        *(("valkey, text", right) for right in LEAST_RIGHTS_PLAIN),
    ],
)
async def test_each_right_is_needed(kind: str, missing: str, inspector: Inspector) -> None:
    """Without any one of the documented rights, some method raises the client's own error."""
    allow(inspector, *KEYS, *(f"+{right}" for right in rights_for(kind) if right != missing))
    inspector.on_each("SCRIPT", "FLUSH")
    with pytest.raises(REFUSALS):
        async with make_client(kind, inspector) as client:
            await use_every_method(AsyncRedisSessionAdapter(client), inspector)
    inspector.on_each("ACL", "DELUSER", "app")


@pytest.mark.parametrize("kind", ["cluster of redis", "redis"])
@pytest.mark.parametrize("missing", KEYS)
async def test_each_key_pattern_is_needed(kind: str, missing: str, inspector: Inspector) -> None:
    """Without the right to either kind of key, a login raises an error and leaves nothing."""
    allow(
        inspector,
        *(key for key in KEYS if key != missing),
        *(f"+{right}" for right in rights_for(kind)),
    )
    async with make_client(kind, inspector) as client:
        with pytest.raises(redis.exceptions.NoPermissionError):
            await add(AsyncRedisSessionAdapter(client), SECRET)
    inspector.on_each("ACL", "DELUSER", "app")
    assert inspector.keys() == set()


# Errors


async def test_errors_in_transactions(client: Any, inspector: Inspector) -> None:
    """An error of one command in a transaction shows no argument of any of them."""
    inspector.client.set("userSession:u1", "garbage")
    push = Transaction(
        (
            Call("LPUSH", ("userSession:u1", SECRET)),
            Call("LREM", ("userSession:u1", 0, OTHER_SECRET)),
        )
    )
    with pytest.raises(StoreCorrupt) as raised:
        await AsyncRedisDriver(client).run(sent(push))
    assert_hides_ids(raised.value)
    assert "WRONGTYPE" in str(raised.value.__cause__)
    assert "LPUSH" not in str(raised.value.__cause__)


def sent(command: Call | Transaction) -> Operation[Any]:
    """Return an operation of one command."""
    return (yield command)


async def test_errors_reach_the_operation(client: Any, inspector: Inspector) -> None:
    """The client's error is raised in the operation, which may catch it and go on.

    If the operation does not catch it, the caller gets the same object.
    """
    caught: list[Exception] = []

    def operation() -> Operation[Any]:
        try:
            yield Call("LRANGE", ("session:x", "no number", SECRET))
        except Exception as error:
            caught.append(error)
        assert (yield Call("MGET", ("session:x",))) == [b"x"]
        try:
            yield Call("LRANGE", ("session:x", 0, -1))
        except StoreCorrupt as error:
            caught.append(error)
            raise

    inspector.client.set("session:x", "x")
    with pytest.raises(StoreCorrupt) as raised:
        await AsyncRedisDriver(client).run(operation())
    assert raised.value is caught[1]
    assert isinstance(caught[0], (redis.exceptions.ResponseError, valkey.exceptions.ResponseError))
    assert_hides_ids(*caught)


async def test_index_of_another_type(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """An index of another type is StoreCorrupt, without an id, and nothing of a login is left.

    The session can still be revoked.
    """
    await add(adapter, SECRET)
    inspector.client.delete("userSession:u1")
    inspector.client.set("userSession:u1", "garbage")
    before = inspector.census()
    for method in (
        *WRITES,
        "get_sessions_by_user_id",
        "delete_sessions_by_user_id",
        "delete_other_sessions",
    ):
        with pytest.raises(StoreCorrupt) as raised:
            await every_call(adapter)[method]()
        assert_hides_ids(raised.value)
        assert inspector.census() == before
    with pytest.raises(StoreCorrupt):
        await adapter.delete_session(SECRET)
    assert inspector.live() == set()


async def test_server_without_memory(
    kind: str, adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Without memory, a server refuses logins, and nothing is changed.

    Revocations still revoke, but without scripts they raise an error, since they can't write a
    tombstone.
    """
    await add(adapter, SECRET, "other")
    before = inspector.census()
    inspector.on_each("CONFIG", "SET", "maxmemory", "1")
    try:
        for method in WRITES:
            with pytest.raises(REFUSALS, match="maxmemory") as raised:
                await every_call(adapter)[method]()
            assert_hides_ids(raised.value)
        assert inspector.census() == before
        assert await adapter.get_session(SECRET) is not None
        for end in (
            partial(adapter.delete_session, SECRET),
            partial(adapter.delete_sessions_by_user_id, "u1"),
        ):
            if has_scripts(kind):
                await end()
            else:
                with pytest.raises(REFUSALS, match="maxmemory"):
                    await end()
        assert inspector.live() == set()
    finally:
        inspector.on_each("CONFIG", "SET", "maxmemory", "0")


# Connections


async def test_record_of_another_session(
    kind: str, client: Any, adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Another session's record under an id's key is never returned.

    The idle connections are closed, and the client still works.
    """
    for number in range(6):
        await add(adapter, f"s{number}", user_id=f"u{number}")
    inspector.client.set("session:mine", encode_row(row(SECRET, "u2")), ex=60)
    before = ids_of_connections(inspector)
    for _ in range(3):
        assert await adapter.get_session("mine") is None
    assert not before <= ids_of_connections(inspector)
    for number in range(6):
        assert await adapter.get_session(f"s{number}") is not None
        assert (
            await adapter.renew_session(f"s{number}", row(f"n{number}", f"u{number}"), grace=MINUTE)
            is not None
        )


def ids_of_connections(inspector: Inspector) -> set[tuple[int, str]]:
    """Return the connections of the user on all nodes."""
    nodes = inspector.nodes if isinstance(inspector, ClusterInspector) else [inspector.client]
    clients = [(number, each) for number, node in enumerate(nodes) for each in node.client_list()]
    return {(number, each["id"]) for number, each in clients if each["user"] == "app"}


# Concurrent calls


ROUNDS: Final = 12
"""The rounds of a game, each with other start times; a control fails in a few of them."""

MOST_ROUNDS: Final = 50 * ROUNDS
"""The most rounds of a control: on a busy machine, few of them interleave as needed."""


def begin_at(number: int, who: int, bound: int) -> int:
    """Return when a caller starts in a round, in milliseconds."""
    return (7 * number + 5 * who) % bound


async def play(adapter: AsyncRedisSessionAdapter, inspector: Inspector, number: int) -> set[str]:
    """Run concurrent logins and revocations for one user, and return what is wrong afterwards."""
    user_id = f"u{number}"
    returned: dict[str, float] = {}
    began: list[float] = []

    async def log_in(session_id: str, pause: int) -> None:
        await AsyncPause.seconds(pause / 1_000)
        try:
            await adapter.set_session(row(session_id, user_id))
        except ConcurrentlyRevoked:
            return
        returned[session_id] = time.monotonic()

    async def sign_out(pause: int) -> None:
        await AsyncPause.seconds(pause / 1_000)
        began.append(time.monotonic())
        await adapter.delete_sessions_by_user_id(user_id)

    logins = [partial(log_in, f"{user_id}-{each}", begin_at(number, each, 6)) for each in range(6)]
    await AsyncRacingCalls.gather_results(
        *logins, *(partial(sign_out, begin_at(number, each, 8)) for each in range(3))
    )
    return wrong_after(inspector, user_id, returned, max(began))


def wrong_after(
    inspector: Inspector, user_id: str, returned: dict[str, float], last: float
) -> set[str]:
    """Return sessions that survived the last revocation, or that are in no index."""
    live = {id_ for id_ in returned if inspector.client.exists(DEFAULT.session_key(id_))}
    survived = {f"{id_} survived" for id_ in live if returned[id_] < last}
    return survived | {f"{id_} is not in its index" for id_ in live - set(inspector.index(user_id))}


async def play_renewals(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector, number: int
) -> set[str]:
    """Run concurrent renewals and one revocation for one user, and return the live sessions."""
    user_id = f"u{number}"
    used = [f"{user_id}-{each}" for each in range(6)]
    await add(adapter, *used, user_id=user_id)

    async def renew_one(used_id: str, pause: int) -> None:
        await AsyncPause.seconds(pause / 1_000)
        for turn in range(2):
            await adapter.renew_session(used_id, row(f"{used_id}-{turn}", user_id), grace=MINUTE)
            used_id = f"{used_id}-{turn}"

    async def sign_out(pause: int) -> None:
        await AsyncPause.seconds(pause / 1_000)
        await adapter.delete_sessions_by_user_id(user_id)

    renewals = [partial(renew_one, each, begin_at(number, who, 4)) for who, each in enumerate(used)]
    await AsyncRacingCalls.gather_results(*renewals, partial(sign_out, begin_at(number, 1, 6)))
    return {id_ for id_ in inspector.live() if id_.startswith(f"{user_id}-")}


Play = Callable[[AsyncRedisSessionAdapter, Inspector, int], Any]


@pytest.mark.parametrize(
    "kind",
    ["redis, scripts", "cluster of redis", "cluster of redis, no scripts", "redis", "valkey, text"],
)
@pytest.mark.parametrize("game", [play, play_renewals])
@pytest.mark.parametrize("driver", [AsyncRedisDriver, AsyncSlowBatchDriver])
async def test_concurrent_calls_keep_invariants(
    client: Any,
    adapter: AsyncRedisSessionAdapter,
    inspector: Inspector,
    game: Play,
    driver: type[AsyncRedisDriver],
) -> None:
    """Of concurrent calls, a revocation leaves no session from before, and all are indexed."""
    adapter._driver = driver(client)
    for number in range(ROUNDS):
        assert await game(adapter, inspector, number) == set()
    inspector.check()


@pytest.mark.parametrize("kind", ["cluster of redis", "cluster of redis, no scripts", "redis"])
async def test_fifty_logins_at_once(
    adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """50 concurrent logins with a limit of 5 leave exactly 5 once all have returned.

    Later logins, and concurrent renewals of one of them, keep the limit.
    """
    auth = AsyncAuth(sessions=adapter, env="DEV", max_sessions_per_user=5)
    await auth.create_session("u1")
    logins = await AsyncRacingCalls.gather_results(*[partial(auth.create_session, "u1")] * 50)
    assert [type(login) for login in logins] == [Session] * 50
    assert len(inspector.live()) == 5
    last = await auth.create_session("u1")
    outcomes = await AsyncRacingCalls.gather_results(
        *[partial(auth.renew_session, last.session_id)] * 5,
        *[partial(auth.create_session, "u1")] * 4,
    )
    renewed = {outcome.session_id for outcome in outcomes[:5] if isinstance(outcome, Session)}
    assert len(renewed) == 1
    assert renewed < inspector.live()
    assert len(inspector.live()) == 5
    inspector.check()


@of_one_kind
async def test_control_surplus_before_create_exceeds_cap(
    client: Any, adapter: AsyncRedisSessionAdapter, inspector: Inspector
) -> None:
    """Control: checking the limit before the session is in the index leaves too many."""
    adapter._store, adapter._driver = (
        SurplusBeforeCreate(DEFAULT, ScriptedSteps()),
        AsyncRendezvousDriver(client, 50),
    )
    auth = AsyncAuth(sessions=adapter, env="DEV", max_sessions_per_user=5)
    await AsyncRacingCalls.gather_results(*[partial(auth.create_session, "u1")] * 50)
    assert len(inspector.live()) > 5


@pytest.mark.parametrize("kind", ["redis, scripts", "cluster of redis"])
@pytest.mark.parametrize(
    ("game", "control"),
    [(play, LuciaJsProtocol), (play_renewals, CreateThenDelete)],
    ids=["logins", "renewals"],
)
async def test_control_wrong_protocols_fail_under_load(
    client: Any, adapter: AsyncRedisSessionAdapter, inspector: Inspector, game: Play, control: Any
) -> None:
    """Control: the games detect the protocol of Lucia JS, and a renewal without a marker."""
    adapter._store, adapter._driver = (
        control(DEFAULT, ScriptedSteps()),
        AsyncSlowBatchDriver(client),
    )
    played = wrong = 0
    while wrong <= ROUNDS // 4 and played < MOST_ROUNDS:
        wrong += bool(await game(adapter, inspector, played))
        played += 1
    assert wrong > ROUNDS // 4
