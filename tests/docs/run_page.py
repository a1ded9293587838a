"""Follow a page as a reader does: ``python run_page.py PAGE``, in a new environment.

What the page installs is installed first. Then its Python blocks run one after another in one
namespace. This script needs only the standard library. Environment variables:
``LUCIA_WHEEL`` is installed instead of ``lucia-auth``, and ``REDIS_URL`` is the server. In place of
a database that a page shows, it uses ``DATABASE_URL``.
"""

import ast
import asyncio
import doctest
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

SHOWN_URL = "redis://localhost:6379"
SHOWN_DATABASE = re.compile(
    r"(mariadb|postgresql)\+\w+://app:secret@localhost/app|mongodb://localhost:27017"
)

BLOCK = re.compile(r"(?ms)^```(bash|python)\n(.*?)^```$")
PACKAGE = re.compile(r"\blucia-auth(?=[\[\s\"']|$)")


def main(page: Path) -> None:
    """Run all blocks of the page."""
    text = page.read_text(encoding="utf-8").replace(SHOWN_URL, os.environ["REDIS_URL"])
    text = SHOWN_DATABASE.sub(lambda _: os.environ["DATABASE_URL"], text)
    blocks = list(BLOCK.finditer(text))
    for language, source in (block.groups() for block in blocks):
        if language == "bash":
            _run_commands(source)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in blocks:
            language, source = block.groups()
            line = text.count("\n", 0, block.start()) + 1
            if language == "python" and source.startswith(">>>"):
                _run_doctest(source, namespace, page.name, line)
            elif language == "python":
                _run_python("\n" * line + source, namespace, page.name, runner)


def _run_commands(commands: str) -> None:
    """Run a block that begins with an installation, and skip other commands."""
    if commands.startswith("pip install "):
        commands = PACKAGE.sub(lambda _: os.environ["LUCIA_WHEEL"], commands)
        subprocess.run(["bash", "-euc", commands], check=True)


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
