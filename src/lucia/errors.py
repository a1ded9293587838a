"""The errors that the library raises.

::

    LuciaError
    ├── InvalidSessionId
    ├── DuplicateSessionId
    ├── InvalidCredentials          for login routes to catch
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

A wrong argument raises :class:`ValueError` or :class:`TypeError`, as everywhere in Python. If Redis
can't be reached, :class:`StoreUnavailable` is raised, with the client's error as its cause. All
other errors of databases and Redis clients are raised unchanged. No message contains a session id,
a password or a password hash.
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
    """Quote text from a request for a message: printable, on one line, and not too long."""
    if len(text) <= _LONGEST_QUOTATION:
        return repr(text)
    return f"{text[:_LONGEST_QUOTATION]!r}… ({len(text):,} characters)"


class LuciaError(Exception):
    """The root of the library's errors; only its subclasses are raised.

    ``code`` is Lucia JS's code where it has one.
    """

    code: ClassVar[str] = "UNKNOWN_ERROR"
    default_message: ClassVar[str] = "an unknown error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.default_message)


class InvalidSessionId(LuciaError):
    """No live session has this id: it never existed, was revoked, or has expired."""

    code = "AUTH_INVALID_SESSION_ID"
    default_message = "no live session has this id"


class DuplicateSessionId(LuciaError):
    """A session with this id exists already; nothing was changed."""

    code = "AUTH_DUPLICATE_SESSION_ID"
    default_message = "a session with this id exists already"


class InvalidCredentials(LuciaError):
    """The key or the password is wrong; the subclass says which.

    Tell the person only that the login failed: the subclass reveals whether an account exists.
    """


class InvalidKeyId(InvalidCredentials):
    """No key has this id."""

    code = "AUTH_INVALID_KEY_ID"
    default_message = "no key has this id"


class InvalidPassword(InvalidCredentials):
    """The password is wrong, missing, or given for a key without a password."""

    code = "AUTH_INVALID_PASSWORD"
    default_message = "the password is not this key's"


class OutdatedPassword(InvalidCredentials):
    """The stored hash is bcrypt (``$2a…``), which is not supported: reset the password."""

    code = "AUTH_OUTDATED_PASSWORD"
    default_message = "the stored password hash is of a kind that is no longer verified"


class ExpiredKey(InvalidCredentials):
    """The single-use key has expired, and was removed."""

    code = "AUTH_EXPIRED_KEY"
    default_message = "the single-use key has expired"


class InvalidInput(LuciaError, ValueError):
    """A new password, the name of a new key, a user's attributes or a login's metadata is invalid.

    The message says why, contains nothing of the input, and can be shown to the person.
    """

    code = "INVALID_INPUT"
    default_message = "this can't be stored"


class DuplicateKeyId(LuciaError):
    """A key with this id exists already; neither a user nor a key was stored."""

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
    """The user adapter's database creates the user ids; pass ``generate_custom_user_id``."""

    code = "AUTO_USER_ID_GENERATION_NOT_SUPPORTED"
    default_message = "this user adapter can't store a generated id: pass generate_custom_user_id"


class UnknownError(LuciaError):
    """A store returned something that the library does not know."""


class StoreCorrupt(UnknownError):
    """A key of the session store has a value of another type.

    Ignoring it would lose sessions or a revocation.
    """

    default_message = "a key of the session store has a value of another type: run lucia doctor"


class ConcurrentlyRevoked(LuciaError):
    """All sessions of the user were revoked while this one was created; nothing of it is left."""

    code = "CONCURRENTLY_REVOKED"
    default_message = "all sessions of this user were revoked while this one was created"


class Overloaded(LuciaError):
    """Too many passwords wait to be hashed, or too many requests to be sent to Redis.

    Respond 503, so that the client tries again.
    """

    code = "OVERLOADED"
    default_message = "too many passwords wait to be checked"


class TooManyAttempts(LuciaError):
    """Too many failed logins for this key or from this address; respond 429.

    The password was not checked. The error reveals neither whether it was right nor whether the key
    exists.

    Args:
        message: replaces the default message.
        retry_after: in how many seconds the next attempt may be made, unless somebody else makes
            one before.
    """

    code = "TOO_MANY_ATTEMPTS"
    default_message = "too many failed logins: wait before the next one"

    def __init__(self, message: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnavailable(LuciaError):
    """The session store can't be reached or did not reply in time; respond 503.

    ``__cause__`` is the client's error; None after a timeout.

    ``ambiguous`` says whether something may have been written, since the reply to a write was lost.
    If not, nothing was changed. If so, repeat the call: revoking sessions twice is safe, and a
    failed login or renewal left at most a session whose id nobody knows.
    """

    code = "STORE_UNAVAILABLE"
    default_message = (
        "the session store can't be reached or did not reply in time; "
        "nothing was changed, so try again"
    )
    _ambiguous_message: ClassVar[str] = (
        "the session store's reply to a write was lost, so it may have been done or not: "
        "repeat the login, the renewal or the revocation, which is safe"
    )

    def __init__(self, message: str | None = None, *, ambiguous: bool = False) -> None:
        super().__init__(message or (self._ambiguous_message if ambiguous else None))
        self.ambiguous = ambiguous


class RevocationNotReplicated(LuciaError):
    """Sessions were revoked, but fewer replicas confirmed it in time than ``revoke_ack=`` requires.

    The sessions are revoked on the primary. If it fails before a replica has received that, they
    are valid again after the failover. Revoking them again is safe and waits for the replicas
    again.

    ``wanted`` and ``acknowledged`` are numbers of replicas; in a cluster, the second is the lowest
    of all primaries.
    """

    code = "REVOCATION_NOT_REPLICATED"
    default_message = "the sessions are revoked, but too few replicas confirmed it in time"

    def __init__(
        self, message: str | None = None, *, wanted: int = 1, acknowledged: int = 0
    ) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.acknowledged = acknowledged


class SessionsNotRevoked(LuciaError):
    """The password was changed, but revoking the user's sessions failed.

    ``__cause__`` is the store's error. Call ``update_key_password`` again with the same password:
    that is safe and revokes them. After a block of ``in_transaction``, whose changes are committed,
    call ``invalidate_all_user_sessions``.
    """

    code = "SESSIONS_NOT_REVOKED"
    default_message = "the password was changed, but the user's sessions were not revoked"


class UsersNotConfigured(LuciaError):
    """A method for users or keys was called on an ``Auth`` without ``users=``."""

    code = "USERS_NOT_CONFIGURED"
    default_message = "this Auth has no user adapter: pass users= to work with users and keys"
