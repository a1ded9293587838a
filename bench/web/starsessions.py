"""starsessions, with its middleware and its autoload middleware, which loads each session."""

from typing import Any

from fastapi import FastAPI, HTTPException, Request
from redis.asyncio import Redis
from starsessions import SessionAutoloadMiddleware, SessionMiddleware
from starsessions.stores.redis import RedisStore

from bench.peer import HOUR, RECORD
from bench.peers import CONNECTIONS, KEEPALIVE
from bench.web import Web


def make_web(url: str) -> Web:
    """Set the application up as the documentation shows."""
    client: Any = Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE)
    app = FastAPI()
    app.add_middleware(SessionAutoloadMiddleware)
    app.add_middleware(
        SessionMiddleware,
        store=RedisStore(connection=client),
        lifetime=HOUR,
        cookie_https_only=False,
    )

    @app.post("/login/{user_id}")
    async def login(user_id: str, request: Request) -> str:
        request.session.update(RECORD | {"user_id": user_id})
        return user_id

    @app.get("/me")
    async def me(request: Request) -> dict[str, str]:
        user_id: str | None = request.session.get("user_id")
        if user_id is None:
            raise HTTPException(401)
        return {"user_id": user_id}

    return Web(app=app)
