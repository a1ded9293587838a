"""How the benchmark calls a library: the calls themselves, so that what is measured is theirs and not a wrapper's."""

from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["HOUR", "RECORD", "AsyncPeer", "DeviceLists", "Logins", "NeverRaised", "Peer", "expect"]

HOUR: Final = 3_600
"""In seconds: how long every session lives."""

RECORD: Final = {
    "id": "0" * 40,
    "user_id": "0" * 32,
    "active_expires": 1_800_000_000_000,
    "idle_expires": 1_800_003_600_000,
}
"""The members of a session of ours, which applications also store with the other libraries."""


class NeverRaised(Exception):  # no error: it stands where an exception's class is wanted
    """The refusal of those that refuse without an exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncPeer:
    """A library's calls. What it does not do is None, and is not measured.

    Args:
        create: makes a session for a user's id, and gives the session's id.
        validate: reads the session with this id, in whatever form the library gives it.
        user_id: finds the user in that form, as an application does after each validation. It is
            part of what is measured, so it is as short as it can be. None if there is no such
            session.
        known_as: gives a user's id in the form that ``user_id`` finds.
        check: raises AssertionError unless what ``validate`` gave is all of the session with this
            id, of this user. It is not measured.
        refusal: what ``validate`` raises if there is no such session.
        revoke: ends a session by its id.
        create_due: makes a session that is due for renewal.
        renew: renews it, and gives the new session in the form of ``validate``.
        is_renewed: whether that is a new session, as an application finds out.
        session_id: finds the session's id in the form of ``validate``, if sessions are renewed.
        revoke_all: ends all sessions of a user.
        create_in_bulk: makes a session as ``create``, where that takes the longer the more sessions
            the user has.
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
    """A sync library's calls, as those of :class:`AsyncPeer`."""

    create: Callable[[str], str]
    validate: Callable[[str], Any]
    user_id: Callable[[Any], object]
    known_as: Callable[[str], object] = str
    refusal: type[Exception] = NeverRaised


def expect(what: str, got: object, wanted: object) -> None:
    """Raise AssertionError unless it is what is wanted."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")
