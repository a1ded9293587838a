"""Run operations of the Redis adapter in processes that kill themselves at one of their commands.

``python -m tests.support.killed_processes URL PLACE`` reads lines of JSON, ``[operation, number of
the command, "before" or "after"]``, and answers each with a line: ``killed``, or ``done`` if there
were fewer commands. The place is ``cluster``, ``control`` for a single server with a wrong
protocol, or any other word for a single server.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import redis
from redis.connection import AbstractConnection

from lucia._redis.cluster import ScriptedSteps
from lucia._rules.sessions import system_clock
from lucia.adapters.redis import RedisSessionAdapter
from tests.model.controls import SeparateIndexTtl
from tests.support.children import answer_lines
from tests.support.redis_inspectors import DEFAULT
from tests.support.sessions import row

__all__ = ["OPERATIONS"]

OPERATIONS: Final[Mapping[str, Callable[[RedisSessionAdapter, str], object]]] = {
    "create": lambda adapter, new: adapter.set_session(row(new)),
    "create within": lambda adapter, new: adapter.set_session_capped(
        row(new, created_at=system_clock()), limit=1
    ),
    "renew": lambda adapter, new: adapter.renew_session("used", row(new), grace=60_000),
    "delete": lambda adapter, _: adapter.delete_session("used"),
    "delete all": lambda adapter, _: adapter.delete_sessions_by_user_id("u1"),
    "delete others": lambda adapter, _: adapter.delete_other_sessions("u1", "kept"),
    "list": lambda adapter, _: adapter.get_sessions_by_user_id("u1"),
}
"""Operations by name; each gets the id of the session that it may create.

The user ``u1`` has the sessions ``used``, ``kept`` and ``other``.
"""


class KillSwitch:
    """Counts the commands sent on all connections, and kills this process at one of them.

    Args:
        number: the number of the command, from 1. A batch counts as one command.
        moment: ``before`` the command is sent, or ``after`` its first reply has arrived.
    """

    def __init__(self, number: int, moment: str) -> None:
        self._number = number
        self._moment = moment
        self._sent = 0

    def install(self) -> None:
        """Start counting."""
        every: Any = AbstractConnection
        send, read = every.send_packed_command, every.read_response

        def counting_send(connection: Any, *arguments: Any, **options: Any) -> Any:
            self._sent += 1
            self._die_if("before")
            return send(connection, *arguments, **options)

        def counting_read(connection: Any, *arguments: Any, **options: Any) -> Any:
            try:
                return read(connection, *arguments, **options)
            finally:
                self._die_if("after")

        every.send_packed_command = counting_send
        every.read_response = counting_read

    def _die_if(self, moment: str) -> None:
        if self._moment == moment and self._sent == self._number:
            os.kill(os.getpid(), signal.SIGKILL)


def run(case: Sequence[Any]) -> None:
    """Run an operation over new connections with a kill switch."""
    operation, number, moment = case
    url, place = sys.argv[1:]
    make: Any = redis.RedisCluster.from_url if place == "cluster" else redis.Redis.from_url
    adapter = RedisSessionAdapter(make(url, protocol=2))
    if place == "control":
        adapter._store = SeparateIndexTtl(DEFAULT, ScriptedSteps())
    adapter.get_session("nobody")
    KillSwitch(number, moment).install()
    OPERATIONS[operation](adapter, "lost")


if __name__ == "__main__":
    answer_lines(run)
