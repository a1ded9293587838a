"""The suites are tested themselves: each of their tests fails for an adapter with one fault."""

import pytest

from lucia.adapters.memory import AsyncMemoryAdapter
from tests.aio.conformance import (  # noqa: F401 -- they fill the list
    broken_renewing,
    broken_sessions,
    broken_users,
)
from tests.aio.conformance.broken import BROKEN, SUITES, Broken

LAWS = [(suite, law) for suite in SUITES for law in vars(suite) if law.startswith("test_")]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
async def test_broken(broken: Broken) -> None:
    """The suite's test fails for the broken adapter, without pytest's help."""
    with pytest.raises(AssertionError):
        await getattr(broken.suite(), broken.law)(broken.adapter())


@pytest.mark.parametrize(("suite", "law"), LAWS)
async def test_sound(suite: type[object], law: str) -> None:
    """Called in the same way, each test passes for the adapter that the broken ones derive from."""
    await getattr(suite(), law)(AsyncMemoryAdapter())


def test_every_law_can_fail() -> None:
    """Each test of a suite has an adapter that fails it."""
    assert sorted({(broken.suite.__name__, broken.law) for broken in BROKEN}) == sorted(
        (suite.__name__, law) for suite, law in LAWS
    )


@pytest.mark.parametrize(("suite", "law"), LAWS)
def test_every_law_is_stated(suite: type[object], law: str) -> None:
    """Each test of a suite has a docstring of one line, which ends with a full stop."""
    text = getattr(suite, law).__doc__
    assert text.endswith(".")
    assert "\n" not in text
