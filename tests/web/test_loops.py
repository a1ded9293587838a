"""One auth, made at import, works in several event loops and without a lifespan."""

import asyncio

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from lucia import AsyncAuth, PrimaryKey, ScryptHash, User
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.middleware.asgi import ASGIApp
from lucia.middleware.starlette import StarletteAuth
from tests.web.driver import NAME, ORIGIN, get, post
from tools.servers import Server


def make_auth(store: AsyncMemoryAdapter, redis: Redis | None = None) -> AsyncAuth[User]:
    """Return an auth as an application makes it at import."""
    sessions = store if redis is None else AsyncRedisSessionAdapter(redis)
    return AsyncAuth(users=store, sessions=sessions, env="DEV", hash=ScryptHash(ln=4, r=1, p=1))


def make_app(auth: AsyncAuth[User]) -> Starlette:
    """Return an application that logs Ann in, and says whether a user is logged in."""
    web = StarletteAuth(auth)

    async def login(request: Request) -> Response:
        await web.request(request).sign_in_with_key("username", "ann", "password")
        return Response(status_code=204)

    async def known(request: Request) -> Response:
        user = await web.optional_user(request)
        return PlainTextResponse("known" if user else "visitor")

    app = Starlette(routes=[Route("/", known), Route("/login", login, methods=["POST"])])
    web.install(app)
    return app


async def sign_up(auth: AsyncAuth[User]) -> None:
    """Create Ann's account."""
    await auth.create_user(primary_key=PrimaryKey("username", "ann", "password"))


async def go_the_whole_way(app: ASGIApp) -> str:
    """Log in several times at once, check that each is known, and return the last cookie."""
    answers = await asyncio.gather(*(post(app, path="/login") for _ in range(4)))
    cookies = [answer.cookie or "" for answer in answers]
    assert [
        answer.body for answer in await asyncio.gather(*(get(app, cookie) for cookie in cookies))
    ] == [b"known"] * 4
    return cookies[-1]


def make_client(server: Server) -> Redis:
    """Return a client, which connects at its first command."""
    return Redis.from_url(server.url, protocol=2)


def test_a_global_auth_works_in_one_loop_after_another() -> None:
    """A second event loop can use the same auth, and knows the sessions of the first."""
    auth = make_auth(AsyncMemoryAdapter())
    app = make_app(auth)
    asyncio.run(sign_up(auth))
    cookies = [asyncio.run(go_the_whole_way(app)) for _ in range(2)]
    assert asyncio.run(get(app, cookies[0])).body == b"known"


def test_a_global_auth_works_with_test_clients() -> None:
    """Test clients with one event loop per request or per client can use the same auth."""
    auth = make_auth(AsyncMemoryAdapter())
    app = make_app(auth)
    asyncio.run(sign_up(auth))
    loose = TestClient(app, headers={"Origin": ORIGIN})
    for _ in range(2):
        assert loose.post("/login").status_code == 204
        assert loose.get("/").text == "known"
        with TestClient(app, headers={"Origin": ORIGIN}) as held:
            assert held.post("/login").status_code == 204
            assert held.get("/").text == "known"
            assert held.cookies[NAME] != loose.cookies[NAME]


def test_a_global_auth_and_client_work_in_two_loops_if_the_first_closes_it(
    redis_server: Server,
) -> None:
    """A second loop can use the same client if the first one closed it.

    redis-py connects again after ``aclose()``.
    """
    redis = make_client(redis_server)
    auth = make_auth(AsyncMemoryAdapter(), redis)
    app = make_app(auth)

    async def main() -> str:
        try:
            return await go_the_whole_way(app)
        finally:
            await redis.aclose()

    asyncio.run(sign_up(auth))
    cookies = [asyncio.run(main()) for _ in range(2)]

    async def known_there() -> bytes:
        async with redis:
            return (await get(app, cookies[0])).body

    assert asyncio.run(known_there()) == b"known"


def test_a_client_for_each_loop(redis_server: Server) -> None:
    """An auth can be made with a client per event loop. Sessions are in Redis, not in the auth."""
    store = AsyncMemoryAdapter()
    asyncio.run(sign_up(make_auth(store)))

    async def main(cookie: str | None = None) -> str:
        async with make_client(redis_server) as redis, make_auth(store, redis) as auth:
            app = make_app(auth)
            if cookie is not None:
                assert (await get(app, cookie)).body == b"known"
            return await go_the_whole_way(app)

    asyncio.run(main(asyncio.run(main())))


def test_a_client_that_another_loop_holds(redis_server: Server) -> None:
    """An auth and a client work in a second event loop while the first one is still open.

    Every event loop has its own connections.
    """
    redis = make_client(redis_server)
    auth = make_auth(AsyncMemoryAdapter(), redis)
    app = make_app(auth)
    asyncio.run(sign_up(auth))

    with asyncio.Runner() as first, asyncio.Runner() as second:
        cookie = first.run(go_the_whole_way(app))
        for runner in (second, first):
            assert runner.run(get(app, cookie)).body == b"known"
