"""What the tests of both flavours share: a clock that they move, hashers that are cheap and count, and a request with its response."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from lucia import Cookie, PasswordPool, RequestContext, ScryptHash, Session

__all__ = ["CHEAP", "NOW", "OWN_ORIGIN", "ROOMY", "CountingHash", "Exchange", "Time", "as_read"]

NOW = 1_800_000_000_000
CHEAP = ScryptHash(ln=4, r=1, p=1)
ROOMY = PasswordPool(workers=2, queue=64)
"""Takes as many log-ins at once as the tests make, in both flavours."""
OWN_ORIGIN = "http://localhost:8000"


class Time:
    """A clock that stands until a test moves it, in either direction."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, duration: timedelta) -> None:
        """Move the clock, backwards if the duration is negative."""
        self.now += duration // timedelta(milliseconds=1)


class CountingHash:
    """A cheap hasher that writes down which hashes were verified, and how many were made."""

    def __init__(self) -> None:
        self.verified: list[str] = []
        self.made: list[str] = []

    def hash(self, password: str, /) -> str:
        """The hash to store."""
        hashed = CHEAP.hash(password)
        self.made.append(hashed)
        return hashed

    def verify(self, password: str, hashed: str, /) -> bool:
        """Whether it is this password's."""
        self.verified.append(hashed)
        return CHEAP.verify(password, hashed)

    def needs_rehash(self, hashed: str, /) -> bool:
        """Whether it is of another cost."""
        return CHEAP.needs_rehash(hashed)


def as_read(session: Session, **members: Any) -> Session:
    """The session of a login or a renewal as a later read gives it: not fresh."""
    return replace(session, session_id=session.session_id, fresh=False, **members)


class Exchange:
    """One request and what its response got; ``started`` says that the response takes no more headers."""

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
        """The values of the cookies that the response got, in order; an empty one clears."""
        return [cookie.value for cookie in self.cookies]
