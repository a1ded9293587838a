"""Fixtures of all tests, and the Python blocks of README.md and docs/*.md as tests.

The blocks of a document share a namespace, an event loop and an empty Redis. A block may use
``await`` at its top level.
"""

import ast
import asyncio
import inspect
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import redis
from coverage import Coverage
from hypothesis import settings
from sybil import Example, Sybil
from sybil.evaluators.python import pad
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from lucia import _logs

if TYPE_CHECKING:
    from tools.servers import Server

# Assertions in these helpers explain their failures as those of tests do.
pytest.register_assert_rewrite("tests.support", "tests.aio.support", "tests.sync.support")

pytest_plugins = [
    "tests.support.redis_servers",
    "tests.support.sql_servers",
    "tests.support.mongo_servers",
    "tests.support.suite_databases",
    "tests.support.django_databases",
]

# How long an example takes depends on the machine more than on the code.
settings.register_profile("no deadline", settings(), deadline=None)
settings.load_profile("no deadline")

SHOWN_URL = "redis://localhost:6379"
"""The URL in the documents, which is replaced by that of the test server."""

SHOWN_DATABASES = {
    "mariadb+aiomysql://app:secret@localhost/app": "mariadb",
    "postgresql+asyncpg://app:secret@localhost/app": "postgresql",
    "mongodb://localhost:27017": "secantusdb",
}
"""The URLs of databases in the documents, and the fixtures of the servers in their place."""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case with a long text by its argument.

    Such texts may hold salts or times, and all test processes must agree on the names of tests.
    """
    return argname if isinstance(val, str | bytes) and len(val) > 40 else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check that each slow test is in a file with that word, by which scripts/test finds it."""
    files = {item.path for item in items if item.get_closest_marker("slow")}
    unnamed = [str(path) for path in files if "slow" not in path.read_text(encoding="utf-8")]
    if unnamed:
        raise pytest.UsageError(f"slow tests in files without the word: {', '.join(unnamed)}")


class CoverageSwitch:
    """Leaves out of the measured coverage the tests with the marker ``no_cover``.

    Switching is slow, since Python then instruments each function anew when it is called: so it is
    done only between tests that differ.
    """

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._is_on = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Measure this test, or do not."""
        wanted = item.get_closest_marker("no_cover") is None
        if wanted and not self._is_on:
            self._coverage.start()
        elif self._is_on and not wanted:
            self._coverage.stop()
        self._is_on = wanted


def pytest_configure(config: pytest.Config) -> None:
    """Obey the marker ``no_cover`` if coverage is measured."""
    if coverage := Coverage.current():
        config.pluginmanager.register(CoverageSwitch(coverage))


@pytest.fixture(autouse=True)
def fresh_log_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the limits of log lines, so that other tests do not use up those of this test."""
    monkeypatch.setattr(_logs, "_limiter", _logs.Limiter())


@pytest.fixture(scope="module")
def document_redis_url(redis_server: "Server") -> Iterator[str]:
    """The URL of a server that was emptied for this document, also in REDIS_URL.

    SESSION_KEY is what the document's shell would make.
    """
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", redis_server.url)
        patch.setenv("SESSION_KEY", secrets.token_hex(32))
        yield redis_server.url


@pytest.fixture(scope="module")
def document_databases(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Yield the URL of an empty database for each one that the document shows."""
    text = request.path.read_text()
    with ExitStack() as stack:
        yield {
            shown: stack.enter_context(request.getfixturevalue(fixture).document_database())
            for shown, fixture in SHOWN_DATABASES.items()
            if shown in text
        }


@pytest.fixture(scope="module")
def document_runner() -> Iterator[asyncio.Runner]:
    """Return the runner of this document's event loop."""
    with asyncio.Runner() as runner:
        yield runner


def evaluate_block(example: Example) -> None:
    """Run a block that may use ``await`` outside of a function."""
    source = pad(example.parsed, example.line + example.parsed.line_offset).replace(
        SHOWN_URL, example.namespace["document_redis_url"]
    )
    for shown, url in example.namespace["document_databases"].items():
        source = source.replace(shown, url)
    example.namespace.setdefault("__name__", "__main__")  # as in a file that a reader runs
    code = compile(
        source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    outcome = eval(code, example.namespace)
    if inspect.iscoroutine(outcome):
        example.namespace["document_runner"].run(outcome)


class PythonBlockParser(PythonCodeBlockParser):
    """Finds ```` ```python ```` blocks; those that start with ``>>>`` are doctests."""

    def __init__(self) -> None:
        super().__init__()
        self.codeblock_parser = CodeBlockParser("python", evaluate_block)


pytest_collect_file = Sybil(
    parsers=[PythonBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    fixtures=["document_redis_url", "document_databases", "document_runner"],
).pytest()
