"""The table of responses to errors serves every framework and imports none."""

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
from lucia._rules.responses import ERRORS, response_for

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
"""Errors that are answered with 500, and why no client can do anything about them."""


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_a_response_or_is_the_servers_own(name: str) -> None:
    """Every error class is either in the table or has a reason for 500 here, never both."""
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
    """1013 means "try again later", 1008 "don't try again", 1011 "the server failed"."""
    response = response_for(error, "cookie")
    assert (response.close_code, response.close_reason) == (close_code, response.detail)


def test_the_reason_of_a_close_fits_into_its_frame() -> None:
    """A close reason is cut to 123 bytes, at a character boundary."""
    response = response_for(InvalidInput("ä" * 100), "cookie")
    assert (response.detail, response.close_reason) == ("ä" * 100, "ä" * 61)


def test_a_response_names_what_the_client_may_do() -> None:
    """A 401 names the transport's scheme, a 429 or 503 says when to retry, others say neither."""
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
