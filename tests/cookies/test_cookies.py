"""The session cookie: its options, the Set-Cookie header, and the search in a Cookie header."""

from collections.abc import Sequence
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lucia import AsyncAuth, Auth
from lucia._rules.cookies import Cookie, Env, SessionCookie, create_session_cookie, find_cookie
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter
from lucia.models import Session
from tests.support.sessions import changed
from tests.support.sessions import session as make_session

NAME = "auth_session"
ID = "Zk3" + "a1" * 18 + "z"
OTHER_ID = "0" * 40
END = datetime(2033, 5, 18, 3, 33, 20, 999_000, tzinfo=UTC)
SESSION = make_session(
    session_id=ID,
    user_id="ann",
    active_period_expires_at=datetime(2033, 5, 4, 3, 33, 20, tzinfo=UTC),
    idle_period_expires_at=END,
    state="active",
    fresh=True,
    handle="handle",
    created_at=datetime(2033, 5, 3, tzinfo=UTC),
    metadata={},
)
EXPIRES = "Expires=Wed, 18 May 2033 03:33:20 GMT"
ENVS: tuple[Env, ...] = get_args(Env)

junk = st.text(st.characters(blacklist_characters=";"))
"""Any text that can stand between two semicolons."""


def text(session: Session | None, env: Env = "PROD", **options: Any) -> str:
    """Return the Set-Cookie header for these options."""
    return create_session_cookie(session, SessionCookie(**options), env).serialize()


@pytest.mark.parametrize(
    ("env", "options", "expected"),
    [
        (
            "PROD",
            {},
            f"auth_session={ID}; {EXPIRES}; Path=/; SameSite=Lax; HttpOnly; Secure",
        ),
        (
            "DEV",
            {},
            f"auth_session={ID}; {EXPIRES}; Path=/; SameSite=Lax; HttpOnly",
        ),
        (
            "PROD",
            {"name": "__Host-auth_session", "same_site": "strict"},
            f"__Host-auth_session={ID}; {EXPIRES}; Path=/; SameSite=Strict; HttpOnly; Secure",
        ),
        (
            "PROD",
            {"name": "sid", "same_site": "none", "path": "/app", "domain": "example.com"},
            f"sid={ID}; {EXPIRES}; Domain=example.com; Path=/app; SameSite=None; HttpOnly; Secure",
        ),
    ],
)
def test_the_set_cookie_text(env: Env, options: dict[str, Any], expected: str) -> None:
    """Set-Cookie has the id, the idle end, HttpOnly, Secure in PROD only, and the options."""
    assert text(SESSION, env, **options) == expected


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize(
    "options", [{}, {"name": "sid", "path": "/a", "domain": "example.com", "same_site": "strict"}]
)
def test_setting_and_clearing_differ_in_value_and_expiry_alone(
    env: Env, options: dict[str, Any]
) -> None:
    """Clearing differs from setting only in value and expiry, so that browsers match them."""
    set_, clear = (text(session, env, **options) for session in (SESSION, None))
    assert "Expires=Thu, 01 Jan 1970 00:00:00 GMT;" in clear
    restored = clear.replace("=;", f"={ID};", 1).replace(
        "Thu, 01 Jan 1970 00:00:00 GMT", "Wed, 18 May 2033 03:33:20 GMT"
    )
    assert restored == set_


def test_the_last_second_of_the_calendar_can_be_an_expiry() -> None:
    """The end of the year 9999 is a valid expiry."""
    far = changed(
        SESSION,
        idle_period_expires_at=datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
    )
    assert "Expires=Fri, 31 Dec 9999 23:59:59 GMT;" in text(far)


def test_a_cookie_keeps_its_value_out_of_its_repr() -> None:
    """The repr of a cookie does not contain the session id: reprs are logged."""
    assert ID not in repr(create_session_cookie(SESSION, SessionCookie(), "PROD"))


@pytest.mark.parametrize(
    "value",
    [
        "a;b",
        "a b",
        'a"b',
        "a,b",
        "a\\b",
        "a\r\nSet-Cookie: x=y",
        "a\n",
        "ä",
        "\x00",
        "\x7f",
        "\u2028",
    ],
)
def test_a_value_that_a_cookie_cannot_hold_is_refused(value: str) -> None:
    """A value with a forbidden character is refused, and the error does not repeat it."""
    cookie = create_session_cookie(
        changed(SESSION, session_id=f"secret{value}"), SessionCookie(), "PROD"
    )
    with pytest.raises(ValueError, match="contains a character") as caught:
        cookie.serialize()
    assert "secret" not in str(caught.value)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, blacklist_characters='",;\\')))
def test_a_value_that_a_cookie_can_hold_comes_back(value: str) -> None:
    """Every cookie-octet of RFC 6265 is accepted, and the value is found again."""
    serialized = create_session_cookie(
        changed(SESSION, session_id=value), SessionCookie(), "DEV"
    ).serialize()
    assert find_cookie([serialized.partition("; ")[0]], NAME) == (value or None)


def test_what_is_written_is_what_others_read() -> None:
    """The parser of the standard library reads the same attributes."""
    morsel = SimpleCookie(text(SESSION, domain="example.com"))[NAME]
    found = {key: value for key, value in morsel.items() if value}
    assert morsel.value == ID
    assert found == {
        "expires": "Wed, 18 May 2033 03:33:20 GMT",
        "path": "/",
        "domain": "example.com",
        "samesite": "Lax",
        "httponly": True,
        "secure": True,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "a=b"},
        {"name": "a;b"},
        {"name": "a\n"},
        {"name": "sitzung\u00e4"},
        {"same_site": "Lax"},
        {"same_site": ""},
        {"path": ""},
        {"path": "app"},
        {"path": "/a;b"},
        {"path": "/a\r\nX: y"},
        {"path": "/\u00e4"},
        {"domain": ""},
        {"domain": "a;b"},
        {"domain": " "},
        {"domain": "a b"},
        {"domain": "example.com\n"},
        {"domain": "exa\u0308mple.com"},
        {"domain": "https://example.com"},
        {"domain": "example.com:443"},
        {"domain": ".."},
        {"name": "__Host-id", "path": "/app"},
        {"name": "__Host-id", "domain": "example.com"},
        {"name": "__hOST-id", "domain": "example.com"},
    ],
)
def test_options_that_break_the_cookie_are_refused(options: dict[str, Any]) -> None:
    """Options that browsers would misread or drop are refused when they are configured."""
    with pytest.raises(ValueError, match=r"cookie|same_site"):
        SessionCookie(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"name": "!#$%&'*+-.^_`|~09azAZ"},
        {"path": "/a/b c=d,e"},
        {"domain": "localhost"},
        {"domain": ".example.com"},
        {"domain": "a-b.xn--exmple-cua.com"},
        {"name": "__Secure-id", "domain": "example.com", "path": "/app"},
        {"name": "__Host-id", "same_site": "none"},
    ],
)
def test_options_that_browsers_accept_are_accepted(options: dict[str, Any]) -> None:
    """Unusual but valid options are accepted."""
    cookie = SessionCookie(**options)
    cookie.check_env("PROD")
    assert create_session_cookie(None, cookie, "PROD").serialize().startswith(f"{cookie.name}=; ")


@pytest.mark.parametrize(
    "options",
    [
        {"name": "__Host-id"},
        {"name": "__host-id"},
        {"name": "__Secure-id"},
        {"name": "__Http-id"},
        {"same_site": "none"},
    ],
)
def test_a_cookie_that_must_be_secure_is_refused_in_development(options: dict[str, Any]) -> None:
    """In DEV, sync and async Auth refuse a cookie that browsers drop unless it is Secure."""
    cookie = SessionCookie(**options)
    with pytest.raises(ValueError, match="Secure"):
        AsyncAuth(sessions=AsyncMemoryAdapter(), env="DEV", session_cookie=cookie)
    with pytest.raises(ValueError, match="Secure"):
        Auth(sessions=MemoryAdapter(), env="DEV", session_cookie=cookie)
    auth = Auth(sessions=MemoryAdapter(), env="PROD", session_cookie=cookie)
    assert auth.create_session_cookie(SESSION).secure


def test_a_cookie_is_plain_data() -> None:
    """A cookie exposes all of its parts, with the expiry in UTC, for other frameworks."""
    assert Auth(sessions=MemoryAdapter(), env="DEV").create_session_cookie(SESSION) == Cookie(
        name=NAME,
        value=ID,
        expires=END,
        path="/",
        same_site="lax",
        domain=None,
        secure=False,
        http_only=True,
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([""], None),
        ([f"{NAME}={ID}"], ID),
        ([f"a=b; {NAME}={ID}; c=d"], ID),
        ([f"a=b;{NAME}={ID};c=d"], ID),
        ([f" \t{NAME} \t=\t {ID} \t;"], ID),
        ([f"{NAME}="], None),
        ([f"{NAME}= \t"], None),
        ([NAME], None),
        ([f"{NAME}; {NAME}={ID}"], ID),
        ([f"{NAME}=first; {NAME}=second"], "first"),
        (["a=b", f"{NAME}=first", f"{NAME}=second"], "first"),
        ([f"{NAME}=; {NAME}={ID}"], ID),
        ([f"{NAME}=x; {NAME}={ID}"], ID),
        ([f"{NAME}={ID}0; {NAME}={ID}"], ID),
        ([f"{NAME}={ID[:-1]}-; {NAME}={ID}"], ID),
        ([f"{NAME}={ID[:-1]}\u0660; {NAME}={ID}"], ID),
        ([f'{NAME}="{ID}"; {NAME}={ID}'], ID),
        ([f"{NAME}=x", f"{NAME}={ID}"], ID),
        ([f"{NAME}=; {NAME}=x"], "x"),
        ([f"{NAME}={ID}; {NAME}={OTHER_ID}"], ID),
        ([f"{NAME}={OTHER_ID}; {NAME}={ID}"], OTHER_ID),
        ([f"{NAME.upper()}={ID}"], None),
        ([f"x{NAME}={ID}; {NAME}x={ID}"], None),
        ([f"={NAME}={ID}"], None),
        ([f"{NAME}=a=b"], "a=b"),
        ([f'{NAME}="{ID}"'], f'"{ID}"'),
        ([f"$Version=1; {NAME}={ID}; $Path=/"], ID),
        ([f'x="a; {NAME}={ID}; b"'], ID),
        ([f"\x00=\xff; ;;; =; ==; é; {NAME}={ID}"], ID),
    ],
)
def test_finding_the_cookie(headers: Sequence[str], expected: str | None) -> None:
    """The first cookie of the name that can be a session id is found, else the first non-empty."""
    assert find_cookie(headers, NAME) == expected


@pytest.mark.parametrize(
    "space", ["\u00a0", "\u2000", "\u3000", "\x0b", "\x0c", "\x1c", "\x85", "\ufeff", "\r", "\n"]
)
def test_only_spaces_and_tabs_are_trimmed(space: str) -> None:
    """Other whitespace is kept.

    Otherwise a sibling domain could pass off a cookie with an odd space before its name as one
    with the prefix ``__Host-``.
    """
    name = "__Host-auth_session"
    assert find_cookie([f"{space}{name}=evil; {name}{space}=evil; {name}={ID}"], name) == ID
    assert find_cookie([f"{name}={space}{ID}{space}"], name) == f"{space}{ID}{space}"


@given(st.lists(st.text()), st.text(min_size=1))
def test_nothing_in_a_header_raises(headers: list[str], name: str) -> None:
    """Any text in a header is either the cookie or not, and never an exception."""
    found = find_cookie(headers, name)
    assert found is None or any(found in header for header in headers)


@given(before=st.lists(junk), after=st.lists(junk), earlier=st.lists(st.text()))
@example(before=['a="', "b"], after=['"'], earlier=[])
@example(before=["a=[", "b,c", "\x00"], after=[], earlier=["{;}"])
@example(before=[f"{NAME}=", f"{NAME}=x"], after=[f"{NAME}={OTHER_ID}"], earlier=[])
def test_nothing_hides_a_good_cookie(
    before: list[str], after: list[str], earlier: list[str]
) -> None:
    """A session id is found among any garbage, also behind malformed cookies of its name."""
    pairs = [
        pair if pair.partition("=")[0].strip(" \t") != NAME else f"{NAME}=-{pair}"
        for pair in before
    ]
    headers = [header for header in earlier if NAME not in header]
    assert find_cookie([*headers, ";".join([*pairs, f"{NAME}={ID}", *after])], NAME) == ID
