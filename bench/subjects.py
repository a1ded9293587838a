"""The processes that are measured, and how they are asked."""

import json
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tools.node import install, node

__all__ = ["Running", "Subject", "started"]

ROOT: Final = Path(__file__).parent.parent
NODE: Final = Path(__file__).parent / "peers" / "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A library on an event loop, or in threads, that is measured.

    Args:
        name: as the report has it.
        library: the module in ``bench.peers``; for Node the one in ``bench/peers/node``.
        loop: what runs it; ``threads`` for a sync library.
        settings: what the module's ``open_peer`` takes beside the URL.
        program: what it is asked for: the module that answers.
    """

    name: str
    library: str
    loop: Literal["asyncio", "uvloop", "threads", "Node"]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    program: Literal[
        "worker", "sync_worker", "login_worker", "web_worker", "lag_worker", "list_worker"
    ] = "worker"

    def command(self, url: str) -> list[str]:
        """Return the command that starts it."""
        if self.loop == "Node":
            return [*node(), "--expose-gc", str(NODE / f"{self.library}.mjs"), url]
        return [
            sys.executable,
            "-m",
            f"bench.{self.program}",
            self.library,
            self.loop,
            url,
            json.dumps(dict(self.settings)),
        ]


class Running:
    """A subject in a process of its own, which was checked to do what it is measured at."""

    def __init__(self, subject: Subject, process: "subprocess.Popen[str]") -> None:
        self.subject = subject
        self._process = process
        self.can_be_stocked = True
        """Whether sessions can be stored as copies, as far as is known; see :mod:`bench.stock`."""
        self.operations = frozenset[str](self.ask("check"))

    def ask(self, method: str, *arguments: object) -> Any:
        """Call a method, and wait for its answer.

        Raises:
            RuntimeError: it failed.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
        if "error" in answer:
            raise RuntimeError(
                f"{self.subject.name} on {self.subject.loop} failed to {method}: {answer['error']}"
            )
        return answer["result"]

    def rate(self, operation: str, callers: int, count: int) -> float:
        """How many calls a second it does."""
        seconds: float = self.ask("run", operation, callers, count)
        return count / seconds


@contextmanager
def started(url: str, *subjects: Subject) -> Generator[list[Running]]:
    """Start subjects on the server at this URL, and check them."""
    if any(subject.loop == "Node" for subject in subjects):
        install(NODE)
    with ExitStack() as stack:
        processes = [stack.enter_context(_process(subject.command(url))) for subject in subjects]
        yield [
            Running(subject, process) for subject, process in zip(subjects, processes, strict=True)
        ]


@contextmanager
def _process(command: list[str]) -> Generator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
