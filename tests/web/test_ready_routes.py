"""The ready routes in Starlette and FastAPI: bodies of every kind, pages, and the document."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from lucia import AsyncAuth, Overloaded, User
from lucia._rules.bodies import MAX_BODY_BYTES
from lucia.middleware.fastapi import FastAPIAuth, ThreadAuthRequest
from lucia.middleware.starlette import StarletteAuth
from tests.web.driver import NAME, ORIGIN

FORM = {"username": "anna", "password": "correct horse"}
HTML = {"Accept": "text/html"}


def starlette_app(auth: AsyncAuth[User]) -> Starlette:
    """Return an application in Starlette with the ready routes, and a login page."""
    web = StarletteAuth(auth, login_url="/auth/login")
    app = Starlette(routes=[*web.routes(prefix="/auth"), Mount("/mounted", routes=web.routes())])
    web.install(app)
    return app


def fastapi_app(auth: AsyncAuth[User]) -> FastAPI:
    """Return an application in FastAPI with the ready routes, and a login page."""
    web = FastAPIAuth(auth, login_url="/auth/login")
    app = FastAPI()
    web.install(app)
    app.include_router(web.router(prefix="/auth"))
    app.mount("/mounted", Starlette(routes=StarletteAuth(auth).routes()))
    return app


@pytest.fixture(params=[starlette_app, fastapi_app])
def client(request: pytest.FixtureRequest, auth: AsyncAuth[User]) -> TestClient:
    """Return a client of each application in turn."""
    make: Callable[[AsyncAuth[User]], Starlette] = request.param
    return TestClient(make(auth), headers={"Origin": ORIGIN}, follow_redirects=False)


def test_every_kind_of_body(client: TestClient) -> None:
    """JSON, URL-encoded and multipart forms log in."""
    assert client.post("/auth/signup", json=FORM).status_code == 201
    parts: Any = {name: (None, value) for name, value in FORM.items()}
    for message in ({"json": FORM}, {"data": FORM}, {"files": parts}):
        client.cookies.clear()
        body: Any = message
        response = client.post("/auth/login", **body)
        assert (response.status_code, list(response.json())) == (200, ["user_id"])
        assert NAME in client.cookies


def test_multipart_bodies_that_are_refused(client: TestClient) -> None:
    """A multipart form is as short as other bodies, and is not read by odd codecs."""
    part = b'--B\r\nContent-Disposition: form-data; name="username"\r\n\r\n%b\r\n'
    kind = "multipart/form-data; boundary=B"
    for body, content_type in (
        (part % (b"a" * 60_000) + part % (b"b" * 60_000) + b"--B--\r\n", kind),
        (part % b"anna" + b"--B--\r\n", f"{kind}; charset=punycode"),
        (part % b"anna" + b"--B--\r\n", f"{kind}; charset=undefined"),
    ):
        response = client.post("/auth/login", content=body, headers={"Content-Type": content_type})
        assert (response.status_code, response.json()["detail"][:8]) == (422, "the body")


def test_bodies_that_are_refused(client: TestClient) -> None:
    """A body that is too long, or a form with a file, is refused as the person's mistake."""
    response = client.post("/auth/login", content=b"a" * (MAX_BODY_BYTES + 1))
    assert (response.status_code, "longer than" in response.json()["detail"]) == (422, True)
    files: Any = {"username": ("a.txt", b"anna")}
    assert client.post("/auth/login", files=files).status_code == 400


def test_pages(client: TestClient) -> None:
    """A browser gets pages, redirects, and the reason why a form was refused."""
    page = client.get("/auth/login", headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert page.headers["cache-control"] == "no-store"
    refused = client.post("/auth/login", data=FORM, headers=HTML)
    assert (refused.status_code, "Wrong name or password." in refused.text) == (401, True)
    created = client.post("/auth/signup?next=/private", data=FORM, headers=HTML)
    assert (created.status_code, created.headers["location"]) == (303, "/private")
    assert client.get("/auth/devices", headers=HTML).status_code == 200
    again = client.post("/auth/login", data={**FORM, "next": "/private"}, headers=HTML)
    assert again.headers["location"] == "/private"
    assert client.post("/auth/logout", headers=HTML).headers["location"] == "/"
    sent = client.get("/auth/devices?a=1", headers=HTML)
    assert sent.headers["location"] == "/auth/login?next=/auth/devices"


def test_mounted_routes(client: TestClient) -> None:
    """Below a mount, the pages and their forms are where the application is mounted."""
    client.post("/mounted/signup", data=FORM)
    assert 'action="/mounted/logout"' in client.get("/mounted/devices", headers=HTML).text
    client.post("/mounted/logout")
    sent = client.get("/mounted/devices", headers=HTML)
    assert sent.headers["location"] == "/mounted/login?next=/mounted/devices"


def test_a_step_that_fails(auth: AsyncAuth[User]) -> None:
    """An error that a step of the application's raises is responded to as anywhere else."""

    async def log_in(request: object, submission: object) -> None:
        raise Overloaded

    web = StarletteAuth(auth)
    app = Starlette(routes=web.routes(log_in=log_in))
    web.install(app)
    client = TestClient(app, headers={"Origin": ORIGIN})
    response = client.post("/login", json=FORM)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def test_names_of_the_routes(auth: AsyncAuth[User]) -> None:
    """Starlette's and FastAPI's routes have the names of the steps, for ``url_for``."""
    web = FastAPIAuth(auth)
    app = FastAPI()
    app.include_router(web.router(prefix="/auth"))
    for routes in (StarletteAuth(auth).routes(prefix="/auth"), app.router.routes):
        found = Starlette(routes=list(routes))
        assert found.url_path_for("log_in") == "/auth/login"
        assert found.url_path_for("log_in_page") == "/auth/login"
        assert found.url_path_for("revoke_device", handle="h") == "/auth/devices/h/revoke"


# The OpenAPI document


class Member(BaseModel):
    """The response of ``/me``."""

    name: str


def show(user: User) -> Member:
    """Return what ``/me`` shows of a user."""
    return Member(name=user.user_id)


def test_the_document(auth: AsyncAuth[User]) -> None:
    """The document has the bodies, the responses and the security of each route, and no page."""
    web = FastAPIAuth(auth)
    app = FastAPI()
    web.install(app)
    app.include_router(web.router(prefix="/auth", show_user=show))
    document = app.openapi()
    operations = {
        f"{method} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert operations.keys() == {
        "post /auth/signup",
        "post /auth/login",
        "post /auth/logout",
        "get /auth/me",
        "get /auth/devices",
        "post /auth/devices/revoke-others",
        "post /auth/devices/{handle}/revoke",
        "post /auth/password",
    }
    login = operations["post /auth/login"]
    assert set(login["requestBody"]["content"]) == {
        "application/json",
        "application/x-www-form-urlencoded",
    }
    schema = login["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["username", "password"]
    assert set(login["responses"]) == {"200", "401", "403", "422", "429", "503"}
    me = operations["get /auth/me"]
    shown = me["responses"]["200"]["content"]["application/json"]["schema"]
    assert shown == {"$ref": "#/components/schemas/Member"}
    assert me["security"] == [{"session": []}]
    assert "security" not in login
    assert operations["post /auth/devices/{handle}/revoke"]["parameters"][0]["name"] == "handle"
    assert document["components"]["securitySchemes"]["session"]["in"] == "cookie"
    with TestClient(app, headers={"Origin": ORIGIN}) as client:
        user_id = client.post("/auth/signup", json=FORM).json()["user_id"]
        assert client.get("/auth/me").json() == {"name": user_id}


@pytest.mark.parametrize("transport", ["bearer", "both"])
def test_authorize_asks_for_name_and_password(auth: AsyncAuth[User], transport: Any) -> None:
    """With a token route, "Authorize" logs in there, wherever the router is included."""
    web = FastAPIAuth(auth, transport=transport)
    app = FastAPI()
    web.install(app)
    api = APIRouter(prefix="/api")
    api.include_router(web.router(prefix="/auth"))
    app.include_router(api)

    @app.get("/private")
    async def private(user: Annotated[User, Depends(web.user)]) -> str:
        return user.user_id

    document = app.openapi()
    assert app.openapi() is document
    assert "x-lucia" not in json.dumps(document)
    schemes = document["components"]["securitySchemes"]
    name = {"bearer": "session", "both": "session_token"}[transport]
    flow = schemes[name]["flows"]["password"]
    assert flow == {"scopes": {}, "tokenUrl": "api/auth/token"}
    security = document["paths"]["/private"]["get"]["security"]
    assert {name: []} in security
    assert len(security) == len(schemes)
    client = TestClient(app, headers={"Origin": ORIGIN})
    client.post("/api/auth/signup", json=FORM)
    client.cookies.clear()
    form = {**FORM, "grant_type": "password", "scope": ""}
    token = client.post(f"/{flow['tokenUrl']}", data=form).json()
    assert token["token_type"] == "bearer"
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    assert client.get("/private", headers=headers).status_code == 200
    assert client.get("/private").status_code == 401


def test_both_without_ready_routes(auth: AsyncAuth[User]) -> None:
    """Cookie and bearer token are alternatives in the document, also without a token route."""
    web = FastAPIAuth(auth, transport="both", scheme_name="web")
    app = FastAPI()
    web.install(app)

    @app.get("/private")
    async def private(user: Annotated[User, Depends(web.user)]) -> None:
        pass

    document = app.openapi()
    assert document["paths"]["/private"]["get"]["security"] == [{"web": []}, {"web_token": []}]
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {
        "web": "apiKey",
        "web_token": "http",
    }


def test_a_form_that_a_dependency_has_read(auth: AsyncAuth[User]) -> None:
    """A dependency of the router may read the form first, such as to check a token in it."""

    async def read(request: Request) -> None:
        await request.form()

    web = FastAPIAuth(auth)
    app = FastAPI()
    web.install(app)
    app.include_router(web.router(prefix="/auth"), dependencies=[Depends(read)])
    client = TestClient(app, headers={"Origin": ORIGIN})
    parts: Any = {name: (None, value) for name, value in FORM.items()}
    assert client.post("/auth/signup", files=parts).status_code == 201
    assert client.post("/auth/login", data=FORM).status_code == 200


# Plain functions


def test_routes_that_are_plain_functions(auth: AsyncAuth[User]) -> None:
    """A route in a thread signs in and out, renews, and asks who it is."""
    web = FastAPIAuth(auth)
    app = FastAPI()
    web.install(app)
    app.include_router(web.router(prefix="/auth"))
    needed = Depends(web.sync_request)

    @app.post("/in")
    def log_in(request: Annotated[ThreadAuthRequest[User], needed]) -> str:
        session = request.sign_in_with_key("username", "anna", "correct horse", via="thread")
        return str(session.metadata["via"])

    @app.post("/in/{user_id}")
    def log_in_as(request: Annotated[ThreadAuthRequest[User], needed], user_id: str) -> str:
        return request.sign_in(user_id, via="thread").user_id

    @app.post("/renew")
    def renew(request: Annotated[ThreadAuthRequest[User], needed]) -> bool:
        return request.renew() is not None

    @app.get("/who")
    def who(request: Annotated[ThreadAuthRequest[User], needed]) -> list[Any]:
        session, both = request.validate(), request.validate_user()
        return [session and session.user_id, both and both.user.user_id]

    @app.post("/forget")
    def forget(request: Annotated[ThreadAuthRequest[User], needed]) -> None:
        request.set_session(None)

    @app.post("/out")
    def log_out(request: Annotated[ThreadAuthRequest[User], needed]) -> None:
        request.sign_out()

    @app.get("/properties")
    def properties(request: Annotated[ThreadAuthRequest[User], needed]) -> list[Any]:
        return [request.uses_cookies, request.origin_failure, request.is_cross_site]

    @app.get("/in-the-loop")
    async def in_the_loop(request: Annotated[ThreadAuthRequest[User], needed]) -> None:
        request.validate()

    with TestClient(app, headers={"Origin": ORIGIN}) as client:
        assert client.get("/properties").json() == [True, None, False]
        with pytest.raises(RuntimeError, match="runs in the event loop and would wait for itself"):
            client.get("/in-the-loop")
        assert client.get("/who").json() == [None, None]
        user_id = client.post("/auth/signup", json=FORM).json()["user_id"]
        assert client.post("/in").json() == "thread"
        assert client.get("/who").json() == [user_id, user_id]
        before = client.cookies[NAME]
        assert client.post("/renew").json() is True
        assert client.cookies[NAME] != before
        client.post("/forget")
        assert NAME not in client.cookies
        assert client.post("/renew").json() is False
        assert client.post("/in/bert").json() == "bert"
        client.post("/out")
        assert client.get("/who").json() == [None, None]
