"""Runs operations of the Redis store over connections like those of the application's client."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from lucia._async.stores.redis.router import AsyncRoute, open_route
from lucia._compat.gathering import MAX_CONCURRENT_CALLS, AsyncGatherer
from lucia._compat.pause import AsyncPause
from lucia._compat.per_loop import AsyncPerLoop
from lucia._logs import Outage, client_used_as_it_is, store_corrupt
from lucia._redis.commands import (
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
from lucia._redis.replay import ConnectionMonitor, Replay, Revocations
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
from lucia._redis.transport.retries import (
    BatchRejected,
    NoReply,
    OperationState,
    SingleCommand,
    error_to_raise,
)
from lucia._redis.transport.settings import AsyncSettings
from lucia._redis.transport.slots import is_redirected
from lucia._redis.transport.topology import Topology, topology_of
from lucia.errors import StoreCorrupt, StoreUnavailable

T = TypeVar("T")

_SEVERAL: Final = (Batch, DropConnections, ReplicationBarrier)
"""Commands that need several round trips, or none."""

_ONE_REPLY: Final = (Eval, Call, Transaction)
"""For these, only the last reply is returned."""

MAX_CONCURRENT_REPLAYS: Final = 8
"""How many commands of a replay are sent at the same time, each on a connection of its own."""

_MOVED_SECONDS: Final = 0.05
"""How long to wait before the slot map is read again because a primary gave a slot away."""

_DEFAULT_SETTINGS: Final = AsyncSettings()


class AsyncRedisDriver:
    """Runs operations over connections to a single server, to Sentinel's master, or to a cluster.

    An operation yields commands. It is sent their replies, and thrown their errors: the client's
    own, without the command's arguments in their text, and ``StoreUnavailable``.

    One deadline bounds an operation with all that it waits for (T7): a replay, a connection, its
    handshake, the replies, and the retry if there is one. An operation that goes page by page has
    that time for each command.

    Args:
        client: the application's.
        settings: how connections are used.
        replay: the revoked ids, and how they are revoked again; None to replay nothing.
    """

    def __init__(
        self, client: Any, settings: AsyncSettings = _DEFAULT_SETTINGS, replay: Replay | None = None
    ) -> None:
        self._deadline = settings.seconds
        self._near = settings.near
        self.revocations = revocations = Revocations() if replay is None else replay.revocations
        topology = _topology_of(client)
        self.has_own_connections = topology is not None
        self.outage = Outage()
        self._gatherer = AsyncGatherer(concurrently=settings.coalesce and self.has_own_connections)
        self._route = AsyncPerLoop(partial(_open_route, client, topology, settings, revocations))
        self._replay = replay
        self._replayer = AsyncPerLoop(partial(AsyncReplayer, revocations, settings.seconds))

    def ready_route(self) -> AsyncRoute | None:
        """Return the route if a command may be sent on it at once.

        None if it was not opened yet, or while a replay of revocations is due.
        """
        return None if self.revocations.due else self._route.peek()

    async def run(
        self,
        operation: Operation[T],
        seconds: float | None = None,
        *,
        is_retry: bool = False,
        during_replay: bool = False,
    ) -> T:
        """Run an operation to its end, and return what it returns.

        Args:
            operation: what to run.
            seconds: for all its commands; None for the deadline, infinite for one that goes page by
                page, whose every command has the deadline.
            is_retry: whether the first command was sent before, and not answered.
            during_replay: whether the operation is the replay.

        Raises:
            ScriptsRefusedError: the server or its access rules refuse scripts; the script did not
                run.
        """
        began = time.monotonic()
        end = began + (self._deadline if seconds is None else seconds)
        state = OperationState(end, during_replay=during_replay, is_retry=is_retry, began=began)
        try:
            command = next(operation)
            while True:
                try:
                    reply = await self._send(command, state)
                except Exception as error:
                    if is_outage(error):  # an answer, so nothing has counted it as a failure yet
                        self.outage.failed(error)
                    command = operation.throw(_to_raise(error, command, wrote=state.wrote))
                else:
                    command = operation.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            # Cancelled: the operation has to remember what it may have revoked (I8) now, and not
            # when it is garbage-collected, which it is not while the traceback refers to it.
            operation.close()
            raise

    async def drop_idle(self) -> None:
        """Close our idle connections."""
        await (await self._route.get()).drop_idle()

    async def aclose(self) -> None:
        """Close our connections. Later operations open new ones."""
        await self._replayer.aclose()
        await self._route.aclose()

    async def _revoke_again(
        self, replay: Replay, session_ids: Sequence[str], seconds: float
    ) -> None:
        await self.run(replay.revoke_again(session_ids), seconds, during_replay=True)

    async def _send(self, command: Command, state: OperationState) -> Reply:
        """Send a command, and return its reply."""
        if isinstance(command, _SEVERAL):
            return await self._send_several(command, state)
        state.begin_command(self._deadline)
        # Around the retry too: until the last reply nobody knows what the server has changed.
        with self._near.changing(command):
            replies = await self._ask(command, _words(command), state)
            error = _error_in(replies)
            if error is not None:
                replies = await self._recover(command, error, state)
        state.answered(command)
        return replies[-1] if isinstance(command, _ONE_REPLY) else replies

    async def _send_several(
        self, command: Batch | DropConnections | ReplicationBarrier, state: OperationState
    ) -> Reply:
        if isinstance(command, Batch):
            if len(command.commands) == 1:
                return [await self._send(command.commands[0], state)]
            return await self._send_batch(command.commands, state)
        if isinstance(command, DropConnections):
            return await self.drop_idle()
        return await self._wait_for_replicas(command, state)

    async def _send_batch(
        self, commands: Sequence[Call | Eval], state: OperationState
    ) -> list[Reply]:
        """Send commands that do not depend on each other, and return their replies.

        If one fails, all that were sent have ended, and some may have been executed.
        """
        # Each has a state of its own, since they may run concurrently.
        states = [
            replace(state, is_retry=state.is_retry and number == 0, lost=None)
            for number in range(len(commands))
        ]
        state.is_retry = False
        sending = [
            partial(self._send, command, its) for command, its in zip(commands, states, strict=True)
        ]
        results = await self._gatherer.gather_results(
            sending, MAX_CONCURRENT_REPLAYS if state.during_replay else MAX_CONCURRENT_CALLS
        )
        state.wrote = state.wrote or any(its.wrote for its in states)
        # There are fewer results than commands if one failed before the others were sent.
        for result, its in zip(results, states, strict=False):
            if isinstance(result, BaseException):
                # Ambiguous too if only another command of the batch may have been executed (I8).
                raise result if its.lost is None else error_to_raise(its.lost, wrote=state.wrote)
        return results

    async def _recover(
        self, command: SingleCommand, error: Exception, state: OperationState
    ) -> list[Reply]:
        """Handle a server's error: send the whole text of a script that the server did not know.

        Raises:
            ScriptsRefusedError: the server refuses scripts; the script did not run. Any other error
                is raised as it is.
        """
        if isinstance(command, Eval):
            if refuses_scripts(error):
                raise ScriptsRefusedError from error
            # Each server forgets scripts when it restarts, and a replica that is promoted has none.
            # The script did not run, so this is no retry, even of a login. Not by SCRIPT LOAD,
            # which needs a right of its own.
            if is_no_script(error):
                words = _script("EVAL", command.script.text, command)
                return await self._checked(await self._ask(command, (words,), state))
        return await self._checked([error])

    async def _checked(self, replies: list[Reply]) -> list[Reply]:
        """Return the replies, or raise the first that is an error."""
        error = _error_in(replies)
        if error is None:
            return replies
        if is_read_only(error):  # it was the master: the next connection finds the new one (T4)
            await self.drop_idle()
        raise error

    async def _wait_for_replicas(self, barrier: ReplicationBarrier, state: OperationState) -> int:
        """Return the fewest replicas that confirmed at a primary; stop at one with too few.

        Every primary is asked by its address.

        Raises:
            StoreUnavailable: it is not known which primaries there are, or one did not answer.
        """
        asked: set[str] = set()
        end = time.monotonic() + self._deadline
        waiting = await self._key_per_primary(barrier.prefix, state)
        fewest = barrier.replicas
        while waiting and fewest >= barrier.replicas:
            node, key = waiting.popitem()
            # On a connection that has written nothing, WAIT would return at once.
            write = Call("SET", (key, barrier.value, "PX", 1_000))
            wait = Call("WAIT", (barrier.replicas, barrier.milliseconds))
            # OnNode counts as a read, and is repeated after a lost reply: nobody reads this key.
            command = OnNode(node, (write, wait))
            state.begin_command(self._deadline)
            replies = await self._ask(command, _words(command), state)
            # The slot has moved: a key that another node takes proves nothing about this one (T5).
            if is_redirected(replies):
                if time.monotonic() >= end:
                    raise error_to_raise(NoReply(_error_in(replies), sent=False), wrote=True)
                await AsyncPause.seconds(_MOVED_SECONDS)
                found = await self._key_per_primary(barrier.prefix, state)
                waiting = {other: key for other, key in found.items() if other not in asked}
                continue
            *_, confirmed = await self._checked(replies)
            asked.add(node)
            fewest = min(fewest, confirmed)
        return fewest

    async def _key_per_primary(self, prefix: str, state: OperationState) -> dict[str, str]:
        """Return the name of a key for each primary.

        Raises:
            StoreUnavailable: it is not known which primaries there are.
        """
        state.begin_command(self._deadline)
        try:
            route = await self._route.get()
            return await route.key_per_primary(prefix, state.seconds_left(), state.began)
        except NoReply as lost:
            raise error_to_raise(lost, wrote=True) from lost.error

    async def _ask(
        self, command: SingleCommand, commands: Sequence[Words], state: OperationState
    ) -> list[Reply]:
        """Send commands; send them again if the reply is lost and the retry policy allows it."""
        # For this command alone: the operation's later ones may be retried.
        is_retry, state.is_retry = state.is_retry, False
        while True:
            try:
                # In each round: a lost reply may mean a failover, and its replay comes first (T3).
                if self._replay is not None and self.revocations.due and not state.during_replay:
                    await self._wait_for_replay(self._replay, state)
                route = self._route.peek() or await self._route.get()
                replies = await _replies(
                    route, command, commands, state.seconds_left(), state.mode(is_retry=is_retry)
                )
            except BatchRejected:
                # Nothing was sent: a replay has become due since the check above (T3).
                continue
            except NoReply as lost:
                error = state.error_after_loss(command, lost, is_retry=is_retry)
            else:
                if self.outage.is_on and _error_in(replies) is None:
                    self.outage.answered()
                return replies
            if error is not None:
                # A server's refusal is no outage: waiting does not change it.
                if isinstance(error, StoreUnavailable):
                    self.outage.failed(error)
                raise error  # outside of the handler, so that the error keeps its own context
            is_retry = True

    async def _wait_for_replay(self, replay: Replay, state: OperationState) -> None:
        replayer = self._replayer.peek() or await self._replayer.get()
        await replayer.complete(partial(self._revoke_again, replay), state.seconds_left())


def _topology_of(client: Any) -> Topology | None:
    """Return how the client connects; log a line if that can't be told."""
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


def _replies(
    route: AsyncRoute,
    command: SingleCommand,
    commands: Sequence[Words],
    seconds: float,
    mode: SendMode,
) -> AsyncReplies:
    """Send a command's words to where it belongs."""
    if isinstance(command, Nodes):
        return route.nodes(seconds)
    if isinstance(command, OnNode):
        return route.ask_node(command.node, commands, seconds, replace(mode, alone=True))
    return route.ask(_key_of(command), commands, seconds, mode)


def _key_of(command: Call | Eval | Transaction) -> Argument | None:
    """Return the key by which a cluster finds the node; None if any node will do."""
    if isinstance(command, Transaction):
        return _key_of(command.commands[0])
    words = command.arguments if isinstance(command, Call) else command.keys
    return words[0] if words else None


def _words(command: SingleCommand) -> tuple[Words, ...]:
    """Return the words that are sent together for a command."""
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
    """Return the first reply that is an error; a transaction's are within the last reply."""
    # The first one is the reason: after a command that was not queued, EXEC only says so.
    for reply in replies:
        if isinstance(reply, Exception):
            return reply
    return _error_in(replies[-1]) if replies and replies[-1].__class__ is list else None


def _to_raise(error: Exception, command: Command, *, wrote: bool) -> Exception:
    """Return the error to throw into the operation: by its meaning, without arguments."""
    redact(error, command)
    if is_outage(error):
        return error_to_raise(NoReply(error, sent=False), wrote=wrote)
    if not is_wrong_type(error):
        return error
    store_corrupt()
    corrupt = StoreCorrupt(
        "an index of the session store is of another type: another program, or another layout,"
        " writes to the same keys"
    )
    corrupt.__cause__ = error
    return corrupt
