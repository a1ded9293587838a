"""lucia-auth, with its FastAPI dependencies."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from redis.asyncio import Redis

from bench.peers import CONNECTIONS, KEEPALIVE
from bench.peers.ours import LIFE, with_times
from bench.web import Web
from lucia import AsyncAuth, AsyncAuthRequest, Session, User
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.middleware.fastapi import FastAPIAuth


def make_web(url: str, *, validate_ahead: bool = False, **settings: Any) -> Web:
    """Set the application up; other settings are the adapter's, with times in seconds."""
    client = Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE)
    auth = AsyncAuth(
        sessions=AsyncRedisSessionAdapter(client, **with_times(settings)),
        env="DEV",
        session_expires_in=LIFE,
    )
    web = FastAPIAuth(auth, validate_ahead=validate_ahead)
    app = FastAPI()
    web.install(app)

    @app.post("/login/{user_id}")
    async def login(
        user_id: str, request: Annotated[AsyncAuthRequest[User], Depends(web.request)]
    ) -> str:
        return (await request.sign_in(user_id)).user_id

    @app.get("/me")
    async def me(session: Annotated[Session, Depends(web.session)]) -> dict[str, str]:
        return {"user_id": session.user_id}

    return Web(app=app)
