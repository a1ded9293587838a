"""Clients of the model's server. Each of their commands waits until a scheduler lets it pass.

They are the only fake Redis in the tests, and ``test_server_model.py`` compares their server with
real ones.
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
"""Scripts by their SHA-1 and by their text, as EVALSHA and EVAL name them."""


@dataclass(eq=False)
class Request:
    """A command of one process, which waits at its gate.

    Args:
        part: what the model's server executes; None if it refuses the command.
        error: the error of a refused command.
    """

    part: Part | None
    error: Exception | None = None
    reply: "asyncio.Future[Reply]" = field(default_factory=asyncio.Future)


class Gate:
    """The place where a process's commands wait, and the replies it got."""

    def __init__(self) -> None:
        self.waiting: Request | None = None
        self.replies: list[Frozen] = []

    async def ask(self, request: Request) -> Reply:
        """Wait until the scheduler lets the command pass, and return its reply."""
        assert self.waiting is None, "a process sends one command at a time"
        self.waiting = request
        return await request.reply

    def open(self, server: "ModelServer") -> None:
        """Execute the command, and send the reply to the process."""
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
        """Take the command away, since its process is cancelled. It may execute later or never."""
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
        """Begin a transaction."""
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
    """A client of a server whose scripts are flushed before each command."""

    def _script(self, name: str, script: str | bytes, count: int, *words: Any) -> Request:
        request = super()._script(name, script, count, *words)
        return (
            Request(None, NoScriptError("NOSCRIPT No matching script."))
            if name == "EVALSHA"
            else request
        )


class ScriptlessClient(GatedClient):
    """A client that may not run scripts."""

    def _script(self, name: str, script: str | bytes, count: int, *words: Any) -> Request:
        return Request(
            None,
            NoPermissionError(f"User app has no permissions to run the '{name.lower()}' command"),
        )


class RedisCluster(GatedClient):
    """A cluster client, which the adapter recognises by its class name."""

    def get_nodes(self) -> list[object]:
        """Return no nodes, so that none has a client-side cache."""
        return []


class GatedTransaction:
    """A transaction whose commands are sent together."""

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
        """Send all commands, and return their replies."""
        return await self._gate.ask(Request(Transaction(tuple(self._commands))))


MakeClient = Callable[[Gate], GatedClient]
