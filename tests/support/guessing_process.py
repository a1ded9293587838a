"""Guess at a single-use key in a process of its own.

``python -m tests.support.guessing_process URL GUESSES`` connects to the database, writes a line,
waits for one, makes so many wrong guesses at the key ``code:alice`` in four threads, and writes how
many of them were verified against the key's hash.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from sqlalchemy import MetaData, create_engine

from lucia import Auth, InvalidCredentials, Throttle
from lucia.adapters.sqlalchemy import AuthTables, SQLAlchemyAdapter
from tests.support.passwords import ROOMY, CountingHash

__all__ = ["CODE", "THROTTLE"]

CODE: Final = ("code", "alice")
THREADS: Final = 4
THROTTLE: Final = Throttle(by_key=None, by_address=None)
"""The limit on single-use keys alone: five wrong passwords."""


def main(url: str, guesses: int) -> None:
    """Guess, and print how many guesses were verified."""
    options = {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {}
    engine = create_engine(url, **options)
    adapter = SQLAlchemyAdapter(engine, AuthTables(MetaData(), sessions=True))
    hasher = CountingHash()
    auth = Auth(
        users=adapter,
        sessions=adapter,
        env="DEV",
        hash=hasher,
        password_pool=ROOMY,
        throttle=THROTTLE,
    )
    row = adapter.get_key(":".join(CODE))
    assert row is not None

    def guess(number: int) -> None:
        with suppress(InvalidCredentials):
            auth.use_key(*CODE, f"wrong {number}")

    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(guess, range(guesses)))
    print(hasher.verified.count(str(row.hashed_password)), flush=True)  # noqa: T201
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
