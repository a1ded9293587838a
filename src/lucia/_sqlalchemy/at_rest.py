"""Ids at rest: the ids that a database holds, as they are or as hashes.

The operations of :mod:`lucia._sqlalchemy.statements` ask a :class:`StoredIds` for the stored ids
that an id may have, and for the id of a used session's successor. With hashes, the row of a used
session keeps that id sealed, in place of the session's attributes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from sqlalchemy import Row

from lucia._logs import marker_unreadable
from lucia._rules.id_hashes import RawIds, SealedSuccessor, hashed_ids, is_hash
from lucia.models import SessionRow

_SEALED = "sealed"


class StoredIds(Protocol):
    """Translates between ids and stored ids.

    It is a :class:`~lucia._rules.id_hashes.HashedIds`, or :class:`PlainIds`.
    """

    def stored(self, session_id: str) -> str:
        """Return what a new session with this id is stored under."""
        ...

    def candidates(self, session_id: str) -> Sequence[str]:
        """Return all stored ids that the id may have."""
        ...

    def to_stored(self, row: SessionRow) -> SessionRow:
        """Return a row as it is stored."""
        ...

    def from_stored(self, row: SessionRow, session_id: str) -> SessionRow:
        """Return a stored row under the id that led to it."""
        ...

    def seal(self, used_id: str, stored: str, successor_id: str) -> str | None:
        """Encrypt a successor's id for those who have the used id; None if that is needless."""
        ...

    def successor(self, used_id: str, marker: SealedSuccessor) -> str | None:
        """Return the id of a used id's successor; None if it can't be found out."""
        ...

    def throttle_name(self, name: str) -> str:
        """Return the name under which failures are stored."""
        ...


class PlainIds:
    """Ids that are stored as they are."""

    def stored(self, session_id: str) -> str:
        return session_id

    def candidates(self, session_id: str) -> Sequence[str]:
        return [session_id]

    def to_stored(self, row: SessionRow) -> SessionRow:
        return row

    def from_stored(self, row: SessionRow, session_id: str) -> SessionRow:
        return row

    def seal(self, used_id: str, stored: str, successor_id: str) -> str | None:
        return None

    def successor(self, used_id: str, marker: SealedSuccessor) -> str | None:
        return marker.successor if marker.sealed is None else None

    def throttle_name(self, name: str) -> str:
        return name


def stored_ids(id_keys: Sequence[bytes], raw_ids: RawIds) -> StoredIds:
    """Return the translation for these settings.

    Raises:
        TypeError, ValueError, ImportError: see :func:`~lucia._rules.id_hashes.hashed_ids`.
    """
    return hashed_ids(id_keys, raw_ids) or PlainIds()


def ids_to_delete(ids: StoredIds, session_ids: Iterable[str]) -> list[str]:
    """Return the stored ids of these ids; stored ids, as a list contains them, stay as they are."""
    return [
        stored
        for id_ in session_ids
        for stored in (*ids.candidates(id_), *([id_] if is_hash(id_) else []))
    ]


class _UsedSession(NamedTuple):
    """The stored ids in the row of a used session, and the sealed id of its successor."""

    id: str
    successor: str
    sealed: str | None


def sealed_attributes(
    ids: StoredIds, used_id: str, stored: str, successor_id: str
) -> dict[str, Any]:
    """Return the attributes of a used session, which replace those of the session."""
    return used_attributes(ids.seal(used_id, stored, successor_id))


def used_attributes(sealed: str | None) -> dict[str, Any]:
    """Return the attributes of a used session, whose successor is sealed or not."""
    return {} if sealed is None else {_SEALED: sealed}


def sealed_in(row: Row[Any]) -> str | None:
    """Return the sealed id of the successor in the row of a used session; None without one."""
    attributes: object = row.attributes
    if not isinstance(attributes, Mapping):
        return None
    sealed = cast(Mapping[str, Any], attributes).get(_SEALED)
    return sealed if isinstance(sealed, str) else None


def successor_of(ids: StoredIds, used_id: str, row: Row[Any]) -> str | None:
    """Return the id that a used session was renewed to.

    None, and a line in the log, if it is sealed and can't be opened.
    """
    used = _UsedSession(row.id, row.successor, sealed_in(row))
    successor = ids.successor(used_id, used)
    if successor is None and used.sealed is not None:
        marker_unreadable()
    return successor
