"""Password hashes: their formats, and which passwords are accepted.

Every hasher of this module verifies every format, so that changing ``hash=`` locks nobody out:

=======================================  ====================================================
``$scrypt$ln=15,r=8,p=3$SALT$KEY``       :class:`ScryptHash`, the default; also passlib's
``s2:SALT:KEY``                          :class:`LuciaHash`, and Lucia v1 for JavaScript
``SALT:KEY``                             Lucia's older format; never written
``$argon2id$v=19$m=…,t=…,p=…$SALT$KEY``  :class:`Argon2Hash`; argon2i, argon2d and version 16
                                         are verified too
=======================================  ====================================================

Passwords are hashed as the UTF-8 of their NFKC form, so that the same password typed on two
keyboards is the same. A hash of another kind or cost than the configured one may come from a system
without NFKC: for such a hash, verifying tries the NFKC form and then, if it differs, the text as it
is. A hash of the configured kind takes one derivation.

Scrypt is RFC 7914, Argon2 is RFC 9106. The default costs are those of OWASP's Password Storage
Cheat Sheet.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from importlib.util import find_spec
from typing import Final, NamedTuple, Protocol, runtime_checkable

from lucia.errors import InvalidInput

__all__ = [
    "MAX_PASSWORD_LENGTH",
    "OUTDATED_PREFIX",
    "Argon2Hash",
    "LuciaHash",
    "PasswordHasher",
    "PasswordPool",
    "ScryptHash",
    "check_new_password",
    "is_acceptable",
    "is_outdated",
    "verify",
]

MAX_PASSWORD_LENGTH: Final = 1_000
"""The longest password, in characters (code points)."""

OUTDATED_PREFIX: Final = "$2a"
"""The prefix of the bcrypt hashes that Lucia wrote before it used scrypt."""

_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
# 128 MiB for the blocks of scrypt, and a little for those that OpenSSL counts besides.
_MAX_SCRYPT_MEMORY: Final = 129 * 2**20
_MAX_SCRYPT_WORK: Final = 2**22
_MAX_ARGON2_KIB: Final = 128 * 2**10
_MAX_ARGON2_WORK: Final = 2**19
_MAX_ARGON2_LANES: Final = 16

_LUCIA_SALT_LENGTH: Final = 16
_LUCIA_KEY_BYTES: Final = 64
_LUCIA_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SCRYPT: Final = re.compile(
    r"\$scrypt\$ln=([1-9][0-9]?),r=([1-9][0-9]{0,6}),p=([1-9][0-9]{0,6})"
    r"\$([A-Za-z0-9+/]{0,1400})\$([A-Za-z0-9+/]{43})"
)
# No surrogates in the salt, which is hashed as UTF-8.
_LUCIA: Final = re.compile("(?:(s2):)?([^:\ud800-\udfff]*):([0-9a-f]{128})")
_ARGON2: Final = re.compile(
    r"\$argon2(id|i|d)\$v=(16|19)\$m=([1-9][0-9]{0,6}),t=([1-9][0-9]{0,6}),p=([1-9][0-9]{0,6})"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)


@runtime_checkable
class PasswordHasher(Protocol):
    """Creates and verifies password hashes.

    The methods are sync, and are called from several threads at once.
    """

    def hash(self, password: str, /) -> str:
        """Return the hash to store for ``password``, with a new salt each time."""
        ...

    def verify(self, password: str, hashed: str, /) -> bool:
        """Return whether ``hashed`` is a hash of ``password``; False for text that is none."""
        ...

    def needs_rehash(self, hashed: str, /) -> bool:
        """Return whether ``hashed`` has another format or cost than :meth:`hash` writes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordPool:
    """How many passwords one process hashes at once, and how many more may wait.

    A login beyond that raises :class:`~lucia.Overloaded`.

    Args:
        workers: how many are hashed at once, each taking the memory of its hash; by default the
            number of cores, at most 4, and in threads at most 2.
        queue: how many more may wait; by default 64, in threads 1, since there a waiting login
            occupies one of the server's. Greenlets of gevent count as tasks, not as threads.

    Raises:
        TypeError: a number is not an ``int``.
        ValueError: ``workers`` is less than 1, or ``queue`` is negative.
    """

    workers: int | None = None
    queue: int | None = None

    def __post_init__(self) -> None:
        _check_number("workers", self.workers, 1)
        _check_number("queue", self.queue, 0)

    def bounds(self, workers: int, queue: int) -> tuple[int, int]:
        """Return both numbers, with these defaults for what is not set."""
        return (
            workers if self.workers is None else self.workers,
            queue if self.queue is None else self.queue,
        )


def _check_number(name: str, number: object, least: int) -> None:
    if number is None:
        return
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{name} must be an int, not {type(number).__name__}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")


def check_new_password(password: object) -> None:
    """Raise an error if a new password is not acceptable.

    Call it before any work on the password: normalising is quadratic in combining marks.

    Raises:
        TypeError: it is not a ``str``.
        InvalidInput: it is empty, longer than 1,000 characters, or contains a lone surrogate.
    """
    if not isinstance(password, str):
        raise TypeError(f"a password must be a str, not {type(password).__name__}")
    fault = _fault(password)
    if fault is not None:
        raise InvalidInput(fault)


def is_acceptable(password: object) -> bool:
    """Return whether :func:`check_new_password` accepts ``password``."""
    return isinstance(password, str) and _fault(password) is None


def is_outdated(hashed: str) -> bool:
    """Return whether ``hashed`` is a bcrypt hash: they are not supported, and need a reset."""
    return hashed.startswith(OUTDATED_PREFIX)


def verify(password: str, hashed: str, *, is_normalised: bool = False) -> bool:
    """Return whether ``hashed``, in any format of this module, is a hash of ``password``.

    Keys are compared in constant time. If the hash is known to be of a normalised password
    (``is_normalised``), only the NFKC form of ``password`` is tried.

    False for text that is not a hash, for a password that is not acceptable, and for a stored cost
    beyond the limits that keep a hostile hash from exhausting the machine: 128 MiB of memory, 2^22
    scrypt blocks (N·r·p), and for Argon2 512 MiB filled and 16 lanes.

    Raises:
        ImportError: ``hashed`` is an Argon2 hash and argon2-cffi is missing.
    """
    stored = _read(hashed)
    if stored is None or not is_acceptable(password):
        return False
    secrets = [_new_secret(password)] if is_normalised else _secrets(password)
    return any(hmac.compare_digest(stored.derive(secret), stored.key) for secret in secrets)


@dataclass(frozen=True, slots=True)
class ScryptHash:
    """Writes ``$scrypt$ln=15,r=8,p=3$SALT$KEY``, which passlib reads too. The default.

    OWASP's N = 2^15, r = 8, p = 3 takes 32 MiB of memory and about a quarter of a second. The salt
    has 16 bytes, the key 32.

    Args:
        ln: the binary logarithm of N, the number of blocks in memory.
        r: the size of a block in units of 128 bytes; the memory is N·r·128 bytes.
        p: how many times the work is done, one after another.
        random_bytes: returns so many random bytes, for salts.

    Raises:
        ValueError: scrypt has no such parameters, or :func:`verify` would refuse them.
    """

    ln: int = 15
    r: int = 8
    p: int = 3
    _: KW_ONLY
    random_bytes: Callable[[int], bytes] = field(default=os.urandom, repr=False)

    def __post_init__(self) -> None:
        if not _ScryptCost(self.ln, self.r, self.p).is_within_limits:
            raise ValueError(
                f"no scrypt hash is made at ln={self.ln}, r={self.r}, p={self.p}: "
                "it may take at most 128 MiB of memory and 2^22 blocks (N·r·p)"
            )

    def hash(self, password: str, /) -> str:
        """Return the hash to store.

        Raises:
            TypeError, InvalidInput: as :func:`check_new_password`.
        """
        secret = _new_secret(password)
        salt = self.random_bytes(_SALT_BYTES)
        key = _ScryptCost(self.ln, self.r, self.p).derive(secret, salt, _KEY_BYTES)
        return f"$scrypt$ln={self.ln},r={self.r},p={self.p}${_encode64(salt)}${_encode64(key)}"

    def verify(self, password: str, hashed: str, /) -> bool:
        """Verify as :func:`verify`; hashes of the configured kind are of normalised passwords."""
        return verify(password, hashed, is_normalised=not self.needs_rehash(hashed))

    def needs_rehash(self, hashed: str, /) -> bool:
        """Return True for every format and cost except the configured ones."""
        stored = _read_scrypt(hashed)
        return stored is None or stored.cost != (self.ln, self.r, self.p)


@dataclass(frozen=True, slots=True, kw_only=True)
class LuciaHash:
    """Writes ``s2:SALT:KEY`` as Lucia v1 for JavaScript, to share users with such a service.

    SALT is 16 characters of ``0-9A-Za-z``, used as they are. KEY is the lower-case hex of 64 bytes
    of scrypt with N = 2^14, r = 16, p = 1, which takes 32 MiB of memory and about a tenth of a
    second.

    Args:
        random_bytes: returns so many random bytes, for salts.
    """

    random_bytes: Callable[[int], bytes] = field(default=os.urandom, repr=False)

    def hash(self, password: str, /) -> str:
        """Return the hash to store.

        Raises:
            TypeError, InvalidInput: as :func:`check_new_password`.
        """
        secret = _new_secret(password)
        salt = _salt_text(self.random_bytes)
        return f"s2:{salt}:{_LUCIA_COST.derive(secret, salt.encode(), _LUCIA_KEY_BYTES).hex()}"

    def verify(self, password: str, hashed: str, /) -> bool:
        """Verify as :func:`verify`; hashes of the configured kind are of normalised passwords."""
        return verify(password, hashed, is_normalised=not self.needs_rehash(hashed))

    def needs_rehash(self, hashed: str, /) -> bool:
        """Return True for everything except ``s2:``."""
        stored = _read_lucia(hashed)
        return stored is None or stored.cost != _LUCIA_COST


@dataclass(frozen=True, slots=True)
class Argon2Hash:
    """Writes ``$argon2id$v=19$m=19456,t=2,p=1$SALT$KEY``. Needs the extra ``argon2``.

    OWASP's m = 19 MiB, t = 2, p = 1; the salt has 16 bytes, the key 32.

    Args:
        time_cost: how many times the memory is filled.
        memory_cost: the memory in KiB.
        parallelism: the number of lanes, each a thread of its own.
        random_bytes: returns so many random bytes, for salts.

    Raises:
        ImportError: argon2-cffi is missing.
        ValueError: Argon2 has no such parameters, or :func:`verify` would refuse them.
    """

    time_cost: int = 2
    memory_cost: int = 19_456
    parallelism: int = 1
    _: KW_ONLY
    random_bytes: Callable[[int], bytes] = field(default=os.urandom, repr=False)

    def __post_init__(self) -> None:
        _require_argon2()
        if not self._cost.is_within_limits:
            raise ValueError(
                f"no Argon2 hash is made at {self!r}: at most 128 MiB (memory_cost=131072), "
                "16 lanes, and a memory_cost times time_cost of 524288"
            )

    @property
    def _cost(self) -> "_Argon2Cost":
        return _Argon2Cost("id", 19, self.memory_cost, self.time_cost, self.parallelism)

    def hash(self, password: str, /) -> str:
        """Return the hash to store.

        Raises:
            TypeError, InvalidInput: as :func:`check_new_password`.
        """
        secret = _new_secret(password)
        salt = self.random_bytes(_SALT_BYTES)
        key = self._cost.derive(secret, salt, _KEY_BYTES)
        parameters = f"m={self.memory_cost},t={self.time_cost},p={self.parallelism}"
        return f"$argon2id$v=19${parameters}${_encode64(salt)}${_encode64(key)}"

    def verify(self, password: str, hashed: str, /) -> bool:
        """Verify as :func:`verify`; hashes of the configured kind are of normalised passwords."""
        return verify(password, hashed, is_normalised=not self.needs_rehash(hashed))

    def needs_rehash(self, hashed: str, /) -> bool:
        """Return True for every format and cost except the configured ones."""
        stored = _read_argon2(hashed)
        return stored is None or stored.cost != self._cost


class _ScryptCost(NamedTuple):
    """Scrypt's parameters; ``ln`` is the binary logarithm of N."""

    ln: int
    r: int
    p: int

    @property
    def memory(self) -> int:
        """The memory needed, in bytes, computed as OpenSSL does: it refuses to start with less."""
        return 128 * self.r * ((1 << self.ln) + self.p + 2)

    @property
    def is_within_limits(self) -> bool:
        """Whether scrypt allows these parameters (RFC 7914, section 2), and so do our limits."""
        exists = self.r > 0 and self.p > 0 and 0 < self.ln < 16 * self.r
        return (
            exists
            and self.memory <= _MAX_SCRYPT_MEMORY
            and (self.r * self.p << self.ln) <= _MAX_SCRYPT_WORK
        )

    def derive(self, secret: bytes, salt: bytes, length: int) -> bytes:
        return hashlib.scrypt(
            secret, salt=salt, n=1 << self.ln, r=self.r, p=self.p, maxmem=self.memory, dklen=length
        )


class _Argon2Cost(NamedTuple):
    """Argon2's parameters, in the order of the text."""

    variant: str
    version: int
    memory_cost: int
    time_cost: int
    parallelism: int

    @property
    def is_within_limits(self) -> bool:
        """Whether Argon2 allows these parameters (RFC 9106, section 3.1), and so do our limits."""
        exists = (
            self.time_cost > 0 and self.parallelism > 0 and self.memory_cost >= 8 * self.parallelism
        )
        bounded = self.memory_cost <= _MAX_ARGON2_KIB and self.parallelism <= _MAX_ARGON2_LANES
        return exists and bounded and self.memory_cost * self.time_cost <= _MAX_ARGON2_WORK

    def derive(self, secret: bytes, salt: bytes, length: int) -> bytes:
        _require_argon2()
        from argon2 import low_level

        variant = low_level.Type[self.variant.upper()]
        return low_level.hash_secret_raw(
            secret,
            salt,
            self.time_cost,
            self.memory_cost,
            self.parallelism,
            length,
            variant,
            self.version,
        )


_LUCIA_COST: Final = _ScryptCost(ln=14, r=16, p=1)
_OLDER_LUCIA_COST: Final = _ScryptCost(ln=14, r=8, p=1)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A parsed hash."""

    cost: _ScryptCost | _Argon2Cost
    salt: bytes = field(repr=False)
    key: bytes = field(repr=False)

    def derive(self, secret: bytes) -> bytes:
        """Return the key that ``secret`` has; it is ``key`` if the secret is right."""
        return self.cost.derive(secret, self.salt, len(self.key))


def _read(hashed: str) -> _Stored | None:
    """Parse a hash of any format; None for text that is not a hash, or a cost over the limits."""
    return _read_scrypt(hashed) or _read_lucia(hashed) or _read_argon2(hashed)


def _read_scrypt(hashed: str) -> _Stored | None:
    match = _SCRYPT.fullmatch(hashed)
    if match is None:
        return None
    ln, r, p, salt, key = match.groups()
    return _stored(_ScryptCost(int(ln), int(r), int(p)), salt, key)


def _read_argon2(hashed: str) -> _Stored | None:
    match = _ARGON2.fullmatch(hashed)
    if match is None:
        return None
    variant, version, memory, time, lanes, salt, key = match.groups()
    return _stored(
        _Argon2Cost(variant, int(version), int(memory), int(time), int(lanes)), salt, key
    )


def _read_lucia(hashed: str) -> _Stored | None:
    match = _LUCIA.fullmatch(hashed)
    if match is None:
        return None
    version, salt, key = match.groups()
    return _Stored(_LUCIA_COST if version else _OLDER_LUCIA_COST, salt.encode(), bytes.fromhex(key))


def _stored(cost: _ScryptCost | _Argon2Cost, salt: str, key: str) -> _Stored | None:
    """Return the parsed hash if its cost is within the limits and the rest is base64."""
    if not cost.is_within_limits:
        return None
    try:
        return _Stored(cost, _decode64(salt), _decode64(key))
    except binascii.Error:
        return None


def _fault(password: str) -> str | None:
    """Return why ``password`` is not acceptable, without quoting it."""
    if not password:
        return "a password must not be empty"
    if len(password) > MAX_PASSWORD_LENGTH:
        return f"a password must not be longer than {MAX_PASSWORD_LENGTH:,} characters"
    if _SURROGATE.search(password):
        return "a password must not hold a lone surrogate"
    return None


def _new_secret(password: str) -> bytes:
    """Return the bytes to hash for a new password."""
    # First, since normalising is quadratic in combining marks.
    check_new_password(password)
    return unicodedata.normalize("NFKC", password).encode()


def _secrets(password: str) -> list[bytes]:
    """Return the bytes that a stored hash may be of, the most likely first: one or two."""
    return list(dict.fromkeys((_new_secret(password), password.encode())))


def _salt_text(random_bytes: Callable[[int], bytes]) -> str:
    """Return a salt as Lucia does, uniform over its 62 characters: two of 64 values are redrawn."""
    text = ""
    while len(text) < _LUCIA_SALT_LENGTH:
        drawn = (byte & 63 for byte in random_bytes(_LUCIA_SALT_LENGTH - len(text)))
        text += "".join(_LUCIA_ALPHABET[index] for index in drawn if index < len(_LUCIA_ALPHABET))
    return text


def _encode64(data: bytes) -> str:
    """Encode as base64 without padding, as PHC strings are."""
    return base64.b64encode(data).decode().rstrip("=")


def _decode64(text: str) -> bytes:
    """Decode base64 without padding.

    Raises:
        binascii.Error: it is not base64.
    """
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _require_argon2() -> None:
    if find_spec("argon2") is None:
        raise ImportError('Argon2 hashes need argon2-cffi: pip install "lucia-auth[argon2]"')
