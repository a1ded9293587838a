"""Pages and APIs: which of both a request is for, and where a page may redirect to."""

import re
from typing import Final
from urllib.parse import quote, urlsplit

_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*", re.ASCII)
"""A path on the same site. Browsers read ``//`` and ``/\\`` as the beginning of a host."""

_LONGEST: Final = 2_000
"""In characters. Longer paths are not kept: a redirect has to fit into the limits of servers."""


def prefers_page(accept: str | None) -> bool:
    """Return whether a request is a browser's, for a page.

    Browsers name ``text/html`` where they load a page, and neither ``fetch`` nor other clients do.
    """
    return accept is not None and "text/html" in accept.lower()


def safe_path(path: str | None, default: str) -> str:
    """Return a path that a form named, if it leads to this site, else the default.

    An open redirect would let a link to the own login page lead on to another site.
    """
    if path is None or len(path) > _LONGEST or not _PATH.fullmatch(path):
        return default
    return path


def login_location(login_url: str, method: str, path: str) -> str | None:
    """Return the URL of the login page that leads back to this request.

    None if the request is for the login page: if that needs a login itself, which is a mistake, it
    would redirect to itself for ever.

    Args:
        login_url: the URL of the page.
        method: the request's method. After another one than GET it does not lead back: the browser
            would open the URL of a form by GET.
        path: path and query of the request.
    """
    login = urlsplit(login_url)
    if not login.netloc and login.path == path.partition("?")[0]:
        return None
    if method not in ("GET", "HEAD") or safe_path(path, "") == "":
        return login_url
    separator = "&" if login.query else "?"
    return f"{login_url}{separator}next={quote(path, safe='/')}"


def check_redirect(name: str, url: str) -> str:
    """Return a setting that is a URL to redirect to.

    Raises:
        ValueError: it is neither a path nor an http(s) URL.
    """
    if safe_path(url, "") or urlsplit(url).scheme in ("http", "https"):
        return url
    raise ValueError(f"{name} must be a path such as '/login', or an http(s) URL, got {url!r}")
