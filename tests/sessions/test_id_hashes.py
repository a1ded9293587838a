"""Hashed session ids, and the sealed ids of successors."""

import base64
import hashlib
import hmac
import sys
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucia._rules import id_hashes
from lucia._rules.id_hashes import HashedIds, hashed_ids, is_hash, throttle_name

KEY, OLD, FOREIGN = (bytes([number]) * 32 for number in (1, 2, 3))
USED = "UsedUsedUsedUsedUsedUsedUsedUsedUsedUsed"
NEXT = "NextNextNextNextNextNextNextNextNextNext"

any_id = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


class Marker(NamedTuple):
    """What a store remembers of a used id."""

    id: str
    successor: str
    sealed: str | None = None


def marked(ring: HashedIds, used_id: str = USED, successor_id: str = NEXT) -> Marker:
    """Return the marker that a renewal with this key ring leaves."""
    stored = ring.stored(used_id)
    return Marker(stored, ring.stored(successor_id), ring.seal(used_id, stored, successor_id))


def test_stored_form() -> None:
    """An id is stored as its HMAC-SHA-256 under the current key, in 64 lower-case hex digits."""
    stored = HashedIds([KEY, OLD]).stored(USED)
    assert stored == hmac.new(KEY, USED.encode(), hashlib.sha256).hexdigest()
    assert is_hash(stored)


def test_candidates() -> None:
    """An id is looked up by its hash under each key, current key first, and then raw."""
    assert HashedIds([KEY, OLD]).candidates(USED) == [
        HashedIds([KEY]).stored(USED),
        HashedIds([OLD]).stored(USED),
        USED,
    ]
    assert HashedIds([KEY], "refuse").candidates(USED) == [HashedIds([KEY]).stored(USED)]


@given(any_id)
def test_hash_is_no_id(session_id: str) -> None:
    """A stored hash used as a session id finds nothing, whatever the key ring."""
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
    """Only ids of 64 lower-case hex digits, which could be hashes, are never looked up raw."""
    assert session_id in HashedIds([KEY]).candidates(session_id)


def test_writing_raw() -> None:
    """With ``write`` a new session is stored under its raw id, and found in every form."""
    ring = HashedIds([KEY], "write")
    assert ring.stored(USED) == USED
    assert ring.candidates(USED) == HashedIds([KEY]).candidates(USED)
    assert ring.seal(USED, USED, NEXT) is None


# Sealed successors


@given(any_id, any_id)
def test_seal(used_id: str, successor_id: str) -> None:
    """The used id and the key ring open a marker, which shows neither id."""
    ring = HashedIds([KEY])
    marker = marked(ring, used_id, successor_id)
    assert ring.successor(used_id, marker) == successor_id
    assert is_hash(marker.id)
    assert is_hash(marker.successor)


def test_seal_after_rotation() -> None:
    """A marker is opened by whichever key of the ring sealed it."""
    marker = marked(HashedIds([OLD, KEY]))
    assert HashedIds([KEY, OLD]).successor(USED, marker) == NEXT
    assert HashedIds([OLD]).successor(USED, marker) == NEXT


def test_sealed_differently_each_time() -> None:
    """Sealing the same ids twice gives different text, so seals can't be compared."""
    ring = HashedIds([KEY])
    assert ring.seal(USED, ring.stored(USED), NEXT) != ring.seal(USED, ring.stored(USED), NEXT)


def test_nonce_is_given() -> None:
    """The nonce comes from the ring's source of randomness."""
    ring = HashedIds([KEY], random_bytes=bytes)
    sealed = ring.seal(USED, ring.stored(USED), NEXT) or ""
    assert base64.urlsafe_b64decode(sealed)[:12] == bytes(12)


def _flipped(sealed: str, place: int) -> str:
    data = bytearray(base64.urlsafe_b64decode(sealed))
    data[place] ^= 1
    return base64.urlsafe_b64encode(data).decode()


def test_keys_that_do_not_open() -> None:
    """Opening a marker takes both the used id and the key; what Redis stores is not enough."""
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
def test_tampered_seal(place: int) -> None:
    """A tampered seal leads nowhere."""
    ring = HashedIds([KEY])
    marker = marked(ring)
    assert (
        ring.successor(USED, marker._replace(sealed=_flipped(marker.sealed or "", place))) is None
    )


@pytest.mark.parametrize(
    "sealed", ["", "=", "a", "AAAA", "not base64!", "é", "A" * 64, "\ud800"], ids=range(8)
)
def test_absurd_seal(sealed: str) -> None:
    """Text that is no seal leads nowhere and raises nothing."""
    ring = HashedIds([KEY])
    assert ring.successor(USED, marked(ring)._replace(sealed=sealed)) is None


def test_seal_of_another_marker() -> None:
    """A seal is valid only in its own marker: for its used id and its successor."""
    ring = HashedIds([KEY])
    marker, other = marked(ring), marked(ring, USED, "another")
    assert ring.successor(USED, marker._replace(sealed=other.sealed)) is None
    assert ring.successor(USED, marker._replace(id=other.successor)) is None


def test_marker_without_seal() -> None:
    """A marker without a seal names its successor by its raw id, never by a hash."""
    ring = HashedIds([KEY])
    assert ring.successor(USED, Marker(USED, NEXT)) == NEXT
    assert ring.successor(USED, Marker(USED, ring.stored(NEXT))) is None
    assert HashedIds([KEY], "refuse").successor(USED, Marker(USED, NEXT)) is None


def test_no_hash_is_a_sealing_key() -> None:
    """No stored hash can equal a sealing key or the name of failures.

    Ids are UTF-8, and the input of those is not.
    """
    for purpose in (id_hashes._SEALING, id_hashes._THROTTLING):
        with pytest.raises(UnicodeDecodeError):
            (purpose + USED.encode()).decode()


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
    """Anything but a list of long keys is refused, with a message that shows no key."""
    with pytest.raises(error, match=message) as caught:
        HashedIds(keys)
    assert KEY.hex() not in str(caught.value)


def test_without_keys() -> None:
    """Without keys nothing is hashed, and raw ids can't be refused."""
    assert hashed_ids([], "read") is None
    assert isinstance(hashed_ids([KEY], "refuse"), HashedIds)
    with pytest.raises(ValueError, match="raw_ids='refuse' needs id_keys"):
        hashed_ids([], "refuse")


def test_names_of_failures() -> None:
    """The name of a count of failures is hashed with the first key, and keeps its length."""
    name = "0" * 32
    hashed = HashedIds([KEY, OLD]).throttle_name(name)
    assert hashed == HashedIds([KEY]).throttle_name(name) == throttle_name(KEY, name)
    assert hashed != HashedIds([OLD]).throttle_name(name)
    assert len(hashed) == 32


def test_refused_mode() -> None:
    """An unknown mode for raw ids is refused, and the error names the three known ones."""
    mode: Any = "ignore"
    with pytest.raises(ValueError, match="'write', 'read' or 'refuse', got 'ignore'"):
        HashedIds([KEY], mode)


def test_repr() -> None:
    """The ``repr`` of a key ring shows no key."""
    assert repr(HashedIds([KEY, OLD], "refuse")) == "HashedIds(<2 keys>, 'refuse')"


def test_without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the cryptography package, the error names the command that installs it."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ImportError, match=r'pip install "lucia-auth\[ids-at-rest\]"'):
        HashedIds([KEY])
