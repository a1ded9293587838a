"""Runs the operations of the Redis store over a client that the application made."""

from typing import Any, TypeVar

from lucia.errors import StoreCorrupt
from lucia.redis.clients import idle_closers, is_no_script, is_wrong_type, redact, refuses_scripts
from lucia.redis.commands import Argument, Batch, Call, Command, Eval, Operation, Reply, ScriptsRefusedError, Transaction

T = TypeVar("T")


class AsyncRedisDriver:
    """One client, for a single server, Sentinel's primary, or a cluster.

    An operation is sent the replies of its commands, and thrown the errors: the client's own, without the arguments in their text.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation to its end, and return what it returns.

        Raises:
            ScriptsRefusedError: the server or its access rules refuse scripts; the script did not run.
        """
        try:
            command = next(operation)
            while True:
                try:
                    reply = await self._execute(command)
                except Exception as error:
                    command = operation.throw(error)
                else:
                    command = operation.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _execute(self, command: Command) -> Reply:
        try:
            return await self._send(command)
        except Exception as error:
            redact(error, command)
            if is_wrong_type(error):
                raise StoreCorrupt(
                    "an index of the session store is of another type: another program, or another layout, writes to the same keys"
                ) from error
            raise

    async def _send(self, command: Command) -> Reply:
        if isinstance(command, Call):
            return await self._call(command.name, *command.arguments)
        if isinstance(command, Eval):
            return await self._eval(command)
        if isinstance(command, Batch):
            return [await self._send(each) for each in command.commands]
        if isinstance(command, Transaction):
            return await self._transact(command)
        for close in idle_closers(self._client):
            await close()
        return None

    async def _eval(self, command: Eval) -> Reply:
        arguments = (len(command.keys), *command.keys, *command.arguments)
        try:
            return await self._call("EVALSHA", command.script.sha, *arguments)
        except Exception as error:
            if refuses_scripts(error):
                raise ScriptsRefusedError from error
            if not is_no_script(error):
                raise
        return await self._call("EVAL", command.script.text, *arguments)

    async def _transact(self, command: Transaction) -> Reply:
        async with self._client.pipeline(transaction=True) as pipeline:
            for each in command.commands:
                pipeline.execute_command(each.name, *_encoded(each.arguments))
            return await pipeline.execute()

    async def _call(self, name: str, *arguments: Argument) -> Reply:
        return await self._client.execute_command(name, *_encoded(arguments), NEVER_DECODE=True)


def _encoded(arguments: tuple[Argument, ...]) -> list[bytes | int]:
    return [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
