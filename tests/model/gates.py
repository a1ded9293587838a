"""Clients of the model's server whose every command waits at a gate that a scheduler opens.

They are the only false Redis in the tests: ``test_twin.py`` holds the server behind them to real
ones.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final

from redis.exceptions import NoPermissionError, NoScriptError

from lucia._redis import scripts
from lucia._redis.commands import Call, Eval, Reply, Transaction
from lucia._redis.index import LIST, SET
from lucia._redis.scripts import IndexScripts, Script
from tests.model.server import Database, State
from tests.model.world import Frozen, Part, freeze

_SHIPPED: Final[tuple[Script, ...]] = (
    *(found for found in vars(scripts).values() if isinstance(found, Script)),
    *(getattr(index.scripts, each.name) for index in (LIST, SET) for each in fields(IndexScripts)),
)

_SCRIPTS: Final = {
    name: script for script in _SHIPPED for name in (script.sha.encode(), script.text.encode())
}
"""By what EVALSHA and EVAL are sent."""


@dataclass(eq=False)
class Request:
    """A command of one process, at its gate until the scheduler opens it.

    Args:
        part: what the model's server executes; None if the server refuses it.
        error: with which it is refused.
    """

    part: Part | None
    error: Exception | None = None
    reply: "asyncio.Future[Reply]" = field(default_factory=asyncio.Future)


class Gate:
    """Where one process's command waits, and what it has been answered."""

    def __init__(self) -> None:
        self.waiting: Request | None = None
        self.replies: list[Frozen] = []

    async def ask(self, request: Request) -> Reply:
        """Wait for the scheduler, and for the reply."""
        assert self.waiting is None, "a process sends one command at a time"
        self.waiting = request
        return await request.reply

    def open(self, server: "ModelServer") -> None:
        """Execute the command, and give the reply to the process."""
        request, self.waiting = self._take(), None
        if request.error is not None:
            self.replies.append(type(request.error).__name__)
            request.reply.set_exception(request.error)
            return
        assert request.part is not None
        reply = server.execute(request.part)
        self.replies.append(freeze(reply))
        request.reply.set_result(reply)

    def forget(self) -> Request:
        """Let the process be cancelled: whether its command is executed is another matter."""
        request, self.waiting = self._take(), None
        self.replies.append("cancelled")
        return request

    def _take(self) -> Request:
        assert self.waiting is not None
        return self.waiting


class ModelServer:
    """The server's keys."""

    def __init__(self, state: State) -> None:
        self.state = state

    def execute(self, part: Part) -> Reply:
        """Execute one command."""
        database = Database(self.state)
        reply = database.run(part)
        self.state = database.state()
        return reply


class GatedClient:
    """A client of a server that knows all scripts."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._forgets = False

    async def execute_command(self, *words: Any, **_: Any) -> Reply:
        """Send one command and wait for its reply."""
        return await self._gate.ask(self._request(*words))

    def pipeline(self, *, transaction: bool) -> "GatedTransaction":
        """A transaction."""
        assert transaction
        return GatedTransaction(self._gate)

    def _request(self, name: str, *arguments: Any) -> Request:
        return (
            self._script(name, *arguments)
            if name.startswith("EVAL")
            else Request(Call(name, arguments))
        )

    def _script(self, name: str, script: str | bytes, count: int, *words: Any) -> Request:
        assert name in {"EVALSHA", "EVAL"}
        known = _SCRIPTS[script.encode() if isinstance(script, str) else script]
        return Request(Eval(known, words[:count], words[count:]))


class ForgetfulClient(GatedClient):
    """A client of a server whose scripts are flushed between every two commands."""

    def _script(self, name: str, script: str | bytes, count: int, *words: Any) -> Request:
        request = super()._script(name, script, count, *words)
        return (
            Request(None, NoScriptError("NOSCRIPT No matching script."))
            if name == "EVALSHA"
            else request
        )


class ScriptlessClient(GatedClient):
    """A client that may run no scripts."""

    def _script(self, name: str, script: str | bytes, count: int, *words: Any) -> Request:
        return Request(
            None,
            NoPermissionError(f"User app has no permissions to run the '{name.lower()}' command"),
        )


class RedisCluster(GatedClient):
    """A cluster's client, which the adapter tells by its name."""

    def get_nodes(self) -> list[object]:
        """The nodes' clients, which have no cache."""
        return []


class GatedTransaction:
    """MULTI and EXEC, which are sent together."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._commands: list[Call] = []

    async def __aenter__(self) -> "GatedTransaction":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commands.clear()

    def execute_command(self, name: str, *arguments: Any) -> None:
        """Queue a command."""
        self._commands.append(Call(name, arguments))

    async def execute(self) -> Reply:
        """Send all of them and wait for the replies."""
        return await self._gate.ask(Request(Transaction(tuple(self._commands))))


MakeClient = Callable[[Gate], GatedClient]
