"""Sample ids and checks for the conformance suites, sync and async.

The checks raise ``AssertionError`` themselves. So they work under ``python -O``, and their messages
do not depend on a test runner that rewrites assertions.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Final, TypeVar, cast

from lucia.errors import LuciaError
from lucia.models import KeyRow, SessionRow

Row = TypeVar("Row", SessionRow, KeyRow)

CONCURRENT_CALLS: Final = 8
"""How many calls a test of concurrent calls makes."""

ROUNDS: Final = 5
"""How often a test of overlapping calls is repeated: their order is left to chance."""

ODD_TEXTS: Final = (
    "a:b::c:",
    ":",
    "{a}b{}",
    "with spaces  and\ttab",
    " ",
    'it\'s "quoted" `and` \\escaped\\ ;--',
    "100%_off%s%(x)s*?[a-z]",
    "line\nfeed\r\n",
    "Zoë Ωmega 漢字 🦊 👩\u200d👧",
    "\u202eright-to-left",
    "../../etc/passwd",
    "null",
    "0",
)
"""Ids that break careless stores: separators, wildcards, quotes, white space, wide characters."""

SIMILAR_IDS: Final = (
    "id",
    "ID",
    "id ",
    " id",
    "id:",
    "id:id",
    "i",
    "id%",
    "i_",
    "id\n",
    "id\u00e9",
    "ide\u0301",
    "id1",
    "1",
    "01",
    "1.0",
)
"""Different ids that a store may confuse.

They differ in case, white space, a prefix, a wildcard, Unicode normalisation, or as numbers do not.
"""

STORED_ID: Final = "user-josé"
"""An id. MariaDB takes each of the spellings below for it, by default."""

OTHER_SPELLINGS: Final = (
    "User-josé",
    "USER-JOSÉ",
    "user-jose",
    "user-jose\u0301",
    "user-josé ",
    "user-josé\u200b",
    "user-jos\uff45\u0301",
)


def equal(found: object, expected: object, what: str) -> None:
    """Check that two values are equal; ``what`` names the value in the message."""
    if found != expected:
        raise AssertionError(f"{what}: expected {show(expected)}, got {show(found)}")


def same_rows(found: Iterable[Row], expected: Iterable[Row], what: str) -> None:
    """Check that two sequences have the same rows, in any order."""
    equal(sorted(found, key=_by_id), sorted(expected, key=_by_id), what)


def one_of(found: object, expected: Sequence[object], what: str) -> None:
    """Check that a value is one of several."""
    if found not in expected:
        raise AssertionError(
            f"{what}: expected {' or '.join(map(show, expected))}, got {show(found)}"
        )


@contextmanager
def no_error(what: str) -> Generator[None]:
    """Check that the block raises nothing."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{what} must raise no error, but it raised {error!r}") from error


@contextmanager
def refused(kind: type[Exception], what: str) -> Generator[None]:
    """Check that the block raises an error of this class."""
    try:
        yield
    except kind:
        return
    except Exception as error:
        raise AssertionError(
            f"{what} must raise {kind.__name__}, but it raised {error!r}"
        ) from error
    raise AssertionError(f"{what} must raise {kind.__name__}, but it raised nothing")


def one_winner(outcomes: Sequence[object], loss: Callable[[object], bool], what: str) -> int:
    """Check that exactly one of concurrent calls succeeded, and return its position."""
    winners = [place for place, outcome in enumerate(outcomes) if not loss(outcome)]
    if len(winners) != 1:
        raise AssertionError(
            f"{what}: exactly one of {len(outcomes)} concurrent calls must succeed, "
            f"but {len(winners)} did"
        )
    return winners[0]


def is_error(kind: type[LuciaError]) -> Callable[[object], bool]:
    """Return a function that says whether an outcome is an error of this class."""
    return lambda outcome: isinstance(outcome, kind)


def show(value: object) -> str:
    """Format a value for a message.

    Members that a ``repr`` leaves out are shown too: the ids and hashes of a suite are no secrets.
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show, cast(Iterable[object], value)))}]"
    if is_dataclass(value) and not isinstance(value, type):
        return _shortened(f"{type(value).__name__}({asdict(value)})")
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= 500 else f"{text[:400]}… ({len(text)} characters)"


def _by_id(row: SessionRow | KeyRow) -> str:
    return row.id
