"""Count the files of src/lucia that a call enters on its way to Redis and back.

    python tools/call_paths.py [redis://localhost:6379]

A walk is printed as the files in the order in which they are first entered, with how often control
returns to a file that was left before. Event loop callbacks are part of it: a batch is sent by a
task of its own. Tasks that only keep a connection alive are not running yet.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2 as httpx
from fastapi import Depends, FastAPI
from redis.asyncio import Redis

import lucia
from lucia import AsyncAuth, Session
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.middleware.fastapi import FastAPIAuth

__all__ = ["CallPath", "main", "walk_of", "walks"]

SOURCE = Path(lucia.__file__).parent


@dataclass
class CallPath:
    """The files that a call enters."""

    files: list[str] = field(default_factory=list[str])
    returns: int = 0
    _last: str = ""

    def enter(self, file: str) -> None:
        """Take note that a function of this file is called or resumed."""
        if file == self._last:
            return
        self._last = file
        if file in self.files:
            self.returns += 1
        else:
            self.files.append(file)

    def __str__(self) -> str:
        return f"{len(self.files)} files, {self.returns} returns: {', '.join(self.files)}"


async def walk_of(call: Callable[[], Awaitable[object]]) -> CallPath:
    """Make a call, and return its walk."""
    walk = CallPath()
    prefix = f"{SOURCE}/"

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(prefix):
            walk.enter(frame.f_code.co_filename.removeprefix(prefix))

    sys.setprofile(profile)
    try:
        await call()
    finally:
        sys.setprofile(None)
    return walk


async def walks(url: str) -> dict[str, CallPath]:
    """Return the walks over one server, once connections are open and everything is imported."""
    client: Any = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]
    async with client, AsyncRedisSessionAdapter(client) as adapter:
        auth = AsyncAuth(sessions=adapter, env="DEV")
        session_id = (await auth.create_session("walker")).session_id
        cookie = {"auth_session": session_id}
        transport = httpx.ASGITransport(_application(auth))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", cookies=cookie
        ) as browser:
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "adapter.get_session": lambda: adapter.get_session(session_id),
                "auth.validate_session": lambda: auth.validate_session(session_id),
                "a FastAPI request with a session": lambda: browser.get("/"),
                "auth.create_session": lambda: auth.create_session("walker"),
                "auth.invalidate_all_user_sessions": lambda: auth.invalidate_all_user_sessions(
                    "nobody"
                ),
            }
            found: dict[str, CallPath] = {}
            for name, call in calls.items():
                await call()
                await call()  # the first ones open connections, and parse routes
                found[name] = await walk_of(call)
            return found


def _application(auth: AsyncAuth[Any]) -> FastAPI:
    app = FastAPI()
    web = FastAPIAuth(auth)
    web.install(app)

    @app.get("/")
    async def who(session: Session = Depends(web.session)) -> str:  # noqa: B008 -- FastAPI's way
        return session.user_id

    return app


def main(url: str = "redis://localhost:6379") -> None:
    """Print the walks."""
    for name, walk in asyncio.run(walks(url)).items():
        print(f"{name}: {walk}")


if __name__ == "__main__":
    main(*sys.argv[1:])
