"""The operations of the MongoDB adapters: generators that yield commands and get the results.

MongoDB changes one document at a time atomically, and the adapter relies on nothing else: unique
``_id``, and commands whose filter names the expected state of the document. What spans two
documents goes by the rules below, which hold whatever runs in between and wherever a process dies.

**A key belongs to one registration.** A stored user has a new ``lucia_registration``, and its keys
have the same. A key whose user is missing or has another registration is dead: it is never
returned. It stays dead, since a registration never comes back, so that its id can be given away: it
is replaced if its document still has the same registration. Therefore ``delete_user`` and
``set_key`` need not exclude each other. A key that is stored too late is dead.

**A sign-up is committed by its key.** ``set_user`` takes four steps:

1. store the key, marked as unfinished;
2. store the user, marked as unfinished, with the key's id in the mark;
3. remove the mark from the key, if it is still there: this commits;
4. remove the mark from the user.

Neither document counts before step 3, and both count after it: a user that is still marked exists
if the key of that registration is not marked. (Whoever reads such a user takes step 4, which the
process that signed them up did not live to take.) The key comes first since whoever wants its id
again finds by it what was left, and removes the user as well, whose unique fields would otherwise
be taken for ever.

Another sign-up with the same key id may come before step 3. It does not wait, since it can't know
whether the first is slow or dead. It replaces the marked key by its own, and removes the user of
that registration. The slow one then fails in step 3, since its mark is gone, removes its user if it
was stored after that, and raises ``DuplicateKeyId``. After step 3 the key has no mark and can't be
replaced. So of any number of sign-ups, one succeeds: the last that took the key over before it was
committed.

One thing may be left for good: the marked user of a sign-up whose key was taken over and whose
process died between steps 2 and 3. It is nobody's, but its id and its unique fields are taken.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from bson import CodecOptions, ObjectId
from pymongo.errors import DuplicateKeyError, OperationFailure

from lucia._mongodb.documents import (
    REGISTRATION,
    UNFINISHED,
    Document,
    UserIds,
    attribute_fields,
    is_key_of,
    key_document,
    key_row,
    user_row,
)
from lucia.errors import DuplicateKeyId, InvalidUserId
from lucia.models import KeyRow, Unset, UserRow

__all__ = [
    "Command",
    "Delete",
    "DeleteAll",
    "Find",
    "FindAll",
    "Format",
    "Insert",
    "Replace",
    "Steps",
    "Update",
    "delete_keys_by_user_id",
    "delete_non_primary_key",
    "delete_user",
    "get_key",
    "get_keys_by_user_id",
    "get_user",
    "set_key",
    "set_user",
    "update_key_password",
    "update_user_attributes",
]

T = TypeVar("T")

CollectionName = Literal["users", "keys"]


@dataclass(frozen=True, slots=True)
class _Filtered:
    collection: CollectionName
    filter: Document = field(repr=False)


class Find(_Filtered):
    """Returns the document, or None."""


class FindAll(_Filtered):
    """Returns a list of documents."""


class Delete(_Filtered):
    """Deletes one document; returns how many were deleted."""


class DeleteAll(_Filtered):
    """Deletes documents."""


@dataclass(frozen=True, slots=True)
class Insert:
    """Stores a new document; raises ``DuplicateKeyError``."""

    collection: CollectionName
    document: Document = field(repr=False)


@dataclass(frozen=True, slots=True)
class Replace(_Filtered):
    """Replaces one document; returns whether there was one."""

    document: Document = field(repr=False)


@dataclass(frozen=True, slots=True)
class Update(_Filtered):
    """Changes one document; returns it as it is now, or None."""

    update: Document = field(repr=False)


Command = Find | FindAll | Insert | Replace | Update | Delete | DeleteAll

Steps = Generator[Command, Any, T]


class Format(NamedTuple):
    """The format of ids and attributes in documents."""

    user_ids: UserIds
    codec: CodecOptions[Document]


def get_user(form: Format, user_id: str) -> Steps[UserRow | None]:
    user = yield from _find_user(form.user_ids.decode_or_none(user_id))
    return None if user is None else user_row(user_id, user)


def set_user(
    form: Format, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None
) -> Steps[UserRow]:
    id_, fields = form.user_ids.decode(user_id), attribute_fields(attributes, form.codec)
    row = user_row(user_id, fields)
    registration = str(ObjectId())
    own: Document = {"_id": id_, REGISTRATION: registration}
    if key is None:
        yield Insert("users", {**own, **fields})
        return row
    own_key: Document = {"_id": key.id, REGISTRATION: registration}
    yield from _store_key({**key_document(key, id_, registration), UNFINISHED: True})
    try:
        yield Insert("users", {**own, **fields, UNFINISHED: key.id})
    except OperationFailure:
        # Not after a lost connection: that would only make the caller wait for another one. The
        # user too, since MongoDB may have stored it and failed to replicate it in time.
        yield Delete("keys", own_key)
        yield Delete("users", own)
        raise
    if (yield Update("keys", {**own_key, UNFINISHED: True}, _UNMARK)) is None:
        yield Delete("users", own)
        raise DuplicateKeyId
    yield Update("users", own, _UNMARK)
    return row


def delete_user(form: Format, user_id: str) -> Steps[None]:
    id_ = form.user_ids.decode_or_none(user_id)
    if id_ is not None:
        # Keys first: after a crash the user is left without keys, and can be deleted again.
        yield DeleteAll("keys", {"user_id": id_})
        yield Delete("users", {"_id": id_})


def update_user_attributes(
    form: Format, user_id: str, attributes: Mapping[str, Any]
) -> Steps[UserRow | None]:
    fields = attribute_fields(attributes, form.codec)
    user_row(user_id, fields)  # checks the names
    user = yield from _find_user(form.user_ids.decode_or_none(user_id))
    if user is not None and fields:
        same = {"_id": user["_id"], REGISTRATION: user.get(REGISTRATION)}
        user = yield Update("users", same, {"$set": fields})
    return None if user is None else user_row(user_id, user)


def get_key(form: Format, key_id: str) -> Steps[KeyRow | None]:
    key = yield Find("keys", {"_id": key_id})
    if key is None or not (yield from _is_alive(key)):
        return None
    return key_row(form.user_ids, key)


def get_keys_by_user_id(form: Format, user_id: str) -> Steps[list[KeyRow]]:
    user = yield from _find_user(form.user_ids.decode_or_none(user_id))
    if user is None:
        return []
    keys = yield FindAll("keys", {"user_id": user["_id"]})
    return [key_row(form.user_ids, key) for key in keys if is_key_of(key, user)]


def set_key(form: Format, key: KeyRow) -> Steps[None]:
    user = yield from _find_user(form.user_ids.decode_or_none(key.user_id))
    if user is None:
        raise InvalidUserId
    yield from _store_key(key_document(key, user["_id"], user.get(REGISTRATION)))


def update_key_password(
    form: Format, key_id: str, hashed_password: str | None, expected: str | Unset | None
) -> Steps[KeyRow | None]:
    state: Document = {} if isinstance(expected, Unset) else {"hashed_password": expected}
    key = yield Update(
        "keys",
        {"_id": key_id, UNFINISHED: None, **state},
        {"$set": {"hashed_password": hashed_password}},
    )
    if key is None or not (yield from _is_alive(key)):
        return None
    return key_row(form.user_ids, key)


def delete_non_primary_key(key_ids: Sequence[str]) -> Steps[int]:
    count = 0
    # One by one: the driver repeats a command for one document whose reply was lost, and gets the
    # reply of the first. It repeats no command for several documents.
    for key_id in dict.fromkeys(key_ids):
        count += yield Delete("keys", {"_id": key_id, "primary_key": {"$ne": True}})
    return count


def delete_keys_by_user_id(form: Format, user_id: str) -> Steps[None]:
    # A user that is still marked would not count any more without its key.
    user = yield from _find_user(form.user_ids.decode_or_none(user_id))
    if user is not None:
        yield DeleteAll("keys", {"user_id": user["_id"]})


_UNMARK: Document = {"$unset": {UNFINISHED: ""}}


def _find_user(id_: Any | None) -> Steps[Document | None]:
    """Find a user whose sign-up was committed, and finish that."""
    if id_ is None:
        return None
    user: Document | None = yield Find("users", {"_id": id_})
    if user is None or UNFINISHED not in user:
        return user
    same = {"_id": id_, REGISTRATION: user[REGISTRATION]}
    key = yield Find("keys", {"_id": user[UNFINISHED], REGISTRATION: user[REGISTRATION]})
    if key is not None and UNFINISHED not in key:
        user = yield Update("users", same, _UNMARK)
    else:
        # Meanwhile the sign-up may have been finished, and the key removed.
        user = yield Find("users", {**same, UNFINISHED: None})
    return user


def _is_alive(key: Document) -> Steps[bool]:
    if UNFINISHED in key:
        return False
    return is_key_of(key, (yield Find("users", {"_id": key["user_id"]})))


def _store_key(document: Document) -> Steps[None]:
    """Store a key under an id that is free, or whose key is dead or unfinished.

    Raises:
        DuplicateKeyId: another key has this id.
    """
    by_id: Document = {"_id": document["_id"]}
    # Each further turn means that somebody else has changed this key meanwhile.
    while True:
        # Look before storing: in a transaction a refused command would be the last.
        found = yield Find("keys", by_id)
        if found is None:
            found = yield from _insert_key(document)
            if found is None:
                return
        if (yield from _is_alive(found)):
            raise DuplicateKeyId
        same = {**by_id, "user_id": found["user_id"], REGISTRATION: found.get(REGISTRATION)}
        same[UNFINISHED] = found.get(UNFINISHED)
        if (yield Replace("keys", same, document)):
            if UNFINISHED in found:
                abandoned = {"_id": found["user_id"], REGISTRATION: found[REGISTRATION]}
                yield Delete("users", {**abandoned, UNFINISHED: document["_id"]})
            return


def _insert_key(document: Document) -> Steps[Document | None]:
    """Store a new key; return the key that has its id, or None if it was stored."""
    try:
        yield Insert("keys", document)
    except DuplicateKeyError as error:
        if (error.details or {}).get("keyPattern", {"_id": 1}) != {"_id": 1}:
            raise  # an index of the application's
    else:
        return None
    found: Document | None = yield Find("keys", {"_id": document["_id"]})
    if found is None:
        # It was removed meanwhile, or the collection's collation takes two ids for one.
        raise DuplicateKeyId
    return found
