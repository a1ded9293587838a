"""Runs the operations of the Redis store over connections of its own, made as the application's client makes them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from lucia._async.stores.redis.router import AsyncRoute, open_route
from lucia._compat.gathering import MAX_CONCURRENT_CALLS, AsyncGatherer
from lucia._compat.pause import AsyncPause
from lucia._compat.per_loop import AsyncPerLoop
from lucia._logs import Outage, client_used_as_it_is, store_corrupt
from lucia._redis.commands import (
    USUAL,
    Argument,
    AsyncReplies,
    Batch,
    Call,
    Command,
    DropConnections,
    Eval,
    Nodes,
    OnNode,
    Operation,
    ReplicationBarrier,
    Reply,
    ScriptsRefusedError,
    SendMode,
    Transaction,
    Words,
)
from lucia._redis.replay import ConnectionMonitor, Replay, Revocations, ServerHistoryChanged
from lucia._redis.transport.client_errors import (
    is_no_script,
    is_outage,
    is_read_only,
    is_wrong_type,
    redact,
    refuses_scripts,
)
from lucia._redis.transport.passthrough import AsyncClientPassthrough
from lucia._redis.transport.replayer import AsyncReplayer
from lucia._redis.transport.retries import NoReply, error_to_raise, is_read, is_repeatable
from lucia._redis.transport.settings import AsyncSettings
from lucia._redis.transport.slots import is_redirected
from lucia._redis.transport.topology import Topology, topology_of
from lucia.errors import StoreCorrupt, StoreUnavailable

T = TypeVar("T")

_Single = Call | Eval | Transaction | Nodes | OnNode
"""What is sent at once."""

_SEVERAL: Final = (Batch, DropConnections, ReplicationBarrier)
"""What is not."""

_ONE_REPLY: Final = (Eval, Call, Transaction)
"""That whose last reply counts; of others all do."""

REPLAYED_AT_ONCE: Final = 8
"""How many commands of a replay are sent at once, each on a connection of its own."""

_MOVED_SECONDS: Final = 0.05
"""How long to wait before the slot map is read again because a primary gave a slot away."""


@dataclass(slots=True)
class _OperationState:
    """How far an operation is.

    Args:
        end: when all of it has to be over, by the monotonic clock.
        during_replay: whether it is the replay, which nothing has to wait for.
        again: whether its first command was sent before; then it is not sent once more.
        wrote: whether anything may have been written.
        end_of_command: when this command has to be over.
        lost: a command that was not answered, and is not sent again.
    """

    end: float
    during_replay: bool = False
    again: bool = False
    wrote: bool = False
    end_of_command: float = 0.0
    lost: NoReply | None = None

    def next_command(self, seconds: float) -> None:
        self.end_of_command = min(time.monotonic() + seconds, self.end)


_USUAL: Final = AsyncSettings()


class AsyncRedisDriver:
    """Our connections to a single server, to Sentinel's master, or to a cluster.

    An operation is sent the replies of its commands, and thrown the errors: the client's own, without the arguments in their text, and
    ``StoreUnavailable``. One deadline bounds an operation with all that it waits for: a replay, a
    connection, its handshake, the answers, and the second attempt if there is one. An operation
    that goes page by page has that time for each command.
    """

    def __init__(
        self, client: Any, settings: AsyncSettings = _USUAL, replay: Replay | None = None
    ) -> None:
        self._deadline = settings.seconds
        self._near = settings.near
        self._revocations = revocations = Revocations() if replay is None else replay.revocations
        topology = _topology_of(client)
        self.has_own_connections = topology is not None
        self.outage = Outage()
        self._together = AsyncGatherer(concurrently=settings.coalesce and self.has_own_connections)
        self._route = AsyncPerLoop(partial(_open_route, client, topology, settings, revocations))
        self._replayer = (
            None
            if replay is None
            else AsyncPerLoop(partial(AsyncReplayer, replay, self._run_replay, settings.seconds))
        )

    def shortest_way(self) -> AsyncRoute | None:
        """What a command may be sent on without more ado; None where that has to be made first, or something else has to be done."""
        return None if self._revocations.due else self._route.peek()

    async def run(
        self,
        operation: Operation[T],
        seconds: float | None = None,
        *,
        again: bool = False,
        during_replay: bool = False,
    ) -> T:
        """Run an operation to its end, and return what it returns.

        Args:
            operation: what to run.
            seconds: for all its commands; None for the deadline, infinite for one that goes page by
                page, whose every command has the deadline.
            during_replay: whether it is the replay.
            again: whether the first command was sent before, and not answered.

        Raises:
            ScriptsRefusedError: the server or its access rules refuse scripts; the script did not run.
        """
        end = time.monotonic() + (self._deadline if seconds is None else seconds)
        course = _OperationState(end, during_replay=during_replay, again=again)
        try:
            command = next(operation)
            while True:
                try:
                    reply = await self._send(command, course)
                except Exception as error:
                    if is_outage(error):  # an answer, so nobody has counted it as a failure
                        self.outage.failed(error)
                    command = operation.throw(_to_raise(error, command, wrote=course.wrote))
                else:
                    command = operation.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def drop_idle(self) -> None:
        """Close our connections that lie idle."""
        await (await self._route.get()).drop_idle()

    async def aclose(self) -> None:
        """Close our connections. Later operations open new ones."""
        if self._replayer is not None:
            await self._replayer.aclose()
        await self._route.aclose()

    async def _run_replay(self, operation: Operation[None], seconds: float) -> None:
        await self.run(operation, seconds, during_replay=True)

    async def _send(self, command: Command, course: _OperationState) -> Reply:
        """A command's reply."""
        if isinstance(command, _SEVERAL):
            return await self._send_several(command, course)
        course.next_command(self._deadline)
        with self._near.changing(command):
            replies = await self._ask(command, _words(command), course)
            error = _error_in(replies)
            if error is not None:
                replies = await self._recover(command, error, course)
        course.wrote = course.wrote or not is_read(command)
        return replies[-1] if isinstance(command, _ONE_REPLY) else replies

    async def _send_several(
        self, command: Batch | DropConnections | ReplicationBarrier, course: _OperationState
    ) -> Reply:
        if isinstance(command, Batch):
            one = len(command.commands) == 1
            return (
                [await self._send(command.commands[0], course)]
                if one
                else await self._send_batch(command.commands, course)
            )
        return await (
            self.drop_idle()
            if isinstance(command, DropConnections)
            else self._wait_for_replicas(command, course)
        )

    async def _send_batch(
        self, commands: Sequence[Call | Eval], course: _OperationState
    ) -> list[Reply]:
        """The replies to commands that do not depend on each other. If one fails, all that were sent have ended, and some may be done."""
        courses = [
            replace(course, again=course.again and number == 0, lost=None)
            for number in range(len(commands))
        ]
        course.again = False
        sending = [
            partial(self._send, command, its)
            for command, its in zip(commands, courses, strict=True)
        ]
        outcomes = await self._together.gather_results(
            sending, REPLAYED_AT_ONCE if course.during_replay else MAX_CONCURRENT_CALLS
        )
        course.wrote = course.wrote or any(its.wrote for its in courses)
        for outcome, its in zip(outcomes, courses, strict=False):
            if isinstance(outcome, BaseException):
                raise outcome if its.lost is None else error_to_raise(its.lost, wrote=course.wrote)
        return outcomes

    async def _recover(
        self, command: _Single, error: Exception, course: _OperationState
    ) -> list[Reply]:
        """After an error of the server: what it answers to the whole text of a script that it did not know.

        Raises:
            ScriptsRefusedError: it refuses scripts; the script did not run. Any other error of the server is raised as it is.
        """
        if isinstance(command, Eval):
            if refuses_scripts(error):
                raise ScriptsRefusedError from error
            if is_no_script(error):
                return await self._checked(
                    await self._ask(
                        command, (_script("EVAL", command.script.text, command),), course
                    )
                )
        return await self._checked([error])

    async def _checked(self, replies: list[Reply]) -> list[Reply]:
        """The replies, unless one is an error."""
        error = _error_in(replies)
        if error is None:
            return replies
        if is_read_only(error):  # it was the master: the next connection finds the new one
            await self.drop_idle()
        raise error

    async def _wait_for_replicas(self, fence: ReplicationBarrier, course: _OperationState) -> int:
        """Return the fewest replicas that confirmed at a primary; stop at one with too few.

        Every primary is asked by its address, and not followed elsewhere: a key that another node
        takes says nothing of this one. If a slot has moved meanwhile, the map is read again.

        Raises:
            StoreUnavailable: it is not known which primaries there are, or one did not answer.
        """
        asked: set[str] = set()
        end = time.monotonic() + self._deadline
        waiting = await self._keys_everywhere(fence.prefix, course)
        fewest = fence.replicas
        while waiting and fewest >= fence.replicas:
            node, key = waiting.popitem()
            write = Call("SET", (key, fence.value, "PX", 1_000))
            wait = Call("WAIT", (fence.replicas, fence.milliseconds))
            command = OnNode(node, (write, wait))
            course.next_command(self._deadline)
            replies = await self._ask(command, _words(command), course)
            if is_redirected(replies):
                if time.monotonic() >= end:
                    raise error_to_raise(NoReply(_error_in(replies), sent=False), wrote=True)
                await AsyncPause.seconds(_MOVED_SECONDS)
                found = await self._keys_everywhere(fence.prefix, course)
                waiting = {other: key for other, key in found.items() if other not in asked}
                continue
            *_, confirmed = await self._checked(replies)
            asked.add(node)
            fewest = min(fewest, confirmed)
        return fewest

    async def _keys_everywhere(self, prefix: str, course: _OperationState) -> dict[str, str]:
        """Return the name of a key for each primary.

        Raises:
            StoreUnavailable: it is not known which primaries there are.
        """
        course.next_command(self._deadline)
        try:
            route = await self._route.get()
            return await route.keys_everywhere(prefix, _seconds_until(course.end_of_command))
        except NoReply as lost:
            raise error_to_raise(lost, wrote=True) from lost.error

    async def _ask(
        self, command: _Single, commands: Sequence[Words], course: _OperationState
    ) -> list[Reply]:
        """Send commands, and once more, at once, if there was no answer, it is safe, and there is time."""
        again, course.again = course.again, False
        while True:
            try:
                await self._wait_for_replay(course)
                route = self._route.peek() or await self._route.get()
                mode = USUAL
                if again or course.during_replay:
                    mode = SendMode(
                        alone=course.during_replay, fresh=again, during_replay=course.during_replay
                    )
                replies = await _replies(
                    route, command, commands, _seconds_until(course.end_of_command), mode
                )
            except ServerHistoryChanged:  # a replay is due since this command asked whether one is
                continue
            except NoReply as lost:
                course.wrote = course.wrote or (lost.sent and not is_read(command))
                over = again or lost.error is None or (lost.sent and not is_repeatable(command))
                error = error_to_raise(lost, wrote=course.wrote)
                course.lost = lost if over else None
            else:
                if self.outage.is_on and _error_in(replies) is None:
                    self.outage.answered()
                return replies
            if over:
                if isinstance(
                    error, StoreUnavailable
                ):  # else a refusal, which waiting does not change
                    self.outage.failed(error)
                raise error  # not within the handler: the client's error keeps what is behind it
            again = True

    async def _wait_for_replay(self, course: _OperationState) -> None:
        if self._replayer is not None and self._revocations.due and not course.during_replay:
            replayer = self._replayer.peek() or await self._replayer.get()
            await replayer.complete(_seconds_until(course.end_of_command))


def _topology_of(client: Any) -> Topology | None:
    """How the client makes its connections; a line on the logger if that can't be told."""
    topology = topology_of(client)
    if topology is None:
        client_used_as_it_is(client)
    return topology


def _open_route(
    client: Any, topology: Topology | None, settings: AsyncSettings, revocations: Revocations
) -> AsyncRoute:
    return (
        AsyncClientPassthrough(client, ConnectionMonitor(revocations))
        if topology is None
        else open_route(topology, settings, revocations)
    )


def _seconds_until(end: float) -> float:
    """What is left of the time.

    Raises:
        NoReply: nothing.
    """
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise NoReply(None, sent=False)
    return seconds


def _replies(
    route: AsyncRoute, command: _Single, commands: Sequence[Words], seconds: float, mode: SendMode
) -> AsyncReplies:
    """Send a command by its words."""
    if isinstance(command, Nodes):
        return route.nodes(seconds)
    if isinstance(command, OnNode):
        return route.ask_node(command.node, commands, seconds, replace(mode, alone=True))
    return route.ask(_key_of(command), commands, seconds, mode)


def _key_of(command: Call | Eval | Transaction) -> Argument | None:
    """The key by which a cluster finds the node; None if any will do."""
    if isinstance(command, Transaction):
        return _key_of(command.commands[0])
    words = command.arguments if isinstance(command, Call) else command.keys
    return words[0] if words else None


def _words(command: _Single) -> tuple[Words, ...]:
    """What is sent together for a command."""
    if isinstance(command, Eval):
        return (_script("EVALSHA", command.script.sha, command),)
    if isinstance(command, Call):
        return (_call(command),)
    if isinstance(command, Nodes):
        return ()
    calls = tuple(map(_call, command.commands))
    return calls if isinstance(command, OnNode) else (("MULTI",), *calls, ("EXEC",))


def _script(name: str, script: str, command: Eval) -> Words:
    return (name, script, len(command.keys), *_encoded(command.keys), *_encoded(command.arguments))


def _call(command: Call) -> Words:
    return (command.name, *_encoded(command.arguments))


def _encoded(arguments: Sequence[Argument]) -> list[bytes | int]:
    return [argument.encode() if isinstance(argument, str) else argument for argument in arguments]


def _error_in(replies: Sequence[Reply]) -> Exception | None:
    """The first reply that is an error; those of a transaction are within the last one."""
    for reply in replies:
        if isinstance(reply, Exception):
            return reply
    return _error_in(replies[-1]) if replies and replies[-1].__class__ is list else None


def _to_raise(error: Exception, command: Command, *, wrote: bool) -> Exception:
    """What a command's error is to an operation: without the arguments, and by its meaning."""
    redact(error, command)
    if is_outage(error):
        return error_to_raise(NoReply(error, sent=False), wrote=wrote)
    if not is_wrong_type(error):
        return error
    store_corrupt()
    corrupt = StoreCorrupt(
        "an index of the session store is of another type: another program, or another layout, writes to the same keys"
    )
    corrupt.__cause__ = error
    return corrupt
