"""A JavaScript service in a process of its own, which the tests call."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any, Literal

from tools import node

FOLDER = Path(__file__).parent

Kind = Literal["original", "documented"]


def install() -> None:
    """Install the npm packages of the services."""
    node.install(FOLDER)


class ServiceError(Exception):
    """An error raised by the service."""


class Service:
    """A client of the service: each call is a line of JSON, and so is its answer."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def send(self, method: str, *parameters: Any) -> None:
        """Call a method, without waiting for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, *parameters]) + "\n")
        self._process.stdin.flush()

    def has_answered(self) -> bool:
        """Return whether an answer can be read.

        Only valid if all earlier answers were received.
        """
        assert self._process.stdout is not None
        return bool(select([self._process.stdout], [], [], 0)[0])

    def receive(self) -> Any:
        """Return the next answer.

        Raises:
            ServiceError: the service raised an error.
        """
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise ServiceError(answer["error"])
        return answer["result"]

    def call(self, method: str, *parameters: Any) -> Any:
        """Call a method, and wait for its answer."""
        self.send(method, *parameters)
        return self.receive()


@contextmanager
def running(kind: Kind, url: str, active_ms: int) -> Iterator[Service]:
    """Run a service whose sessions are active for this time, and then idle for an hour."""
    command = [*node.node(), str(FOLDER / "service.mjs"), kind, url, str(active_ms)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield Service(process)
