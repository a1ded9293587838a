"""The base of each framework's request: it collects the cookies and headers to add."""

from collections.abc import Iterable

from lucia._rules.cookies import Cookie

__all__ = ["Exchange"]


class Exchange:
    """One request as a ``RequestLike``, and what the library adds to its response.

    Subclasses read the framework's request. The framework's request refers to the exchange, so an
    exchange must not refer to it: each request would be a cycle that only the garbage collector
    frees, and it would be running all the time.
    """

    __slots__ = ("cookies", "response_headers", "started")

    is_websocket = False

    def __init__(self) -> None:
        self.started = False
        # Both are made when the first cookie is set: few requests set one.
        self.cookies: dict[str, Cookie] | None = None
        self.response_headers: dict[str, str] | None = None

    def can_set_cookie(self) -> bool:
        """Return whether the response has not started yet."""
        return not self.started

    def set_cookie(self, cookie: Cookie) -> None:
        """Add a cookie to the response, in place of an earlier one of the same name."""
        if self.started:
            raise RuntimeError("the response has started meanwhile, so that no cookie can be set")
        cookie.serialize()  # a value that no cookie can have is an error now, not in the response
        self.cookies = {**(self.cookies or {}), cookie.name: cookie}

    def set_header(self, name: str, value: str) -> None:
        """Set a header that goes with a cookie."""
        self.response_headers = {**(self.response_headers or {}), name: value}

    def merged(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the response's headers and those that the library adds."""
        # The application's own Cache-Control could let a shared cache store the cookie.
        kept = [(name, value) for name, value in headers if name.lower() != "cache-control"]
        varies = {
            field.strip().lower()
            for name, value in kept
            if name.lower() == "vary"
            for field in value.split(",")
        }
        added = [
            (name, value)
            for name, value in (self.response_headers or {}).items()
            if value.lower() not in varies
        ]
        cookies = (self.cookies or {}).values()
        return kept + added + [("set-cookie", cookie.serialize()) for cookie in cookies]
