"""fastapi-users, with its cookie transport over its ``RedisStrategy``, and users in memory."""

import uuid
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import redis.asyncio
from fastapi import Depends, FastAPI, Response
from fastapi_users import FastAPIUsers
from fastapi_users.authentication import (
    AuthenticationBackend,
    CookieTransport,
    RedisStrategy,
    Strategy,
)

from bench.peer import HOUR
from bench.peers import CONNECTIONS, KEEPALIVE
from bench.peers.fastapi_users import User, UserManager, Users
from bench.web import Web


def make_web(url: str) -> Web:
    """Set the application up as the documentation shows."""
    client: Any = redis.asyncio.from_url(
        url, decode_responses=True, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE
    )
    users = Users()

    async def get_manager() -> AsyncGenerator[UserManager]:
        yield UserManager(users)

    def get_strategy() -> Strategy[User, uuid.UUID]:
        return RedisStrategy(client, lifetime_seconds=HOUR)

    transport = CookieTransport(cookie_max_age=HOUR, cookie_secure=False)
    backend = AuthenticationBackend(name="redis", transport=transport, get_strategy=get_strategy)
    current_user = FastAPIUsers[User, uuid.UUID](get_manager, [backend]).current_user(active=True)
    app = FastAPI()

    @app.post("/login/{user_id}")
    async def login(
        user_id: uuid.UUID, strategy: Annotated[Strategy[User, uuid.UUID], Depends(get_strategy)]
    ) -> Response:
        return await backend.login(strategy, User(user_id))

    @app.get("/me")
    async def me(user: Annotated[User, Depends(current_user)]) -> dict[str, str]:
        return {"user_id": str(user.id)}

    return Web(app=app)
