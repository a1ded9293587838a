"""The suites are tested themselves: for each law there is an adapter with one fault that the law finds."""

import pytest

from lucia.adapters.memory import AsyncMemoryAdapter
from tests.aio.conformance import broken_renewing, broken_sessions, broken_users  # noqa: F401 -- they fill the list
from tests.aio.conformance.broken import BROKEN, SUITES, Broken

LAWS = [(suite, law) for suite in SUITES for law in vars(suite) if law.startswith("test_")]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
async def test_broken(broken: Broken) -> None:
    """The law finds the fault, without pytest's help."""
    with pytest.raises(AssertionError):
        await getattr(broken.suite(), broken.law)(broken.adapter())


@pytest.mark.parametrize(("suite", "law"), LAWS)
async def test_sound(suite: type[object], law: str) -> None:
    """Called in the same way, the law is content with the adapter that the broken ones are made of."""
    await getattr(suite(), law)(AsyncMemoryAdapter())


def test_every_law_can_fail() -> None:
    """No law is without an adapter that breaks it."""
    assert sorted({(broken.suite.__name__, broken.law) for broken in BROKEN}) == sorted(
        (suite.__name__, law) for suite, law in LAWS
    )


@pytest.mark.parametrize(("suite", "law"), LAWS)
def test_every_law_is_stated(suite: type[object], law: str) -> None:
    """Each law's docstring is one sentence or two."""
    text = getattr(suite, law).__doc__
    assert text.endswith(".")
    assert "\n" not in text
