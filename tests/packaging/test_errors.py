"""The library's errors: their class tree, their codes, and their texts."""

import pickle

import pytest

from lucia import LuciaError, TooManyAttempts, errors

CODES = {
    "InvalidSessionId": "AUTH_INVALID_SESSION_ID",
    "InvalidPassword": "AUTH_INVALID_PASSWORD",
    "DuplicateSessionId": "AUTH_DUPLICATE_SESSION_ID",
    "DuplicateKeyId": "AUTH_DUPLICATE_KEY_ID",
    "InvalidKeyId": "AUTH_INVALID_KEY_ID",
    "InvalidUserId": "AUTH_INVALID_USER_ID",
    "InvalidRequest": "AUTH_INVALID_REQUEST",
    "NotAuthenticated": "AUTH_NOT_AUTHENTICATED",
    "RequestUnauthorized": "REQUEST_UNAUTHORIZED",
    "UnknownError": "UNKNOWN_ERROR",
    "OutdatedPassword": "AUTH_OUTDATED_PASSWORD",
    "AutoUserIdGenerationNotSupported": "AUTO_USER_ID_GENERATION_NOT_SUPPORTED",
    "ExpiredKey": "AUTH_EXPIRED_KEY",
}
"""The codes of Lucia JS, with the class of each."""

OURS = {
    "ConcurrentlyRevoked": "CONCURRENTLY_REVOKED",
    "InvalidInput": "INVALID_INPUT",
    "Overloaded": "OVERLOADED",
    "TooManyAttempts": "TOO_MANY_ATTEMPTS",
    "RevocationNotReplicated": "REVOCATION_NOT_REPLICATED",
    "SessionsNotRevoked": "SESSIONS_NOT_REVOKED",
    "StoreUnavailable": "STORE_UNAVAILABLE",
    "UsersNotConfigured": "USERS_NOT_CONFIGURED",
}

TREE = {
    "InvalidCredentials": "LuciaError",
    "InvalidKeyId": "InvalidCredentials",
    "InvalidPassword": "InvalidCredentials",
    "OutdatedPassword": "InvalidCredentials",
    "ExpiredKey": "InvalidCredentials",
    "StoreCorrupt": "UnknownError",
    "LuciaError": "Exception",
}
"""The base class of each class; that of all others is LuciaError."""

ALL = sorted(errors.__all__)


@pytest.mark.parametrize(("name", "code"), (CODES | OURS).items())
def test_each_condition_has_its_code(name: str, code: str) -> None:
    """Each class has the code of Lucia JS or one of our own, and no two share one."""
    assert getattr(errors, name).code == code
    assert [
        other
        for other in ALL
        if getattr(errors, other).code == code
        and other not in ("LuciaError", "InvalidCredentials", "StoreCorrupt")
    ] == [name]


@pytest.mark.parametrize("name", ALL)
def test_class_hierarchy(name: str) -> None:
    """Every class has the base class that the module's docstring shows."""
    assert getattr(errors, name).__base__.__name__ == TREE.get(name, "LuciaError")
    assert name in (errors.__doc__ or "")


def test_all_errors_are_public() -> None:
    """Every error class of the module is public and listed here."""
    made = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, LuciaError)
    }
    assert made == set(ALL)
    assert made == CODES.keys() | OURS.keys() | TREE.keys()


@pytest.mark.parametrize(
    "name", sorted(set(ALL) - {"LuciaError", "InvalidCredentials", "UnknownError"})
)
def test_each_error_says_what_happened(name: str) -> None:
    """Without a message an error has a text of its own; a message replaces it."""
    kind: type[LuciaError] = getattr(errors, name)
    assert str(kind()) == kind.default_message != LuciaError.default_message
    assert str(kind("other words")) == "other words"
    assert isinstance(kind(), LuciaError)


def test_retry_after_survives_pickling() -> None:
    """`retry_after` survives pickling, as on the way to another process."""
    error = pickle.loads(pickle.dumps(TooManyAttempts(retry_after=9)))  # noqa: S301 # made here
    assert (error.retry_after, str(error)) == (9, TooManyAttempts.default_message)


def test_only_invalid_input_is_a_value_error() -> None:
    """InvalidInput is the only error that is a ValueError."""
    assert [name for name in ALL if issubclass(getattr(errors, name), ValueError)] == [
        "InvalidInput"
    ]


def test_an_answer_that_was_lost() -> None:
    """StoreUnavailable says in an attribute and its text whether data may have been written."""
    sure, unsure = errors.StoreUnavailable(), errors.StoreUnavailable(ambiguous=True)
    assert (sure.ambiguous, unsure.ambiguous) == (False, True)
    assert "nothing was changed" in str(sure)
    assert "may have been done or not" in str(unsure)
    assert str(errors.StoreUnavailable("other words", ambiguous=True)) == "other words"
