"""Redirects: to the login page and back, and never to another site."""

import pytest

from lucia._rules.redirects import check_redirect, login_location, prefers_page, safe_path


@pytest.mark.parametrize("path", ["/", "/a", "/a/b?c=d&e=%2F", "/a//b", "/?next=//evil.example"])
def test_paths_of_the_own_site(path: str) -> None:
    """A path that begins with one slash stays on the site."""
    assert safe_path(path, "/home") == path


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "a",
        "//evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        " /a",
        "/\t/evil.example",
        "/a\r\nSet-Cookie: x",
        "/ä",
        "/" + "a" * 2_000,
    ],
)
def test_paths_to_other_sites(path: str | None) -> None:
    """Everything else leads to the default."""
    assert safe_path(path, "/home") == "/home"


@pytest.mark.parametrize(
    ("login_url", "method", "path", "location"),
    [
        ("/login", "GET", "/a?b=c&d", "/login?next=/a%3Fb%3Dc%26d"),
        ("/login", "HEAD", "/", "/login?next=/"),
        ("/login?lang=de", "GET", "/a", "/login?lang=de&next=/a"),
        ("/login", "POST", "/a", "/login"),
        ("/login", "GET", "//evil.example", "/login"),
        ("https://id.example/", "GET", "/a", "https://id.example/?next=/a"),
    ],
)
def test_the_login_page_leads_back(login_url: str, method: str, path: str, location: str) -> None:
    """The page to come back to is in the query, if the browser can open it by GET."""
    assert login_location(login_url, method, path) == location


def test_the_login_page_does_not_lead_to_itself() -> None:
    """A login page that needs a login itself does not redirect to itself."""
    assert login_location("/login", "GET", "/login") is None
    assert login_location("/login?lang=de", "GET", "/login?next=/a") is None
    assert login_location("https://id.example/login", "GET", "/login") is not None


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("TEXT/HTML", True),
        ("*/*", False),
        ("application/json", False),
        ("", False),
        (None, False),
    ],
)
def test_pages_and_apis(accept: str | None, is_page: bool) -> None:
    """A browser that loads a page names ``text/html``; other clients do not."""
    assert prefers_page(accept) == is_page


def test_settings() -> None:
    """A setting is a path or an http(s) URL; others are refused by the setting's name."""
    for url in ("/login", "https://id.example/login", "http://localhost/"):
        assert check_redirect("login_url", url) == url
    for url in ("login", "", "//evil.example", "javascript:1"):
        with pytest.raises(ValueError, match="login_url must be a path"):
            check_redirect("login_url", url)
