"""The commands that a request sends to Redis, and what happens during an outage."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Iterator
from pathlib import Path
from time import sleep

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lucia import AsyncAuth, AsyncAuthRequest, StoreUnavailable, User, UserRow
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.middleware.asgi import LuciaMiddleware
from lucia.middleware.starlette import StarletteAuth
from tests.web.driver import Act, SentResponse, Time, get, log_in, post, respond, served, validate

OURS = frozenset(
    {
        "info",
        "config|resetstat",
        "hello",
        "client|setinfo",
        "client|setname",
        "auth",
        "select",
        "ping",
    }
)
"""Commands of the test itself, and of a client that connects."""


@pytest.fixture
def redis_auth(redis: Redis, store: AsyncMemoryAdapter, time: Time) -> AsyncAuth[User]:
    """Return an auth with its sessions in Redis and its users in memory."""
    return AsyncAuth(users=store, sessions=AsyncRedisSessionAdapter(redis), env="DEV", clock=time)


async def commands_of(
    redis: Redis, request: Awaitable[SentResponse]
) -> tuple[SentResponse, dict[str, int]]:
    """Return the response to a request, and the number of calls of each command for it."""
    await redis.config_resetstat()
    answer = await request
    found: dict[str, dict[str, int]] = await redis.info("commandstats")
    counts = {
        name.removeprefix("cmdstat_").lower(): int(each["calls"]) for name, each in found.items()
    }
    return answer, {name: calls for name, calls in counts.items() if name not in OURS}


async def ask_often(request: AsyncAuthRequest[User]) -> None:
    """Ask for the session and the user, concurrently and repeatedly."""
    sessions, users = await asyncio.gather(
        asyncio.gather(*(request.validate() for _ in range(5))),
        asyncio.gather(*(request.validate_user() for _ in range(5))),
    )
    assert {user and user.session.session_id for user in users} == {
        session and session.session_id for session in sessions
    }
    assert await request.validate_user() is users[0]
    assert await request.validate() is sessions[0]


@pytest.mark.parametrize(
    "cookie",
    [
        None,
        "",
        "x",
        "0" * 39,
        "0" * 41,
        "é" * 40,
        "0" * 39 + "-",
        "0" * 20_000,
        "*",
        "0" * 39 + "%",
    ],
)
async def test_malformed_id_sends_no_command(
    redis: Redis, redis_auth: AsyncAuth[User], cookie: str | None
) -> None:
    """Without a cookie, or with one that can't be a session id, no command is sent."""
    answer, commands = await commands_of(
        redis, get(LuciaMiddleware(respond(redis_auth, ask_often), auth=redis_auth), cookie)
    )
    assert commands == {}
    assert answer.headers == [("vary", "Cookie")]


async def test_a_foreign_request_costs_no_command(
    redis: Redis, redis_auth: AsyncAuth[User]
) -> None:
    """The cookie of a cross-site request is not looked up."""
    session_id = await log_in(redis_auth)
    app = LuciaMiddleware(respond(redis_auth, ask_often), auth=redis_auth)
    _, commands = await commands_of(
        redis, post(app, session_id, [("origin", "https://evil.example")])
    )
    assert commands == {}


async def test_a_malformed_bearer_costs_no_command(
    redis: Redis, redis_auth: AsyncAuth[User]
) -> None:
    """A malformed bearer token, or one without an id, is not looked up."""
    app = LuciaMiddleware(respond(redis_auth, ask_often), auth=redis_auth, transport="bearer")
    for header in ("Bearer", "Bearer x", f"Basic {'0' * 40}"):
        _, commands = await commands_of(redis, get(app, None, [("authorization", header)]))
        assert commands == {}


class CountingUsers(AsyncMemoryAdapter):
    """Users in memory that count their lookups."""

    lookups = 0

    async def get_user(self, user_id: str, /) -> UserRow | None:
        """Count the lookup, and return the user."""
        self.lookups += 1
        return await super().get_user(user_id)


async def test_the_user_is_looked_up_once_a_request(redis: Redis, time: Time) -> None:
    """A request looks up the session and the user once each, whichever is asked for first."""
    users = CountingUsers(clock=time)
    auth = AsyncAuth(users=users, sessions=AsyncRedisSessionAdapter(redis), env="DEV", clock=time)
    user = await auth.create_user(primary_key=None)
    session_id = await log_in(auth, user.user_id)

    async def user_first(request: AsyncAuthRequest[User]) -> None:
        both = await request.validate_user()
        assert both is not None
        assert both.user == user
        await ask_often(request)

    for act in (ask_often, user_first):
        users.lookups = 0
        _, commands = await commands_of(
            redis, get(LuciaMiddleware(respond(auth, act), auth=auth), session_id)
        )
        assert (commands, users.lookups) == ({"mget": 1}, 1)


@pytest.mark.parametrize("act", [validate, ask_often], ids=["once", "often"])
async def test_an_active_session_costs_one_read(
    redis: Redis, redis_auth: AsyncAuth[User], act: Act
) -> None:
    """A request with an active session costs one command, no write, and no header."""
    user = await redis_auth.create_user(primary_key=None)
    session_id = await log_in(redis_auth, user.user_id)
    answer, commands = await commands_of(
        redis, get(LuciaMiddleware(respond(redis_auth, act), auth=redis_auth), session_id)
    )
    assert commands == {"mget": 1}
    assert answer.headers == [("vary", "Cookie")]


async def test_an_unknown_id_is_looked_up_once(redis: Redis, redis_auth: AsyncAuth[User]) -> None:
    """A request looks up an unknown id once: the session, and its possible successor."""
    app = LuciaMiddleware(respond(redis_auth, ask_often), auth=redis_auth)
    _, once = await commands_of(
        redis, get(LuciaMiddleware(respond(redis_auth, validate), auth=redis_auth), "0" * 40)
    )
    _, often = await commands_of(redis, get(app, "0" * 40))
    assert often == once
    assert sum(once.values()) <= 3


async def test_an_idle_session_is_renewed_once_a_request(
    redis: Redis, redis_auth: AsyncAuth[User], time: Time
) -> None:
    """A request renews an idle session once, and sets one cookie, however often it asks."""
    user = await redis_auth.create_user(primary_key=None)
    session_id = await log_in(redis_auth, user.user_id)
    time.pass_hours(25)
    answer, commands = await commands_of(
        redis, get(LuciaMiddleware(respond(redis_auth, ask_often), auth=redis_auth), session_id)
    )
    assert answer.cookie not in (None, "", session_id)
    assert commands["evalsha"] == 1
    assert await redis.exists(f"session:{answer.cookie}", f"session:{session_id}") == 1
    assert await redis.lrange(f"userSession:{user.user_id}", 0, -1) == [str(answer.cookie).encode()]


class OwnServer:
    """A redis-server that a test can stop and start. It keeps its data."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        durable = ["--appendonly", "yes", "--appendfsync", "always"]
        where = [
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self._folder),
            "--logfile",
            "redis.log",
        ]
        self._process = subprocess.Popen(["redis-server", *where, *durable])
        while not self._answers():
            assert self._process.poll() is None, "redis-server has exited"
            sleep(0.01)

    def _answers(self) -> bool:
        with SyncRedis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(client.ping())
            except RedisConnectionError:
                return False

    def stop(self) -> None:
        """Stop the server if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    """Return a running server for this test alone."""
    own = OwnServer(tmp_path)
    own.start()
    yield own
    own.stop()


@pytest.mark.parametrize("hours", [0, 25], ids=["active", "idle"])
async def test_a_store_that_fails_is_not_a_logout(
    own_server: OwnServer, store: AsyncMemoryAdapter, time: Time, hours: int
) -> None:
    """During an outage the response is 503 without Set-Cookie; afterwards the cookie works."""
    client = Redis(
        unix_socket_path=str(own_server.socket),
        retry=AsyncRetry(NoBackoff(), 0),
        protocol=2,
    )
    auth = AsyncAuth(users=store, sessions=AsyncRedisSessionAdapter(client), env="DEV", clock=time)
    web = StarletteAuth(auth)

    async def known(request: Request) -> Response:
        return PlainTextResponse((await web.session(request)).user_id)

    async def log_out(request: Request) -> Response:
        await web.request(request).sign_out()
        pytest.fail("sign_out must raise the store's error")

    async def patient(request: Request) -> Response:
        with pytest.raises(StoreUnavailable) as raised:
            await web.session(request)
        assert isinstance(raised.value.__cause__, RedisConnectionError)
        assert not raised.value.ambiguous
        assert session_id not in f"{raised.value}{raised.value.__cause__}"
        own_server.start()
        return await known(request)

    routes = [
        Route("/", known),
        Route("/out", log_out, methods=["POST"]),
        Route("/patient", patient),
    ]
    app = Starlette(routes=routes)
    web.install(app)

    async with client:
        session_id = await log_in(auth)
        time.pass_hours(hours)
        own_server.stop()
        for answer in (
            await get(served(app), session_id),
            await post(served(app), session_id, path="/out"),
        ):
            assert answer.status == 503
            assert json.loads(answer.body) == {
                "detail": "Sessions can't be reached. Try again in a moment."
            }
            assert sorted(name for name, _ in answer.headers) == [
                "content-length",
                "content-type",
                "retry-after",
                "vary",
            ]
        # The first one asks again within one request: an error is not cached.
        for path in ("/patient", "/"):
            answer = await get(app, session_id, path=path)
            assert answer.body == b"ann"
            assert (answer.cookie is None) is (hours == 0)
