"""The base of each framework's request: it collects the cookies and headers to add."""

from collections.abc import Iterable

from lucia._rules.cookies import Cookie

__all__ = ["Exchange"]


class Exchange:
    """One request as a ``RequestLike``, and what the library adds to its response.

    Subclasses read the framework's request. The framework's request refers to the exchange, so an
    exchange must not refer to it: each request would be a cycle, which the garbage collector alone
    frees.
    """

    __slots__ = ("cookies", "started", "varies")

    is_websocket = False

    def __init__(self) -> None:
        self.started = False
        self.cookies: dict[str, Cookie] | None = None  # few requests set one
        self.varies: str | None = None  # None if the response needs no header

    def can_set_cookie(self) -> bool:
        """Return whether the response has not started yet."""
        return not self.started

    def set_cookie(self, cookie: Cookie) -> None:
        """Add a cookie to the response, in place of an earlier one of the same name."""
        if self.started:
            raise RuntimeError("the response has already started, so no cookie can be set")
        cookie.serialize()  # a value that no cookie can have is an error now, not in the response
        self.cookies = {**(self.cookies or {}), cookie.name: cookie}

    def set_header(self, name: str, value: str) -> None:
        """Set the fields of Vary. The other header, Cache-Control, comes with each cookie."""
        if name != "vary" or value == self.varies:
            return
        if self.varies is None:
            self.varies = value
        else:  # another transport was asked before
            fields = dict.fromkeys([*self.varies.split(", "), *value.split(", ")])
            self.varies = ", ".join(fields)

    def merged(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the response's headers and those that the library adds."""
        merged = list(headers)
        cookies = (self.cookies or {}).values()
        if cookies:
            # The application's own Cache-Control could let a shared cache store the cookie.
            merged = [(name, value) for name, value in merged if name.lower() != "cache-control"]
            merged.append(("cache-control", "no-store"))
        own = {
            field.strip().lower()
            for name, value in merged
            if name.lower() == "vary"
            for field in value.split(",")
        }
        varies = self.varies.split(", ") if self.varies else []
        missing = [field for field in varies if field.lower() not in own]
        if missing:
            merged.append(("vary", ", ".join(missing)))
        return merged + [("set-cookie", cookie.serialize()) for cookie in cookies]
