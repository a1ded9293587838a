"""What stands for session ids in Redis, and what a used id's marker seals."""

import base64
import hashlib
import hmac
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucia._redis import at_rest as ids
from lucia._redis.at_rest import HashedIds, is_hash
from lucia._redis.records import Marker

KEY, OLD, FOREIGN = (bytes([number]) * 32 for number in (1, 2, 3))
USED = "UsedUsedUsedUsedUsedUsedUsedUsedUsedUsed"
NEXT = "NextNextNextNextNextNextNextNextNextNext"

any_id = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


def marked(ring: HashedIds, used_id: str = USED, successor_id: str = NEXT) -> Marker:
    """The marker that a renewal by this ring leaves."""
    stored = ring.stored(used_id)
    return Marker(
        stored, ring.stored(successor_id), 60_000, ring.seal(used_id, stored, successor_id)
    )


def test_stored_form() -> None:
    """An id is stored as its HMAC-SHA-256 under the current key, in 64 lower-case hex digits."""
    stored = HashedIds([KEY, OLD]).stored(USED)
    assert stored == hmac.new(KEY, USED.encode(), hashlib.sha256).hexdigest()
    assert is_hash(stored)


def test_candidates() -> None:
    """An id is looked for under each key, the current one first, and then under itself."""
    assert HashedIds([KEY, OLD]).candidates(USED) == [
        HashedIds([KEY]).stored(USED),
        HashedIds([OLD]).stored(USED),
        USED,
    ]
    assert HashedIds([KEY], "refuse").candidates(USED) == [HashedIds([KEY]).stored(USED)]


@given(any_id)
def test_hash_is_no_id(session_id: str) -> None:
    """What stands for an id leads to nothing itself, whatever the ring."""
    for ring in (
        HashedIds([KEY]),
        HashedIds([OLD, KEY]),
        HashedIds([KEY], "write"),
        HashedIds([KEY], "refuse"),
    ):
        stored = HashedIds([KEY]).stored(session_id)
        assert stored not in ring.candidates(stored)
        assert ring.stored(stored) != stored


@pytest.mark.parametrize(
    "session_id", [USED, "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n"], ids=range(6)
)
def test_other_ids_may_be_raw(session_id: str) -> None:
    """Only 64 lower-case hex digits are never looked for as they are, since only those can stand
    for an id.
    """
    assert session_id in HashedIds([KEY]).candidates(session_id)


def test_writing_raw() -> None:
    """With ``write`` a new session is stored under its id itself, and found under each of its
    forms.
    """
    ring = HashedIds([KEY], "write")
    assert ring.stored(USED) == USED
    assert ring.candidates(USED) == HashedIds([KEY]).candidates(USED)
    assert ring.seal(USED, USED, NEXT) is None


# Sealed successors


@given(any_id, any_id)
def test_seal(used_id: str, successor_id: str) -> None:
    """Who has the used id and the ring learns the successor's id, and the marker shows neither."""
    ring = HashedIds([KEY])
    marker = marked(ring, used_id, successor_id)
    assert ring.successor(used_id, marker) == successor_id
    assert is_hash(marker.id)
    assert is_hash(marker.successor)


def test_seal_after_rotation() -> None:
    """A marker is opened by whichever key of the ring it was sealed with."""
    marker = marked(HashedIds([OLD, KEY]))
    assert HashedIds([KEY, OLD]).successor(USED, marker) == NEXT
    assert HashedIds([OLD]).successor(USED, marker) == NEXT


def test_sealed_differently_each_time() -> None:
    """Sealing the same again gives something else, and leaves the reader nothing to compare."""
    ring = HashedIds([KEY])
    assert ring.seal(USED, ring.stored(USED), NEXT) != ring.seal(USED, ring.stored(USED), NEXT)


def test_nonce_is_given() -> None:
    """The randomness of a seal is what the ring was given."""
    ring = HashedIds([KEY], random_bytes=bytes)
    sealed = ring.seal(USED, ring.stored(USED), NEXT) or ""
    assert base64.urlsafe_b64decode(sealed)[:12] == bytes(12)


def _flipped(sealed: str, place: int) -> str:
    data = bytearray(base64.urlsafe_b64decode(sealed))
    data[place] ^= 1
    return base64.urlsafe_b64encode(data).decode()


def test_keys_that_do_not_open() -> None:
    """Neither the used id without the key, nor the key without the used id, nor what Redis shows of
    both opens a marker.
    """
    ring = HashedIds([KEY])
    marker = marked(ring)
    assert HashedIds([FOREIGN]).successor(USED, marker) is None
    for other in (NEXT, marker.id, marker.successor):
        assert ring.successor(other, marker) is None
    for shown in (marker.id, marker.successor):
        assert HashedIds([bytes.fromhex(shown)]).successor(USED, marker) is None


@pytest.mark.parametrize(
    "place", [0, 11, 12, 30, -1], ids=["nonce", "last of nonce", "text", "middle", "tag"]
)
def test_tampered_seal(place: int, caplog: pytest.LogCaptureFixture) -> None:
    """A seal that somebody changed leads nowhere, and the log says so without ids."""
    ring = HashedIds([KEY])
    marker = marked(ring)
    assert (
        ring.successor(USED, marker._replace(sealed=_flipped(marker.sealed or "", place))) is None
    )
    assert caplog.record_tuples == [
        (
            "lucia.redis",
            logging.WARNING,
            "a used session id leads nowhere: no key of the ring opens its marker",
        )
    ]


@pytest.mark.parametrize(
    "sealed", ["", "=", "a", "AAAA", "not base64!", "é", "A" * 64, "\ud800"], ids=range(8)
)
def test_absurd_seal(sealed: str) -> None:
    """What is no seal leads nowhere, and is no error."""
    ring = HashedIds([KEY])
    assert ring.successor(USED, marked(ring)._replace(sealed=sealed)) is None


def test_seal_of_another_marker() -> None:
    """A seal is good for its own marker alone.

    Not for another used id, and not beside another successor.
    """
    ring = HashedIds([KEY])
    marker, other = marked(ring), marked(ring, USED, "another")
    assert ring.successor(USED, marker._replace(sealed=other.sealed)) is None
    assert ring.successor(USED, marker._replace(id=other.successor)) is None


def test_marker_without_seal() -> None:
    """A marker without a seal names the successor by its id, and never by what only stands for one."""
    ring = HashedIds([KEY])
    assert ring.successor(USED, Marker(USED, NEXT, 60_000)) == NEXT
    assert ring.successor(USED, Marker(USED, ring.stored(NEXT), 60_000)) is None
    assert HashedIds([KEY], "refuse").successor(USED, Marker(USED, NEXT, 60_000)) is None


def test_no_hash_is_a_sealing_key() -> None:
    """No id's hash is the key that something is sealed with.

    An id is UTF-8, and what that key is made of is not.
    """
    with pytest.raises(UnicodeDecodeError):
        (ids._SEALING + USED.encode()).decode()


# Keys


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ([], ValueError, "needs? a key"),
        ([b"short"], ValueError, "has 5 bytes, fewer than 32"),
        ([KEY, KEY[1:]], ValueError, "has 31 bytes"),
        ([KEY.hex()], TypeError, "must be bytes, not str"),
        (KEY, TypeError, "a list of keys, the current one first, not bytes"),
        (KEY.hex(), TypeError, "not str"),
        ({KEY}, TypeError, "not set"),
        (None, TypeError, "not NoneType"),
    ],
    ids=range(8),
)
def test_refused_keys(keys: Any, error: type[Exception], message: str) -> None:
    """What is no ring of long keys is refused, with a message that says what to do and shows no
    key.
    """
    with pytest.raises(error, match=message) as caught:
        HashedIds(keys)
    assert KEY.hex() not in str(caught.value)


def test_refused_mode() -> None:
    """What is done with raw ids is one of three."""
    mode: Any = "ignore"
    with pytest.raises(ValueError, match="'write', 'read' or 'refuse', got 'ignore'"):
        HashedIds([KEY], mode)


def test_repr() -> None:
    """A ring's ``repr`` shows no key."""
    assert repr(HashedIds([KEY, OLD], "refuse")) == "HashedIds(<2 keys>, 'refuse')"


def test_without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package for sealing is missing, the error names the command that installs it."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ImportError, match=r'pip install "lucia-auth\[ids-at-rest\]"'):
        HashedIds([KEY])
