"""The response to each of the library's errors, for every web framework. None is imported here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from lucia._rules.requests import Transport
from lucia.errors import (
    DuplicateKeyId,
    InvalidCredentials,
    InvalidInput,
    InvalidRequest,
    InvalidSessionId,
    LuciaError,
    NotAuthenticated,
    Overloaded,
    RequestUnauthorized,
    StoreUnavailable,
    TooManyAttempts,
)

POLICY_VIOLATION: Final = 1008
"""Closes a WebSocket whose request is refused (RFC 6455, section 7.4.1)."""

INTERNAL_ERROR: Final = 1011
"""Closes a WebSocket because the server has failed (RFC 6455, section 7.4.1)."""

TRY_AGAIN_LATER: Final = 1013
"""Closes a WebSocket that can't be served now (IANA's WebSocket Close Code Number Registry)."""

MAX_REASON_BYTES: Final = 123
"""The longest reason of a WebSocket close, in bytes of UTF-8 (RFC 6455, section 5.5)."""

_CLOSE_CODES: Final = {500: INTERNAL_ERROR, 503: TRY_AGAIN_LATER}
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class ErrorResponse(NamedTuple):
    """The response to an error: over HTTP ``{"detail": detail}``, or the close of a WebSocket."""

    status: int
    detail: str
    headers: Mapping[str, str] = _NO_HEADERS

    @property
    def close_code(self) -> int:
        """The code that closes a WebSocket."""
        return _CLOSE_CODES.get(self.status, POLICY_VIOLATION)

    @property
    def close_reason(self) -> str:
        """The reason in a WebSocket's close: the detail, cut between two characters if too long."""
        return self.detail.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


# No detail says which credential was wrong, and an error's own message is shown only where it was
# written for the person (InvalidInput): all others may quote the request or name internals.
_RESPONSES: Final[Mapping[type[LuciaError], tuple[int, str]]] = {
    NotAuthenticated: (401, "Not logged in."),
    InvalidSessionId: (401, "Not logged in."),
    InvalidCredentials: (401, "Wrong name or password."),
    InvalidRequest: (403, "This request comes from another site."),
    RequestUnauthorized: (403, "Not allowed."),
    DuplicateKeyId: (409, "This name is taken."),
    InvalidInput: (422, ""),
    TooManyAttempts: (429, "Too many failed logins. Try again later."),
    Overloaded: (503, "Too many requests at once. Try again in a moment."),
    StoreUnavailable: (503, "Sessions can't be reached. Try again in a moment."),
}

ERRORS: Final = tuple(_RESPONSES)
"""The classes to register handlers for. Others are the server's own errors: frameworks answer them
with 500, and log them."""


def response_for(error: Exception, transport: Transport) -> ErrorResponse:
    """Return the response to an error that a route did not catch.

    Args:
        error: the error.
        transport: names the scheme in ``WWW-Authenticate``. Every 401 needs that header (RFC 9110,
            section 15.5.2); for a cookie there is no registered scheme, so it is ``APIKey``, as in
            OpenAPI.
    """
    for kind, (status, detail) in _RESPONSES.items():
        if isinstance(error, kind):
            return ErrorResponse(
                status, detail or str(error), _headers_for(error, status, transport)
            )
    return ErrorResponse(500, "Something went wrong.")


def _headers_for(error: Exception, status: int, transport: Transport) -> Mapping[str, str]:
    if status == 401:
        return {"WWW-Authenticate": "APIKey" if transport == "cookie" else "Bearer"}
    if isinstance(error, TooManyAttempts):
        return {"Retry-After": str(error.retry_after)}
    return {"Retry-After": "1"} if status == 503 else _NO_HEADERS
