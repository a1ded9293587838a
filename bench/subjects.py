"""The measured processes, and how they are called."""

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
    """A library to measure, on an event loop or in threads.

    Args:
        name: the name in the report.
        library: the module in ``bench.peers``; for Node, in ``bench/peers/node``.
        loop: the event loop; ``threads`` for a sync library.
        settings: the arguments of the module's ``open_peer`` besides the URL.
        program: the worker module that the process runs.
    """

    name: str
    library: str
    loop: Literal["asyncio", "uvloop", "threads", "Node"]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    program: Literal[
        "worker", "sync_worker", "login_worker", "web_worker", "lag_worker", "list_worker"
    ] = "worker"

    def command(self, url: str) -> list[str]:
        """Return the command that starts the process."""
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
    """A subject that runs in a process of its own and has passed its check."""

    def __init__(self, subject: Subject, process: "subprocess.Popen[str]") -> None:
        self.subject = subject
        self._process = process
        self.can_be_stocked = True
        """Whether copies of sessions can be stored; see :mod:`bench.stock`. True until it fails."""
        self.operations = frozenset[str](self.ask("check"))

    def ask(self, method: str, *arguments: object) -> Any:
        """Call a method of the worker, and return its result.

        Raises:
            RuntimeError: the method failed.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process has ended"}
        if "error" in answer:
            raise RuntimeError(
                f"{self.subject.name} on {self.subject.loop}: {method} failed: {answer['error']}"
            )
        return answer["result"]

    def rate(self, operation: str, callers: int, count: int) -> float:
        """Run an operation, and return the calls per second."""
        seconds: float = self.ask("run", operation, callers, count)
        return count / seconds


@contextmanager
def started(url: str, *subjects: Subject) -> Generator[list[Running]]:
    """Start subjects that use the server at this URL, and check them."""
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
