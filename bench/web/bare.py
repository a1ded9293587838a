"""An application without a library: the upper bound for any dependency."""

import asyncio
from typing import Annotated, Final, Literal

from fastapi import Depends, FastAPI, Response

from bench.drive import user_ids
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


def make_web(_url: str, *, dependency: Literal["nothing", "waiting"] | None) -> Web:
    """Make an endpoint without a dependency, or with one that does nothing or waits."""
    app = FastAPI()

    @app.post("/login/{user_id}")
    async def login(user_id: str, response: Response) -> str:
        response.set_cookie("auth_session", user_id)
        return user_id

    if dependency:
        find_user = DEPENDENCIES[dependency]

        @app.get("/me")
        async def me(user_id: Annotated[str, Depends(find_user)]) -> dict[str, str]:
            return {"user_id": user_id}
    else:

        @app.get("/me")
        async def me_without() -> dict[str, str]:
            return {"user_id": NOBODY}

    return Web(app=app, guarded=False)
