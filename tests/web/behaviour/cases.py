"""The cases: what every integration does over HTTP, whatever the framework and the server."""

import re
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from html import unescape
from typing import Any, TypeVar

import httpx
import pytest
import redis

from lucia import InvalidSessionId
from tests.support.redis_servers import frozen
from tests.web.behaviour.sites import HTML, NAME, PASSWORD, Site, set_cookies
from tools.servers import until

T = TypeVar("T")

FOREIGN = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
DEAD = "a" * 40
"""A well-formed session id that nobody has."""


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make the calls in as many threads at once, and return what they returned."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def user_of(client: httpx.Client) -> str | None:
    """Return the id of the user who is logged in in this browser."""
    response = client.get("/who")
    assert response.status_code == 200
    user_id: str | None = response.json()["user_id"]
    return user_id


# Cookies


def test_a_visitor_gets_no_cookie(site: Site) -> None:
    """No response to a visitor sets a cookie or forbids caching."""
    with site.browser() as client:
        for path in ("/who", "/unused", "/stream", "/private"):
            response = client.get(path)
            assert set_cookies(response) == []
            assert "no-store" not in response.headers.get("cache-control", "")


def test_signing_up_sets_the_cookie(site: Site) -> None:
    """The response to signing up has one cookie, which no script and no shared cache sees."""
    with site.browser() as client:
        form = {"username": "Anna Sophie", "password": PASSWORD}
        response = client.post("/auth/signup", json=form)
        assert response.status_code == 201
        (header,) = response.headers.get_list("set-cookie")
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(header.split("; "))
        assert "Secure" not in header
        assert response.headers["cache-control"] == "no-store"
        assert "cookie" in response.headers.get("vary", "").lower()
        assert response.json() == {"user_id": user_of(client)}
        again = client.post("/auth/login", json={**form, "username": "anna sophie "})
        assert again.json() == response.json()


def test_logging_in_replaces_the_session(site: Site) -> None:
    """A login gets a new id, and the id that the browser had is dead."""
    client, name = site.member()
    with client:
        before = client.cookies[NAME]
        response = client.post("/auth/login", json={"username": name, "password": PASSWORD})
        assert response.status_code == 200
        assert set_cookies(response) == [client.cookies[NAME]]
        assert client.cookies[NAME] != before
        with site.browser(before) as thief:
            assert user_of(thief) is None


def test_an_active_session_changes_no_response(site: Site) -> None:
    """The response to a request with an active session has no cookie."""
    client, _ = site.member()
    with client:
        for path in ("/who", "/private", "/auth/me", "/stream", "/gone"):
            response = client.get(path)
            assert set_cookies(response) == []
            assert client.get("/who").json()["user_id"] is not None


RENEWING = {
    "/who": 200,
    "/private": 200,
    "/crash": 500,
    "/gone": 404,
    "/redirect": 303,
    "/stream": 200,
    "/own-headers": 200,
    "/auth/me": 200,
}


@pytest.mark.parametrize("path", RENEWING)
def test_an_idle_session_is_renewed_on_every_kind_of_response(site: Site, path: str) -> None:
    """The new id is on the response, also on errors, redirects and streams."""
    idle = site.idle_session()
    # Some servers close a connection after an error: no later request may use it.
    with site.browser(idle.session_id, Connection="close") as client:
        response = client.get(path)
        assert response.status_code in (RENEWING[path], 302 if path == "/redirect" else None)
        (renewed,) = set_cookies(response)
        assert renewed not in ("", idle.session_id)
        assert response.headers.get_list("cache-control") == ["no-store"]
        assert "cookie" in response.headers.get("vary", "").lower()
    with site.browser(renewed) as client:
        assert user_of(client) == "ann"
        assert set_cookies(client.get("/who")) == []


def test_what_a_cache_may_keep(site: Site) -> None:
    """A response that depends on who asks says so; one that does not is the same for all."""
    member, _ = site.member()
    with member, site.browser() as visitor:
        for client in (member, visitor):
            assert "cookie" in client.get("/who").headers.get("vary", "").lower()
            assert "cookie" not in client.get("/unused").headers.get("vary", "").lower()


def test_the_applications_own_headers_stay(site: Site) -> None:
    """The application's own cookie and Vary stay beside those of the library."""
    with site.browser(site.idle_session().session_id) as client:
        response = client.get("/own-headers")
        cookies = response.headers.get_list("set-cookie")
        assert sorted(cookie.partition("=")[0] for cookie in cookies) == [NAME, "theme"]
        varies = ",".join(response.headers.get_list("vary")).lower()
        assert {each.strip() for each in varies.split(",")} >= {"accept-language", "cookie"}
        again = client.get("/own-headers")
        assert [each[:5] for each in again.headers.get_list("set-cookie")] == ["theme"]
        assert again.headers["cache-control"] == "public, max-age=60"


def test_a_cookie_stays_on_the_response_to_an_error(site: Site) -> None:
    """Somebody who was logged in before the application crashed is logged in."""
    with site.browser(Connection="close") as client:
        response = client.post("/crash")
        assert response.status_code == 500
        assert len(set_cookies(response)) == 1
        assert user_of(client) == "ann"


def test_a_route_that_does_not_ask_renews_nothing(site: Site) -> None:
    """A request whose route does not ask who it is leaves an idle session as it is."""
    idle = site.idle_session()
    with site.browser(idle.session_id) as client:
        assert set_cookies(client.get("/unused")) == []
        assert site.auth.get_session(idle.session_id).state == "idle"


def test_a_head_request(site: Site) -> None:
    """A HEAD request renews as GET does, and has no body."""
    with site.browser(site.idle_session().session_id) as client:
        response = client.head("/who")
        assert (response.status_code, response.content) == (200, b"")
        assert len(set_cookies(response)) == 1


def test_logging_out(site: Site) -> None:
    """Logging out clears the cookie, and the id is dead; to do it again changes nothing."""
    client, _ = site.member()
    with client:
        used = client.cookies[NAME]
        response = client.post("/auth/logout")
        assert response.status_code == 204
        assert set_cookies(response) == [""]
        assert "1970" in response.headers["set-cookie"]
        assert NAME not in client.cookies
        with site.browser(used) as thief:
            assert user_of(thief) is None
        assert client.post("/auth/logout").status_code == 204


def test_a_dead_session_is_a_visitor(site: Site) -> None:
    """A session that nobody has makes a visitor; the cookie is not cleared for it."""
    with site.browser(DEAD) as client:
        response = client.get("/who")
        assert (response.json()["user_id"], set_cookies(response)) == (None, [])
        assert client.get("/private").status_code == 401


# Hostile headers


HOSTILE = [
    "",
    ";;;=;",
    f"{NAME}",
    f"{NAME}=",
    f"{NAME}={'a' * 39}",
    f"{NAME}={'a' * 41}",
    f'{NAME}="{DEAD}"',
    f"{NAME}=\xe4\xf6\xfc\xff",
    f"{NAME}=../../etc/passwd",
    f"{NAME}={DEAD}%00",
    f"{NAME}=*; {NAME}=?",
    f"\t{NAME}\t=\t{DEAD}\t",
]


@pytest.mark.parametrize("cookie", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_cookie_is_a_visitor(site: Site, cookie: str) -> None:
    """No text of a Cookie header is an error of the server's, and none logs anybody in."""
    response = site.send_raw("GET /who HTTP/1.1", f"Cookie: {cookie}")
    status = response.split(b" ", 2)[1]
    assert status in (b"200", b"400")  # granian refuses bytes outside of ASCII by itself
    if status == b"200":
        assert b'"user_id": null' in response.replace(b'":null', b'": null')
    assert b"set-cookie" not in response.lower()


def test_an_oversized_cookie(site: Site) -> None:
    """A header of 100 KiB is refused by the server, or read; it is no error of the server's."""
    response = site.send_raw("GET /who HTTP/1.1", f"Cookie: x={'a' * 100_000}; {NAME}={DEAD}")
    assert not response or response.split(b" ", 2)[1] in (b"200", b"400", b"413", b"431")
    with site.browser() as client:
        assert user_of(client) is None


def test_a_planted_cookie_is_skipped(site: Site) -> None:
    """A malformed cookie of the same name, sent before the session's, does not hide it."""
    session = site.auth.create_session("ann")
    line = f"Cookie: {NAME}=planted; theme=dark; {NAME}={session.session_id}"
    assert b'"ann"' in site.send_raw("GET /who HTTP/1.1", line)


def test_two_cookie_headers(site: Site) -> None:
    """Two Cookie headers never mix up sessions: it is the owner of the id, or a visitor."""
    session = site.auth.create_session("ann")
    own = f"Cookie: {NAME}={session.session_id}"
    response = site.send_raw("GET /who HTTP/1.1", "Cookie: theme=dark", own)
    assert b"200" in response.split(b"\r\n")[0]
    assert b'"ann"' in response or b"null" in response


# Origins


def attempt(site: Site, headers: dict[str, str]) -> int:
    """Log out with these headers; return the status, after checking that it decides."""
    session = site.auth.create_session("ann")
    with httpx.Client(base_url=site.url, trust_env=False, cookies={NAME: session.session_id}) as c:
        status = c.post("/auth/logout", headers=headers).status_code
    try:
        site.auth.get_session(session.session_id)
        is_alive = True
    except InvalidSessionId:
        is_alive = False
    assert is_alive == (status == 403)
    return status


def test_the_own_origin(site: Site) -> None:
    """A request of the site's own pages changes something, by Origin or Sec-Fetch-Site."""
    assert attempt(site, {"Origin": site.url}) == 204
    assert attempt(site, {"Sec-Fetch-Site": "same-origin"}) == 204


def test_other_origins(site: Site) -> None:
    """Pages of other sites change nothing, and neither do requests that name no origin."""
    assert attempt(site, {}) == 403
    assert attempt(site, {"Origin": "null"}) == 403
    assert attempt(site, FOREIGN) == 403
    assert attempt(site, {"Origin": "https://evil.example"}) == 403
    assert attempt(site, {"Origin": site.url, "Sec-Fetch-Site": "cross-site"}) == 403
    assert attempt(site, {"Origin": site.url, "Sec-Fetch-Site": "same-site"}) == 403
    assert attempt(site, {"Sec-Fetch-Site": "somewhere"}) == 403


def test_a_trusted_origin(site: Site) -> None:
    """A page of an origin that the application trusts may change something."""
    page = {"Origin": "https://trusted.example", "Sec-Fetch-Site": "cross-site"}
    assert attempt(site, page) == 204


def test_default_ports(site: Site) -> None:
    """An origin with the scheme's default port is the same as one without."""
    assert attempt(site, {"Host": "shop.example", "Origin": "http://shop.example:80"}) == 204
    assert attempt(site, {"Host": "shop.example:80", "Origin": "http://shop.example"}) == 204
    assert attempt(site, {"Host": "shop.example", "Origin": "http://shop.example:81"}) == 403


def test_behind_a_proxy_that_terminates_tls(site: Site) -> None:
    """The browser says that the page is the site's own, whatever scheme the server sees."""
    page = {"Host": "shop.example", "Origin": "https://shop.example"}
    assert attempt(site, {**page, "Sec-Fetch-Site": "same-origin"}) == 204


def test_behind_a_proxy_that_says_so(site: Site) -> None:
    """The scheme that a trusted proxy tells the server decides, for browsers that say less."""
    page = {"Host": "shop.example", "Origin": "https://shop.example"}
    assert attempt(site, page) == 403
    status = attempt(site, {**page, "X-Forwarded-Proto": "https"})
    assert status == (204 if site.kind.trusts_proxy else 403)


def test_two_origins(site: Site) -> None:
    """A request with two Origin headers is refused."""
    session = site.auth.create_session("ann")
    response = site.send_raw(
        "POST /auth/logout HTTP/1.1",
        "Content-Length: 0",
        f"Cookie: {NAME}={session.session_id}",
        f"Origin: {site.url}",
        "Origin: https://evil.example",
    )
    assert response.split(b" ", 2)[1] in (b"403", b"400")
    assert site.auth.get_session(session.session_id).state == "active"


def test_a_foreign_page_gets_json(site: Site) -> None:
    """The response to a request of another site says why it was refused."""
    client, _ = site.member()
    with client:
        response = client.post("/auth/logout", headers=FOREIGN)
        assert response.status_code == 403
        assert "another site" in response.json()["detail"]
        assert user_of(client) is not None


# Visitors, and errors of people


def test_a_visitor_of_an_api(site: Site) -> None:
    """A client that asks for JSON gets 401 with the scheme, at own and at ready routes."""
    with site.browser() as client:
        for path in ("/private", "/auth/me", "/auth/devices"):
            response = client.get(path)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "APIKey")
            assert response.json()["detail"] == "Not logged in."


def test_a_visitor_of_a_page(site: Site) -> None:
    """A browser is sent to the login page, which leads back."""
    with site.browser(**HTML) as client:
        response = client.get("/private")
        assert response.status_code in (302, 303)
        assert response.headers["location"].endswith("/auth/login?next=/private")
        assert set_cookies(response) == []


def test_wrong_credentials(site: Site) -> None:
    """A wrong password and an unknown name get the same response, and no cookie."""
    client, name = site.member()
    with client, site.browser() as visitor:
        wrong = visitor.post("/auth/login", json={"username": name, "password": "wrong"})
        unknown = visitor.post("/auth/login", json={"username": "nobody", "password": "wrong"})
        assert (wrong.status_code, unknown.status_code) == (401, 401)
        assert wrong.json() == unknown.json()
        assert "www-authenticate" in wrong.headers
        assert set_cookies(wrong) + set_cookies(unknown) == []


def test_input_that_is_refused(site: Site) -> None:
    """A name that is taken is 409, and input that can't be stored or read is 422 or 400."""
    client, name = site.member()
    with client, site.browser() as visitor:

        def status(**message: Any) -> int:
            response = visitor.post("/auth/signup", **message)
            assert set_cookies(response) == []
            assert isinstance(response.json()["detail"], str)
            return response.status_code

        assert status(json={"username": name, "password": PASSWORD}) == 409
        assert status(json={"username": "", "password": PASSWORD}) == 422
        assert status(json={"username": "new", "password": ""}) == 422
        assert status(json={"username": "new"}) == 422
        assert status(json={"username": ["new"], "password": PASSWORD}) == 422
        assert status(json=["new"]) == 422
        json_type = {"Content-Type": "application/json"}
        assert status(content=b"{", headers=json_type) in (400, 422)
        assert status(content=b"new", headers={"Content-Type": "text/plain"}) == 422
        assert status(data={"username": "new\x00", "password": PASSWORD}) == 422


# Pages


def form_of(response: httpx.Response, action: str = "") -> dict[str, str]:
    """Return the hidden fields of the form with this action on a page."""
    assert response.headers["content-type"].startswith("text/html")
    forms = re.findall(r'<form method="post"([^>]*)>(.*?)</form>', response.text, re.DOTALL)
    for attributes, inputs in forms:
        found = re.search(r'action="([^"]*)"', attributes)
        if (found[1] if found else "") == action:
            hidden = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', inputs)
            return {unescape(name): unescape(value) for name, value in hidden}
    raise AssertionError(f"no form for {action!r} on the page: {response.text}")


def test_pages_of_a_browser(site: Site) -> None:
    """A browser signs up, sees its devices, changes the password and logs out by forms."""
    with site.browser(**HTML) as client:

        def submit(path: str, action: str = "", **fields: str) -> httpx.Response:
            hidden = form_of(client.get(path), action)
            return client.post(action or path, data={**hidden, **fields})

        person = {"username": "page person", "password": PASSWORD}
        assert submit("/auth/signup", **person).headers["location"] == "/"
        again = submit("/auth/signup", **person)
        assert (again.status_code, "This name is taken." in again.text) == (409, True)
        assert 'value="page person"' in again.text
        page = client.get("/auth/devices")
        assert (page.status_code, "this device" in page.text) == (200, True)
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        change = {"current_password": PASSWORD, "new_password": "battery staple"}
        changed = submit("/auth/password", **change)
        assert (changed.status_code, changed.headers["location"]) == (303, "/auth/devices")
        wrong = submit("/auth/password", **change)
        assert (wrong.status_code, 'role="alert"' in wrong.text) == (401, True)
        with site.browser(**HTML) as other:
            hidden = form_of(other.get("/auth/login?next=/private"))
            fields = {**hidden, "username": "page person", "password": "battery staple"}
            logged_in = other.post("/auth/login?next=/private", data=fields)
            assert (logged_in.status_code, logged_in.headers["location"]) == (303, "/private")
            submit("/auth/devices", "/auth/devices/revoke-others")
            assert user_of(other) is None
            sent = other.get("/auth/devices")
            assert sent.headers["location"].endswith("/auth/login?next=/auth/devices")
        out = submit("/auth/devices", "/auth/logout")
        assert (out.status_code, out.headers["location"], set_cookies(out)) == (303, "/", [""])


@pytest.mark.parametrize(
    "following", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1"]
)
def test_no_open_redirect(site: Site, following: str) -> None:
    """A login leads to pages of the own site only."""
    client, name = site.member()
    client.close()
    with site.browser(**HTML) as visitor:
        page = visitor.get("/auth/login", params={"next": following})
        fields = {**form_of(page), "username": name, "password": PASSWORD}
        response = visitor.post("/auth/login", params={"next": following}, data=fields)
        assert (response.status_code, response.headers["location"]) == (303, "/")


def test_a_wrong_password_on_the_page(site: Site) -> None:
    """The page says that the login failed, keeps the name, escapes it, and has no password."""
    with site.browser(**HTML) as client:
        hidden = form_of(client.get("/auth/login"))
        fields = {**hidden, "username": '"><script>', "password": "secret thing"}
        response = client.post("/auth/login", data=fields)
        assert response.status_code == 401
        assert "Wrong name or password." in response.text
        assert "<script>" not in response.text
        assert "&lt;script&gt;" in response.text
        assert "secret thing" not in response.text


# Devices


def test_logging_out_elsewhere(site: Site) -> None:
    """A device is listed with its user agent, and revoked by its handle."""
    phone, name = site.member()
    with phone, site.browser(**{"User-Agent": "laptop"}) as laptop:
        laptop.post("/auth/login", json={"username": name, "password": PASSWORD})
        devices = phone.get("/auth/devices").json()
        assert [device["current"] for device in devices] == [False, True]
        assert devices[0]["metadata"] == {"user_agent": "laptop"}
        assert not {phone.cookies[NAME], laptop.cookies[NAME]} & {str(each) for each in devices}
        revoked = phone.post(f"/auth/devices/{devices[0]['handle']}/revoke")
        assert revoked.status_code == 204
        assert (user_of(laptop), user_of(phone)) == (None, phone.get("/who").json()["user_id"])
        assert len(phone.get("/auth/devices").json()) == 1
        own = phone.post(f"/auth/devices/{devices[1]['handle']}/revoke")
        assert set_cookies(own) == [""]
        assert user_of(phone) is None


def test_nobody_revokes_the_devices_of_others(site: Site) -> None:
    """Another user's handle is 404, and revokes nothing."""
    one, _ = site.member()
    other, _ = site.member()
    with one, other:
        (device,) = other.get("/auth/devices").json()
        assert one.post(f"/auth/devices/{device['handle']}/revoke").status_code == 404
        assert user_of(other) is not None


def test_changing_the_password(site: Site) -> None:
    """A change of the password logs out all other devices, and gives this one a new id."""
    client, name = site.member()
    with client, site.browser() as other:
        old = {"username": name, "password": PASSWORD}
        other.post("/auth/login", json=old)
        used = client.cookies[NAME]
        wrong = {"current_password": "wrong", "new_password": "battery staple"}
        assert client.post("/auth/password", json=wrong).status_code == 401
        assert user_of(other) is not None
        change = {"current_password": PASSWORD, "new_password": "battery staple"}
        response = client.post("/auth/password", json=change)
        assert response.status_code == 200
        assert set_cookies(response) == [client.cookies[NAME]]
        with site.browser(used) as thief:
            assert (user_of(thief), user_of(other)) == (None, None)
        assert user_of(client) is not None
        assert other.post("/auth/login", json=old).status_code == 401
        new = {"username": name, "password": "battery staple"}
        assert other.post("/auth/login", json=new).status_code == 200


# Concurrency


def test_parallel_requests_renew_once(site: Site) -> None:
    """Twenty requests at once with an idle session lead to one successor, and set its cookie."""
    idle = site.idle_session()
    clients = [site.browser(idle.session_id) for _ in range(20)]
    responses = at_once([partial(client.get, "/who") for client in clients])
    assert {response.json()["user_id"] for response in responses} == {"ann"}
    cookies = [set_cookies(response) for response in responses]
    assert len({cookie for (cookie,) in cookies}) == 1


def test_one_of_parallel_sign_ups_wins(site: Site) -> None:
    """Of twenty sign-ups with one name, one succeeds, and nobody else is logged in."""
    form = {"username": f"race {time.monotonic_ns()}", "password": PASSWORD}

    def sign_up() -> httpx.Response:
        with site.browser() as client:
            return client.post("/auth/signup", json=form)

    responses = at_once([sign_up] * 20)
    assert sorted(each.status_code for each in responses) == [201] + [409] * 19
    assert sum(len(set_cookies(each)) for each in responses) == 1


def test_nothing_survives_a_logout(site: Site) -> None:
    """Requests that renew while somebody logs out leave no session that lives on."""
    idle = site.idle_session("lou")

    def logout() -> httpx.Response:
        with site.browser(idle.session_id) as client:
            return client.post("/auth/logout")

    def visit() -> httpx.Response:
        with site.browser(idle.session_id) as client:
            return client.get("/who")

    responses = at_once([visit] * 10 + [logout] + [visit] * 9)
    assert responses[10].status_code == 204
    ids = {cookie for each in responses for cookie in set_cookies(each) if cookie}
    for session_id in {idle.session_id, *ids}:
        with site.browser(session_id) as client:
            assert user_of(client) is None


def test_nothing_survives_a_change_of_the_password(site: Site) -> None:
    """Logins with the old password, while it is changed, leave no session that lives on."""
    client, name = site.member()
    old = {"username": name, "password": PASSWORD}

    def log_in() -> httpx.Response:
        with site.browser() as other:
            return other.post("/auth/login", json=old)

    def change() -> httpx.Response:
        new = {"current_password": PASSWORD, "new_password": "battery staple"}
        return client.post("/auth/password", json=new)

    with client:
        responses = at_once([log_in] * 8 + [change] + [log_in] * 8)
        assert responses[8].status_code == 200
        assert user_of(client) is not None
        for response in responses[:8] + responses[9:]:
            for cookie in set_cookies(response):
                with site.browser(cookie) as other:
                    assert user_of(other) is None
        assert len(client.get("/auth/devices").json()) == 1


def test_clients_that_hang_up(site: Site) -> None:
    """Two hundred clients that hang up in the middle of a request leak no connection."""
    session = site.auth.create_session("ann")
    head = f"GET /slow HTTP/1.1\r\nHost: x\r\nCookie: {NAME}={session.session_id}\r\n\r\n"

    def hang_up() -> None:
        with suppress(OSError):
            raw = socket.create_connection(("127.0.0.1", site.port), timeout=10)
            raw.sendall(head.encode())
            raw.close()

    client: Any
    with redis.Redis.from_url(site.redis_server.url) as client, site.browser() as browser:
        for _ in range(4):
            for _ in range(50):
                hang_up()
            assert user_of(browser) is None
        counts = [0]
        while len(counts) < 3 or len(set(counts[-3:])) > 1:  # until all requests have ended
            time.sleep(0.2)
            counts.append(len(client.client_list()))
        # Pools grow with the requests at once. A leak would be a connection for each.
        assert counts[-1] <= 100 + 10 * site.kind.workers


# Processes


def test_all_processes_know_the_session(site: Site) -> None:
    """A session that one worker created is known to each of them."""
    client, _ = site.member()
    pids = set()
    with client:
        for _ in range(200):
            response = client.get("/who", headers={"Connection": "close"})
            assert response.json()["user_id"] is not None
            pids.add(response.json()["pid"])
            if len(pids) == site.kind.workers:
                break
    assert len(pids) == site.kind.workers


# Outages: the last cases, since connections are replaced by them.


def test_an_outage(site: Site) -> None:
    """While Redis does not reply, 503 and no cookie; afterwards the same cookie works."""
    client, name = site.member()
    with client, site.browser() as visitor:
        before = client.cookies[NAME]
        form = {"username": name, "password": PASSWORD}
        with frozen(site.redis_server):
            for response in (
                client.get("/who"),
                client.get("/private"),
                client.get("/auth/me"),
                client.post("/auth/logout"),
                visitor.post("/auth/login", json=form),
            ):
                assert response.status_code == 503
                assert response.headers["retry-after"] == "1"
                assert "set-cookie" not in response.headers
                assert "detail" in response.json()
            assert user_of(visitor) is None
            assert client.cookies[NAME] == before
        until(lambda: client.get("/who").status_code == 200)
        assert user_of(client) is not None
        assert client.cookies[NAME] == before
