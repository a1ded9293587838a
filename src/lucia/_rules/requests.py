"""Requests: the parts that the library reads, and the cookies and headers that it sets.

An integration of a web framework is a function that creates a :class:`RequestContext`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, Protocol

from lucia._rules.cookies import Cookie

Transport = Literal["cookie", "bearer", "both"]
"""Where a request carries its session id: in a cookie, or in the Authorization header.

With ``both``, a request with ``Authorization: Bearer`` is a bearer's, and any other one a cookie's.
"""

TRANSPORTS: Final[tuple[Transport, ...]] = ("cookie", "bearer", "both")

VARIES: Final[Mapping[Transport, str]] = MappingProxyType(
    {"cookie": "Cookie", "bearer": "Authorization", "both": "Authorization, Cookie"}
)
"""The Vary header of a response that depends on the session."""

REQUEST_HEADERS: Final = ("cookie", "origin", "sec-fetch-site", "authorization")
"""The request headers that the library reads."""


class RequestLike(Protocol):
    """The members of :class:`RequestContext`, for integrations with their own request object."""

    @property
    def method(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, Sequence[str]]: ...

    @property
    def is_websocket(self) -> bool: ...

    @property
    def client_address(self) -> str | None: ...

    def set_cookie(self, cookie: Cookie, /) -> None: ...

    def set_header(self, name: str, value: str, /) -> None: ...

    def can_set_cookie(self) -> bool: ...


def check_transport(transport: str) -> None:
    """Raise `ValueError` if the transport is unknown."""
    if transport not in TRANSPORTS:
        raise ValueError(f"transport must be 'cookie', 'bearer' or 'both', got {transport!r}")


def bearer_token(context: RequestLike) -> str | None:
    """Return the token of a single ``Authorization: Bearer`` header (RFC 6750, section 2.1)."""
    values = context.headers.get("authorization", ())
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip(" ") or None if scheme.lower() == "bearer" else None


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """One request, for ``Auth.handle_request``.

    Its ``repr`` has neither the headers, which contain the session id, nor the URL, which may
    contain a token of the application.

    Args:
        method: as sent, such as ``POST``.
        url: absolute, with the scheme and host the application is reached by.
        headers: by lower-case name, each with all values that were sent under it, in order. Only
            ``cookie``, ``origin``, ``sec-fetch-site`` and ``authorization`` are read.
        set_cookie: adds a cookie to the response, replacing an earlier one with the same name.
        set_header: sets a response header: ``vary`` where the session is asked for, which is added
            to the application's, and ``cache-control`` with a cookie, which replaces it.
        is_websocket: whether this is the handshake of a WebSocket.
        can_set_cookie: whether a cookie can still be set; False once the response has started.
        client_address: the address that the request came from, such as ``203.0.113.9``; failed
            logins are counted by it. None if it is not known. Behind a proxy it is what the proxy
            told the server, never a header that anybody can send.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, Sequence[str]] = field(repr=False)
    set_cookie: Callable[[Cookie], None] = field(repr=False)
    set_header: Callable[[str, str], None] = field(repr=False)
    is_websocket: bool = False
    can_set_cookie: Callable[[], bool] = field(default=_always, repr=False)
    client_address: str | None = None
