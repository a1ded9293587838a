"""Redirects: to the login page and back, and never to another site."""

import pytest

from lucia._rules.redirects import (
    below_root,
    check_redirect,
    login_location,
    own_path,
    prefers_page,
)


@pytest.mark.parametrize("path", ["/", "/a", "/a/b?c=d&e=%2F", "/a//b", "/?next=//evil.example"])
def test_paths_of_the_own_site(path: str) -> None:
    """A path that begins with one slash stays on the site."""
    assert own_path(path, "app.example") == path


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
        "https://app.example.evil.example/",
        "https://app.example@evil.example/",
        "http://app.example//evil.example",
        "javascript:alert(1)",
        " /a",
        "/\t/evil.example",
        "/a\r\nSet-Cookie: x",
        "/ä",
        "/" + "a" * 2_000,
    ],
)
def test_paths_to_other_sites(path: str | None) -> None:
    """Everything else leads nowhere."""
    assert own_path(path, "app.example") is None


def test_urls_of_the_own_site() -> None:
    """The absolute URL of a page of this site, as some frameworks name it, leads there."""
    for origin in ("http://app.example:8000", "https://app.example:8000"):
        assert own_path(f"{origin}/a?b=c", "app.example:8000") == "/a?b=c"
        assert own_path(f"{origin}/a", "") is None


def test_below_a_root() -> None:
    """A path in the application is below its root; other URLs stay."""
    assert below_root("/login", "/app") == "/app/login"
    assert below_root("https://id.example/login", "/app") == "https://id.example/login"


@pytest.mark.parametrize(
    ("login_url", "method", "path", "query", "location"),
    [
        ("/login", "GET", "/a", "b=c&d=%C3%A9", "/login?next=/a%3Fb%3Dc%26d%3D%25C3%25A9"),
        ("/login", "GET", "/café/a b/100%25", "", "/login?next=/caf%25C3%25A9/a%2520b/100%252525"),
        ("/login", "GET", "/a?b#c", "", "/login?next=/a%253Fb%2523c"),
        ("/login", "HEAD", "/", "", "/login?next=/"),
        ("/login?lang=de", "GET", "/a", "", "/login?lang=de&next=/a"),
        ("/login", "POST", "/a", "", "/login"),
        ("/login", "GET", "//evil.example", "", "/login"),
        ("https://id.example/", "GET", "/a", "", "https://id.example/?next=/a"),
    ],
)
def test_the_login_page_leads_back(
    login_url: str, method: str, path: str, query: str, location: str
) -> None:
    """The page to come back to is in the query, if the browser can open it by GET."""
    assert login_location(login_url, method=method, path=path, query=query) == location


@pytest.mark.parametrize(
    ("login_url", "path", "is_this"),
    [
        ("/login", "/login", True),
        ("/login?lang=de", "/login", True),
        ("/caf%C3%A9", "/café", True),
        ("https://app.example/login", "/login", True),
        ("https://id.example/login", "/login", False),
        ("/login", "/login/", False),
    ],
)
def test_the_login_page_does_not_lead_to_itself(login_url: str, path: str, is_this: bool) -> None:
    """A login page that needs a login itself does not redirect to itself."""
    location = login_location(login_url, method="GET", path=path, host="app.example")
    assert (location is None) == is_this


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
