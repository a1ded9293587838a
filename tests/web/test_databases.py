"""An application over HTTP, with its accounts on a real database server."""

from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Form
from httpx import ASGITransport, AsyncClient
from sqlalchemy import MetaData

from lucia import AsyncAuth, AsyncAuthRequest, PrimaryKey, User
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter, AuthTables
from lucia.middleware.fastapi import FastAPIAuth
from tests.support.databases import AsyncDatabase
from tests.support.passwords import CHEAP
from tests.support.sql_servers import SqlServer
from tests.web.driver import ORIGIN

METADATA = MetaData()
TABLES = AuthTables(METADATA, sessions=True)
PASSWORD = "correct horse battery staple"


Text = Annotated[str, Form()]


def make_app(auth: AsyncAuth[User]) -> FastAPI:
    """Return an application with sign-up and login forms."""
    app = FastAPI()
    web = FastAPIAuth(auth)
    web.install(app)

    @app.post("/signup")
    async def signup(email: Text, password: Text) -> str:
        key = PrimaryKey("email", email, password)
        return (await auth.create_user(primary_key=key)).user_id

    @app.post("/login")
    async def login(
        request: Annotated[AsyncAuthRequest[User], Depends(web.request)],
        email: Text,
        password: Text,
    ) -> str:
        return (await request.sign_in_with_key("email", email, password)).user_id

    return app


@pytest.fixture
async def client(sql_server: SqlServer) -> AsyncIterator[AsyncClient]:
    """Return a client of the application that raises the application's unhandled exceptions."""
    async with AsyncDatabase(METADATA, server=sql_server) as engine:
        adapter = AsyncSQLAlchemyAdapter(engine, TABLES)
        auth = AsyncAuth(users=adapter, sessions=adapter, env="DEV", hash=CHEAP)
        transport = ASGITransport(make_app(auth))
        async with AsyncClient(
            transport=transport, base_url=ORIGIN, headers={"Origin": ORIGIN}
        ) as client:
            yield client
        await auth.aclose()


def form(email: str) -> dict[str, str]:
    return {"email": email, "password": PASSWORD}


@pytest.mark.parametrize("email", ["\0", "alice@example.com\0"])
async def test_names_with_nul(client: AsyncClient, email: str) -> None:
    """A name with NUL, which PostgreSQL refuses, is refused like any other invalid name."""
    assert (await client.post("/signup", data=form("alice@example.com"))).status_code == 200
    assert (await client.post("/login", data=form("alice@example.com"))).status_code == 200
    assert (await client.post("/signup", data=form(email))).status_code == 422
    refused = await client.post("/login", data=form(email))
    unknown = await client.post("/login", data=form("nobody@example.com"))
    assert (refused.status_code, refused.json()) == (unknown.status_code, unknown.json())
