"""Run operations of the MongoDB adapter in processes that kill themselves at one command.

``python -m tests.support.mongo_kills URL DATABASE`` reads lines of JSON, ``[operation, number of
the command, "before" or "after"]``, and answers each with a line: ``killed``, or ``done`` if there
were fewer commands.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pymongo import MongoClient
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from lucia.adapters.mongodb import MongoUserAdapter
from lucia.models import KeyRow
from tests.support.children import answer_lines

__all__ = ["KEY", "OPERATIONS", "prepare"]

KEY: Final = KeyRow(
    id="github:1", user_id="owner", hashed_password=None, primary_key=False, expires=None
)
"""The key that operations store."""

OPERATIONS: Final[Mapping[str, Callable[[MongoUserAdapter], object]]] = {
    "sign up": lambda adapter: adapter.set_user(
        "new", {}, replace(KEY, user_id="new", primary_key=True)
    ),
    "set key": lambda adapter: adapter.set_key(replace(KEY, user_id="anna")),
    "delete user": lambda adapter: adapter.delete_user("anna"),
    "change password": lambda adapter: adapter.update_key_password("email:anna", "new"),
}
"""Operations by name. The user ``anna`` has the key ``email:anna``."""


def prepare(adapter: MongoUserAdapter) -> None:
    """Store the user that the operations expect, on an empty server."""
    key = replace(KEY, id="email:anna", user_id="anna", hashed_password="old", primary_key=True)
    adapter.set_user("anna", {}, key)


class KillSwitch(CommandListener):
    """Counts the commands of a client, and kills this process before or after one of them."""

    def __init__(self, number: int, moment: str) -> None:
        self._number = number
        self._moment = moment
        self._sent = 0

    def started(self, event: CommandStartedEvent) -> None:
        self._sent += 1
        self._die_if("before")

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self._die_if("after")

    def failed(self, event: CommandFailedEvent) -> None:
        self._die_if("after")

    def _die_if(self, moment: str) -> None:
        if self._moment == moment and self._sent == self._number:
            os.kill(os.getpid(), signal.SIGKILL)


def run(case: Sequence[Any]) -> None:
    """Run one operation over a new client with a kill switch."""
    operation, number, moment = case
    url, database = sys.argv[1:]
    with MongoClient[Any](url, event_listeners=[KillSwitch(number, moment)]) as client:
        OPERATIONS[operation](MongoUserAdapter(client[database]))


if __name__ == "__main__":
    answer_lines(run)
