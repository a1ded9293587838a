"""Cheap password hashers, and a pool for many concurrent logins."""

from lucia import PasswordPool, ScryptHash

__all__ = ["CHEAP", "OUTDATED", "ROOMY", "CountingHash"]

CHEAP = ScryptHash(ln=4, r=1, p=1)

OUTDATED = ScryptHash(ln=3, r=1, p=1)
"""A hasher whose hashes a log-in with the other one replaces."""

ROOMY = PasswordPool(workers=2, queue=64)
"""A pool with room for as many concurrent logins as the tests make."""


class CountingHash:
    """A cheap hasher that records the hashes it verified and made."""

    def __init__(self) -> None:
        self.verified: list[str] = []
        self.made: list[str] = []

    def hash(self, password: str, /) -> str:
        """Return the hash to store."""
        hashed = CHEAP.hash(password)
        self.made.append(hashed)
        return hashed

    def verify(self, password: str, hashed: str, /) -> bool:
        """Return whether the hash belongs to this password."""
        self.verified.append(hashed)
        return CHEAP.verify(password, hashed)

    def needs_rehash(self, hashed: str, /) -> bool:
        """Return whether the hash has another cost."""
        return CHEAP.needs_rehash(hashed)
