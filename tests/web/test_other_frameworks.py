"""The page about other frameworks: its recipes keep their promises, each in a real server."""

import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import redis
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from lucia import Auth, InvalidSessionId, Session, User
from lucia.adapters.redis import RedisSessionAdapter
from tests.docs.run_page import SHOWN_URL
from tests.support.redis_servers import frozen
from tests.web.behaviour.cases import DEAD, FOREIGN, HOSTILE, at_once
from tests.web.behaviour.sites import NAME, PASSWORD, set_cookies
from tests.web.recipes_support import PARTS
from tools.servers import Server, until, unused_port

pytestmark = pytest.mark.no_cover

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/other-frameworks.md").read_text(encoding="utf-8")
INTRODUCTION, *SECTIONS = re.split(r"(?m)^## ", PAGE)
BLOCK: Final = re.compile(r"(?ms)^```(?:py|bash)\n(.*?)^```$")
SHOWN_PORT: Final = "8000"
START: Final = '\nif __name__ == "__main__":\n'

ROUTES: Final = {
    "aiohttp": "add_to_aiohttp",
    "Sanic": "add_to_sanic",
    "Falcon, ASGI": "add_to_falcon_asgi",
    "Falcon, WSGI": "add_to_falcon_wsgi",
    "Bottle": "add_to_bottle",
    "Tornado": "add_to_tornado",
}
"""The headings of the recipes, and what adds the routes for the tests."""

SYNC: Final = ("Falcon, WSGI", "Bottle")

FASTER: Final = {
    "import os\n": "import os\nfrom datetime import timedelta\n\nfrom lucia import ScryptHash\n",
    "id_keys=": "deadline=timedelta(seconds=0.5), id_keys=",
    "env=": "hash=ScryptHash(ln=4, r=1, p=1), env=",
}
"""The replacements in ``auth.py``: the cost of the hash, and how long Redis has to reply."""


@dataclass(frozen=True)
class SocketRules:
    """The behaviour of WebSockets.

    Args:
        renews: whether a handshake renews an idle session.
        foreign: the status of a handshake from another site.
        refused: the status of an error before the acceptance; None if there is no such moment.
        closed: the code that closes the socket after an error; 1006 for none.
    """

    renews: bool
    foreign: int
    refused: int | None
    closed: int


@dataclass(frozen=True)
class Recipe:
    """A section of the page.

    Args:
        name: its heading.
        sessions: the file ``sessions.py``, which is the recipe itself.
        app: the file ``app.py``.
        commands: each starts the application in a server.
    """

    name: str
    sessions: str
    app: str
    commands: tuple[str, ...]


def read_recipe(name: str) -> Recipe:
    """Return the recipe under a heading."""
    (section,) = (each for each in SECTIONS if each.startswith(f"{name}\n"))
    sessions, app, commands = BLOCK.findall(section)
    return Recipe(name, sessions, app, tuple(commands.splitlines()))


RECIPES: Final = [read_recipe(name) for name in ROUTES]
SITES: Final = {
    f"{recipe.name}, {command.split()[0]}": (recipe, command)
    for recipe in RECIPES
    for command in recipe.commands
}
"""The recipes, and the commands that start them, by the names of their tests."""

SOCKETS: Final = {
    "aiohttp, python": SocketRules(renews=True, foreign=403, refused=429, closed=1006),
    "Sanic, sanic": SocketRules(renews=False, foreign=403, refused=None, closed=1000),
    "Sanic, uvicorn": SocketRules(renews=False, foreign=500, refused=None, closed=1006),
    "Falcon, ASGI, uvicorn": SocketRules(renews=True, foreign=403, refused=403, closed=1008),
    "Tornado, python": SocketRules(renews=True, foreign=403, refused=429, closed=1006),
}


@dataclass
class Site:
    """A recipe's application in a server.

    Args:
        recipe: the recipe.
        command: the command of the page that started it.
        port: where the server listens.
        redis_server: holds the sessions.
        auth: an auth for the sessions.
        past_auth: the same, with a clock that is slow by 25 hours.
        log: the file with the output of the server.
    """

    recipe: Recipe
    command: str
    port: int
    redis_server: Server
    auth: Auth[User]
    past_auth: Auth[User]
    log: Path

    @property
    def url(self) -> str:
        """The URL of the site."""
        return f"http://127.0.0.1:{self.port}"

    def browser(self, cookie: str | None = None, **headers: str) -> httpx.Client:
        """Return a client with a cookie jar that sends the Origin of the site's own pages."""
        client = httpx.Client(
            base_url=self.url, headers={"Origin": self.url, **headers}, trust_env=False, timeout=30
        )
        if cookie is not None:
            client.cookies.set(NAME, cookie, domain="127.0.0.1")
        return client

    def session(self) -> str:
        """Create a session of ann's, and return its id."""
        return self.auth.create_session("ann").session_id

    def idle_session(self) -> str:
        """Create a session of ann's that has been idle since an hour ago, and return its id."""
        return self.past_auth.create_session("ann").session_id

    def find(self, session_id: str) -> Session | None:
        """Return a session as it is stored, or None."""
        try:
            return self.auth.get_session(session_id)
        except InvalidSessionId:
            return None

    def send_raw(self, *lines: str) -> bytes:
        """Send a request of these lines by hand, and return the whole response."""
        text = "\r\n".join([*lines, f"Host: 127.0.0.1:{self.port}", "Connection: close", "", ""])
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as raw:
            raw.sendall(text.encode("latin-1"))
            received = b""
            while part := raw.recv(65_536):
                received += part
            return received

    def open_socket(self, path: str, cookie: str = DEAD, **headers: str) -> ClientConnection:
        """Open a WebSocket with a session cookie."""
        sent = {"Cookie": f"{NAME}={cookie}", "Origin": self.url, **headers}
        return connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers=sent, proxy=None)

    def responds(self) -> bool:
        """Return whether the server serves the application."""
        try:
            return httpx.get(f"{self.url}/address", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def write_files(folder: Path, recipe: Recipe, server: Server, port: int) -> None:
    """Write the files of a recipe as a reader does, and add the routes for the tests."""
    auth = BLOCK.findall(INTRODUCTION)[2 if recipe.name in SYNC else 1].replace(
        SHOWN_URL, server.url
    )
    for shown, faster in FASTER.items():
        assert auth.count(shown) == 1
        auth = auth.replace(shown, faster)
    (folder / "auth.py").write_text(auth)
    (folder / "sessions.py").write_text(recipe.sessions)
    app, start, end = recipe.app.replace(SHOWN_PORT, str(port)).partition(START)
    function = ROUTES[recipe.name]
    routes = f"from tests.web.recipes_support import {function}\n\n{function}(app)\n"
    (folder / "app.py").write_text(app + routes + start + end)


@contextmanager
def serving(recipe: Recipe, command: str, folder: Path, server: Server) -> Iterator[Site]:
    """Run a command of the page in a folder with the recipe's files."""
    port, log, key = unused_port(), folder / "log", secrets.token_bytes(32)
    write_files(folder, recipe, server, port)
    program, *arguments = shlex.split(command.replace(SHOWN_PORT, str(port)))
    inherited = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    with log.open("w") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name(program), *arguments],
            cwd=folder,
            env={**inherited, "SESSION_KEY": key.hex(), "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with redis.Redis.from_url(server.url, protocol=2) as client:
            auth, past_auth = make_auth(client, key), make_auth(client, key, hours_ago=25)
            yield Site(recipe, command, port, server, auth, past_auth, log)
        assert process.poll() is None, log.read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too, which may take seconds to end
        process.wait()


def make_auth(client: Any, key: bytes, hours_ago: int = 0) -> Auth[User]:
    """Return an auth for an application's sessions, whose clock may be slow."""
    return Auth(
        sessions=RedisSessionAdapter(client, id_keys=[key]),
        env="DEV",
        clock=lambda: int(time.time() * 1_000) - hours_ago * 3_600_000,
    )


@pytest.fixture(scope="module")
def sites(
    redis_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Site]]:
    """Serve every recipe; all servers start at once."""
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(
                serving(recipe, command, tmp_path_factory.mktemp("recipe"), redis_server)
            )
            for name, (recipe, command) in SITES.items()
        }
        for site in found.values():
            until(site.responds, 30)
        yield found


@pytest.fixture(params=SITES)
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    """Return each recipe's site in turn."""
    return sites[request.param]


def user_of(client: httpx.Client) -> str | None:
    """Return the id of the user who is logged in in this browser."""
    response = client.get("/me")
    if response.status_code == 401:
        return None
    assert response.status_code == 200
    return str(response.json()["user_id"])


def varies(response: httpx.Response) -> set[str]:
    """Return the fields of all Vary headers of a response."""
    fields = ",".join(response.headers.get_list("vary")).lower().split(",")
    return {field.strip() for field in fields}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_length(recipe: Recipe) -> None:
    """A recipe has at most 30 lines that are not blank, of at most 100 columns as all code."""
    lines = [line for line in recipe.sessions.splitlines() if line.strip()]
    assert len(lines) <= 30
    assert [line for line in lines if len(line) > 100] == []


def test_log_in_and_out(site: Site) -> None:
    """A login sets the cookie, a logout clears it and kills the id, and nothing else sets one."""
    form = {"name": secrets.token_hex(8), "password": "cörrect horse"}
    with site.browser() as client:
        signed_up = client.post("/signup", data=form)
        assert signed_up.status_code == 200
        (header,) = signed_up.headers.get_list("set-cookie")
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(header.split("; "))
        first = client.cookies[NAME]

        logged_in = client.post("/login", data=form)
        assert logged_in.json() == signed_up.json()
        assert set_cookies(logged_in) == [client.cookies[NAME]] != [first]
        assert logged_in.headers.get_list("cache-control") == ["no-store"]
        assert "cookie" in varies(logged_in)
        assert site.find(first) is None

        me = client.get("/me")
        assert me.json() == signed_up.json()
        assert set_cookies(me) == []
        assert "no-store" not in me.headers.get("cache-control", "")

        second = client.cookies[NAME]
        logged_out = client.post("/logout")
        assert (logged_out.status_code, set_cookies(logged_out)) == (204, [""])
        assert user_of(client) is None
        with site.browser(second) as thief:
            assert user_of(thief) is None


def test_refusals(site: Site) -> None:
    """The library's errors are responses in JSON, with their headers and without a cookie."""
    form = {"name": secrets.token_hex(8), "password": PASSWORD}
    with site.browser() as owner:
        owner.post("/signup", data=form).raise_for_status()
    with site.browser() as client:
        refused = {
            "visitor": client.get("/me"),
            "password": client.post("/login", data={**form, "password": "wrong"}),
            "name": client.post("/login", data={**form, "name": "nobody"}),
            "taken": client.post("/signup", data=form),
            "empty": client.post("/signup", data={"name": "somebody"}),
            "null": client.post("/signup", json={"name": "somebody", "password": None}),
            "busy": client.get("/busy"),
            "foreign": client.post("/login", data=form, headers=FOREIGN),
        }
    found = {name: response.status_code for name, response in refused.items()}
    assert found == {
        "visitor": 401,
        "password": 401,
        "name": 401,
        "taken": 409,
        "empty": 422,
        "null": 422,
        "busy": 429,
        "foreign": 403,
    }
    assert refused["password"].json() == refused["name"].json()
    assert refused["visitor"].headers["www-authenticate"] == "APIKey"
    assert refused["busy"].headers["retry-after"] == "7"
    for response in refused.values():
        assert response.headers["content-type"].startswith("application/json")
        assert isinstance(response.json()["detail"], str)
        assert set_cookies(response) == []
    assert "NotAuthenticated" not in site.log.read_text()  # as a traceback would be


RENEWING: Final = {
    "/me": 200,
    "/crash": 500,
    "/gone": 404,
    "/redirect": 303,
    "/stream": 200,
    "/own-headers": 200,
}


def test_renewal(site: Site) -> None:
    """An idle session is renewed on every kind of response, beside the application's headers."""
    ids: list[str] = []
    for path, status in RENEWING.items():
        idle = site.idle_session()
        with site.browser(idle, Connection="close") as client:
            response = client.get(path)
        assert (path, response.status_code) == (path, status)
        (renewed,) = set_cookies(response)
        assert renewed not in ("", idle)
        assert response.headers.get_list("cache-control") == ["no-store"]
        assert "cookie" in varies(response)
        if path == "/stream":
            assert response.content == b"".join(PARTS)
        if path == "/own-headers":
            cookies = response.headers.get_list("set-cookie")
            assert [cookie for cookie in cookies if cookie.startswith("theme=dark")]
            assert "accept-language" in varies(response)
        with site.browser(renewed, Connection="close") as client:
            assert user_of(client) == "ann"
            assert set_cookies(client.get(path)) == []
        ids += [idle, renewed]
    log = site.log.read_text()
    assert log
    assert [each for each in ids if each in log] == []


def test_own_headers_stay(site: Site) -> None:
    """Where no cookie is set, the application's Cache-Control stays."""
    with site.browser(site.session()) as client:
        response = client.get("/own-headers")
        assert response.headers["cache-control"] == "public, max-age=60"
        assert set_cookies(response) == []


def test_after_the_start(site: Site) -> None:
    """Once the response has started, a session is read, but not renewed."""
    idle = site.idle_session()
    with site.browser(idle, Connection="close") as client:
        response = client.get("/late")
        assert (response.text, set_cookies(response)) == ("late ann", [])
    found = site.find(idle)
    assert found is not None
    assert found.state == "idle"


def test_error_after_the_start(site: Site) -> None:
    """An error after the response has started ends it: no second response follows."""
    response = site.send_raw("GET /cut HTTP/1.1")
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == b"200"
    assert b"part" in body
    assert b"HTTP/1." not in body
    assert b"detail" not in body


def test_foreign_pages(site: Site) -> None:
    """A page of another site changes nothing, and neither does a request with two origins."""
    form = {"name": secrets.token_hex(8), "password": PASSWORD}
    with site.browser() as client:
        assert client.post("/signup", data=form, headers=FOREIGN).status_code == 403
        assert client.post("/signup", data=form).status_code == 200
    session_id = site.session()
    with httpx.Client(base_url=site.url, trust_env=False, cookies={NAME: session_id}) as client:
        assert client.post("/logout").status_code == 403
        assert client.post("/logout", headers=FOREIGN).status_code == 403
        assert client.post("/logout", headers={"Origin": "null"}).status_code == 403
    lines = ["POST /logout HTTP/1.1", "Content-Length: 0", f"Cookie: {NAME}={session_id}"]
    origins = [f"Origin: {site.url}", "Origin: https://evil.example"]
    assert site.send_raw(*lines, *origins).split(b" ", 2)[1] in (b"403", b"400")
    assert site.find(session_id) is not None
    assert site.send_raw(*lines, origins[0]).split(b" ", 2)[1] == b"204"


def test_hostile_headers(site: Site) -> None:
    """No text of a header or a method is an error of the server's, and none logs anybody in."""
    for cookie in HOSTILE:
        response = site.send_raw("GET /me HTTP/1.1", f"Cookie: {cookie}")
        assert response.split(b" ", 2)[1] in (b"401", b"400"), (cookie, response)
        assert b"set-cookie" not in response.lower()
    for line in ("Host: [", "Host: a:b:c@d", "Host: \xff", "Expect: something"):
        response = site.send_raw("POST /logout HTTP/1.1", "Content-Length: 0", line)
        assert response.split(b" ", 2)[1] in (b"400", b"403", b"417"), (line, response)
    response = site.send_raw("BREW /me HTTP/1.1", f"Origin: {site.url}")
    assert response.split(b" ", 2)[1] in (b"400", b"405"), response
    site.send_raw("GET")
    log = site.log.read_text()
    assert [error for error in ("AttributeError", "KeyError", "ValueError") if error in log] == []


def test_planted_and_second_cookies(site: Site) -> None:
    """A malformed cookie of the same name is skipped; two Cookie headers mix nobody up."""
    session_id = site.session()
    line = f"Cookie: {NAME}=planted; theme=dark; {NAME}={session_id}"
    assert b'"ann"' in site.send_raw("GET /me HTTP/1.1", line)
    both = site.send_raw("GET /me HTTP/1.1", f"Cookie: {NAME}={DEAD}", f"Cookie: {NAME}=x")
    assert both.split(b" ", 2)[1] == b"401"


def test_client_address(site: Site) -> None:
    """The client's address is the one that the server says, not one that anybody can send."""
    with site.browser() as client:
        assert client.get("/address").text == "127.0.0.1"
        forwarded = client.get("/address", headers={"X-Forwarded-For": "203.0.113.9"}).text
    # Only uvicorn trusts a proxy on the same machine by default.
    assert forwarded == ("203.0.113.9" if "uvicorn" in site.command else "127.0.0.1")


def test_store_that_does_not_reply(site: Site) -> None:
    """A Redis that does not reply is 503 and changes no cookie; afterwards all goes on."""
    session_id = site.session()
    with site.browser(session_id) as client:
        with frozen(site.redis_server):
            response = client.get("/me")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert set_cookies(response) == []
        until(lambda: client.get("/me").status_code == 200)


def test_requests_at_once(site: Site) -> None:
    """Twenty requests at once with an idle session get the same new one."""
    idle = site.idle_session()

    def renewed() -> str:
        with site.browser(idle) as client:
            response = client.get("/me")
            assert response.json() == {"user_id": "ann"}
            return set_cookies(response)[0]

    assert len(set(at_once([renewed] * 20))) == 1


@pytest.mark.parametrize("name", SOCKETS)
def test_sockets(sites: dict[str, Site], name: str) -> None:
    """A WebSocket knows whose session it is; a handshake from another site is refused."""
    site, rules = sites[name], SOCKETS[name]
    session_id = site.session()
    with site.open_socket("/socket", session_id) as websocket:
        assert websocket.recv() == "ann"
        assert websocket.response is not None
        assert "set-cookie" not in websocket.response.headers
    with site.open_socket("/socket") as websocket:
        assert websocket.recv() == "nobody"
    with pytest.raises(InvalidStatus) as refused:
        # Not by its Origin, which Tornado would refuse too.
        site.open_socket("/socket", session_id, **{"Sec-Fetch-Site": "cross-site"})
    assert refused.value.response.status_code == rules.foreign


@pytest.mark.parametrize("name", SOCKETS)
def test_renewal_by_a_socket(sites: dict[str, Site], name: str) -> None:
    """A handshake renews an idle session where the page says so; otherwise it stays idle."""
    site, rules = sites[name], SOCKETS[name]
    idle = site.idle_session()
    with site.open_socket("/socket", idle) as websocket:
        assert websocket.recv() == "ann"
        assert websocket.response is not None
        assert ("set-cookie" in websocket.response.headers) == rules.renews
    found = site.find(idle)
    assert (found is not None and found.state == "idle") != rules.renews


@pytest.mark.parametrize("name", SOCKETS)
def test_errors_of_sockets(sites: dict[str, Site], name: str) -> None:
    """An error refuses a WebSocket that was not accepted yet, and closes any other."""
    site, rules = sites[name], SOCKETS[name]
    if rules.refused is not None:
        with pytest.raises(InvalidStatus) as refused:
            site.open_socket("/refused-socket")
        assert refused.value.response.status_code == rules.refused
    with site.open_socket("/closed-socket") as websocket, pytest.raises(ConnectionClosed):
        websocket.recv()
    assert websocket.close_code == rules.closed
