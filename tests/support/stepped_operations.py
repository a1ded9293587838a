"""Run operations of the Redis adapter one command at a time, or several in every order."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar, cast

import redis

from lucia._redis.commands import (
    Batch,
    Call,
    Command,
    Eval,
    Nodes,
    OnNode,
    Operation,
    Reply,
    Transaction,
)

__all__ = ["Stepper", "explore", "replay"]

T = TypeVar("T")


class Stepper(Generic[T]):
    """An operation that is run one command at a time."""

    def __init__(self, client: Any, operation: Generator[Command, Reply, T]) -> None:
        self._client = client
        self._operation = operation
        self.commands: list[Command] = []
        self.done = False
        self.result: T | None = None
        self._advance(None)

    def _advance(self, reply: Reply, error: Exception | None = None) -> None:
        try:
            self.commands.append(
                self._operation.send(reply) if error is None else self._operation.throw(error)
            )
        except StopIteration as end:
            self.done, self.result = True, end.value
        except BaseException:
            self.done = True
            raise

    def step(self, count: int = 1) -> "Stepper[T]":
        """Execute the next commands."""
        for _ in range(count):
            assert not self.done
            assert len(self.commands) < 1_000, "the operation does not end"
            self._advance(*self._outcome(self.commands[-1]))
        return self

    def fail(self, error: Exception) -> "Stepper[T]":
        """Raise this error in place of the next command, which is not executed."""
        self._advance(None, error)
        return self

    def lose_reply(self, error: Exception) -> "Stepper[T]":
        """Execute the next command, and lose its reply."""
        self._execute(self.commands[-1])
        return self.fail(error)

    def finish(self) -> T:
        """Execute all remaining commands, and return the result."""
        while not self.done:
            self.step()
        return cast("T", self.result)

    def _outcome(self, command: Command) -> tuple[Reply, Exception | None]:
        try:
            return self._execute(command), None
        except redis.RedisError as error:
            return None, error

    def _execute(self, command: Command) -> Reply:
        if isinstance(command, Batch):
            return [self._execute(each) for each in command.commands]
        if isinstance(command, Transaction):
            with self._client.pipeline(transaction=True) as pipeline:
                for each in command.commands:
                    pipeline.execute_command(each.name, *map(_encoded, each.arguments))
                return pipeline.execute()
        if isinstance(command, Nodes):
            return [""]
        if isinstance(command, OnNode):
            return [self._execute(each) for each in command.commands]
        if isinstance(command, Call):
            return self._client.execute_command(command.name, *map(_encoded, command.arguments))
        if isinstance(command, Eval):
            keys, arguments = map(_encoded, command.keys), map(_encoded, command.arguments)
            return self._client.execute_command(
                "EVAL", command.script.text, len(command.keys), *keys, *arguments
            )
        return self._client.connection_pool.disconnect()


def _encoded(argument: str | bytes | int) -> bytes | int:
    return argument.encode() if isinstance(argument, str) else argument


def replay(operation: Operation[T], *replies: Reply) -> tuple[list[Command], T]:
    """Run an operation with these replies, and return its commands and its result."""
    commands = [next(operation), *map(operation.send, replies[:-1])]
    try:
        operation.send(replies[-1])
    except StopIteration as end:
        return commands, end.value
    raise AssertionError("the operation sends more commands")


def explore(begin: Callable[[], Sequence[Stepper[Any]]], check: Callable[[], None]) -> int:
    """Run operations in every order of their steps, and check the result of each order.

    Args:
        begin: prepares the server and returns the operations; called for each order.
        check: raises if the result is wrong.

    Returns:
        The number of orders.
    """
    planned: list[int] = []
    for count in range(1, 100_000):
        choices = _run(begin(), planned)
        check()
        while choices and choices[-1][0] + 1 == choices[-1][1]:
            choices.pop()
        if not choices:
            return count
        planned = [chosen for chosen, _ in choices]
        planned[-1] += 1
    raise AssertionError("more orders than a test can run")


def _run(operations: Sequence[Stepper[Any]], planned: Sequence[int]) -> list[tuple[int, int]]:
    choices: list[tuple[int, int]] = []
    while running := [operation for operation in operations if not operation.done]:
        chosen = planned[len(choices)] if len(choices) < len(planned) else 0
        choices.append((chosen, len(running)))
        running[chosen].step()
    return choices
