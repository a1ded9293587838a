"""The ready routes of every framework: the types that an application's own steps and pages use."""

from lucia._async.accounts import AsyncAccountRoutes, AsyncAccountSettings
from lucia._rules.accounts import (
    AccessToken,
    AccountRoute,
    Credentials,
    ErrorDetail,
    LoggedInDevice,
    Page,
    PasswordChange,
    Reply,
    SignedInUser,
    Submission,
    normalize_name,
    to_json,
)
from lucia._rules.bodies import read_body
from lucia._rules.pages import PAGE_HEADERS
from lucia._sync.accounts import AccountRoutes, AccountSettings

__all__ = [
    "PAGE_HEADERS",
    "AccessToken",
    "AccountRoute",
    "AccountRoutes",
    "AccountSettings",
    "AsyncAccountRoutes",
    "AsyncAccountSettings",
    "Credentials",
    "ErrorDetail",
    "LoggedInDevice",
    "Page",
    "PasswordChange",
    "Reply",
    "SignedInUser",
    "Submission",
    "normalize_name",
    "read_body",
    "to_json",
]
