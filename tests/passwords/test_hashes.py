"""The formats of password hashes, and the passwords that are accepted."""

import base64
import hashlib
import sys
import unicodedata
from typing import Literal

import pytest
from argon2 import PasswordHasher as Argon2CffiHasher
from argon2 import Type, low_level
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lucia._rules.passwords import (
    Argon2Hash,
    LuciaHash,
    PasswordHasher,
    ScryptHash,
    _read,  # only this shows what is refused before any work
    check_new_password,
    is_acceptable,
    is_outdated,
    verify,
)

PASSWORD = "correct horse battery staple"
CHEAP = ScryptHash(ln=4, r=1, p=1)
CHEAP_ARGON2 = Argon2Hash(time_cost=1, memory_cost=8, parallelism=1)
HASHERS: list[PasswordHasher] = [CHEAP, LuciaHash(), CHEAP_ARGON2]
REFUSED = ["", "x" * 1_001, "lone \ud800 surrogate", "\udfff"]
KEY_32 = "/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWI"
"""The first half of the third test vector of RFC 7914, section 12."""
PASSLIB = "$scrypt$ln=6,r=4,p=2$c2FsdCBvZiBwYXNzbGliIQ$LN3esy6v1Xbdp92xkiHXkPaMLhZYeKaBqNKcrCg7oho"

passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def zeros(count: int) -> bytes:
    """Return zeros instead of random bytes."""
    return bytes(count)


def legacy(password: bytes) -> str:
    """Return a hash in the older format with two parts."""
    return (
        "older:"
        + hashlib.scrypt(password, salt=b"older", n=2**14, r=8, p=1, maxmem=2**25, dklen=64).hex()
    )


@pytest.mark.parametrize("hasher", HASHERS, ids=repr)
def test_a_password_is_valid_for_its_hash_and_no_other_is(hasher: PasswordHasher) -> None:
    """Each hasher verifies what it writes, and rejects similar passwords."""
    hashed = hasher.hash(PASSWORD)
    assert hasher.verify(PASSWORD, hashed)
    assert not any(
        hasher.verify(other, hashed) for other in (PASSWORD.upper(), PASSWORD + " ", PASSWORD[1:])
    )


@pytest.mark.parametrize("hasher", HASHERS, ids=repr)
def test_no_two_hashes_are_alike(hasher: PasswordHasher) -> None:
    """Every hash has a new salt."""
    assert hasher.hash(PASSWORD) != hasher.hash(PASSWORD)


@pytest.mark.parametrize("writer", HASHERS, ids=repr)
@pytest.mark.parametrize("reader", HASHERS, ids=repr)
def test_every_hasher_verifies_every_format(writer: PasswordHasher, reader: PasswordHasher) -> None:
    """Each hasher verifies the hashes of all others, and reports them as outdated."""
    hashed = writer.hash(PASSWORD)
    assert reader.verify(PASSWORD, hashed)
    assert reader.needs_rehash(hashed) == (reader is not writer)


@pytest.mark.parametrize("reader", HASHERS, ids=repr)
def test_the_older_format_is_verified_and_outdated(reader: PasswordHasher) -> None:
    """Every hasher verifies a hash with two parts, and reports it as outdated."""
    hashed = legacy(PASSWORD.encode())
    assert reader.verify(PASSWORD, hashed)
    assert not reader.verify(PASSWORD + "x", hashed)
    assert reader.needs_rehash(hashed)


def test_the_default_is_owasps_cost() -> None:
    """The default is OWASP's cost, N = 2^15, r = 8, p = 3, with a 16-byte salt and 32-byte key."""
    hashed = ScryptHash(random_bytes=zeros).hash(PASSWORD)
    salt, key = "A" * 22, hashed.rpartition("$")[2]
    assert hashed == f"$scrypt$ln=15,r=8,p=3${salt}${key}"
    assert len(key) == 43
    assert verify(PASSWORD, hashed)


def test_scrypt_is_rfc_7914s() -> None:
    """The RFC's test vector, as base64 without padding, is verified."""
    assert verify("password", f"$scrypt$ln=10,r=8,p=16$TmFDbA${KEY_32}")


def test_passlibs_text_is_ours() -> None:
    """Our hash of a password is passlib 1.7.4's, for the same salt and cost."""
    hasher = ScryptHash(ln=6, r=4, p=2, random_bytes=lambda _: b"salt of passlib!")
    assert hasher.hash(PASSWORD) == PASSLIB
    assert hasher.verify(PASSWORD, PASSLIB)


@pytest.mark.parametrize("kind", list(Type))
def test_argon2_hashes_of_others_are_verified(kind: Type) -> None:
    """Hashes by argon2-cffi, of every variant, are verified."""
    hashed = Argon2CffiHasher(time_cost=1, memory_cost=64, parallelism=2, type=kind).hash(PASSWORD)
    assert verify(PASSWORD, hashed)
    assert not verify(PASSWORD + "x", hashed)


def test_argon2_version_16_is_verified() -> None:
    """Hashes of the version before the RFC's are verified."""
    hashed = low_level.hash_secret(
        PASSWORD.encode(), b"saltsalt", 1, 8, 1, 32, Type.I, version=16
    ).decode()
    assert "$v=16$" in hashed
    assert verify(PASSWORD, hashed)


def test_others_verify_our_argon2_hashes() -> None:
    """The default Argon2 hash has OWASP's cost, and argon2-cffi verifies it."""
    hashed = Argon2Hash().hash(PASSWORD)
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert Argon2CffiHasher().verify(hashed, PASSWORD)


def test_argon2_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without argon2-cffi, the error says what to install, and never "wrong password"."""
    hashed = CHEAP_ARGON2.hash(PASSWORD)
    monkeypatch.setitem(sys.modules, "argon2", None)
    with pytest.raises(ImportError, match=r'pip install "lucia-auth\[argon2\]"'):
        Argon2Hash()
    with pytest.raises(ImportError, match=r'pip install "lucia-auth\[argon2\]"'):
        ScryptHash().verify(PASSWORD, hashed)


@pytest.mark.parametrize(
    "hashed",
    [
        ScryptHash(ln=5, r=1, p=1).hash(PASSWORD),
        ScryptHash(ln=4, r=2, p=1).hash(PASSWORD),
        ScryptHash(ln=4, r=1, p=2).hash(PASSWORD),
        Argon2Hash(time_cost=2, memory_cost=8).hash(PASSWORD),
        Argon2Hash(time_cost=1, memory_cost=9).hash(PASSWORD),
        Argon2Hash(time_cost=1, memory_cost=16, parallelism=2).hash(PASSWORD),
        low_level.hash_secret(PASSWORD.encode(), b"saltsalt", 1, 8, 1, 32, Type.I).decode(),
        "",
        "$2a$10$abc",
    ],
    ids=["ln", "r", "p", "time", "memory", "parallelism", "argon2i", "empty", "bcrypt"],
)
def test_another_cost_is_outdated(hashed: str) -> None:
    """A hash of any other cost, and text that is no hash, is outdated."""
    assert all(hasher.needs_rehash(hashed) for hasher in HASHERS)


def test_lucia_hashs_salt_is_uniform_over_its_alphabet() -> None:
    """Two of 64 values stand for no character and are drawn again, as many as needed."""
    asked: list[int] = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return bytes([0, 9, 10, 35, 36, 61, 62, 63, 64, 255, 254, 128, 61, 62, 61, 61][:count])

    salt = LuciaHash(random_bytes=random_bytes).hash(PASSWORD).split(":")[1]
    assert salt == "09AZaz00zzz09AZa"
    assert asked == [16, 5]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize("hasher", HASHERS, ids=repr)
def test_one_password_from_two_keyboards_is_one(
    hasher: PasswordHasher, form: Literal["NFC", "NFD", "NFKC", "NFKD"]
) -> None:
    """Every normal form of a password is valid for the hash of any other."""
    password = "\u212bngstrom of\ufb01ce \uff50\uff41"
    hashed = hasher.hash(password)
    assert hasher.verify(unicodedata.normalize(form, password), hashed)


@given(passwords, passwords)
@example("\ufb01", "fl")
def test_round_trip(password: str, other: str) -> None:
    """A password is valid for its hash, and one with another normal form is not."""
    assume(unicodedata.normalize("NFKC", password) != unicodedata.normalize("NFKC", other))
    hashed = CHEAP.hash(password)
    assert CHEAP.verify(password, hashed)
    assert not CHEAP.verify(other, hashed)


@given(passwords)
def test_hashes_made_without_normalising_are_verified(password: str) -> None:
    """The password is also tried unnormalized, for hashes of other programs."""
    key = hashlib.scrypt(password.encode(), salt=b"", n=2, r=1, p=1, dklen=32)
    assert verify(password, "$scrypt$ln=1,r=1,p=1$$" + base64.b64encode(key).decode().rstrip("="))


@given(st.text(st.characters()))
@example("s2:sa\ud800lt:" + "0" * 128)
@example("\ud800:" + "0" * 128)
@example("s2::" + "0" * 128)
@example("s2:salt:" + "٠" * 128)
@example("s2:salt:" + "0" * 127 + "é")
@example("s2:salt:" + "0" * 128 + "\n")
@example("s1:salt:" + "0" * 128)
@example("s2:salt:" + "0" * 126)
@example("s2:salt:" + "0" * 128 + ":")
@example(f"$scrypt$ln=1,r=1,p=1$AAAAA${KEY_32}")
@example(f"$scrypt$ln=0,r=1,p=1$AAAA${KEY_32}")
@example(f"$scrypt$ln=1,r=1,p=1$AA==${KEY_32}")
@example(f"$scrypt$ln=1,r=1,p=1$AAAA${KEY_32}A")
@example(f"$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAA${KEY_32}")
@example(f"$argon2id$v=18$m=8,t=1,p=1$AAAAAAAAAAA${KEY_32}")
@example(f"$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAA${'A' * 85}")
@example("$2a$10$abcdefghijklmnopqrstuu")
def test_malformed_hash_matches_no_password(hashed: str) -> None:
    """Any other stored text is not valid, and never raises."""
    assert not verify(PASSWORD, hashed)
    assert isinstance(LuciaHash().needs_rehash(hashed), bool)


@given(st.data())
def test_a_damaged_hash_is_valid_for_nobody(data: st.DataObject) -> None:
    """A hash with one changed character in its key is not valid."""
    hashed = CHEAP.hash(PASSWORD)
    place = data.draw(st.integers(len(hashed) - 43, len(hashed) - 2))
    other = data.draw(st.characters().filter(lambda character: character != hashed[place]))
    assert not verify(PASSWORD, hashed[:place] + other + hashed[place + 1 :])


def test_upper_case_hex_is_not_the_originals() -> None:
    """A key in upper case is not valid, as in Lucia JS, which compares text."""
    assert not verify(PASSWORD, legacy(PASSWORD.encode()).upper().replace("OLDER", "older"))


@given(ln=st.integers(1, 99), r=st.integers(1, 9_999_999), p=st.integers(1, 9_999_999))
@example(ln=17, r=8, p=1)
@example(ln=17, r=8, p=4)
@example(ln=17, r=8, p=5)
@example(ln=18, r=8, p=1)
@example(ln=16, r=1, p=1)
@example(ln=15, r=1, p=1)
@example(ln=1, r=1, p=2**21)
@example(ln=1, r=2**19, p=1)
def test_a_hostile_scrypt_cost_is_refused_before_any_work(ln: int, r: int, p: int) -> None:
    """A scrypt hash that needs over 129 MiB or 2^22 blocks, or has bad parameters, is refused."""
    stored = _read(f"$scrypt$ln={ln},r={r},p={p}$AAAA${KEY_32}")
    memory, work = 128 * r * (2**ln + p + 2), 2**ln * r * p
    assert (stored is not None) == (memory <= 129 * 2**20 and work <= 2**22 and ln < 16 * r)


@given(
    memory=st.integers(1, 9_999_999),
    time=st.integers(1, 9_999_999),
    lanes=st.integers(1, 9_999_999),
)
@example(memory=128 * 1024, time=4, lanes=16)
@example(memory=128 * 1024 + 1, time=1, lanes=1)
@example(memory=128 * 1024, time=5, lanes=16)
@example(memory=2**21, time=1, lanes=1)
@example(memory=136, time=1, lanes=17)
@example(memory=15, time=1, lanes=2)
def test_a_hostile_argon2_cost_is_refused_before_any_work(
    memory: int, time: int, lanes: int
) -> None:
    """An Argon2 hash over 128 MiB, 16 threads, or 512 MiB in all passes is refused."""
    stored = _read(f"$argon2id$v=19$m={memory},t={time},p={lanes}$AAAAAAAAAAA${KEY_32}")
    assert (stored is not None) == (
        8 * lanes <= memory <= 128 * 1024 and memory * time <= 2**19 and lanes <= 16
    )


@pytest.mark.parametrize(
    ("ln", "r", "p"),
    [(0, 8, 1), (-1, 8, 1), (15, 0, 1), (15, 8, 0), (16, 1, 1), (18, 8, 1), (15, 8, 17)],
)
def test_scrypt_is_not_configured_beyond_what_is_verified(ln: int, r: int, p: int) -> None:
    """A scrypt cost that could not be verified later is refused by the hasher."""
    with pytest.raises(ValueError, match=f"ln={ln}, r={r}, p={p}"):
        ScryptHash(ln=ln, r=r, p=p)


@pytest.mark.parametrize(
    ("time", "memory", "lanes"),
    [(0, 8, 1), (1, 7, 1), (1, 8, 0), (1, 2**18, 1), (1, 1024, 17), (10**6, 8, 1)],
)
def test_argon2_is_not_configured_beyond_what_is_verified(
    time: int, memory: int, lanes: int
) -> None:
    """An Argon2 cost that could not be verified later is refused by the hasher."""
    with pytest.raises(ValueError, match=f"time_cost={time}"):
        Argon2Hash(time, memory, lanes)


@pytest.mark.parametrize("password", REFUSED)
def test_refused_passwords_are_refused_everywhere(password: str) -> None:
    """Empty, too long or non-text passwords are a ValueError when new, and never valid."""
    assert not is_acceptable(password)
    assert not any(hasher.verify(password, CHEAP.hash(PASSWORD)) for hasher in HASHERS)
    for hasher in HASHERS:
        with pytest.raises(ValueError, match="a password must not"):
            hasher.hash(password)


def test_an_empty_password_is_not_valid_for_its_own_hash() -> None:
    """An empty password is not valid, even for another program's hash of it."""
    assert not verify("", legacy(b""))


@pytest.mark.parametrize("password", [None, b"bytes", 1, ["x"]])
def test_only_text_is_a_password(password: object) -> None:
    """Anything but a str is a TypeError that names its type, and is not acceptable."""
    with pytest.raises(TypeError, match=type(password).__name__):
        check_new_password(password)
    assert not is_acceptable(password)


@pytest.mark.parametrize("password", ["x", "x" * 1_000, "\U0001f511" * 1_000, "\x00", " "])
def test_all_else_is_acceptable(password: str) -> None:
    """Any 1 to 1,000 characters are acceptable."""
    check_new_password(password)
    assert is_acceptable(password)


def test_refused_passwords_are_not_normalised() -> None:
    """A million combining marks, which take hours to normalize, are refused at once."""
    password = "q" + "\u0300\u0316" * 500_000
    assert not verify(password, CHEAP.hash(PASSWORD))
    with pytest.raises(ValueError, match="1,000"):
        CHEAP.hash(password)


@pytest.mark.parametrize("password", ["hunter2" * 200, "hunter2 \udc80"])
def test_errors_hold_no_password(password: str) -> None:
    """Neither the error nor its context quotes the password."""
    with pytest.raises(ValueError, match="a password must not") as caught:
        check_new_password(password)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


def test_reprs_hold_no_secret() -> None:
    """The reprs of a hasher and of a parsed hash show only the cost."""
    assert repr(ScryptHash()) == "ScryptHash(ln=15, r=8, p=3)"
    assert repr(LuciaHash()) == "LuciaHash()"
    assert repr(Argon2Hash()) == "Argon2Hash(time_cost=2, memory_cost=19456, parallelism=1)"
    assert repr(_read(CHEAP.hash(PASSWORD))) == "_Stored(cost=_ScryptCost(ln=4, r=1, p=1))"


def test_bcrypt_hashes_are_outdated() -> None:
    """Exactly the hashes that begin with $2a are outdated."""
    assert is_outdated("$2a$10$abcdefghijklmnopqrstuu")
    assert not any(map(is_outdated, ["", "$2", "$2b$10$x", "s2:$2a:0", CHEAP.hash(PASSWORD)]))


def test_hashers_are_password_hashers() -> None:
    """`isinstance` with the protocol recognises hashers."""
    assert all(isinstance(hasher, PasswordHasher) for hasher in HASHERS)
    assert not isinstance(hashlib, PasswordHasher)
