"""Run the Python blocks of a page as a reader does: ``python run_page.py PAGE``.

They run one after another in one namespace. This script needs only the standard library, since it
runs in a new environment. The environment variable ``REDIS_URL`` is the server. In place of a
database that the page shows, it uses ``DATABASE_URL``.
"""

import ast
import asyncio
import doctest
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any

SHOWN_URL = "redis://localhost:6379"
SHOWN_DATABASE = re.compile(
    r"(mariadb|postgresql)\+\w+://app:secret@localhost/app|mongodb://localhost:27017"
)

BLOCK = re.compile(r"(?ms)^```(bash|python)\n(.*?)^```$")


def main(page: Path) -> None:
    """Run all Python blocks of the page."""
    text = page.read_text(encoding="utf-8").replace(SHOWN_URL, os.environ["REDIS_URL"])
    text = SHOWN_DATABASE.sub(lambda _: os.environ["DATABASE_URL"], text)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in BLOCK.finditer(text):
            language, source = block.groups()
            line = text.count("\n", 0, block.start()) + 1
            if language == "python" and source.startswith(">>>"):
                _run_doctest(source, namespace, page.name, line)
            elif language == "python":
                _run_python("\n" * line + source, namespace, page.name, runner)


def _run_doctest(source: str, namespace: dict[str, Any], name: str, line: int) -> None:
    test = doctest.DocTestParser().get_doctest(source, namespace, name, name, line)
    results = doctest.DocTestRunner().run(test, clear_globs=False)
    namespace.update(test.globs)
    if results.failed:
        raise SystemExit(1)


def _run_python(source: str, namespace: dict[str, Any], name: str, runner: asyncio.Runner) -> None:
    """Run a block that may have ``await`` outside of a function, as IPython does."""
    code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    outcome = eval(code, namespace)  # noqa: S307  (the code is the project's own pages)
    if inspect.iscoroutine(outcome):
        runner.run(outcome)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
