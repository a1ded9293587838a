"""The table of responses to errors, which serves every framework and needs none."""

import pytest

from lucia import (
    InvalidInput,
    InvalidPassword,
    InvalidRequest,
    LuciaError,
    NotAuthenticated,
    StoreUnavailable,
    TooManyAttempts,
    UsersNotConfigured,
    errors,
)
from lucia._rules.requests import Transport
from lucia.middleware._responses import ERRORS, response_for

SERVER_ERRORS = {
    "AutoUserIdGenerationNotSupported": "the application is configured wrongly",
    "ConcurrentlyRevoked": "signing in retries it, so that no request sees it once",
    "DuplicateSessionId": "in practice impossible: ids are random",
    "InvalidUserId": "the application asked for a user that it has deleted",
    "LuciaError": "never raised itself",
    "RevocationNotReplicated": "the application asked to be told, and decides",
    "SessionsNotRevoked": "the application has to repeat the change of the password",
    "StoreCorrupt": "an operator has to repair the store",
    "UnknownError": "a store did something unknown",
    "UsersNotConfigured": "the application is configured wrongly",
}
"""Errors that are answered with 500, each with the reason why no client can do anything about it."""


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_a_response_or_is_the_servers_own(name: str) -> None:
    """A new error class needs an entry in the table, or a reason for 500 here; not both."""
    kind: type[LuciaError] = getattr(errors, name)
    response = response_for(kind(), "cookie")
    assert (response.status == 500) == (name in SERVER_ERRORS)
    assert issubclass(kind, ERRORS) == (name not in SERVER_ERRORS)


@pytest.mark.parametrize(
    ("error", "close_code"),
    [
        (NotAuthenticated(), 1008),
        (InvalidRequest(), 1008),
        (StoreUnavailable(), 1013),
        (UsersNotConfigured(), 1011),
    ],
)
def test_a_websocket_is_closed_by_a_code(error: LuciaError, close_code: int) -> None:
    """1013 says to try again later, 1008 that trying again is no use, 1011 that the server failed."""
    response = response_for(error, "cookie")
    assert (response.close_code, response.close_reason) == (close_code, response.detail)


def test_the_reason_of_a_close_fits_into_its_frame() -> None:
    """It is cut to 123 bytes, between two characters."""
    response = response_for(InvalidInput("ä" * 100), "cookie")
    assert (response.detail, response.close_reason) == ("ä" * 100, "ä" * 61)


def test_a_response_names_what_the_client_may_do() -> None:
    """401 names the scheme of the transport, 429 and 503 say when to come again, others nothing."""
    transports: tuple[Transport, ...] = ("cookie", "bearer")
    found = {
        (type(error), transport): response_for(error, transport).headers
        for error in (InvalidPassword(), TooManyAttempts(retry_after=9), InvalidInput())
        for transport in transports
    }
    assert found == {
        (InvalidPassword, "cookie"): {"WWW-Authenticate": "APIKey"},
        (InvalidPassword, "bearer"): {"WWW-Authenticate": "Bearer"},
        (TooManyAttempts, "cookie"): {"Retry-After": "9"},
        (TooManyAttempts, "bearer"): {"Retry-After": "9"},
        (InvalidInput, "cookie"): {},
        (InvalidInput, "bearer"): {},
    }
