"""The interface to a library: its own functions wherever possible, so that no wrapper is measured.

Every field of these classes is a function of the library, or a thin adapter to it.
"""

from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["HOUR", "RECORD", "AsyncPeer", "DeviceLists", "Logins", "NeverRaised", "Peer", "expect"]

HOUR: Final = 3_600
"""The lifetime of every session, in seconds."""

RECORD: Final = {
    "id": "0" * 40,
    "user_id": "0" * 32,
    "active_expires": 1_800_000_000_000,
    "idle_expires": 1_800_003_600_000,
}
"""The members of our session record. Applications of the other libraries store the same ones."""


class NeverRaised(Exception):  # the name has no suffix "Error" because it is never raised
    """The `refusal` of libraries that refuse without an exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncPeer:
    """The operations of an async library. One that it lacks is None, and is not measured.

    Args:
        create: create a session for a user id, and return its id.
        validate: read the session with this id, and return the library's own object.
        user_id: return the user of that object, as an application does after each validation; None
            if there is no session. It is measured too, so it must be short.
        known_as: convert a user id to the type that ``user_id`` returns.
        check: raise AssertionError unless that object is complete and belongs to this session id
            and user id. It is not measured.
        refusal: the exception of ``validate`` for an unknown session.
        revoke: revoke a session by its id.
        create_due: create a session that is due for renewal.
        renew: renew a session, and return the new one as ``validate`` does.
        is_renewed: return whether that is a new session, as an application finds out.
        session_id: return the session id of that object, for libraries that renew sessions.
        revoke_all: revoke all sessions of a user.
        create_in_bulk: a faster ``create``, for libraries where its cost grows with the number of
            the user's sessions.
    """

    create: Callable[[str], Awaitable[str]]
    validate: Callable[[str], Awaitable[Any]]
    user_id: Callable[[Any], object]
    check: Callable[[Any, str, str], None]
    known_as: Callable[[str], object] = str
    refusal: type[Exception] = NeverRaised
    revoke: Callable[[str], Awaitable[object]] | None = None
    create_due: Callable[[str], Awaitable[str]] | None = None
    renew: Callable[[str], Awaitable[Any]] | None = None
    is_renewed: Callable[[Any], object] = bool
    session_id: Callable[[Any], str] = str
    revoke_all: Callable[[str], Awaitable[object]] | None = None
    create_in_bulk: Callable[[str], Awaitable[object]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLists:
    """A library's list of a user's sessions.

    Args:
        log_in: create a session for this user id, with a user agent as its metadata.
        read: list the sessions of this user id.
    """

    log_in: Callable[[str], Awaitable[object]]
    read: Callable[[str], Awaitable[Sized]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """A library's sign-up and login with its default hash.

    Args:
        sign_up: store a user with this name and password.
        log_in: create a session if the name and the password match; otherwise return None or raise
            ``refusal``.
        refusal: the exception of ``log_in``.
    """

    sign_up: Callable[[str, str], Awaitable[object]]
    log_in: Callable[[str, str], Awaitable[object]]
    refusal: type[Exception] = NeverRaised


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The operations of a sync library; see :class:`AsyncPeer`."""

    create: Callable[[str], str]
    validate: Callable[[str], Any]
    user_id: Callable[[Any], object]
    known_as: Callable[[str], object] = str
    refusal: type[Exception] = NeverRaised


def expect(what: str, got: object, wanted: object) -> None:
    """Raise AssertionError unless `got` equals `wanted`."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")
