"""The steps of the ready routes: what each changes, refuses, and lets an application replace."""

from collections.abc import Mapping
from typing import Any

import pytest

from lucia import (
    AsyncAuth,
    AsyncAuthRequest,
    DuplicateKeyId,
    InvalidCredentials,
    InvalidInput,
    InvalidRequest,
    NotAuthenticated,
    User,
)
from lucia._rules.accounts import (
    ROUTES,
    AccessToken,
    AccountRoute,
    LoggedInDevice,
    Page,
    Reply,
    SignedInUser,
    Submission,
)
from lucia._rules.requests import Transport
from lucia.middleware.accounts import AsyncAccountRoutes
from tests.aio.support.minimal_adapters import AsyncDictionaryAdapter
from tests.aio.support.watched_store import AsyncWatchedStore
from tests.support.requests import Exchange

PASSWORD = "correct horse"
ANN = {"username": "Ann", "password": PASSWORD}
EVIL = "https://evil.example"


def route_of(accounts: AsyncAccountRoutes[Any, Any], name: str, method: str) -> AccountRoute:
    """Return the route of this name."""
    (found,) = [each for each in accounts.routes if (each.name, each.method) == (name, method)]
    return found


class AsyncBrowser:
    """Sends requests to the routes, and keeps the cookie."""

    def __init__(
        self,
        auth: AsyncAuth[User],
        transport: Transport = "cookie",
        wants_page: bool = False,
        **settings: Any,
    ) -> None:
        self.accounts = AsyncAccountRoutes(auth, transport, **settings)
        self.auth = auth
        self.transport: Transport = transport
        self.wants_page = wants_page
        self.cookie: str | None = None
        self.token: str | None = None
        self.origin: str | None = "http://localhost:8000"

    async def send(
        self,
        name: str,
        fields: Mapping[str, Any] | None = None,
        *,
        method: str = "POST",
        **details: Any,
    ) -> Reply:
        """Return the response to a request."""
        route = route_of(self.accounts, name, method)
        authorization = [] if self.token is None else [f"Bearer {self.token}"]
        exchange = Exchange(
            self.cookie, method=method, origin=self.origin, authorization=authorization
        )
        request = self.auth.handle_request(exchange.context, self.transport)
        path = "/auth" + route.path.format(handle=details.get("handle", ""))
        submission = Submission(
            fields=fields or {},
            is_form=self.wants_page,
            wants_page=self.wants_page,
            path=path,
            user_agent="tests",
            **details,
        )
        reply = await self.accounts.handle(route, request, submission)
        for value in exchange.values:
            self.cookie = value or None
        return reply

    async def get(self, name: str, **details: Any) -> Reply:
        """Return the response to a GET request."""
        return await self.send(name, method="GET", **details)

    async def user_id(self) -> str | None:
        """Return who is logged in, or None."""
        try:
            content = (await self.get("me")).content
        except NotAuthenticated:
            return None
        return str(content.user_id)


@pytest.fixture
def browser(auth: AsyncAuth[User]) -> AsyncBrowser:
    """Return a browser of an API's routes."""
    return AsyncBrowser(auth)


async def test_signing_up_and_in(browser: AsyncBrowser, auth: AsyncAuth[User]) -> None:
    """A new user is logged in; names are compared without case and outer spaces."""
    created = await browser.send("sign_up", ANN)
    assert created.status == 201
    user_id = created.content.user_id
    assert await browser.user_id() == user_id
    await browser.send("log_out")
    assert await browser.user_id() is None
    again = await browser.send("log_in", {"username": " ann ", "password": PASSWORD})
    assert (again.status, again.content) == (200, SignedInUser(user_id))
    with pytest.raises(DuplicateKeyId):
        await browser.send("sign_up", {**ANN, "username": "ANN"})
    with pytest.raises(InvalidCredentials):
        await browser.send("log_in", {**ANN, "password": "wrong"})
    (device,) = await auth.get_all_user_sessions(user_id)
    assert device.metadata == {"user_agent": "tests"}


async def test_a_foreign_page_changes_nothing(
    browser: AsyncBrowser, store: AsyncWatchedStore
) -> None:
    """A POST of another site is refused before anything is stored."""
    browser.origin = EVIL
    for name in ("sign_up", "log_in", "log_out", "revoke_others", "change_password"):
        with pytest.raises(InvalidRequest):
            await browser.send(name, ANN)
    assert store.calls == []


@pytest.mark.parametrize(
    "fields",
    [{}, {"username": "ann"}, {"username": "ann", "password": None}, {**ANN, "username": 7}],
)
async def test_missing_fields(browser: AsyncBrowser, fields: dict[str, Any]) -> None:
    """A field that is missing or is not text is refused, and the error names it."""
    for name in ("sign_up", "log_in"):
        with pytest.raises(InvalidInput, match=r"username|password"):
            await browser.send(name, fields)


async def test_devices(auth: AsyncAuth[User], browser: AsyncBrowser) -> None:
    """A login is listed on each device, and revoked by its handle."""
    phone = AsyncBrowser(auth)
    await browser.send("sign_up", ANN)
    await phone.send("log_in", ANN)
    devices: list[LoggedInDevice] = (await browser.get("devices")).content
    assert sorted(device.current for device in devices) == [False, True]
    (other,) = [device for device in devices if not device.current]
    (own,) = [device for device in devices if device.current]
    assert (await browser.send("revoke_device", handle=other.handle)).status == 204
    assert await phone.user_id() is None
    unknown = await browser.send("revoke_device", handle=other.handle)
    assert (unknown.status, unknown.content.detail) == (404, "No login on such a device.")
    assert (await browser.send("revoke_device", handle=own.handle)).status == 204
    assert browser.cookie is None


async def test_revoking_all_others(auth: AsyncAuth[User], browser: AsyncBrowser) -> None:
    """All other devices are logged out, and this one is not."""
    phone = AsyncBrowser(auth)
    await browser.send("sign_up", ANN)
    await phone.send("log_in", ANN)
    assert (await browser.send("revoke_others")).status == 204
    assert await phone.user_id() is None
    assert await browser.user_id() is not None


async def test_revoking_all_others_without_a_session(
    auth: AsyncAuth[User], browser: AsyncBrowser, store: AsyncWatchedStore
) -> None:
    """A session that is revoked meanwhile gets 401, and its cookie is cleared."""
    await browser.send("sign_up", ANN)
    session_id = browser.cookie or ""

    request = auth.handle_request(Exchange(session_id).context)
    assert await request.validate() is not None
    await auth.invalidate_session(session_id)
    route = route_of(browser.accounts, "revoke_others", "POST")
    with pytest.raises(NotAuthenticated):
        await browser.accounts.handle(route, request, Submission(fields={}))
    assert await request.validate() is None


async def test_changing_the_password(auth: AsyncAuth[User], browser: AsyncBrowser) -> None:
    """The other devices are logged out, this one gets a new id, and the new password counts."""
    phone = AsyncBrowser(auth)
    await browser.send("sign_up", ANN)
    await phone.send("log_in", ANN)
    before = browser.cookie
    change = {"current_password": PASSWORD, "new_password": "battery staple"}
    with pytest.raises(InvalidCredentials):
        await browser.send("change_password", {**change, "current_password": "wrong"})
    assert (await browser.send("change_password", change)).status == 200
    assert browser.cookie not in (None, before)
    assert await browser.user_id() is not None
    assert await phone.user_id() is None
    await phone.send("log_in", {**ANN, "password": "battery staple"})
    with pytest.raises(InvalidCredentials):
        await phone.send("log_in", ANN)


async def test_changing_the_password_of_a_revoked_session(
    auth: AsyncAuth[User], browser: AsyncBrowser
) -> None:
    """The password is changed for a session that is revoked meanwhile, and its cookie cleared."""
    await browser.send("sign_up", ANN)
    exchange = Exchange(browser.cookie)
    request = auth.handle_request(exchange.context)
    session = await request.validate()
    assert session is not None
    await auth.invalidate_session(session.session_id)
    route = route_of(browser.accounts, "change_password", "POST")
    change = {"current_password": PASSWORD, "new_password": "battery staple"}
    reply = await browser.accounts.handle(route, request, Submission(fields=change))
    assert (reply.content, exchange.values) == (SignedInUser(session.user_id), [""])
    await browser.send("log_in", {**ANN, "password": "battery staple"})


async def test_an_account_without_a_password(auth: AsyncAuth[User], browser: AsyncBrowser) -> None:
    """Who logs in by another provider has no password to change, and is told so."""
    user = await auth.create_user(primary_key=None)
    await auth.create_key(user.user_id, provider_id="github", provider_user_id="7", password=None)
    browser.cookie = (await auth.create_session(user.user_id)).session_id
    change = {"current_password": PASSWORD, "new_password": "battery staple"}
    with pytest.raises(InvalidInput, match="no password"):
        await browser.send("change_password", change)


async def test_the_primary_key_goes_first(auth: AsyncAuth[User], browser: AsyncBrowser) -> None:
    """With two names of one provider, the password of the primary key is changed."""
    user_id = (await browser.send("sign_up", {**ANN, "username": "zoe"})).content.user_id
    await auth.create_key(
        user_id, provider_id="username", provider_user_id="ann", password="other thing"
    )
    change = {"current_password": PASSWORD, "new_password": "battery staple"}
    assert (await browser.send("change_password", change)).status == 200


async def test_a_deleted_user_is_a_visitor(auth: AsyncAuth[User], browser: AsyncBrowser) -> None:
    """A session whose user is gone gets 401 where the user is needed."""
    browser.cookie = (await auth.create_session("nobody")).session_id
    shows = AsyncBrowser(auth, show_user=lambda user: {"id": user.user_id})
    shows.cookie = browser.cookie
    change = {"current_password": PASSWORD, "new_password": "battery staple"}
    for send in (
        lambda: browser.get("devices"),
        lambda: browser.send("change_password", change),
        lambda: shows.get("me"),
    ):
        with pytest.raises(NotAuthenticated):
            await send()  # type: ignore[no-untyped-call]


async def test_bearer_tokens(auth: AsyncAuth[User]) -> None:
    """With bearer tokens the responses have the session id, and there are no pages."""
    client = AsyncBrowser(auth, "bearer")
    assert not any(route.is_page for route in client.accounts.routes)
    created = (await client.send("sign_up", ANN)).content
    assert (created.token_type, client.cookie) == ("bearer", None)
    client.token = created.access_token
    assert await client.user_id() is not None
    change = {"current_password": PASSWORD, "new_password": "battery staple"}
    changed = (await client.send("change_password", change)).content
    assert await client.user_id() is None
    client.token = changed.access_token
    assert await client.user_id() is not None
    token = await client.send("token", {**ANN, "password": "battery staple"})
    assert token.headers["Cache-Control"] == "no-store"
    assert token.content.access_token not in repr(token)


async def test_renewing_a_token(auth: AsyncAuth[User]) -> None:
    """A bearer renews its token on demand, since no response does so by itself."""
    client = AsyncBrowser(auth, "bearer")
    client.token = first = (await client.send("sign_up", ANN)).content.access_token
    client.token = (await client.send("renew_token")).content.access_token
    assert client.token != first
    assert await client.user_id() is not None
    client.token = "0" * 40
    with pytest.raises(NotAuthenticated):
        await client.send("renew_token")


async def test_own_log_in_for_tokens(auth: AsyncAuth[User]) -> None:
    """The application's own rules for logging in hold for tokens, too."""

    async def log_in(request: AsyncAuthRequest[User], submission: Submission) -> None:
        raise InvalidCredentials

    client = AsyncBrowser(auth, "both", log_in=log_in)
    await client.send("sign_up", ANN)
    with pytest.raises(InvalidCredentials):
        await client.send("token", ANN)


async def test_cookies_and_tokens(auth: AsyncAuth[User]) -> None:
    """With both, a login sets a cookie, and ``/token`` issues a token and sets none."""
    client = AsyncBrowser(auth, "both")
    await client.send("sign_up", ANN)
    cookie = client.cookie
    assert cookie is not None
    token = (await client.send("token", ANN)).content
    assert isinstance(token, AccessToken)
    assert client.cookie == cookie
    client.cookie, client.token = None, token.access_token
    assert await client.user_id() is not None
    assert (await client.send("log_out")).status == 204
    assert await client.user_id() is None
    assert len(await auth.get_all_user_sessions(await _user_of(auth, cookie))) == 1


async def test_who_may_ask_for_a_token(auth: AsyncAuth[User]) -> None:
    """A program may, which has no Origin. A page of another site could use up the attempts."""
    client = AsyncBrowser(auth, "both")
    await client.send("sign_up", ANN)
    cookie, client.cookie = client.cookie, None
    client.origin = None
    assert isinstance((await client.send("token", ANN)).content, AccessToken)
    for client.origin, client.cookie in ((EVIL, None), (EVIL, cookie), (None, cookie)):
        with pytest.raises(InvalidRequest):
            await client.send("token", ANN)
    client.origin = client.cookie = None
    with pytest.raises(InvalidRequest):  # this would set a cookie
        await client.send("log_in", ANN)


async def _user_of(auth: AsyncAuth[User], session_id: str) -> str:
    return (await auth.get_session(session_id)).user_id


async def test_pages(auth: AsyncAuth[User]) -> None:
    """A browser gets pages and redirects, and a form that was refused again with its reason."""
    browser = AsyncBrowser(auth, wants_page=True, after_login="/home", after_logout="/bye")
    assert (await browser.get("sign_up")).page == Page("sign_up", "/auth")
    created = await browser.send("sign_up", ANN)
    assert (created.status, created.location) == (303, "/home")
    taken = await browser.send("sign_up", ANN, hidden={"token": "x"})
    assert (taken.status, taken.page) == (
        409,
        Page("sign_up", "/auth", "This name is taken.", "Ann", {"token": "x"}),
    )
    assert 'value="Ann"' in (taken.html or "")
    devices = (await browser.get("devices")).page
    assert devices is not None
    assert [device.current for device in devices.devices] == [True]
    assert (await browser.send("revoke_others")).location == "/auth/devices"
    assert (await browser.send("revoke_device", handle="x")).location == "/auth/devices"
    assert (await browser.get("change_password")).page == Page("change_password", "/auth")
    wrong = {"current_password": "wrong", "new_password": "battery staple"}
    assert (await browser.send("change_password", wrong)).status == 401
    changed = {"current_password": PASSWORD, "new_password": "battery staple"}
    assert (await browser.send("change_password", changed)).location == "/auth/devices"
    assert (await browser.send("log_out")).location == "/bye"


async def test_a_visitor_of_a_page(auth: AsyncAuth[User]) -> None:
    """A visitor is sent to the login page, which leads back from a page but not from a form."""
    browser = AsyncBrowser(auth, wants_page=True)
    devices = await browser.get("devices")
    assert (devices.status, devices.location) == (303, "/auth/login?next=/auth/devices")
    assert (await browser.get("change_password")).status == 303
    assert (await browser.send("revoke_others")).location == "/auth/login"
    wrong = await browser.send("log_in", ANN, query_next="/private")
    assert (wrong.status, wrong.headers["WWW-Authenticate"]) == (401, "APIKey")
    await browser.send("sign_up", ANN)
    assert (await browser.send("log_in", ANN, query_next="/private")).location == "/private"
    assert (await browser.send("log_in", ANN, query_next="//evil.example")).location == "/"
    browser.origin = EVIL
    with pytest.raises(InvalidRequest):
        await browser.send("log_out")


async def test_own_steps(auth: AsyncAuth[User]) -> None:
    """Each step can be the application's own function."""

    async def own(request: AsyncAuthRequest[User], submission: Submission) -> dict[str, Any]:
        return {"own": submission.path}

    steps: dict[str, Any] = {route.name: own for route in ROUTES}
    client = AsyncBrowser(auth, "both", **steps)
    for route in client.accounts.routes:
        if not route.is_page:
            reply = await client.send(route.name, method=route.method, handle="h")
            expected = {"own": f"/auth{route.path.format(handle='h')}"}
            assert reply.content == (None if reply.status == 204 else expected)


async def test_settings(auth: AsyncAuth[User], store: AsyncWatchedStore) -> None:
    """Provider, names, attributes, metadata, users and pages are what the settings say."""
    browser = AsyncBrowser(
        auth,
        provider_id="email",
        normalize=str.strip,
        attributes=lambda submission: {"nick": submission.text("nick")},
        metadata=lambda submission: {"agent": submission.user_agent},
        show_user=lambda user: {"me": user.user_id},
        render=lambda page: f"own {page.name}",
    )
    await browser.send("sign_up", {**ANN, "nick": "annie"})
    key = await auth.get_key("email", "Ann")
    user = await store.get_user(key.user_id)
    assert user is not None
    assert user.attributes == {"nick": "annie"}
    assert (await browser.get("me")).content == {"me": key.user_id}
    (device,) = await auth.get_all_user_sessions(key.user_id)
    assert device.metadata == {"agent": "tests"}
    assert (await browser.get("log_in")).html == "own log_in"


async def test_routes_that_are_left_out(auth: AsyncAuth[User]) -> None:
    """Signing up and the pages can be left out; tokens are for clients that use them."""
    names = [route.name for route in AsyncAccountRoutes(auth, "cookie").routes]
    assert "token" not in names
    accounts = AsyncAccountRoutes(auth, "cookie", sign_up=None, pages=False)
    assert {route.name for route in accounts.routes} == set(names) - {"sign_up"}
    assert not any(route.is_page for route in accounts.routes)
    closed = await AsyncBrowser(auth, wants_page=True, sign_up=None).get("log_in")
    assert "Sign up" not in (closed.html or "")
    opened = await AsyncBrowser(auth, wants_page=True).get("log_in", query_next="/a?b&c")
    assert '<a href="/auth/signup?next=/a%3Fb%26c">Sign up</a>' in (opened.html or "")


async def test_browsers_without_pages(auth: AsyncAuth[User]) -> None:
    """Without pages a browser gets what other clients get: there is no page to be sent to."""
    browser = AsyncBrowser(auth, wants_page=True, pages=False)
    with pytest.raises(NotAuthenticated):
        await browser.get("devices")
    assert isinstance((await browser.send("sign_up", ANN)).content, SignedInUser)
    assert (await browser.get("devices")).page is None
    with pytest.raises(InvalidCredentials):
        await browser.send("log_in", {**ANN, "password": "wrong"})
    for transport in ("bearer", "both"):
        # A browser's form that asks for a token gets it, and no redirect without it.
        form = AsyncBrowser(auth, transport, wants_page=True)
        assert isinstance((await form.send("token", ANN)).content, AccessToken)


async def test_the_own_step_does_not_log_in(auth: AsyncAuth[User]) -> None:
    """An application's own step may refuse by NotAuthenticated: the form says so."""

    async def log_in(request: AsyncAuthRequest[User], submission: Submission) -> None:
        raise NotAuthenticated

    browser = AsyncBrowser(auth, wants_page=True, log_in=log_in)
    refused = await browser.send("log_in", ANN)
    assert (refused.status, refused.location) == (401, None)
    assert "Not logged in." in (refused.html or "")


async def test_below_another_path(auth: AsyncAuth[User]) -> None:
    """Redirects of a mounted application stay below its root path, and on its host."""
    browser = AsyncBrowser(auth, wants_page=True, after_login="/home")
    signed_up = await browser.send("sign_up", ANN, root="/app")
    assert signed_up.location == "/app/home"
    back = await browser.send(
        "log_in", ANN, root="/app", query_next="http://localhost:8000/app/b", host="localhost:8000"
    )
    assert back.location == "/app/b"
    browser.cookie = None
    (route,) = [each for each in browser.accounts.routes if each.endpoint == "devices"]
    request = auth.handle_request(Exchange(method="GET").context)
    for path, location in (
        ("//evil.example/devices", "/evil.example/login"),
        ("/\t/evil.example/devices", "/%09/evil.example/login"),
    ):
        visit = Submission(fields={}, wants_page=True, path=path)
        visitor = await browser.accounts.handle(route, request, visit)
        assert (visitor.location or "").partition("?")[0] == location


async def test_names_that_are_too_long(browser: AsyncBrowser) -> None:
    """A field that no name and no password can have is refused before anything is done with it."""
    for name in ("username", "password"):
        with pytest.raises(InvalidInput, match=f"{name} is longer than 1,024 characters"):
            await browser.send("log_in", {**ANN, name: "a" * 1_025})


async def test_the_name_of_a_new_user(auth: AsyncAuth[User], store: AsyncWatchedStore) -> None:
    """The function for attributes knows the name as it is stored."""
    browser = AsyncBrowser(auth, attributes=lambda submission: {"email": submission.name})
    await browser.send("sign_up", {**ANN, "username": " ANN@example.com "})
    user = await store.get_user((await auth.get_key("username", "ann@example.com")).user_id)
    assert user is not None
    assert user.attributes == {"email": "ann@example.com"}


async def test_what_render_returns(auth: AsyncAuth[User]) -> None:
    """A function that renders pages returns text; anything else is an error that says so."""
    browser = AsyncBrowser(auth, wants_page=True, render=lambda page: 7)
    with pytest.raises(TypeError, match="render must return text, not int"):
        await browser.get("log_in")


def test_mistakes_in_the_settings(auth: AsyncAuth[User]) -> None:
    """A mistake in the settings is an error at once, which says what was expected."""
    settings: Any
    for settings, error, text in (
        ({"sign_in": None}, TypeError, "sign_in"),
        ({"log_in": None}, TypeError, "log_in must be a function"),
        ({"after_login": "home"}, ValueError, "after_login must be a path"),
        ({"after_logout": "javascript:1"}, ValueError, "after_logout must be a path"),
        ({"render": "login.html"}, TypeError, "render must be a function"),
        ({"show_user": 7}, TypeError, "show_user must be a function"),
        ({"me": "me"}, TypeError, "me must be a function"),
    ):
        with pytest.raises(error, match=text):
            AsyncAccountRoutes(auth, "cookie", **settings)


async def test_an_adapter_without_metadata() -> None:
    """With an adapter that keeps no metadata, logins have none."""
    store = AsyncDictionaryAdapter()
    store.keeps_attributes = False
    auth: AsyncAuth[User] = AsyncAuth(sessions=store, env="DEV")
    assert not auth.keeps_metadata
    accounts = AsyncAccountRoutes(auth, "cookie")
    assert accounts._metadata(Submission(fields={}, user_agent="tests")) == {}
