"""Cheap password hashers, and a pool for as many log-ins as tests make at once."""

from lucia import PasswordPool, ScryptHash

__all__ = ["CHEAP", "ROOMY", "CountingHash"]

CHEAP = ScryptHash(ln=4, r=1, p=1)

ROOMY = PasswordPool(workers=2, queue=64)
"""Takes as many log-ins at once as the tests make, in both flavours."""


class CountingHash:
    """A cheap hasher that writes down which hashes were verified, and how many were made."""

    def __init__(self) -> None:
        self.verified: list[str] = []
        self.made: list[str] = []

    def hash(self, password: str, /) -> str:
        """The hash to store."""
        hashed = CHEAP.hash(password)
        self.made.append(hashed)
        return hashed

    def verify(self, password: str, hashed: str, /) -> bool:
        """Whether it is this password's."""
        self.verified.append(hashed)
        return CHEAP.verify(password, hashed)

    def needs_rehash(self, hashed: str, /) -> bool:
        """Whether it is of another cost."""
        return CHEAP.needs_rehash(hashed)
