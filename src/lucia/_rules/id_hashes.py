"""Ids at rest: a store holds hashes of session ids, so that whoever reads it can't use a session.

An id is stored as its HMAC-SHA-256 under a key that the store does not have, as 64 hex digits. A
used id has to lead to its successor's id, which nothing in the store may show: it is kept sealed,
by AES-256-GCM under a key that is derived from the application's key and the used id. So only who
has both can open it.
"""

import base64
import hmac
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Final, Literal, Protocol, cast, get_args

from lucia._rules.sessions import RandomBytes
from lucia.models import SessionRow, derived_handle, handle_of

RawIds = Literal["write", "read", "refuse"]
"""The policy for sessions that are stored under their ids as they are.

``write``: new sessions are. ``read``: those that are there can be used. ``refuse``: they can't.
"""

MIN_KEY_BYTES: Final = 32
"""The shortest key: as long as the hashes that are made with it."""

NONCE_BYTES: Final = 12

_HASH: Final = re.compile(r"[0-9a-f]{64}")

_SEALING: Final = b"\xfflucia successor\x00"
"""Hashed with a used id to derive a sealing key. No id begins like this, since it is no UTF-8, so
that no stored hash of an id is a sealing key."""

_THROTTLING: Final = b"\xfflucia throttle\x00"
"""Hashed with the name of a count of failures, which is no id for the same reason."""


class SealedSuccessor(Protocol):
    """A used session as a store remembers it.

    ``id`` and ``successor`` are stored ids. ``sealed`` is the successor's own id, encrypted for
    those who have the used id; None where ids are stored as they are.
    """

    @property
    def id(self) -> str: ...

    @property
    def successor(self) -> str: ...

    @property
    def sealed(self) -> str | None: ...


class HashedIds:
    """Hashes ids and seals successors with a list of keys, of which the first is the current one.

    Args:
        keys: each of at least 32 bytes.
        raw_ids: whether sessions may be stored under their ids as they are.
        random_bytes: returns so many random bytes.

    Raises:
        TypeError: the keys are not a sequence of ``bytes``.
        ValueError: there is no key, one is too short, or ``raw_ids`` is unknown.
        ImportError: cryptography is not installed.
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        raw_ids: RawIds = "read",
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        self._keys = _checked_keys(keys)
        self._raw_ids = check_raw_ids(raw_ids)
        _require_cryptography()
        self._random_bytes = random_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self._keys)} keys>, {self._raw_ids!r})"

    def stored(self, session_id: str) -> str:
        """Return what a new session with this id is stored under."""
        if self._raw_ids == "write" and not is_hash(session_id):
            return session_id
        return _hash(self._keys[0], session_id)

    def hashes(self, session_id: str) -> list[str]:
        """Return the id's hash under each key, the current one first."""
        return [_hash(key, session_id) for key in self._keys]

    def may_be_raw(self, session_id: str) -> bool:
        """Return whether a session may be stored under this id as it is.

        Not if it looks like a hash: hashes are no secret, so no session may be found by one.
        """
        return self._raw_ids != "refuse" and not is_hash(session_id)

    def candidates(self, session_id: str) -> list[str]:
        """Return all stored ids that the id may have.

        A session keeps the one that it was created with.
        """
        return [*self.hashes(session_id), *([session_id] if self.may_be_raw(session_id) else [])]

    def seal(self, used_id: str, stored: str, successor_id: str) -> str | None:
        """Encrypt a successor's id for those who have the used id.

        Returns:
            The sealed id, bound to ``stored``, which the used id is stored under. None if the
            successor is stored under its id as it is.
        """
        if self.stored(successor_id) == successor_id:
            return None
        # A random nonce is safe here: each used id has a key of its own, which seals the successors
        # of this id alone.
        nonce = self._random_bytes(NONCE_BYTES)
        return _encrypt(_sealing_key(self._keys[0], used_id), nonce, successor_id, stored)

    def successor(self, used_id: str, marker: SealedSuccessor) -> str | None:
        """Return the id of a used id's successor.

        None if no key opens what is sealed, or if that names another session.
        """
        if marker.sealed is None:
            return marker.successor if self.may_be_raw(marker.successor) else None
        for key in self._keys:
            found = _decrypt(_sealing_key(key, used_id), marker.sealed, marker.id)
            if found is not None and marker.successor in self.hashes(found):
                return found
        return None

    def to_stored(self, row: SessionRow) -> SessionRow:
        """Return a row as it is stored."""
        stored = self.stored(row.id)
        if stored == row.id:
            return row
        # A row without a handle gets the one that is derived from its id: in a list it would be
        # derived from the stored id, and be another one.
        return replace(row, id=stored, attributes={"handle": handle_of(row), **row.attributes})

    def from_stored(self, row: SessionRow, session_id: str) -> SessionRow:
        """Return a stored row under the id that led to it, without an added handle."""
        if not is_hash(row.id):
            return row
        attributes = dict(row.attributes)
        if attributes.get("handle") == derived_handle(session_id):  # see to_stored
            del attributes["handle"]
        return replace(row, id=session_id, attributes=attributes)

    def throttle_name(self, name: str) -> str:
        """Return the name under which the store counts failures; see :func:`throttle_name`."""
        return throttle_name(self._keys[0], name)


def is_hash(session_id: str) -> bool:
    """Return whether an id looks like a stored hash."""
    return _HASH.fullmatch(session_id) is not None


def _hash(key: bytes, session_id: str) -> str:
    return hmac.digest(key, session_id.encode(), "sha256").hex()


def _sealing_key(key: bytes, used_id: str) -> bytes:
    return hmac.digest(key, _SEALING + used_id.encode(), "sha256")


def _encrypt(key: bytes, nonce: bytes, text: str, bound_to: str) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return base64.urlsafe_b64encode(
        nonce + AESGCM(key).encrypt(nonce, text.encode(), bound_to.encode())
    ).decode()


def _decrypt(key: bytes, sealed: str, bound_to: str) -> str | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        data = base64.b64decode(sealed, b"-_", validate=True)
        nonce, encrypted = data[:NONCE_BYTES], data[NONCE_BYTES:]
        return AESGCM(key).decrypt(nonce, encrypted, bound_to.encode()).decode()
    except (InvalidTag, ValueError):
        return None


def _require_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise ImportError('ids at rest need cryptography: pip install "lucia-auth[ids-at-rest]"')


def check_raw_ids(raw_ids: RawIds) -> RawIds:
    """Return the setting, or raise `ValueError` if it is unknown."""
    if raw_ids not in get_args(RawIds):
        raise ValueError(f"raw_ids must be 'write', 'read' or 'refuse', got {raw_ids!r}")
    return raw_ids


def _checked_keys(keys: object) -> tuple[bytes, ...]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Sequence):
        raise TypeError(
            f"id_keys must be a list of keys, the current one first, not {type(keys).__name__}"
        )
    if not keys:
        raise ValueError("id_keys is empty: hashed ids need a key")
    return tuple(map(_checked_key, cast("Sequence[object]", keys)))


def _checked_key(key: object) -> bytes:
    if not isinstance(key, bytes):
        raise TypeError(
            f"each of id_keys must be bytes, not {type(key).__name__}: turn text into bytes first, "
            "for example with bytes.fromhex"
        )
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(
            f"a key of id_keys has {len(key)} bytes, fewer than {MIN_KEY_BYTES}: make one with "
            "secrets.token_bytes(32)"
        )
    return key


def hashed_ids(id_keys: Sequence[bytes], raw_ids: RawIds) -> HashedIds | None:
    """Return what hashes ids with these keys; None without any.

    Raises:
        TypeError, ValueError, ImportError: see :class:`HashedIds`.
        ValueError: raw ids are to be refused, and there are no keys.
    """
    if id_keys:
        return HashedIds(id_keys, raw_ids)
    if check_raw_ids(raw_ids) == "refuse":
        raise ValueError(
            "raw_ids='refuse' needs id_keys: without a key, sessions are stored under their ids as "
            "they are"
        )
    return None


def throttle_name(key: bytes, name: str) -> str:
    """Return the name under which failures are stored, of the same length, hashed with a key.

    Without it, guesses (e-mail addresses, say) could be hashed and compared.
    """
    return hmac.digest(key, _THROTTLING + name.encode(), "sha256").hex()[: len(name)]
