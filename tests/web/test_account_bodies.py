"""The bodies that the ready routes read, and the JSON and the pages that they send."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from lucia import InvalidInput
from lucia._rules.accounts import (
    LoggedInDevice,
    Page,
    Submission,
    normalize_name,
    shown_id,
    to_json,
    user_agent_of,
)
from lucia._rules.bodies import MAX_BODY_BYTES, read_body
from lucia._rules.pages import render_page

JSON = "application/json; charset=utf-8"
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content_type", "body", "fields", "is_form"),
    [
        (JSON, b'{"username": "anna"}', {"username": "anna"}, False),
        (JSON, b"", {}, False),
        ("", b"", {}, True),
        (
            FORM,
            b"username=a+b&password=%C3%A4&x=",
            {"username": "a b", "password": "ä", "x": ""},
            True,
        ),
        (FORM.upper(), b"a=1&a=2", {"a": "2"}, True),
    ],
)
def test_bodies(content_type: str, body: bytes, fields: dict[str, Any], is_form: bool) -> None:
    """JSON objects and forms are read; no body has no fields."""
    assert read_body(content_type, body) == (fields, is_form)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b"{"),
        (JSON, b"[" * 60_000),
        (JSON, b'"anna"'),
        (JSON, b"null"),
        (JSON, b"\xff"),
        (FORM, b"a=%FF"),
        (FORM, b"\xff=1"),
        (FORM, b"&".join(b"a=1" for _ in range(200))),
        (FORM, b"a" * (MAX_BODY_BYTES + 1)),
        (f"{FORM}; charset=punycode", b"a=1"),
        (f"{FORM}; charset=utf-8; charset=utf-16", b"a=1"),
        ("multipart/form-data; boundary=B; charset=unicode_escape", b"--B--"),
        ("text/plain", b"{}"),
        ("", b"{}"),
    ],
)
def test_bodies_that_are_refused(content_type: str, body: bytes) -> None:
    """Anything else is refused, and nothing of it is in the error."""
    with pytest.raises(InvalidInput, match="the body") as caught:
        read_body(content_type, body)
    assert "anna" not in str(caught.value)


def test_a_submission_shows_no_password() -> None:
    """The repr of what was sent has neither the fields nor the hidden fields."""
    submission = Submission(fields={"password": "secret"}, hidden={"token": "hidden"})
    assert "secret" not in repr(submission)
    assert "hidden=" not in repr(submission)


def test_names() -> None:
    """Names are compared without case, outer spaces, and compatible forms of one letter."""
    assert normalize_name("  \uff21nna@Example.COM ") == "anna@example.com"


def test_user_agents() -> None:
    """The metadata of a login has the user agent, cut, or nothing."""
    assert user_agent_of(Submission(fields={})) == {}
    agent = user_agent_of(Submission(fields={}, user_agent="a" * 5_000))["user_agent"]
    assert len(agent) == 300


def test_user_ids() -> None:
    """Numbers are numbers in JSON, and other ids are text."""
    assert shown_id(7) == 7
    assert shown_id(UUID(int=7)) == "00000000-0000-0000-0000-000000000007"
    assert shown_id("ä") == "ä"


def test_json() -> None:
    """Dataclasses are objects, times are ISO 8601, and everything else is its text."""

    @dataclass
    class Member:
        name: str
        since: datetime

    member = Member("Änne", datetime(2026, 1, 2, tzinfo=UTC))
    body = to_json({"member": member, "id": UUID(int=1), "none": None, "kind": Member})
    shown = json.loads(body)
    assert shown["member"] == {"name": "Änne", "since": "2026-01-02T00:00:00+00:00"}
    assert (shown["id"], shown["none"]) == (str(UUID(int=1)), None)


def test_pages_escape_what_people_type() -> None:
    """Names, user agents, hidden fields and paths are text on a page, never HTML."""
    evil = "\"'><script>alert(1)</script>"
    device = LoggedInDevice(
        handle="handle",
        current=False,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        expires_at=datetime(2026, 1, 2, tzinfo=UTC),
        metadata={"user_agent": evil},
    )
    own = LoggedInDevice(
        handle="own",
        current=True,
        created_at=device.created_at,
        expires_at=device.expires_at,
        metadata={},
    )
    hidden = {evil: evil}
    names: Any = ("sign_up", "log_in", "change_password", "devices")
    for name in names:
        page = Page(name, f"/{evil}", evil, evil, hidden, [device, own])
        html = render_page(page)
        assert "<script>" not in html
        assert 'role="alert"' in html
        assert html.count("<h1>") == 1
    devices = render_page(Page("devices", "/auth", devices=[device, own]))
    assert "Unknown device, since 2026-01-02 00:00 UTC (this device)" in devices
