"""Server-side sessions and authentication for Python, with Redis as the session store.

Adapters are in :mod:`lucia.adapters`, web frameworks in :mod:`lucia.middleware`, suites for adapters in :mod:`lucia.testing`.
"""

from lucia._async.adapters import AsyncRenewingSessionAdapter, AsyncSessionAdapter, AsyncSessionUserAdapter, AsyncUserAdapter
from lucia._async.auth import AsyncAuth
from lucia._async.request import AsyncAuthRequest
from lucia._sync.adapters import RenewingSessionAdapter, SessionAdapter, SessionUserAdapter, UserAdapter
from lucia._sync.auth import Auth
from lucia._sync.request import AuthRequest
from lucia.context import RequestContext
from lucia.cookies import Cookie, SessionCookie
from lucia.errors import (
    AutoUserIdGenerationNotSupported,
    ConcurrentlyRevoked,
    DuplicateKeyId,
    DuplicateSessionId,
    ExpiredKey,
    InvalidCredentials,
    InvalidInput,
    InvalidKeyId,
    InvalidPassword,
    InvalidRequest,
    InvalidSessionId,
    InvalidUserId,
    LuciaError,
    NotAuthenticated,
    OutdatedPassword,
    Overloaded,
    RequestUnauthorized,
    SessionsNotEnded,
    StoreCorrupt,
    UnknownError,
    UsersNotConfigured,
)
from lucia.models import (
    UNSET,
    Device,
    Key,
    KeyRow,
    PersistentKey,
    PrimaryKey,
    Session,
    SessionRow,
    SessionUser,
    SingleUseKey,
    Unset,
    User,
    UserRow,
)
from lucia.origins import OriginFailure
from lucia.passwords import Argon2Hash, LuciaHash, PasswordHasher, ScryptHash, check_new_password
from lucia.rules import SessionExpiry, generate_random_string

__all__ = [
    "UNSET",
    "Argon2Hash",
    "AsyncAuth",
    "AsyncAuthRequest",
    "AsyncRenewingSessionAdapter",
    "AsyncSessionAdapter",
    "AsyncSessionUserAdapter",
    "AsyncUserAdapter",
    "Auth",
    "AuthRequest",
    "AutoUserIdGenerationNotSupported",
    "ConcurrentlyRevoked",
    "Cookie",
    "Device",
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
    "Key",
    "KeyRow",
    "LuciaError",
    "LuciaHash",
    "NotAuthenticated",
    "OriginFailure",
    "OutdatedPassword",
    "Overloaded",
    "PasswordHasher",
    "PersistentKey",
    "PrimaryKey",
    "RenewingSessionAdapter",
    "RequestContext",
    "RequestUnauthorized",
    "ScryptHash",
    "Session",
    "SessionAdapter",
    "SessionCookie",
    "SessionExpiry",
    "SessionRow",
    "SessionUser",
    "SessionUserAdapter",
    "SessionsNotEnded",
    "SingleUseKey",
    "StoreCorrupt",
    "UnknownError",
    "Unset",
    "User",
    "UserAdapter",
    "UserRow",
    "UsersNotConfigured",
    "check_new_password",
    "generate_random_string",
]
