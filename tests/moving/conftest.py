"""Run the tests of the command in a temporary folder: it writes a state file."""

from pathlib import Path

import pytest

from tests.moving.places import places

__all__ = ["elsewhere", "places"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
