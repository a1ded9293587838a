"""The demo's pages, beyond what its check and the browser test cover."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from starlette.requests import Request
from starlette.testclient import TestClient

from examples.demo.accounts import Accounts
from examples.demo.app import answer, create_app
from examples.demo.browsers import describe
from examples.demo.journal import MOST_BROWSERS, MOST_ENTRIES, Entry, Journal, Journals
from examples.demo.pages import clock_time, duration
from examples.demo.redis_view import Recorded, RedisView, show
from lucia import Overloaded
from lucia._redis.index import LIST
from tools.servers import Server

PASSWORD = "correct horse battery"
ORIGIN = "http://testserver"
MANY = 12
"""So many wrong passwords that the last one has to wait on any machine.

The seven after the fifth add up to a wait of two minutes.
"""


@contextmanager
def browser(folder: Path, view: RedisView | None) -> Iterator[TestClient]:
    """Yield a client of the demo that sends its Origin, as browsers do."""
    with TestClient(
        create_app(Accounts(folder / "users.sqlite3"), view), headers={"origin": ORIGIN}
    ) as client:
        yield client


@pytest.fixture
def client(redis_server: Server, tmp_path: Path) -> Iterator[TestClient]:
    """Yield a client of the demo over an emptied Redis."""
    with redis.Redis.from_url(redis_server.url) as own:
        own.flushall()
        own.script_flush()
    view = RedisView.connect(redis_server.url, "Redis, for a test", bytes(range(32)))
    with browser(tmp_path, view) as client:
        yield client


def sign_up(client: TestClient, name: str = "ada") -> str:
    """Sign up, and return the page."""
    return client.post("/signup", data={"username": name, "password": PASSWORD}).text


def view_of(client: TestClient) -> RedisView:
    """Return the demo's view of Redis."""
    app: Any = client.app
    view: RedisView = app.state.demo.redis
    return view


def shown(client: TestClient, session_id: str) -> str:
    """Return how pages show the hash of a session id."""
    return f"{view_of(client).stored(session_id)[:6]}…"


def is_member(client: TestClient) -> bool:
    """Return whether the client is logged in."""
    return 'data-page="member"' in client.get("/").text


def notice(page: str) -> str:
    """Return the page's notice."""
    found = re.search(r'<p class="notice[^"]*" role="(?:status|alert)">([^<]+)', page)
    assert found is not None, page
    return found[1]


def test_every_response_has_the_security_headers(client: TestClient) -> None:
    """Pages, files and errors have a strict content security policy and referrer policy."""
    refused = client.post("/logout", headers={"origin": "null"})
    for response in (
        client.get("/"),
        client.get("/static/demo.css"),
        client.get("/nowhere"),
        refused,
    ):
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert response.headers["referrer-policy"] == "same-origin"


def test_pages_have_nothing_inline_and_nothing_from_elsewhere(client: TestClient) -> None:
    """No page has an inline style or script, or refers to another server."""
    for page in (client.get("/").text, sign_up(client)):
        assert not re.search(r"<style|\sstyle=|\son\w+=|https?://|<script(?! src=\"/static/)", page)


def test_without_redis_the_page_says_so(tmp_path: Path) -> None:
    """Without a server the demo uses the memory adapter, and says that Redis is missing."""
    with browser(tmp_path, None) as client:
        assert "There is no Redis server here" in client.get("/").text
        page = sign_up(client)
        assert "There is no Redis server here" in page
        assert "Let this session go idle" not in page
        assert "this browser" in client.get("/live").text
        client.post("/idle")
        assert is_member(client)
        client.post("/logout/everywhere")
        assert not is_member(client)


def test_the_first_login_sends_the_script_once(client: TestClient) -> None:
    """If the server does not know a script, EVALSHA and EVAL are both shown."""
    page = sign_up(client)
    assert "NOSCRIPT" in page
    assert "EVAL (its text) 2" in page
    client.post("/logout")
    client.post("/login", data={"username": "ada", "password": PASSWORD})
    client.post("/logout")
    page = client.post("/login", data={"username": "ADA ", "password": PASSWORD}).text
    assert "NOSCRIPT" not in page.partition("Before that")[0]
    assert re.search(r"EVALSHA \w{6}… 2", page)


def test_a_name_that_is_taken(client: TestClient) -> None:
    """A second account of the same name, in any letter case, is refused."""
    sign_up(client)
    client.post("/logout")
    answer = client.post("/signup", data={"username": "Ada", "password": PASSWORD})
    assert (answer.status_code, notice(answer.text)) == (
        409,
        "That name is taken. Choose another one.",
    )
    assert not is_member(client)


@pytest.mark.parametrize(
    "fields",
    [{}, {"username": "a b", "password": PASSWORD}, {"username": "ada", "password": "short"}],
)
def test_a_form_that_is_filled_in_wrong(fields: dict[str, str], client: TestClient) -> None:
    """Invalid fields, which browsers would not send, are answered with a page."""
    answer = client.post("/signup", data=fields)
    assert answer.status_code == 422
    assert "That form was not filled in right" in answer.text


def test_addresses_that_are_no_pages(client: TestClient) -> None:
    """A form's URL leads to its page, and an unknown one to a 404 page."""
    assert client.get("/login").url.path == "/"
    answered = client.get("/nowhere")
    assert answered.status_code == 404
    assert "There is no such page" in answered.text


@pytest.mark.parametrize("path", ["/password", "/delete"])
def test_a_wrong_password_changes_nothing(path: str, client: TestClient) -> None:
    """Changing the password and deleting the account require the current password."""
    sign_up(client)
    page = client.post(path, data={"password": "wrong", "new_password": PASSWORD}).text
    assert "password is wrong" in notice(page)
    assert is_member(client)


def test_what_a_visitor_may_not_do_leads_to_the_visitors_page(client: TestClient) -> None:
    """A member's form sent by a visitor leads to the visitor's page."""
    answer = client.post("/logout/others")
    assert answer.url.path == "/"
    assert 'data-page="visitor"' in answer.text
    assert client.get("/idle").url.path == "/"


def test_logging_out_by_handle(client: TestClient) -> None:
    """An unknown handle revokes nothing; this browser's handle logs it out."""
    page = sign_up(client)
    assert (
        notice(client.post("/devices/logout", data={"handle": "another's"}).text)
        == "That login was over already."
    )
    handle = re.search(r'name="handle" value="([^"]+)"', page)
    assert handle is not None
    client.post("/devices/logout", data={"handle": handle[1]})
    assert "auth_session" not in client.cookies
    assert not is_member(client)


def test_everywhere_else_keeps_this_browser(client: TestClient) -> None:
    """Logging out everywhere else revokes the other sessions and keeps this one."""
    sign_up(client)
    kept = client.cookies["auth_session"]
    client.cookies.clear()
    client.post("/login", data={"username": "ada", "password": PASSWORD})
    ended = client.cookies["auth_session"]
    client.cookies.clear()
    client.cookies["auth_session"] = kept
    page = client.post("/logout/others").text
    assert client.cookies["auth_session"] == kept
    assert is_member(client)
    assert f"<del><code>session:{shown(client, ended)}</code></del>" in page
    assert page.count("just written") == 1  # the user's list


def test_a_session_that_is_over_is_said_to_be(client: TestClient, redis_server: Server) -> None:
    """A browser whose session was revoked elsewhere is told so, and can clear its cookie."""
    sign_up(client)
    with redis.Redis.from_url(redis_server.url) as own:
        own.flushall()
    assert client.get("/live").status_code == 401
    page = client.get("/").text
    assert "The session of this browser is over" in page
    assert "session:renewed:" in page
    assert "auth_session" in client.cookies
    client.post("/logout")
    assert "auth_session" not in client.cookies


def test_polling_renews_no_session(client: TestClient) -> None:
    """The page's own polling neither renews an idle session nor shows up as commands."""
    sign_up(client)
    page = client.post("/idle").text
    assert "Its next use renews it" in page
    before, recorded = client.cookies["auth_session"], view_of(client).log.count
    assert 'class="badge idle"' in client.get("/live").text
    assert client.cookies["auth_session"] == before
    assert view_of(client).log.count == recorded
    renewed = client.get("/").text
    assert client.cookies["auth_session"] != before
    assert "A new id, and so a new hash in Redis" in renewed
    assert f"<code>session:{shown(client, client.cookies['auth_session'])}</code>" in renewed
    assert f"session:renewed:{{session:{shown(client, before)}}}" in renewed


def test_a_marker_is_shown_while_it_is_there(client: TestClient, redis_server: Server) -> None:
    """An expired marker is not shown."""
    sign_up(client)
    client.post("/idle")
    assert "session:renewed:" in client.get("/").text
    assert "session:renewed:" in client.get("/live").text
    with redis.Redis.from_url(redis_server.url) as own:
        own.delete(*own.keys("session:renewed:*"))
    assert "session:renewed:" not in client.get("/live").text


def test_no_page_carries_an_id(client: TestClient) -> None:
    """No page, and no response to its polling, has a session id, a password or a hash."""
    signed_up, used = sign_up(client), client.cookies["auth_session"]
    idle, renewed = client.post("/idle").text, client.get("/").text
    ids = (used, client.cookies["auth_session"])
    for page in (signed_up, idle, renewed, client.get("/live").text):
        assert not re.search(r"[0-9A-Za-z]{40}", page)
        assert not any(session_id[:6] in page for session_id in ids)
        assert PASSWORD not in page
        assert "$scrypt$" not in page


async def test_too_many_passwords_at_once() -> None:
    """A full password queue is answered with 503 and a page."""
    answered = await answer(Request({"type": "http", "headers": []}), Overloaded())
    assert answered.status_code == 503


def test_too_many_wrong_passwords(client: TestClient) -> None:
    """After five wrong passwords, the next attempt must wait, and its commands are explained."""
    sign_up(client)
    client.post("/logout")
    answers = [
        client.post("/login", data={"username": "ada", "password": "wrong"}) for _ in range(MANY)
    ]
    assert [answer.status_code for answer in answers[:5]] == [401] * 5
    assert answers[-1].status_code == 429
    assert re.fullmatch(r"Too many wrong passwords. Try again in \d+ s\.", notice(answers[-1].text))
    assert "Before a password is checked" in answers[-1].text


def test_too_many_wrong_passwords_of_a_member(client: TestClient) -> None:
    """Too many wrong passwords of a member get a page, and the member stays logged in."""
    sign_up(client)
    *_, answered = [client.post("/delete", data={"password": "wrong"}) for _ in range(MANY)]
    assert answered.status_code == 429
    assert re.search(r"Try again in \d+ s\.", answered.text)
    assert is_member(client)


def test_journals_are_bounded() -> None:
    """The number of browsers and of their entries is bounded; unknown cookies get a new journal."""
    journals = Journals()
    first = journals.of(None)
    assert journals.of(first.browser) is first
    assert journals.of("invented").browser != "invented"
    for _ in range(MOST_BROWSERS):
        journals.of(None)
    assert journals.of(first.browser) is not first
    journal = Journal()
    for number in range(MOST_ENTRIES + 1):
        journal.add(Entry(str(number), "", []))
    assert [entry.title for entry in journal.entries] == ["6", "5", "4", "3", "2", "1"]


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Firefox on Linux",
        ),
        (
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) "
                "Version/18.0 Mobile/15E148 Safari/604.1"
            ),
            "Safari on iPhone",
        ),
        (
            (
                "Mozilla/5.0 (Windows NT 10.0) "
                "AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0"
            ),
            "Edge on Windows",
        ),
        (
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) "
                "AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36"
            ),
            "Chrome on macOS",
        ),
        ("Firefox/1", "Firefox"),
        ("curl/8.14", "curl"),
        ("", "Unknown browser"),
    ],
)
def test_user_agents_in_words(agent: str, words: str) -> None:
    """A user agent is shortened to what its owner recognises."""
    assert describe(agent) == words


def test_durations_and_times_in_words() -> None:
    """Durations are exact to the second, and times of another day have a date."""
    assert [duration(ms) for ms in (-1, 59_999, 3_600_000, 90_061_000)] == [
        "0:00",
        "0:59",
        "1:00:00",
        "1 d 1:01:01",
    ]
    assert clock_time(datetime(2001, 2, 3, 4, 5, tzinfo=UTC)) == "3 February 2001, 04:05 UTC"
    assert re.fullmatch(r"\d\d:\d\d:\d\d UTC", clock_time(datetime.now(UTC)))


@pytest.mark.parametrize(
    ("arguments", "reply", "line", "shown"),
    [
        (
            (b"MGET", b"session:" + b"a" * 64),
            [b'{"id":"' + b"a" * 64 + b'"}'],
            "MGET session:aaaaaa…",
            '[{"id":"aaaaaa…"}]',
        ),
        (
            (b"SET", b"session:renewed:{session:" + b"a" * 40 + b"}", b'{"sealed":"_-a-bcdef'),
            b"a" * 10 + b"-" * 40 + b"==",
            'SET session:renewed:{session:aaaaaa…} {"sealed":"_-a-bcdef',
            "aaaaaa…",
        ),
        ((b"GET", b"k"), b"v " * 1_000, "GET k", "v v v"),
        ((b"GET", b"k"), None, "GET k", "(nil)"),
        ((b"SET", b"k", b"v"), b"OK", "SET k v", "OK"),
        ((b"LREM", b"k", b"0", b"v"), OSError("secret"), "LREM k 0 v", "OSError"),
        ((b"EVALSHA", b"0" * 40, b"0"), 1, "EVALSHA 000000… 0", "1"),
        ((b"EVAL", LIST.scripts.create.text.encode(), b"1", b"k"), -3, "EVAL (its text) 1", "-3"),
    ],
)
def test_commands_in_words(
    arguments: tuple[Any, ...], reply: object, line: str, shown: str
) -> None:
    """A command is shown as sent, with ids shortened and errors reduced to their class."""
    command = show(Recorded(arguments, reply))
    assert command.line == line
    assert command.reply.startswith(shown)
    assert len(command.reply) <= 161
