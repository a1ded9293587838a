"""Errors of SQL databases: which are retried, and which values are hidden in their texts.

The adapters for SQLAlchemy and for Django's ORM share these rules.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

__all__ = ["MAX_ATTEMPTS", "hide_values", "is_rollback", "retry_pause"]

MAX_ATTEMPTS: Final = 10
"""How often a transaction is begun before the database's error is raised."""

_LONGEST_PAUSE: Final = 0.1
"""Seconds."""

_ROLLED_BACK: Final = (1213, 1020, "40P01", "40001")
"""The codes by which a database says that it rolled a transaction back, which may then be repeated.

MySQL and MariaDB: a deadlock; "Record has changed since last read", which is MariaDB's answer where
``innodb_snapshot_isolation`` is on.
PostgreSQL: ``deadlock_detected``, ``serialization_failure``, which is the standard's code.

Not among them: MySQL's 1205, whose wait has lasted for the 50 seconds that the operator allows, and
a lost connection, after which nobody knows whether the transaction was committed.
"""

_HIDDEN: Final = "[hidden]"
_SHORTEST_HIDDEN: Final = 8
"""Shorter values stay in an error's text: they are no secrets, and without them it is garbled."""
_LONGEST_QUOTED: Final = 40
"""Some databases quote only the beginning of a long value, so that is hidden too."""
_QUOTED_ROW: Final = re.compile(r"(?s)(?<=Failing row contains \().*")
"""PostgreSQL quotes the whole row, also values that the statement does not have."""


def is_rollback(error: BaseException | None) -> bool:
    """Return whether a driver's error says that another transaction had this one rolled back."""
    # Drivers give the code as sqlstate (asyncpg, psycopg), pgcode (psycopg2) or errno (MySQL's and
    # MariaDB's own), or as the first argument (PyMySQL, aiomysql, asyncmy, mysqlclient).
    codes = [getattr(error, name, None) for name in ("sqlstate", "pgcode", "errno")]
    return any(code in _ROLLED_BACK for code in (*codes, *getattr(error, "args", ())[:1]))


def retry_pause(attempt: int) -> float:
    """Return for how many seconds to wait after an attempt, the first being 1.

    The time is random, so that two transactions that were in conflict once are not again.
    """
    return random.uniform(0, min(_LONGEST_PAUSE, 0.005 * 2**attempt))  # noqa: S311  no secret


def hide_values(error: BaseException, values: object) -> None:
    """Remove a statement's values (ids, hashes, attributes) from the texts of an error's chain.

    Also the rows that PostgreSQL quotes.

    Args:
        error: the error; its causes are changed too.
        values: a text, or a collection of values, however nested.
    """
    # The longest first: once a shorter text that is part of it is replaced, a longer one is not
    # found.
    secrets = sorted(_quotable(values), key=len, reverse=True)
    for link in _chain(error):
        link.args = tuple(_without(secrets, value) for value in link.args)
        # Drivers keep texts in attributes too, as asyncpg does in detail.
        vars(link).update(
            {
                name: _without(secrets, value)
                for name, value in vars(link).items()
                if isinstance(value, str)
            }
        )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _quotable(value: object) -> set[str]:
    """Return the texts in a statement's parameters, and the beginnings of long ones.

    A database may quote either; numbers, UUIDs and dates it quotes as Python writes them.
    """
    if isinstance(value, Mapping):
        return _quotable(tuple(cast(Mapping[object, object], value).values()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return set[str]().union(*map(_quotable, cast(Sequence[object], value)))
    text = value.hex() if isinstance(value, bytes) else str(value)
    return {text for text in (text, text[:_LONGEST_QUOTED]) if len(text) >= _SHORTEST_HIDDEN}


def _without(secrets: Iterable[str], value: Any) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _HIDDEN)
        return _QUOTED_ROW.sub(f"{_HIDDEN})", value)
    return value
