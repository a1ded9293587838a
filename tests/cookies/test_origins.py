"""The origin check: its decision table, the comparison of origins, and reported failures."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lucia import Auth, InvalidRequest, RequestContext, SessionRow
from lucia._rules.cookies import Cookie
from lucia._rules.origins import (
    Origin,
    check_origin,
    configured_origins,
    parse_bare_origin,
    parse_origin,
)
from lucia.adapters.memory import MemoryAdapter

OWN = "https://shop.example"
TRUSTED = "https://app.example"
FOREIGN = "https://evil.example"
SAFE = ("GET", "HEAD", "OPTIONS", "get", "Options")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "QUERY", "post", "", "GET ", "GETX")

SITES: dict[str, Sequence[str]] = {
    "missing": [],
    "same-origin": ["same-origin"],
    "same-origin with spaces": [" same-origin\t"],
    "none": ["none"],
    "same-site": ["same-site"],
    "cross-site": ["cross-site"],
    "twice": ["same-origin", "same-origin"],
    "two": ["same-origin", "cross-site"],
    "list": ["same-origin, same-origin"],
    "upper case": ["Same-Origin"],
    "empty": [""],
    "unknown": ["nested-navigate"],
    "odd space": ["\u00a0same-origin"],
}
ORIGINS: dict[str, Sequence[str]] = {
    "missing": [],
    "null": ["null"],
    "own": [OWN],
    "own with spaces": [f" {OWN} "],
    "trusted": [TRUSTED],
    "foreign": [FOREIGN],
    "own twice": [OWN, OWN],
    "trusted twice": [TRUSTED, TRUSTED],
    "own and foreign": [OWN, FOREIGN],
    "list": [f"{OWN}, {FOREIGN}"],
    "empty": [""],
    "unparsable": ["https://["],
    "path": [f"{OWN}/"],
    "other scheme": ["http://shop.example"],
    "other port": ["https://shop.example:8443"],
    "subdomain": ["https://a.shop.example"],
    "suffix": ["https://shop.example.evil.example"],
    "trailing dot": ["https://shop.example."],
}
ANY = frozenset(ORIGINS)
PASSING: dict[str, frozenset[str]] = {
    "missing": frozenset({"own", "own with spaces", "trusted"}),
    "same-origin": ANY,
    "same-origin with spaces": ANY,
    "none": ANY,
    "same-site": frozenset({"trusted"}),
    "cross-site": frozenset({"trusted"}),
}
"""The Origin headers that pass, by Sec-Fetch-Site. With other values none passes."""


def refuse_cookie(cookie: Cookie) -> None:
    """Raise AssertionError: the response must not be changed."""
    raise AssertionError(cookie.name)


def refuse_header(name: str, value: str) -> None:
    """Raise AssertionError, unless it is Vary: the response must not be changed."""
    assert name == "vary", value


def make_context(
    method: str = "POST",
    url: str = f"{OWN}/login",
    *,
    websocket: bool = False,
    **headers: str | Sequence[str],
) -> RequestContext:
    """Return a request with these headers, whose names have underscores here."""
    listed = {
        name.replace("_", "-"): [value] if isinstance(value, str) else value
        for name, value in headers.items()
    }
    return RequestContext(
        method=method,
        url=url,
        headers=listed,
        set_cookie=refuse_cookie,
        set_header=refuse_header,
        is_websocket=websocket,
    )


def passes(context: RequestContext, *trusted: str) -> bool:
    """Return whether the request passes with these trusted origins."""
    return check_origin(context, configured_origins(trusted)) is None


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("origin", ORIGINS)
def test_the_decision_table(site: str, origin: str) -> None:
    """A single valid Sec-Fetch-Site decides first, then the Origin header.

    Only requests that may change something are checked.
    """
    expected = origin in PASSING.get(site, ())
    headers: dict[str, Any] = {"sec_fetch_site": SITES[site], "origin": ORIGINS[origin]}
    assert {
        method: passes(make_context(method, **headers), TRUSTED) for method in UNSAFE
    } == dict.fromkeys(UNSAFE, expected)
    handshakes = [
        make_context(method, url, websocket=True, **headers)
        for method in ("GET", "CONNECT")
        for url in (OWN, "wss://shop.example/ws")
    ]
    assert [passes(handshake, TRUSTED) for handshake in handshakes] == [expected] * 4
    assert all(passes(make_context(method, **headers), TRUSTED) for method in SAFE)


@pytest.mark.parametrize(
    ("url", "origin", "expected"),
    [
        ("https://a.example/", "https://a.example", True),
        ("https://a.example:443/", "https://a.example", True),
        ("https://a.example/", "https://a.example:443", True),
        ("http://a.example:80/", "http://a.example", True),
        ("http://a.example:443/", "https://a.example", False),
        ("https://a.example:80/", "http://a.example:80", False),
        ("http://a.example:8000/", "http://a.example:8000", True),
        ("http://a.example:8000/", "http://a.example", False),
        ("http://a.example:8000/", "http://a.example:8001", False),
        ("http://A.Example/", "http://a.example", True),
        ("http://a.example/", "HTTP://A.EXAMPLE", True),
        ("http://[::1]:8000/", "http://[::1]:8000", True),
        ("http://[2001:DB8::1]/", "http://[2001:db8::1]", True),
        ("http://[::1]:8000/", "http://[::2]:8000", False),
        ("http://[::1]/", "http://::1", False),
        ("http://127.0.0.1/", "http://localhost", False),
        ("ws://a.example/", "http://a.example", True),
        ("wss://a.example/", "https://a.example", True),
        ("wss://a.example/", "http://a.example", False),
        ("ws://a.example:443/", "https://a.example", False),
        ("https://a.example/", "wss://a.example", True),
        ("https://a.example/", "https://ann@a.example", False),
        ("https://a.example/", "https://@a.example", False),
        ("https://ann@a.example/", "https://a.example", False),
        ("https://a.example/", "https://a.example\\@evil.example", False),
        ("https://a.example/", "https://a.example?", False),
        ("https://a.example/", "https://a.example#", False),
        ("https://a.example/", "a.example", False),
        ("https://a.example/", "//a.example", False),
        ("https://a.example/", "https:a.example", False),
        ("https://a.example/", "https:///a.example", False),
        ("https://a.example/", "https://", False),
        ("https://a.example/", "https://a.example:0x1bb", False),
        ("https://a.example/", "https://a.example:99999", False),
        ("https://a.example/", "ht\ttps://a.example", False),
        ("https://a.example/", "https://a.exa\tmple", False),
        ("https://a.example/", "https://a.exa mple", False),
        ("https://a.example/", "\x0bhttps://a.example", False),
        ("https://a.example/", "\xa0https://a.example", False),
        ("https://kelvin.example/", "https://\u212aelvin.example", False),
        ("https:///", "https:///", False),
        ("file:///etc", "file:///etc", False),
        ("null", "null", False),
        ("http://a.example:x/", "http://a.example:x", False),
        ("", "", False),
    ],
)
def test_origins_are_compared_by_scheme_host_and_port(
    url: str, origin: str, expected: bool
) -> None:
    """Default ports, letter case, and ws for http make no difference; everything else does."""
    assert passes(make_context(url=url, origin=origin)) is expected


@given(st.text(), st.text())
@example("https://[::1", "https://]")
@example("http://[v1.a]", "http://\uff0f")
def test_no_text_makes_the_check_raise(url: str, header: str) -> None:
    """A request with any text in URL and Origin passes or fails, and never raises."""
    context = make_context(url=url, origin=header)
    assert passes(context) is (
        parse_bare_origin(header.strip(" \t")) == parse_origin(url) is not None
    )


@given(st.text(alphabet="/?#\\@ \t\r\n\x00:[].%a", min_size=1))
def test_a_bare_origin_names_nothing_more(rest: str) -> None:
    """Text after the host belongs to the host or the port, or is no origin."""
    origin = parse_bare_origin(f"https://a.example{rest}")
    assert origin is None or (origin.host, origin.port) == (f"a.example{rest}", 443)


def test_an_origin_is_written_as_browsers_write_it() -> None:
    """An origin is written without its default port, and IPv6 addresses in brackets."""
    texts = [
        "http://a.example",
        "https://a.example",
        "https://a.example:80",
        "http://[::1]:8000",
        "http://[::1]",
    ]
    assert [str(parse_origin(text)) for text in texts] == texts
    assert parse_origin("wss://A.example:443/path?query") == Origin("https", "a.example", 443)


def test_a_proxy_that_ends_tls_makes_no_request_foreign() -> None:
    """Behind a proxy that terminates TLS, a browser's same-origin request passes."""
    inside = "http://10.0.0.7:8000/login"
    assert passes(make_context(url=inside, sec_fetch_site="same-origin", origin=OWN))
    assert not passes(make_context(url=inside, origin=OWN)), (
        "a browser without Sec-Fetch-Site needs the origin to be listed"
    )
    assert passes(make_context(url=inside, origin=OWN), OWN)


def test_forwarded_headers_are_not_read() -> None:
    """Forwarding headers, which anyone can send, don't make a foreign origin pass."""
    forwarded: dict[str, Any] = {
        "x_forwarded_host": "evil.example",
        "x_forwarded_proto": "https",
        "forwarded": "host=evil.example;proto=https",
    }
    assert not passes(make_context(origin=FOREIGN, host="evil.example", **forwarded))


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "app.example",
        "*",
        "https://*",
        "https://*.example",
        "https://app.example/",
        "https://app.example/path",
        "https://app.example?x",
        "https://app.example#x",
        "https://ann:pw@app.example",
        "https://app.example:port",
        "https:// app.example",
        "https://app.example\n",
        "https://\u00e4pp.example",
        "ftp://app.example",
        "null",
        "//app.example",
    ],
)
def test_a_configured_origin_that_could_never_match_is_refused(entry: str) -> None:
    """An invalid entry in `origin` is refused when Auth is created, and named in the error."""
    with pytest.raises(ValueError, match="is not an origin") as caught:
        Auth(sessions=MemoryAdapter(), env="DEV", origin=["https://good.example", entry])
    assert repr(entry) in str(caught.value)


def test_one_string_in_the_place_of_the_list_is_refused() -> None:
    """A string instead of a list of origins is a TypeError."""
    with pytest.raises(TypeError, match="list"):
        Auth(sessions=MemoryAdapter(), env="DEV", origin=TRUSTED)


@pytest.mark.parametrize(
    "listed",
    [[TRUSTED], (TRUSTED,), {TRUSTED}, [TRUSTED, "HTTPS://APP.example:443", "http://[::1]:3000"]],
)
def test_any_collection_of_origins_will_do(listed: Any) -> None:
    """Any collection of origins is accepted, and duplicates count once."""
    assert Origin("https", "app.example", 443) in configured_origins(listed)
    assert len(configured_origins(listed)) == len(
        {text.lower().removesuffix(":443") for text in listed}
    )


@pytest.mark.parametrize(
    ("headers", "expected", "received"),
    [
        ({"origin": FOREIGN}, f"{TRUSTED} or {OWN}", f"'{FOREIGN}'"),
        ({}, f"{TRUSTED} or {OWN}", "no Origin header"),
        ({"origin": [OWN, FOREIGN]}, f"{TRUSTED} or {OWN}", f"'{OWN}', '{FOREIGN}'"),
        ({"origin": FOREIGN, "sec_fetch_site": "cross-site"}, TRUSTED, f"'{FOREIGN}'"),
        (
            {"sec_fetch_site": ["none", "x\r\nfaked: line"]},
            "one valid Sec-Fetch-Site",
            r"'none', 'x\r\nfaked: line'",
        ),
    ],
)
def test_a_failure_is_logged_and_shown(
    headers: dict[str, Any], expected: str, received: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log and the AuthRequest report what was expected and received, on one line."""
    auth = Auth(sessions=MemoryAdapter(), env="DEV", origin=[TRUSTED])
    request = auth.handle_request(make_context(**headers))
    failure = request.origin_failure
    assert failure is not None
    assert (failure.expected, failure.received) == (expected, received)
    text = f"origin check failed: expected {expected}, received {received}"
    assert caplog.record_tuples == [("lucia", logging.WARNING, text)]
    with pytest.raises(InvalidRequest) as caught:
        request.sign_in("ann")
    assert str(caught.value) == text


LONG = 60_000


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://" + "a" * LONG},
        {"origin": "\x1b[31m" + "\n" * LONG},
        {"origin": ["https://evil.example"] * LONG},
        {"origin": FOREIGN, "sec_fetch_site": "\x1b" + "x" * LONG},
        {"sec_fetch_site": ["none"] * LONG},
        {"url": "https://" + "a" * LONG + "/login"},
        {"url": "https://shop\x1b[31m.example/login"},
        {"url": "https://" + "\u202e" * LONG},
    ],
    ids=[
        "origin",
        "line feeds",
        "many origins",
        "site",
        "many sites",
        "long host",
        "escape in host",
        "odd host",
    ],
)
def test_what_a_request_sends_makes_no_long_log_line(
    headers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Log and error have one short printable line, for any content of the headers."""
    request = Auth(sessions=MemoryAdapter(), env="DEV", origin=[TRUSTED]).handle_request(
        make_context(**headers)
    )
    with pytest.raises(InvalidRequest) as caught:
        request.sign_in("ann")
    for text in (str(caught.value), str(request.origin_failure), caplog.text):
        assert len(text) < 4_000
        assert text.strip().isprintable()


def test_a_long_header_is_quoted_by_its_beginning() -> None:
    """A long header is quoted by its beginning and its length."""
    failure = check_origin(make_context(origin="https://evil.example/" + "a" * LONG), ())
    assert failure is not None
    assert failure.received.startswith("'https://evil.example/aaa")
    assert failure.received.endswith("aaa'… (60,021 characters)")
    many = check_origin(make_context(origin=[FOREIGN] * 7), ())
    assert many is not None
    assert many.received == f"'{FOREIGN}', '{FOREIGN}', '{FOREIGN}' and 4 more"


@pytest.mark.parametrize("url", ["https://shop\x1b.example/", f"https://{'a' * 254}/"])
def test_a_host_that_no_origin_header_can_name_is_no_own_origin(url: str) -> None:
    """An invalid Host header is not named as an expected origin."""
    failure = check_origin(make_context(url=url, origin=FOREIGN), configured_origins([TRUSTED]))
    assert failure is not None
    assert failure.expected == TRUSTED


def test_the_repr_of_a_context_shows_no_secret() -> None:
    """The repr of a RequestContext shows no cookie, no bearer token, and no URL."""
    secret = "a" * 40
    context = make_context(
        url=f"{OWN}/reset/{secret}?token={secret}",
        cookie=f"auth_session={secret}",
        authorization=f"Bearer {secret}",
    )
    assert repr(context) == "RequestContext(method='POST', is_websocket=False, client_address=None)"
    assert secret not in f"{context}{context!r}{[context]}"


def test_without_trusted_origins_the_failure_names_the_setting() -> None:
    """Without trusted origins, the failure names the setting to configure."""
    failure = check_origin(make_context(origin=FOREIGN, sec_fetch_site="cross-site"), ())
    assert failure is not None
    assert failure.expected == "an origin listed in origin="


def test_a_request_that_passes_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A request that passes is not logged."""
    request = Auth(sessions=MemoryAdapter(), env="DEV").handle_request(make_context(origin=OWN))
    assert request.origin_failure is None
    assert caplog.records == []


def test_the_check_can_be_turned_off() -> None:
    """With csrf_protection=False, a foreign request's cookie counts."""
    store = MemoryAdapter()
    auth = Auth(sessions=store, env="DEV", csrf_protection=False)
    session = auth.create_session("ann")
    found = auth.handle_request(
        make_context(origin=FOREIGN, cookie=f"auth_session={session.session_id}")
    ).validate()
    assert found is not None
    assert found.user_id == "ann"


def test_a_foreign_request_is_a_visitors_and_changes_nothing() -> None:
    """A foreign request finds no session, can't change the login, and leaves the store alone."""
    store = MemoryAdapter()
    auth = Auth(sessions=store, users=store, env="DEV")
    session = auth.create_session("ann")
    request = auth.handle_request(
        make_context(origin=FOREIGN, cookie=f"auth_session={session.session_id}")
    )
    assert request.validate() is None
    assert request.validate_user() is None
    for change in (
        lambda: request.sign_in("ann"),
        lambda: request.sign_in_with_key("username", "ann", "password"),
        request.sign_out,
        lambda: request.set_session(session),
        lambda: request.set_session(None),
    ):
        with pytest.raises(InvalidRequest):
            change()
    assert [row.id for row in store.get_sessions_by_user_id("ann")] == [session.session_id]


def test_the_check_applies_without_a_cookie_too() -> None:
    """A login from another site is refused even without a cookie."""
    store = MemoryAdapter()
    with pytest.raises(InvalidRequest):
        Auth(sessions=store, env="DEV").handle_request(make_context(origin=FOREIGN)).sign_in("ann")
    rows: list[SessionRow] = store.get_sessions_by_user_id("ann")
    assert rows == []


def test_parse_request_headers_checks_and_finds() -> None:
    """parse_request_headers returns the cookie's value, and raises for a foreign request."""
    auth = Auth(sessions=MemoryAdapter(), env="DEV")
    assert (
        auth.parse_request_headers(make_context(origin=OWN, cookie="auth_session=anything"))
        == "anything"
    )
    assert auth.parse_request_headers(make_context("GET")) is None
    with pytest.raises(InvalidRequest):
        auth.parse_request_headers(make_context(cookie="auth_session=anything"))
