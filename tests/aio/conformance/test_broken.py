"""The suites are tested themselves: each of their tests fails for an adapter with one fault."""

import pytest

from lucia.adapters.memory import AsyncMemoryAdapter
from tests.aio.conformance import (  # noqa: F401 -- they fill the list
    broken_renewing,
    broken_sessions,
    broken_users,
)
from tests.aio.conformance.broken import BROKEN, SUITES, Broken

SUITE_TESTS = [
    (suite, test_name)
    for suite in SUITES
    for test_name in vars(suite)
    if test_name.startswith("test_")
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
async def test_suite_test_fails_for_broken_adapter(broken: Broken) -> None:
    """The suite's test fails for the broken adapter, without pytest's help."""
    with pytest.raises(AssertionError):
        await getattr(broken.suite(), broken.test_name)(broken.adapter())


@pytest.mark.parametrize(("suite", "test_name"), SUITE_TESTS)
async def test_suite_test_passes_for_memory_adapter(suite: type[object], test_name: str) -> None:
    """Called in the same way, each test passes for the adapter that the broken ones derive from."""
    await getattr(suite(), test_name)(AsyncMemoryAdapter())


def test_each_suite_test_has_a_broken_adapter() -> None:
    """Each test of a suite has an adapter that fails it."""
    assert sorted({(broken.suite.__name__, broken.test_name) for broken in BROKEN}) == sorted(
        (suite.__name__, test_name) for suite, test_name in SUITE_TESTS
    )


@pytest.mark.parametrize(("suite", "test_name"), SUITE_TESTS)
def test_each_suite_test_has_a_one_line_docstring(suite: type[object], test_name: str) -> None:
    """Each test of a suite has a docstring of one line, which ends with a full stop."""
    text = getattr(suite, test_name).__doc__
    assert text.endswith(".")
    assert "\n" not in text
