"""The list of broken adapters, each with one fault, and the laws that must find it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from lucia.testing import (
    AsyncRenewingSessionAdapterSuite,
    AsyncSessionAdapterSuite,
    AsyncSessionUserAdapterSuite,
    AsyncUserAdapterSuite,
)

ClassT = TypeVar("ClassT", bound=type[Any])

SUITES = (
    AsyncSessionAdapterSuite,
    AsyncRenewingSessionAdapterSuite,
    AsyncUserAdapterSuite,
    AsyncSessionUserAdapterSuite,
)


class Broken(NamedTuple):
    """A law, and an adapter that breaks it."""

    suite: type[Any]
    law: str
    adapter: type[Any]

    @property
    def name(self) -> str:
        """For the test's name."""
        return f"{self.suite.__name__}.{self.law}-{self.adapter.__name__}"


BROKEN: list[Broken] = []


def breaks(*laws: Callable[..., Any]) -> Callable[[ClassT], ClassT]:
    """Put an adapter on the list."""
    return functools.partial(_add, laws)


def _add(laws: tuple[Callable[..., Any], ...], adapter: ClassT) -> ClassT:
    for law in laws:
        suite, _, name = law.__qualname__.partition(".")
        BROKEN.append(
            Broken(next(each for each in SUITES if each.__name__ == suite), name, adapter)
        )
    return adapter
