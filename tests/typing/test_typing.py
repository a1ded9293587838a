"""The types that an application sees, checked by mypy and pyright.

The files of tests/typing have what must be accepted, with ``assert_type``, and what must be
refused, with both checkers' ignore comments and the error's code. An ignore comment that hides no
error is itself an error.
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
    """Return the checker's exit status and its output for these files."""
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
    """Every file of tests/typing passes."""
    files = sorted(ROOT.glob("tests/typing/*.py"))
    assert files
    status, output = check(checker, *files)
    assert status == 0, output


@pytest.mark.parametrize("checker", CHECKERS)
def test_checkers(checker: str, tmp_path: Path) -> None:
    """Control: a wrong type, an unused ignore comment and a wrong ``assert_type`` are errors."""
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    status, output = check(checker, file)
    assert status == 1
    assert [line for line in (4, 5, 6) if f"broken.py:{line}" not in output] == []
