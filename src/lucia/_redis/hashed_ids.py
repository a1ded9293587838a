"""Ids at rest: what stands in Redis for a session id, and for the successor that a used id leads to.

In the place of an id stands its HMAC-SHA-256 under a key that Redis does not have, as 64 hex digits. A used id has to lead to its
successor's id, which nothing in Redis may show: the marker carries it sealed, by AES-256-GCM under a key that is made of the ring's
and the used id, so that only who has both can open it.
"""

import base64
import hmac
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final, Literal, cast, get_args

from lucia._logs import marker_unreadable
from lucia._redis.records import Marker
from lucia._rules.sessions import RandomBytes

RawIds = Literal["write", "read", "refuse"]
"""What is done with ids as they are: new sessions get them, or only those that are there are found by them, or nothing is."""

MIN_KEY_BYTES: Final = 32
"""The shortest key: as long as what is made with it."""

NONCE_BYTES: Final = 12

_HASH = re.compile(r"[0-9a-f]{64}")

_SEALING = b"\xfflucia successor\x00"
"""Before a used id this gives a key for sealing. No id begins like it, since it is no UTF-8: so no id's hash is such a key."""


class HashedIds:
    """What stands for ids in Redis, by a ring of keys of which the first is the current one.

    Args:
        keys: each of at least 32 bytes.
        raw_ids: ``read`` finds sessions that were stored under the id itself; ``write`` also stores new ones so; ``refuse`` does neither.
        random_bytes: gives so many random bytes.

    Raises:
        TypeError: the keys are no sequence of ``bytes``.
        ValueError: there is none, one is too short, or ``raw_ids`` is none of the three.
        ImportError: cryptography is not installed.
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        raw_ids: RawIds = "read",
        random_bytes: RandomBytes = os.urandom,
    ) -> None:
        self._keys = _checked(keys)
        self._raw_ids = check_raw_ids(raw_ids)
        _require_cryptography()
        self._random_bytes = random_bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self._keys)} keys>, {self._raw_ids!r})"

    def stored(self, session_id: str) -> str:
        """What stands for the id of a new session."""
        if self._raw_ids == "write" and not is_hash(session_id):
            return session_id
        return _hash(self._keys[0], session_id)

    def hashes(self, session_id: str) -> list[str]:
        """The id's hashes under each key, the current one first."""
        return [_hash(key, session_id) for key in self._keys]

    def may_be_raw(self, session_id: str) -> bool:
        """Whether a session may be stored under this id itself. What looks like a hash is never taken for one: it is no secret."""
        return self._raw_ids != "refuse" and not is_hash(session_id)

    def candidates(self, session_id: str) -> list[str]:
        """All that may stand for an id; a session has one of them, from its first to its last day."""
        return [*self.hashes(session_id), *([session_id] if self.may_be_raw(session_id) else [])]

    def seal(self, used_id: str, stored: str, successor_id: str) -> str | None:
        """A successor's id for who has the used one, which ``stored`` stands for; None if the successor is stored under its id itself."""
        if self.stored(successor_id) == successor_id:
            return None
        nonce = self._random_bytes(NONCE_BYTES)
        return _encrypt(_sealing_key(self._keys[0], used_id), nonce, successor_id, stored)

    def successor(self, used_id: str, marker: Marker) -> str | None:
        """The id of the successor that a used id's marker names; None, and a line in the log, if it does not lead there."""
        if marker.sealed is None:
            return marker.successor if self.may_be_raw(marker.successor) else None
        for key in self._keys:
            found = _decrypt(_sealing_key(key, used_id), marker.sealed, marker.id)
            if found is not None and marker.successor in self.hashes(found):
                return found
        marker_unreadable()
        return None


def is_hash(session_id: str) -> bool:
    """Whether it looks like what stands for an id."""
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
        return (
            AESGCM(key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound_to.encode()).decode()
        )
    except (InvalidTag, ValueError):
        return None


def _require_cryptography() -> None:
    if find_spec("cryptography") is None:
        raise ImportError('ids at rest need cryptography: pip install "lucia-auth[ids-at-rest]"')


def check_raw_ids(raw_ids: RawIds) -> RawIds:
    """Return it if it is one of the three.

    Raises:
        ValueError: it is not.
    """
    if raw_ids not in get_args(RawIds):
        raise ValueError(f"raw_ids must be 'write', 'read' or 'refuse', got {raw_ids!r}")
    return raw_ids


def _checked(keys: object) -> tuple[bytes, ...]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Sequence):
        raise TypeError(
            f"id_keys must be a list of keys, the current one first, not {type(keys).__name__}"
        )
    ring = cast("Sequence[object]", keys)
    if not ring:
        raise ValueError("id_keys is empty: hashed ids need a key")
    return tuple(map(_checked_key, ring))


def _checked_key(key: object) -> bytes:
    if not isinstance(key, bytes):
        raise TypeError(
            f"each of id_keys must be bytes, not {type(key).__name__}: turn text into bytes first, as by bytes.fromhex"
        )
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(
            f"a key of id_keys has {len(key)} bytes, fewer than {MIN_KEY_BYTES}: make one by secrets.token_bytes(32)"
        )
    return key
