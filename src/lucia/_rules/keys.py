"""Every decision about keys and users."""

from collections.abc import Collection, Mapping
from typing import TypeVar, cast

from lucia._rules.passwords import is_outdated
from lucia._rules.sessions import check_texts
from lucia._typing import UserIdT
from lucia.errors import (
    InvalidCredentials,
    InvalidInput,
    InvalidKeyId,
    InvalidPassword,
    OutdatedPassword,
    quoted,
)
from lucia.models import (
    MAX_ID_LENGTH,
    Key,
    KeyRow,
    PersistentKey,
    PrimaryKey,
    SingleUseKey,
    UserRow,
    check_text,
    to_datetime,
)

RowT = TypeVar("RowT", KeyRow, UserRow)


def check_user_attributes(attributes: object) -> None:
    """Check a user's attributes before anything is stored.

    Raises:
        TypeError: they are not a mapping.
        InvalidInput: some store can't keep a name or a text in a value.
    """
    if not isinstance(attributes, Mapping):
        raise TypeError(f"attributes must be a dict, not {type(attributes).__name__}")
    for name, value in cast("Mapping[object, object]", attributes).items():
        check_texts("the name of an attribute", name)
        check_texts(f"the attribute {quoted(str(name))}", value)


def check_primary_key(key: object) -> None:
    """Raise `TypeError` unless this is a ``PrimaryKey`` or None."""
    if key is not None and not isinstance(key, PrimaryKey):
        raise TypeError(
            f"primary_key must be a PrimaryKey or None, not {type(key).__name__}: "
            "write PrimaryKey(provider_id, provider_user_id, password)"
        )


def key_id(provider_id: str, provider_user_id: str) -> str:
    """Return the id of a key, ``provider_id:provider_user_id``.

    Raises:
        TypeError: a part is not a ``str``.
        ValueError: ``provider_id`` is empty, has NUL, a lone surrogate or a colon (the id is split
            at the first one), or has more than 253 characters.
        InvalidInput: ``provider_user_id`` is empty, has NUL or a lone surrogate, or makes the id
            longer than 255 characters. The message is for the person who typed it as a name.
    """
    _check_provider_id(provider_id)
    if not isinstance(provider_user_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"provider_user_id must be a str, not {type(provider_user_id).__name__}")
    longest = MAX_ID_LENGTH - len(provider_id) - 1
    if not provider_user_id:
        raise InvalidInput("a name must not be empty")
    if len(provider_user_id) > longest:
        raise InvalidInput(f"a name must not be longer than {longest} characters")
    check_texts("a name", provider_user_id)
    return f"{provider_id}:{provider_user_id}"


def sought_key_id(provider_id: str, provider_user_id: str) -> str | None:
    """Return the id of a key to look up; None if no key can have it.

    A name that somebody typed is not a programming error.

    Raises:
        TypeError: a part is not a ``str``.
        ValueError: ``provider_id`` is refused, as by :func:`key_id`.
    """
    _check_provider_id(provider_id)
    try:
        return key_id(provider_id, provider_user_id)
    except InvalidInput:
        return None


def _check_provider_id(provider_id: object) -> None:
    text = check_text("provider_id", provider_id)
    if ":" in text:
        raise ValueError(
            f"provider_id may hold no colon, got {quoted(text)}: key ids are split at the first one"
        )
    if len(text) > MAX_ID_LENGTH - 2:
        raise ValueError(
            f"provider_id has {len(text)} characters, more than {MAX_ID_LENGTH - 2}: "
            f"with a colon and a name, a key id has at most {MAX_ID_LENGTH}"
        )


def check_purposes(purposes: Collection[str]) -> frozenset[str]:
    """Return the provider ids as a set.

    Raises:
        TypeError: it is a single string, whose letters would be taken for provider ids, or one of
            them is not a ``str``.
        ValueError: one of them can't be a provider id.
    """
    if isinstance(purposes, str):
        raise TypeError(
            "single_use_purposes must be a collection of provider ids, "
            f"such as ({purposes!r},), not a str"
        )
    for purpose in purposes:
        _check_provider_id(purpose)
    return frozenset(purposes)


def is_revoked_with_credentials(row: KeyRow, user_id: str, purposes: Collection[str]) -> bool:
    """Return whether this is a single-use key of this user for one of these purposes."""
    return (
        row.user_id == user_id and row.expires is not None and row.id.partition(":")[0] in purposes
    )


def exactly(row: RowT | None, id_: str) -> RowT | None:
    """Return the row if its id is the one that was asked for, else None.

    A store may ignore case, accents or spaces in ids. Then it finds a row under another name than
    its own: ``victim@exämple.com`` would be a key of ``victim@example.com``.
    """
    return row if row is not None and row.id == id_ else None


def refusal(row: KeyRow | None, *, password_given: bool) -> type[InvalidCredentials] | None:
    """Return why a key can't be used, whatever the password is.

    None if the key's hash decides, or if the key needs no password.
    """
    if row is None:
        return InvalidKeyId
    if row.hashed_password is None:
        return InvalidPassword if password_given else None
    if not password_given:
        return InvalidPassword
    return OutdatedPassword if is_outdated(row.hashed_password) else None


def to_key(row: KeyRow, now: int, user_id: UserIdT) -> Key[UserIdT]:
    """Return what the application gets for a key's row, with its user's id.

    A single-use key has expired once ``now`` is past its expiry.
    """
    provider_id, _, provider_user_id = row.id.partition(":")
    if row.expires is None:
        return PersistentKey(
            provider_id=provider_id,
            provider_user_id=provider_user_id,
            user_id=user_id,
            password_defined=row.hashed_password is not None,
            primary=row.primary_key,
        )
    return SingleUseKey(
        provider_id=provider_id,
        provider_user_id=provider_user_id,
        user_id=user_id,
        password_defined=row.hashed_password is not None,
        expires_at=to_datetime(row.expires),
        expired=now > row.expires,
    )
