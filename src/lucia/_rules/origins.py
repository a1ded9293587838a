"""The origin check against cross-site requests (CSRF), from Fetch Metadata and the Origin header.

Sources: RFC 6454 (origins), W3C Fetch Metadata Request Headers (``Sec-Fetch-Site``).
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from lucia._rules.requests import RequestLike
from lucia.errors import quoted

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_AS_HTTP: Final = {"ws": "http", "wss": "https"}
_BARE = re.compile(r"[a-z]+://(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]+)?", re.ASCII | re.IGNORECASE)

_LONGEST_HOST: Final = 253
"""The longest host name, in characters (RFC 1035, section 2.3.4, without the last dot)."""

_MOST_SHOWN: Final = 3
"""How many values of a header an error message quotes."""


class Origin(NamedTuple):
    """Scheme, host and port, by which browsers tell origins apart."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (
            "" if _DEFAULT_PORTS[self.scheme] == self.port else f":{self.port}"
        )


@dataclass(frozen=True, slots=True)
class OriginFailure:
    """Why a request failed the origin check: what was expected, and what was received."""

    expected: str
    received: str

    def __str__(self) -> str:
        return f"origin check failed: expected {self.expected}, received {self.received}"


def parse_origin(url: str) -> Origin | None:
    """Return the origin of an http(s) or ws(s) URL, the latter as http(s); None if it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme = _AS_HTTP.get(parts.scheme, parts.scheme)
    if scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        return None
    return Origin(scheme, parts.hostname, _DEFAULT_PORTS[scheme] if port is None else port)


def parse_bare_origin(text: str) -> Origin | None:
    """Return the origin in an Origin header or a setting.

    None for everything but a URL of scheme, host and maybe port.
    """
    return parse_origin(text) if _BARE.fullmatch(text) else None


def configured_origins(origins: Collection[str]) -> frozenset[Origin]:
    """Return the configured origins, parsed.

    Raises:
        TypeError: a single string instead of a list.
        ValueError: an entry is not an origin.
    """
    if isinstance(origins, str):
        raise TypeError("origin must be a list of origins, not one string")
    parsed = {text: parse_bare_origin(text) for text in origins}
    if bad := [text for text, origin in parsed.items() if origin is None]:
        raise ValueError(
            f"{bad[0]!r} in origin= is not an origin: "
            "expected scheme, host and maybe a port, such as 'https://app.example.com'"
        )
    return frozenset(origin for origin in parsed.values() if origin is not None)


def check_origin(context: RequestLike, trusted: Collection[Origin]) -> OriginFailure | None:
    """Return why a request may not change anything; None if it comes from a trusted origin.

    The application's own origin is trusted. Safe methods pass, but not the handshake of a
    WebSocket.
    """
    # The handshake of a WebSocket is a GET, and not subject to CORS: every page may open one.
    if context.method.upper() in _SAFE_METHODS and not context.is_websocket:
        return None
    sites = [value.strip(" \t") for value in context.headers.get("sec-fetch-site", ())]
    # Sec-Fetch-Site before the Origin header: behind a proxy that terminates TLS, the scheme of the
    # request's URL is not the browser's, and comparing it would refuse the own pages.
    if not sites:
        return _check_origin_header(context, {*trusted, _own_origin(context.url)})
    # "none": the person caused the request, by the address bar or a bookmark, and no page did.
    if sites in (["same-origin"], ["none"]):
        return None
    # The own origin is not trusted here: the browser says that the page is of another one.
    if sites in (["same-site"], ["cross-site"]):
        return _check_origin_header(context, trusted)
    return OriginFailure("one valid Sec-Fetch-Site", _shown(sites))


def is_plain_http(context: RequestLike) -> bool:
    """Return whether the browser reached the application by http, as far as the server knows.

    Browsers send ``Sec-Fetch-Site`` to secure origins alone (W3C Secure Contexts), so that with it
    the server is behind a proxy that terminates TLS, or on the person's own machine.
    """
    return context.url.startswith(("http://", "ws://")) and "sec-fetch-site" not in context.headers


def may_be_browser(context: RequestLike) -> bool:
    """Return whether a browser may have sent a request that changes something.

    Browsers send ``Origin`` with each such request of another site, and most also
    ``Sec-Fetch-Site``; without a cookie nobody is logged in whom it could harm.
    """
    return any(name in context.headers for name in ("origin", "sec-fetch-site", "cookie"))


def _check_origin_header(
    context: RequestLike, allowed: Collection[Origin | None]
) -> OriginFailure | None:
    values = context.headers.get("origin", ())
    origin = parse_bare_origin(values[0].strip(" \t")) if len(values) == 1 else None
    if origin is not None and origin in allowed:
        return None
    expected = (
        " or ".join(sorted(str(item) for item in allowed if item is not None))
        or "an origin listed in origin="
    )
    return OriginFailure(expected, _shown(values) or "no Origin header")


def _own_origin(url: str) -> Origin | None:
    """Return the origin of a request's URL; None if no Origin header can name it."""
    origin = parse_origin(url)
    # The host comes from the Host header, so it may be any text, and error messages quote it.
    if origin is None or len(origin.host) > _LONGEST_HOST or not _BARE.fullmatch(str(origin)):
        return None
    return origin


def _shown(values: Sequence[str]) -> str:
    shown = ", ".join(map(quoted, values[:_MOST_SHOWN]))
    return shown if len(values) <= _MOST_SHOWN else f"{shown} and {len(values) - _MOST_SHOWN} more"
