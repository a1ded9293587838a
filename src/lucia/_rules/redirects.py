"""Pages and APIs: which of both a request is for, and where a page may redirect to."""

import re
from typing import Final
from urllib.parse import quote, unquote, urlsplit

_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*", re.ASCII)
"""A path on the same site. Browsers read ``//`` and ``/\\`` as the beginning of a host."""

_PATH_CHARACTERS: Final = "/:@!$&'()*+,;="
"""Characters that a path does not quote, besides letters and digits (RFC 3986, section 3.3)."""

_LONGEST: Final = 2_000
"""In characters. Longer paths are not kept: a redirect has to fit into the limits of servers."""


def prefers_page(accept: str | None) -> bool:
    """Return whether a request is a browser's, for a page.

    Browsers name ``text/html`` where they load a page, and neither ``fetch`` nor other clients do.
    """
    return accept is not None and "text/html" in accept.lower()


def own_path(url: str | None, host: str = "") -> str | None:
    """Return the path of a URL that a form named, if it leads to this site, else None.

    An open redirect would let a link to the own login page lead on to another site.

    Args:
        url: a path, or the absolute URL of a page of this site.
        host: the host of the request, with the port.
    """
    if url is None or len(url) > _LONGEST:
        return None
    for origin in (f"http://{host}/", f"https://{host}/"):
        if host and url.startswith(origin):
            url = url[len(origin) - 1 :]
    return url if _PATH.fullmatch(url) else None


def quoted_path(path: str) -> str:
    """Return a decoded path as it stands in a URL."""
    return quote(path, safe=_PATH_CHARACTERS)


def below_root(url: str, root: str) -> str:
    """Return a setting that is a URL, as browsers know it.

    Args:
        url: a path in the application, or an absolute URL.
        root: the path below which the application is mounted, without a slash at its end.
    """
    return root + url if url.startswith("/") else url


def login_location(
    login_url: str,
    *,
    method: str,
    path: str,
    query: str = "",
    host: str = "",
    field: str | None = "next",
) -> str | None:
    """Return the URL of the login page that leads back to this request.

    None if the request is for the login page: if that needs a login itself, which is a mistake, it
    would redirect to itself for ever.

    Args:
        login_url: the URL of the page.
        method: the request's method. After another one than GET it does not lead back: the browser
            would open the URL of a form by GET.
        path: the path of the request, decoded.
        query: its query string, as it was sent.
        host: its host, with the port.
        field: the field of the query for the way back; None for no way back.
    """
    login = urlsplit(login_url)
    if unquote(login.path) == path and login.netloc in ("", host):
        return None
    back = quoted_path(path)
    if query:
        back = f"{back}?{query}"
    if field is None or method not in ("GET", "HEAD") or own_path(back) is None:
        return login_url
    separator = "&" if login.query else "?"
    return f"{login_url}{separator}{field}={quote(back, safe='/')}"


def check_redirect(name: str, url: str) -> str:
    """Return a setting that is a URL to redirect to.

    Raises:
        ValueError: it is neither a path nor an http(s) URL.
    """
    if own_path(url) or urlsplit(url).scheme in ("http", "https"):
        return url
    raise ValueError(f"{name} must be a path such as '/login', or an http(s) URL, got {url!r}")
