"""Cheap password hashers, and a pool for as many log-ins as tests make at once."""

from lucia import PasswordPool, ScryptHash

__all__ = ["CHEAP", "ROOMY", "CountingHash"]

CHEAP = ScryptHash(ln=4, r=1, p=1)

ROOMY = PasswordPool(workers=2, queue=64)
"""Takes as many concurrent log-ins as the tests make."""


class CountingHash:
    """A cheap hasher that records which hashes it verified and made."""

    def __init__(self) -> None:
        self.verified: list[str] = []
        self.made: list[str] = []

    def hash(self, password: str, /) -> str:
        """Return the hash to store."""
        hashed = CHEAP.hash(password)
        self.made.append(hashed)
        return hashed

    def verify(self, password: str, hashed: str, /) -> bool:
        """Return whether a hash belongs to this password."""
        self.verified.append(hashed)
        return CHEAP.verify(password, hashed)

    def needs_rehash(self, hashed: str, /) -> bool:
        """Return whether a hash has another cost."""
        return CHEAP.needs_rehash(hashed)
