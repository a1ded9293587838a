"""The errors of redis-py and valkey-py, told by the names of their classes, so that neither has to be imported."""

import re
from typing import Final

from lucia._redis.commands import Argument, Batch, Call, Command, Eval, OnNode, Transaction

_SHORTEST_SECRET = 16
"""Shorter arguments are words and numbers; ids that ``Auth`` makes have 40 characters."""

_QUOTATION = ", with args beginning with:"
"""How a server that does not know a command begins to quote its arguments. It cuts them off, maybe in the middle of an id."""


_SCRIPTS_REFUSED = re.compile(
    r"no permissions to run the '?evalsha|unknown command '?`?evalsha", re.IGNORECASE
)

_ANNOTATION = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
"""How clients quote a command of a transaction, cut off at some length."""


def is_no_script(error: BaseException) -> bool:
    """Whether the server did not know a script, and so did not run it."""
    return is_a(error, "NoScriptError")


def refuses_scripts(error: BaseException) -> bool:
    """Whether a command was refused since it is a script, and so did not run: by access rules, or by a server that has none."""
    return is_a(error, "ResponseError") and _SCRIPTS_REFUSED.search(str(error)) is not None


def is_refusal(error: BaseException) -> bool:
    """Whether it is a server's answer: that it does not know the command, or that it may not be run."""
    return is_a(error, "ResponseError")


_TRANSIENT: Final = ("BusyLoadingError", "ClusterDownError", "MasterDownError", "TryAgainError")


def is_transient(error: object) -> bool:
    """Whether a server refused a command for the moment only: it is busy, loading, or changing its role."""
    is_busy = isinstance(error, Exception) and str(error).startswith("BUSY ")
    return is_busy or any(is_a(error, name) for name in _TRANSIENT)


def is_wrong_type(error: BaseException) -> bool:
    """Whether a key held a value of another type."""
    return is_a(error, "ResponseError") and "WRONGTYPE" in str(error)


def is_read_only(error: BaseException) -> bool:
    """Whether a server refused a write since it is a replica; a connection that is Sentinel's says so by another error."""
    return any(is_a(each, "ReadOnlyError") for each in (error, error.__context__))


def is_answer(error: BaseException) -> bool:
    """Whether an error is what the server answered; if not, there may have been no answer at all."""
    kinds = ("ResponseError", "BusyLoadingError", "AuthenticationError")
    return any(is_a(error, kind) for kind in kinds) or is_read_only(error)


def is_outage(error: BaseException) -> bool:
    """Whether a server says that it can't serve now: it is loading its data, or its cluster is down."""
    return is_a(error, "BusyLoadingError") or is_a(error, "ClusterDownError")


def redact(error: BaseException, command: Command) -> None:
    """Take the command's arguments out of an error's text, and out of those of the errors behind it; class and object stay."""
    secrets = sorted(
        {text for text in map(_text, _arguments(command)) if len(text) >= _SHORTEST_SECRET},
        key=len,
        reverse=True,
    )
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        redacted = tuple(_without(argument, secrets) for argument in each.args)
        if redacted != each.args:
            each.args = redacted
        waiting += [each.__cause__, each.__context__]


def _without(argument: object, secrets: list[str]) -> object:
    if not isinstance(argument, str):
        return argument
    for secret in secrets:
        argument = argument.replace(secret, "<redacted>")
    return _ANNOTATION.sub("", argument).partition(_QUOTATION)[0]


def _arguments(command: Command) -> tuple[Argument, ...]:
    if isinstance(command, Eval):
        return command.keys + command.arguments
    if isinstance(command, Batch | Transaction | OnNode):
        return tuple(argument for each in command.commands for argument in _arguments(each))
    return command.arguments if isinstance(command, Call) else ()


def _text(argument: Argument) -> str:
    return argument.decode(errors="replace") if isinstance(argument, bytes) else str(argument)


def is_a(value: object, name: str) -> bool:
    return any(base.__name__ == name for base in type(value).__mro__)
