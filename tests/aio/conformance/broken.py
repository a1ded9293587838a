"""The list of broken adapters: each has one fault, which the named tests of a suite must find."""

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
    """A test of a suite, and an adapter that must fail it."""

    suite: type[Any]
    test_name: str
    adapter: type[Any]

    @property
    def name(self) -> str:
        """Return the id of the parametrized test."""
        return f"{self.suite.__name__}.{self.test_name}-{self.adapter.__name__}"


BROKEN: list[Broken] = []


def breaks(*tests: Callable[..., Any]) -> Callable[[ClassT], ClassT]:
    """Register an adapter that must fail these tests of a suite."""
    return functools.partial(_add, tests)


def _add(tests: tuple[Callable[..., Any], ...], adapter: ClassT) -> ClassT:
    for test_name in tests:
        suite, _, name = test_name.__qualname__.partition(".")
        BROKEN.append(
            Broken(next(each for each in SUITES if each.__name__ == suite), name, adapter)
        )
    return adapter
