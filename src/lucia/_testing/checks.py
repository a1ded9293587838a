"""What the conformance suites of both flavours share without waiting: sample ids, and checks whose messages help an adapter's author.

The checks raise ``AssertionError`` themselves, so that they hold under ``python -O`` and need no test runner to explain them.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Final, TypeVar, cast

from lucia.errors import LuciaError
from lucia.models import KeyRow, SessionRow

Row = TypeVar("Row", SessionRow, KeyRow)

AT_ONCE: Final = 8
"""How many callers a law about concurrent calls sends."""

ROUNDS: Final = 5
"""How often a law about overlapping calls is tried, since an interleaving is a matter of luck."""

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
"""Ids that a store may stumble over: separators, wildcards, quotes, white space, and letters of several bytes."""

ALIKE: Final = (
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
"""Ids that are different though a store may take them for each other: by case, trimming, prefix, wildcard, normalisation or number."""

SPELT: Final = "user-josé"
"""An id, and below what a database may take for it: MariaDB does so with each of these by default."""

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
    """``what`` was found as expected."""
    if found != expected:
        raise AssertionError(f"{what}: expected {show(expected)}, got {show(found)}")


def same_rows(found: Iterable[Row], expected: Iterable[Row], what: str) -> None:
    """The same rows, each once, in any order."""
    equal(sorted(found, key=_by_id), sorted(expected, key=_by_id), what)


def one_of(found: object, expected: Sequence[object], what: str) -> None:
    """One of several answers that are all right."""
    if found not in expected:
        raise AssertionError(
            f"{what}: expected {' or '.join(map(show, expected))}, got {show(found)}"
        )


@contextmanager
def no_error(what: str) -> Generator[None]:
    """What is done within raises nothing."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{what} must be no error, but it raised {error!r}") from error


@contextmanager
def refused(kind: type[Exception], what: str) -> Generator[None]:
    """What is done within raises an error of this kind."""
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
    """The place of the one call that won; all others lost."""
    winners = [place for place, outcome in enumerate(outcomes) if not loss(outcome)]
    if len(winners) != 1:
        raise AssertionError(
            f"{what}: of {len(outcomes)} calls at once exactly one must win, but {len(winners)} did"
        )
    return winners[0]


def is_error(kind: type[LuciaError]) -> Callable[[object], bool]:
    """Tells an error of this kind from other outcomes."""
    return lambda outcome: isinstance(outcome, kind)


def show(value: object) -> str:
    """A value for a message, with the members that its ``repr`` keeps out: suites hold no secrets."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show, cast(Iterable[object], value)))}]"
    if is_dataclass(value) and not isinstance(value, type):
        return _shortened(f"{type(value).__name__}({asdict(value)})")
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= 500 else f"{text[:400]}… ({len(text)} characters)"


def _by_id(row: SessionRow | KeyRow) -> str:
    return row.id
