"""Applications without a library: the bounds for any dependency."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, FastAPI, Response
from redis.asyncio import Redis

from bench.drive import user_ids
from bench.peers import CONNECTIONS, KEEPALIVE
from bench.web import Web

NOBODY = user_ids(1)[0]


WAIT: Final = 1.0
"""How long the dependency waits, in seconds."""


async def nothing() -> str:
    """Return the user's id at once."""
    return NOBODY


async def waiting() -> str:
    """Return the user's id after a while."""
    return await asyncio.sleep(WAIT, NOBODY)


DEPENDENCIES: Final = {"nothing": nothing, "waiting": waiting}

Dependency = Literal["nothing", "waiting", "getting"]


def make_web(url: str, *, dependency: Dependency | None) -> Web:
    """Make an endpoint without a dependency, or with one that does nothing, waits, or sends a GET.

    The GET is redis-py's, of a key that does not exist.
    """
    app = FastAPI()

    @app.post("/login/{user_id}")
    async def login(user_id: str, response: Response) -> str:
        response.set_cookie("auth_session", user_id)
        return user_id

    if dependency:
        find_user = getting(url) if dependency == "getting" else DEPENDENCIES[dependency]

        @app.get("/me")
        async def me(user_id: Annotated[str, Depends(find_user)]) -> dict[str, str]:
            return {"user_id": user_id}
    else:

        @app.get("/me")
        async def me_without() -> dict[str, str]:
            return {"user_id": NOBODY}

    return Web(app=app, guarded=False)


def getting(url: str) -> Callable[[], Awaitable[str]]:
    """Return a dependency that sends one GET."""
    client: Any = Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE)

    async def get() -> str:
        await client.get("session:unknown")
        return NOBODY

    return get
