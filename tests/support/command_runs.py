"""Run the command ``lucia`` as a user does."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from typer.testing import CliRunner

from lucia.cli import app

__all__ = ["Outcome", "finish", "lucia", "start"]


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of a run of the command."""

    code: int
    out: str
    errors: str

    @property
    def report(self) -> dict[str, Any]:
        """The output, parsed from JSON."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    def counts(self, column: str = "found") -> dict[str, int]:
        """Return the doctor's counts that are not 0."""
        return {
            kind: count[column] for kind, count in self.report["findings"].items() if count[column]
        }

    def handles(self, member: str = "sessions") -> list[str]:
        """Return the handles of the sessions in a member of the report."""
        return [session["handle"] for session in self.report[member]]


def lucia(*arguments: object, **variables: str) -> Outcome:
    """Run the command in this process, with these environment variables."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], env=variables)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def start(
    *arguments: object, cwd: Path | None = None, variables: Mapping[str, str] | None = None
) -> "Popen[str]":
    """Start the command in a process of its own."""
    program = [sys.executable, "-c", "from lucia.cli import main; main()"]
    return Popen(
        [*program, *map(str, arguments)],
        stdout=PIPE,
        stderr=PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | dict(variables or {}),
    )


def finish(process: "Popen[str]") -> Outcome:
    """Return the exit code and the output of a process, once it ends."""
    out, errors = process.communicate(timeout=60)
    return Outcome(process.returncode, out, errors)
