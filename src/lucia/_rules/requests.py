"""What the library needs to know of a request, and may do to its response. A web framework is one function that makes this."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from lucia._rules.cookies import Cookie

Transport = Literal["cookie", "bearer"]
"""Where a request carries its session id: in a cookie, or in the Authorization header."""

REQUEST_HEADERS: Final = ("cookie", "origin", "sec-fetch-site", "authorization")
"""The request headers that the library reads."""


class RequestLike(Protocol):
    """What :class:`RequestContext` has, for an integration whose own object of a request has it too."""

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


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """One request, as a web framework shows it.

    Its ``repr`` shows neither the headers, which hold the session id, nor the URL, which may hold a
    token of the application's.

    Args:
        method: as sent, such as ``POST``.
        url: absolute, with the scheme and host the application is reached by.
        headers: by lower-case name, each with all values that were sent under it, in order; others than
            ``cookie``, ``origin``, ``sec-fetch-site`` and ``authorization`` are never looked at.
        set_cookie: adds a cookie to the response, in the place of an earlier one with the same name.
        set_header: sets a header of the response that belongs to the cookie: ``cache-control``, or ``vary``, which is added to.
        is_websocket: this is a WebSocket's handshake.
        can_set_cookie: whether the response can still take a cookie; False once it has started.
        client_address: where the request came from, such as ``203.0.113.9``, by which failed sign-ins are counted; None if that is not
            known. Behind a proxy it is what the server was told by it, never a header that anybody can send.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, Sequence[str]] = field(repr=False)
    set_cookie: Callable[[Cookie], None] = field(repr=False)
    set_header: Callable[[str, str], None] = field(repr=False)
    is_websocket: bool = False
    can_set_cookie: Callable[[], bool] = field(default=_always, repr=False)
    client_address: str | None = None
