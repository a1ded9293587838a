"""A request, and the cookies and headers of its response."""

from collections.abc import Sequence

from lucia import Cookie, RequestContext

__all__ = ["OWN_ORIGIN", "Exchange"]

OWN_ORIGIN = "http://localhost:8000"


class Exchange:
    """A request, and the cookies and headers of its response.

    Set ``started`` when the response can't take more headers.
    """

    def __init__(
        self,
        session_id: str | None = None,
        *,
        method: str = "POST",
        origin: str | None = OWN_ORIGIN,
        authorization: Sequence[str] = (),
        is_websocket: bool = False,
        address: str | None = None,
    ) -> None:
        self.cookies: list[Cookie] = []
        self.headers: dict[str, str] = {}
        self.started = False
        sent = {
            "cookie": [] if session_id is None else [f"other=1; auth_session={session_id}"],
            "origin": [] if origin is None else [origin],
            "authorization": authorization,
        }
        self.context = RequestContext(
            method=method,
            url=f"{OWN_ORIGIN}/path",
            headers={name: values for name, values in sent.items() if values},
            set_cookie=self.cookies.append,
            set_header=self.headers.__setitem__,
            is_websocket=is_websocket,
            can_set_cookie=lambda: not self.started,
            client_address=address,
        )

    @property
    def values(self) -> list[str]:
        """The values of the response's cookies, in order. An empty value clears the cookie."""
        return [cookie.value for cookie in self.cookies]
