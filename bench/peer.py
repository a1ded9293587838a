"""How the benchmark calls a library: the calls themselves, so that what is measured is theirs and not a wrapper's."""

from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["HOUR", "RECORD", "AsyncPeer", "DeviceLists", "Logins", "NeverRaised", "Peer"]

HOUR: Final = 3_600
"""In seconds: how long every session lives."""

RECORD: Final = {
    "id": "0" * 40,
    "user_id": "0" * 32,
    "active_expires": 1_800_000_000_000,
    "idle_expires": 1_800_003_600_000,
}
"""What a session of ours holds; who leaves the record to the application is given as much."""


class NeverRaised(Exception):  # no error: it stands where an exception's class is wanted
    """The refusal of those that refuse without an exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncPeer:
    """A library's calls. What it does not do is None, and is not measured.

    Args:
        create: makes a session for a user's id, and gives the session's id.
        validate: reads the session with this id, in whatever form the library gives it.
        user_id: finds the user's id in that form; None if there is no such session.
        refusal: what ``validate`` raises if there is no such session.
        revoke: ends a session by its id.
        create_due: makes a session that is due for renewal.
        renew: renews it, and gives the new session's id.
        revoke_all: ends all sessions of a user.
        create_in_bulk: makes a session as ``create``, where that takes the longer the more sessions the user has.
    """

    create: Callable[[str], Awaitable[str]]
    validate: Callable[[str], Awaitable[Any]]
    user_id: Callable[[Any], str | None]
    refusal: type[Exception] = NeverRaised
    revoke: Callable[[str], Awaitable[object]] | None = None
    create_due: Callable[[str], Awaitable[str]] | None = None
    renew: Callable[[str], Awaitable[str]] | None = None
    revoke_all: Callable[[str], Awaitable[object]] | None = None
    create_in_bulk: Callable[[str], Awaitable[object]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLists:
    """A library's list of a user's sessions.

    Args:
        log_in: creates a session for this user id, with a user agent as its metadata.
        read: lists the sessions of this user id.
    """

    log_in: Callable[[str], Awaitable[object]]
    read: Callable[[str], Awaitable[Sized]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """How a library, with its default hash, signs users up and logs them in.

    Args:
        sign_up: stores a user of this name, with a password.
        log_in: makes a session for who knows the name and the password; None, or ``refusal``, for others.
        refusal: what ``log_in`` raises.
    """

    sign_up: Callable[[str, str], Awaitable[object]]
    log_in: Callable[[str, str], Awaitable[object]]
    refusal: type[Exception] = NeverRaised


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The same for a sync library: what it does in a request."""

    create: Callable[[str], str]
    validate: Callable[[str], Any]
    user_id: Callable[[Any], str | None]
    refusal: type[Exception] = NeverRaised
