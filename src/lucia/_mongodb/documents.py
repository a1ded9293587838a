"""The documents of the MongoDB adapters, and the rows that are made of them.

Also the ids of users as MongoDB keeps them, and errors without values.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import UUID, uuid4

import bson
from bson import CodecOptions, ObjectId
from bson.binary import UuidRepresentation
from bson.errors import InvalidId
from pymongo.errors import OperationFailure

from lucia._rules.user_ids import UserIdType, user_id_type
from lucia.errors import AutoUserIdGenerationNotSupported
from lucia.models import KeyRow, UserRow

__all__ = [
    "REGISTRATION",
    "UNFINISHED",
    "Document",
    "UserIds",
    "attribute_fields",
    "codec",
    "is_key_of",
    "key_document",
    "key_row",
    "user_row",
    "without_values",
]

Document = dict[str, Any]

REGISTRATION: Final = "lucia_registration"
"""A new text for each stored user, and the same in the keys of that user.

A key with another one belonged to an earlier user with the same id. Documents that others have
written, such as Lucia JS, have none.
"""

UNFINISHED: Final = "lucia_unfinished"
"""Set while a sign-up is stored: in the user, the id of the key; in that key, ``True``."""

_OWN_FIELDS: Final = frozenset({"_id", "__v", REGISTRATION, UNFINISHED})
"""Fields of a user that are no attributes. Mongoose adds ``__v``."""

_KEPT_DETAILS: Final = ("code", "codeName", "keyPattern")
_LABELS: Final = (
    "RetryableWriteError",
    "TransientTransactionError",
    "UnknownTransactionCommitResult",
)
_INT64: Final = range(-(2**63), 2**63)


class UserIds:
    """The ids of users: text in rows, of the application's type in documents.

    Args:
        setting: ``ObjectId``, ``str``, ``int``, ``UUID`` or a ``UserIdType``.

    Raises:
        TypeError: it is none of these.
    """

    def __init__(self, setting: type[Any] | UserIdType[Any]) -> None:
        found = _KNOWN.get(setting) or user_id_type(setting)
        generate = found.generate or _MAKERS.get(found.python_type)
        self.type: Final = replace(found, generate=generate)

    def decode_or_none(self, text: str) -> Any | None:
        """Return the id with this text; None if no user can have it."""
        try:
            return self.type.decode(text)
        except ValueError:
            return None

    def decode(self, text: str) -> Any:
        """Return the id with this text.

        Raises:
            ValueError: no id has this text.
        """
        return self.type.decode(text)

    def encode(self, stored: object) -> str:
        """Return the text of an id in a document."""
        # JavaScript's numbers above 32 bits are stored as floats.
        if isinstance(stored, float) and self.type.python_type is int:
            stored = int(stored)
        return self.type.encode(stored)

    def new(self) -> str:
        """Return the text of a new id.

        Raises:
            AutoUserIdGenerationNotSupported: nobody says how to create ids of this type.
        """
        if self.type.generate is None:
            raise AutoUserIdGenerationNotSupported
        return self.encode(self.type.generate())


def _read_object_id(text: str) -> ObjectId:
    try:
        return ObjectId(text)
    except InvalidId:  # no ValueError
        raise ValueError("not the text of an ObjectId") from None


def _read_int(text: str) -> int:
    number = int(text)
    if number not in _INT64:
        raise ValueError("not an integer of 64 bits, which is the longest that MongoDB stores")
    return number


_KNOWN: Final[Mapping[object, UserIdType[Any]]] = {
    ObjectId: UserIdType(ObjectId, _read_object_id),
    int: UserIdType(int, _read_int),
    str: UserIdType(str, str),
}
_MAKERS: Final[Mapping[object, Callable[[], Any]]] = {
    ObjectId: ObjectId,
    UUID: uuid4,
    str: lambda: str(ObjectId()),
}


def codec(options: CodecOptions[Any]) -> CodecOptions[Document]:
    """Return the options with which documents are read and written, from those of a database."""
    changes: dict[str, Any] = {"document_class": dict}
    if options.uuid_representation == UuidRepresentation.UNSPECIFIED:
        changes["uuid_representation"] = UuidRepresentation.STANDARD
    return options.with_options(**changes)


def attribute_fields(attributes: Mapping[str, Any], options: CodecOptions[Document]) -> Document:
    """Return a user's attributes as they are read again once they are stored.

    Raises:
        ValueError: an attribute has a name that is ours or MongoDB's.
        bson.errors.InvalidDocument: MongoDB can't store a value.
    """
    for name in attributes:
        if name in _OWN_FIELDS or not name or name.startswith("$") or "." in name:
            raise ValueError(
                f"an attribute may not be named {name!r}: names are not empty, do not begin with "
                f"a dollar sign, hold no dot, and are none of {', '.join(sorted(_OWN_FIELDS))}"
            )
    encoded = bson.encode(attributes, codec_options=options)
    return bson.decode(encoded, options)  # pyright: ignore[reportUnknownMemberType]


def user_row(user_id: str, document: Document) -> UserRow:
    """Return the user in a document that was found by this id."""
    return UserRow(
        id=user_id,
        attributes={name: value for name, value in document.items() if name not in _OWN_FIELDS},
    )


def key_document(key: KeyRow, user_id: Any, registration: str | None) -> Document:
    """Return the document of a key of the user with this registration."""
    document = {
        "_id": key.id,
        "user_id": user_id,
        "hashed_password": key.hashed_password,
        "primary_key": key.primary_key,
        "expires": key.expires,
    }
    return document if registration is None else {**document, REGISTRATION: registration}


def key_row(user_ids: UserIds, document: Document) -> KeyRow:
    """Return the key in a document, also in one that Lucia JS has written."""
    expires = document.get("expires")
    return KeyRow(
        id=document["_id"],
        user_id=user_ids.encode(document["user_id"]),
        hashed_password=document.get("hashed_password"),
        primary_key=document.get("primary_key") is True,
        # JavaScript's numbers above 32 bits are stored as floats.
        expires=None if expires is None else int(expires),
    )


def is_key_of(key: Document, user: Document | None) -> bool:
    """Return whether a key that was found belongs to this user, and its sign-up is finished."""
    if user is None or UNFINISHED in key:
        return False
    if REGISTRATION in key:
        return bool(key[REGISTRATION] == user.get(REGISTRATION))
    return UNFINISHED not in user


def without_values(error: OperationFailure) -> OperationFailure:
    """Return the error without the values that MongoDB quotes, which may be key ids and hashes.

    Its class, code and labels stay, and the fields of the index that a duplicate violates.
    """
    given = error.details or {}
    details: Document = {name: given[name] for name in _KEPT_DETAILS if name in given}
    details["errorLabels"] = [label for label in _LABELS if error.has_error_label(label)]
    return type(error)(
        "MongoDB refused a command; its message is not shown, since it may quote ids and hashes",
        error.code,
        details,
    )
