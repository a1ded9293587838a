"""The types that an application sees, under both type checkers.

The files of tests/typing hold them: what must be accepted stands there as it is, with ``assert_type``; what must be refused carries both
checkers' ignore comments with the error's code, and an ignore comment that hides no error is an error itself.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--no-incremental"],
    "pyright": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable],
}

BROKEN = """
from typing import assert_type

text: int = "text"
number: int = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
assert_type(number, str)
"""


def check(checker: str, *paths: Path) -> tuple[int, str]:
    """The checker's exit status and what it says of these files."""
    done = subprocess.run(
        [*CHECKERS[checker], *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_types(checker: str) -> None:
    """Every file of tests/typing is accepted."""
    files = sorted(ROOT.glob("tests/typing/*.py"))
    assert files
    status, output = check(checker, *files)
    assert status == 0, output


@pytest.mark.parametrize("checker", CHECKERS)
def test_checkers(checker: str, tmp_path: Path) -> None:
    """A wrong type, a comment that hides no error and a wrong ``assert_type`` are each refused: the test above can fail."""
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    status, output = check(checker, file)
    assert status == 1
    assert [line for line in (4, 5, 6) if f"broken.py:{line}" not in output] == []
