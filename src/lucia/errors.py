"""Every error the library raises itself.

::

    LuciaError
    ├── InvalidSessionId
    ├── DuplicateSessionId
    ├── InvalidCredentials          what a login route catches
    │   ├── InvalidKeyId
    │   ├── InvalidPassword
    │   ├── OutdatedPassword
    │   └── ExpiredKey
    ├── InvalidInput                also a ValueError
    ├── DuplicateKeyId
    ├── InvalidUserId
    ├── InvalidRequest
    ├── NotAuthenticated
    ├── RequestUnauthorized
    ├── AutoUserIdGenerationNotSupported
    ├── UnknownError
    │   └── StoreCorrupt
    ├── ConcurrentlyRevoked
    ├── Overloaded
    ├── StoreUnavailable
    ├── TooManyAttempts
    ├── RevocationNotReplicated
    ├── SessionsNotRevoked
    └── UsersNotConfigured

A wrong argument is a :class:`ValueError` or a :class:`TypeError`, as everywhere in Python.
A session store in Redis that can't be reached is :class:`StoreUnavailable`, with the client's error as its cause.
Every other error of a database or a Redis client is raised unchanged.
No message holds a session id, a password or a password hash.
"""

from typing import ClassVar, Final

__all__ = [
    "AutoUserIdGenerationNotSupported",
    "ConcurrentlyRevoked",
    "DuplicateKeyId",
    "DuplicateSessionId",
    "ExpiredKey",
    "InvalidCredentials",
    "InvalidInput",
    "InvalidKeyId",
    "InvalidPassword",
    "InvalidRequest",
    "InvalidSessionId",
    "InvalidUserId",
    "LuciaError",
    "NotAuthenticated",
    "OutdatedPassword",
    "Overloaded",
    "RequestUnauthorized",
    "RevocationNotReplicated",
    "SessionsNotRevoked",
    "StoreCorrupt",
    "StoreUnavailable",
    "TooManyAttempts",
    "UnknownError",
    "UsersNotConfigured",
]


_LONGEST_QUOTATION: Final = 200


def quoted(text: str) -> str:
    """Return what somebody sent, for a message or a log line: printable, on one line, and not long."""
    if len(text) <= _LONGEST_QUOTATION:
        return repr(text)
    return f"{text[:_LONGEST_QUOTATION]!r}… ({len(text):,} characters)"


class LuciaError(Exception):
    """The root of the library's errors; only its subclasses are raised.

    ``code`` is the original's code where the original has one.
    """

    code: ClassVar[str] = "UNKNOWN_ERROR"
    default_message: ClassVar[str] = "an unknown error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.default_message)


class InvalidSessionId(LuciaError):
    """No live session has this id: it never existed, was ended, or its time is over."""

    code = "AUTH_INVALID_SESSION_ID"
    default_message = "no live session has this id"


class DuplicateSessionId(LuciaError):
    """A session with this id exists; nothing was changed."""

    code = "AUTH_DUPLICATE_SESSION_ID"
    default_message = "a session with this id exists already"


class InvalidCredentials(LuciaError):
    """The key and the password do not prove who this is; the subclass says why.

    Tell the person only that the login failed: which subclass it was tells a stranger whether an account exists.
    """


class InvalidKeyId(InvalidCredentials):
    """No key has this id."""

    code = "AUTH_INVALID_KEY_ID"
    default_message = "no key has this id"


class InvalidPassword(InvalidCredentials):
    """The password is not this key's, or is given for a key without one, or is missing for a key with one."""

    code = "AUTH_INVALID_PASSWORD"
    default_message = "the password is not this key's"


class OutdatedPassword(InvalidCredentials):
    """The stored hash is a bcrypt one (``$2a…``), which this library does not verify: the person needs a password reset."""

    code = "AUTH_OUTDATED_PASSWORD"
    default_message = "the stored password hash is of a kind that is no longer verified"


class ExpiredKey(InvalidCredentials):
    """The single-use key's time is over; it has been removed."""

    code = "AUTH_EXPIRED_KEY"
    default_message = "the single-use key has expired"


class InvalidInput(LuciaError, ValueError):
    """What a person typed can't be stored: a new password, the name of a new key, or what is noted about a login.

    The message says what is wrong, holds nothing of the input, and can be shown.
    """

    code = "INVALID_INPUT"
    default_message = "this can't be stored"


class DuplicateKeyId(LuciaError):
    """A key with this id exists; neither a user nor a key was stored."""

    code = "AUTH_DUPLICATE_KEY_ID"
    default_message = "a key with this id exists already"


class InvalidUserId(LuciaError):
    """No user has this id."""

    code = "AUTH_INVALID_USER_ID"
    default_message = "no user has this id"


class InvalidRequest(LuciaError):
    """The request failed the origin check: it may come from another site."""

    code = "AUTH_INVALID_REQUEST"
    default_message = "the request's origin is not allowed"


class NotAuthenticated(LuciaError):
    """The request carries no live session and the route needs one."""

    code = "AUTH_NOT_AUTHENTICATED"
    default_message = "not logged in"


class RequestUnauthorized(LuciaError):
    """The session's user may not do this; for applications to raise."""

    code = "REQUEST_UNAUTHORIZED"
    default_message = "not allowed"


class AutoUserIdGenerationNotSupported(LuciaError):
    """The user adapter's database makes its own user ids; pass ``generate_custom_user_id``."""

    code = "AUTO_USER_ID_GENERATION_NOT_SUPPORTED"
    default_message = "this user adapter can't store an id that was made for it"


class UnknownError(LuciaError):
    """A store answered with something that no rule of the library covers."""


class StoreCorrupt(UnknownError):
    """A key of ours holds a value that is not ours, where ignoring it would lose sessions or a sign-out."""

    default_message = "a key of the session store holds a value of another kind"


class ConcurrentlyRevoked(LuciaError):
    """The session was ended while it was being made, since all of its user's sessions were; nothing of it is left."""

    code = "CONCURRENTLY_REVOKED"
    default_message = "all sessions of this user were ended while this one was being made"


class Overloaded(LuciaError):
    """More passwords wait to be hashed, or more requests to be sent to Redis, than may wait; answer 503 and let the client try again."""

    code = "OVERLOADED"
    default_message = "too many passwords wait to be checked"


class TooManyAttempts(LuciaError):
    """Too many sign-ins with a wrong password at this key or from this address; answer 429. The password was not looked at.

    It says nothing about the password, nor whether the key exists.

    Args:
        message: in the place of the error's own text.
        retry_after: so many seconds later an attempt may be made, if nobody else makes one before.
    """

    code = "TOO_MANY_ATTEMPTS"
    default_message = "too many failed sign-ins: wait before the next one"

    def __init__(self, message: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnavailable(LuciaError):
    """The session store can't be reached, did not answer in time, or the answer to a write was lost.

    ``__cause__`` is the client's error; None where the time was over.

    ``ambiguous`` says whether something may have been written. If not, nothing was changed. If so: a login or a renewal that failed left at
    most a session that nobody knows, so make a new one; ending sessions is safe to repeat, so end them again. Answer 503.
    """

    code = "STORE_UNAVAILABLE"
    default_message = "the session store can't be reached or did not answer in time; nothing was changed, so try again"
    _ambiguous_message: ClassVar[str] = (
        "the session store's answer to a write was lost, so it may have been done or not: "
        "a login or a renewal can be made anew, and ending sessions is safe to repeat"
    )

    def __init__(self, message: str | None = None, *, ambiguous: bool = False) -> None:
        super().__init__(message or (self._ambiguous_message if ambiguous else None))
        self.ambiguous = ambiguous


class RevocationNotReplicated(LuciaError):
    """Sessions were ended, but fewer replicas confirmed it in time than ``revoke_ack=`` asks for.

    They are dead on the primary, and nobody validates with them. If the primary fails before a replica has received it, they can be alive
    again. Ending them again is safe, and asks the replicas again.

    ``wanted`` and ``acknowledged`` are numbers of replicas; in a cluster the second is that of the primary where it was fewest.
    """

    code = "REVOCATION_NOT_REPLICATED"
    default_message = "the sessions are ended, but too few replicas confirmed it in time"

    def __init__(
        self, message: str | None = None, *, wanted: int = 1, acknowledged: int = 0
    ) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.acknowledged = acknowledged


class SessionsNotRevoked(LuciaError):
    """The password was changed, but ending the user's sessions failed.

    ``__cause__`` is the store's error. Calling ``update_key_password`` again with the same password is safe and ends them.
    """

    code = "SESSIONS_NOT_ENDED"
    default_message = "password changed, sessions not ended"


class UsersNotConfigured(LuciaError):
    """A method for users or keys was called on an ``Auth`` made without ``users=``."""

    code = "USERS_NOT_CONFIGURED"
    default_message = (
        "this Auth was made without users=: give it a user adapter to work with users and keys"
    )
