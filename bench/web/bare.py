"""No library: what any dependency could reach at most."""

from typing import Annotated

from fastapi import Depends, FastAPI, Response

from bench.drive import user_ids
from bench.web import Web

NOBODY = user_ids(1)[0]


async def nothing() -> str:
    """Whoever it is."""
    return NOBODY


def make_web(_url: str, *, dependency: bool) -> Web:
    """The endpoint as it is, or with a dependency that does nothing."""
    app = FastAPI()

    @app.post("/login/{user_id}")
    async def login(user_id: str, response: Response) -> str:
        response.set_cookie("auth_session", user_id)
        return user_id

    if dependency:

        @app.get("/me")
        async def me(user_id: Annotated[str, Depends(nothing)]) -> dict[str, str]:
            return {"user_id": user_id}
    else:

        @app.get("/me")
        async def me_without() -> dict[str, str]:
            return {"user_id": NOBODY}

    return Web(app=app, guarded=False)
