"""``login`` puts a session cookie into a test client, as the application's Set-Cookie would."""

from http.cookiejar import CookieJar

import httpx
import pytest

from lucia import AsyncAuth, Cookie, RequestContext, SessionCookie, User
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.testing import alogin


class AsyncApplication:
    """An application: GET returns the user's id, POST signs out, PUT signs in "somebody"."""

    def __init__(self, auth: AsyncAuth[User]) -> None:
        self.auth = auth

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        cookies: list[Cookie] = []
        visitor = self.auth.handle_request(
            RequestContext(
                method=request.method,
                url=str(request.url),
                headers={name: request.headers.get_list(name) for name in request.headers},
                set_cookie=cookies.append,
                set_header=lambda name, value: None,
            )
        )
        if request.method == "POST":
            await visitor.sign_out()
        elif request.method == "PUT":
            await visitor.sign_in("somebody")
        session = await visitor.validate()
        headers = [("Set-Cookie", cookie.serialize()) for cookie in cookies]
        return httpx.Response(
            200, headers=headers, json=["" if session is None else session.user_id]
        )


class Bare:
    """A client like that of requests: its ``cookies`` are a plain jar, and it has no base URL."""

    def __init__(self) -> None:
        self.cookies = CookieJar()
        self.headers: dict[str, str] = {}


@pytest.fixture
def auth() -> AsyncAuth[User]:
    """Return the application's ``Auth``."""
    return AsyncAuth(sessions=AsyncMemoryAdapter(), env="DEV")


def client_of(auth: AsyncAuth[User], base_url: str = "http://testserver") -> httpx.AsyncClient:
    """Return a client of the application."""
    return httpx.AsyncClient(
        transport=httpx.MockTransport(AsyncApplication(auth)), base_url=base_url
    )


@pytest.mark.parametrize(
    "base_url",
    [
        "http://testserver",
        "http://localhost:8000",
        "https://app.example.com/v1/",
        "http://127.0.0.1",
    ],
)
async def test_login(auth: AsyncAuth[User], base_url: str) -> None:
    """The client is logged in as the user, and its POSTs pass the origin check."""
    async with client_of(auth, base_url) as client:
        session = await alogin(client, auth, "anna", user_agent="tests")
        assert (session.user_id, dict(session.metadata)) == ("anna", {"user_agent": "tests"})
        assert (await client.get("/")).json() == ["anna"]
        assert (await client.post("/")).status_code == 200


async def test_replaced_cookie(auth: AsyncAuth[User]) -> None:
    """The application's own cookies replace and clear the cookie that ``login`` put in."""
    async with client_of(auth) as client:
        await alogin(client, auth, "anna")
        await client.put("/")
        assert len(client.cookies.jar) == 1
        assert (await client.get("/")).json() == ["somebody"]
        await client.post("/")
        assert len(client.cookies.jar) == 0
        assert (await client.get("/")).json() == [""]


async def test_second_login(auth: AsyncAuth[User]) -> None:
    """A second login replaces the first one."""
    async with client_of(auth) as client:
        await alogin(client, auth, "anna")
        await alogin(client, auth, "bert")
        assert (await client.get("/")).json() == ["bert"]
        assert len(client.cookies.jar) == 1


async def test_own_origin(auth: AsyncAuth[User]) -> None:
    """An Origin header set by the test is kept."""
    async with client_of(auth) as client:
        client.headers["Origin"] = "https://other.example"
        await alogin(client, auth, "anna")
        assert client.headers["Origin"] == "https://other.example"


async def test_other_clients(auth: AsyncAuth[User]) -> None:
    """A client with a plain cookie jar and without a base URL needs ``base_url``."""
    client = Bare()
    session = await alogin(client, auth, "anna", base_url="http://testserver/")
    assert [(cookie.name, cookie.value, cookie.path) for cookie in client.cookies] == [
        ("auth_session", session.session_id, "/")
    ]
    assert client.headers == {"Origin": "http://testserver"}
    with pytest.raises(ValueError, match="no base_url"):
        await alogin(Bare(), auth, "anna")


@pytest.mark.parametrize("name", ["auth_session", "__Host-auth_session"])
async def test_secure(name: str) -> None:
    """A Secure cookie is accepted for an https address, and refused for an http address.

    An http client would never send it.
    """
    auth: AsyncAuth[User] = AsyncAuth(
        sessions=AsyncMemoryAdapter(), env="PROD", session_cookie=SessionCookie(name=name)
    )
    async with client_of(auth, "https://testserver") as client:
        await alogin(client, auth, "anna")
        assert (await client.get("/")).json() == ["anna"]
    async with client_of(auth, "http://testserver") as client:
        with pytest.raises(ValueError, match="Secure"):
            await alogin(client, auth, "anna")


async def test_foreign_domain() -> None:
    """A cookie for another domain than the client's is refused."""
    auth: AsyncAuth[User] = AsyncAuth(
        sessions=AsyncMemoryAdapter(), env="DEV", session_cookie=SessionCookie(domain="example.com")
    )
    async with client_of(auth) as client:
        with pytest.raises(ValueError, match="domain"):
            await alogin(client, auth, "anna")
