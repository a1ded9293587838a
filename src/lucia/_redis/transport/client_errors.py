"""Recognise the errors of redis-py and valkey-py by their names, so that neither is imported."""

import re
from typing import Final

from lucia._redis.commands import Argument, Batch, Call, Command, Eval, OnNode, Transaction

_SHORTEST_SECRET = 16
"""The length from which an argument may be secret: ids that ``Auth`` makes have 40 characters.

Shorter arguments are words and numbers.
"""

_QUOTATION = ", with args beginning with:"
"""Begins the quotation of the arguments in a server's error for an unknown command.

The server cuts the quotation off, maybe in the middle of an id.
"""

_SCRIPTS_REFUSED = re.compile(
    r"no permissions to run the '?evalsha|unknown command '?`?evalsha", re.IGNORECASE
)

_ANNOTATION = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
"""The client's quotation of a command of a transaction, cut off at some length."""


def is_no_script(error: BaseException) -> bool:
    """Return whether the server did not know a script, and so did not run it."""
    return is_a(error, "NoScriptError")


def refuses_scripts(error: BaseException) -> bool:
    """Return whether a script was refused by access rules, or by a server without scripts.

    The script did not run.
    """
    return is_a(error, "ResponseError") and _SCRIPTS_REFUSED.search(str(error)) is not None


def is_refusal(error: BaseException) -> bool:
    """Return whether the server answered that it does not know a command or does not allow it."""
    return is_a(error, "ResponseError")


_TRANSIENT: Final = ("BusyLoadingError", "ClusterDownError", "MasterDownError", "TryAgainError")


def is_transient(error: object) -> bool:
    """Return whether a server refused a command for now: busy, loading, or changing its role."""
    # A script that runs too long: redis-py has no class for this error.
    is_busy = isinstance(error, Exception) and str(error).startswith("BUSY ")
    return is_busy or any(is_a(error, name) for name in _TRANSIENT)


def is_wrong_type(error: BaseException) -> bool:
    """Return whether a key held a value of another type."""
    return is_a(error, "ResponseError") and "WRONGTYPE" in str(error)


def is_read_only(error: BaseException) -> bool:
    """Return whether a server refused a write since it is a replica.

    A connection of Sentinel's pool raises another error, whose context is this one.
    """
    return any(is_a(each, "ReadOnlyError") for each in (error, error.__context__))


def is_error_reply(error: BaseException) -> bool:
    """Return whether the server answered with this error; else there may have been no answer."""
    kinds = ("ResponseError", "BusyLoadingError", "AuthenticationError")
    return any(is_a(error, kind) for kind in kinds) or is_read_only(error)


def is_outage(error: BaseException) -> bool:
    """Return whether a server can't serve now, so that the command may be sent again later."""
    return is_transient(error) or is_read_only(error)


def redact(error: BaseException, command: Command) -> None:
    """Remove a command's arguments from the texts of an error, its causes and its contexts.

    The error objects stay the same.
    """
    # The longest first: once a shorter text that is part of it is replaced, a longer one is not
    # found.
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
    """Return whether a class of this name is among the value's classes."""
    return any(base.__name__ == name for base in type(value).__mro__)
