"""What follows from a command that was not answered: what may be sent again, and which error goes up.

A command is sent again once at most, at once, and only if it is safe: it is known not to have been sent, or it reads or ends something, so
that repeating it changes nothing. What makes or renews a session is never sent again: a first attempt that hangs in a dying connection
could arrive after the session was ended, and make it live again.
"""

import copy
from datetime import timedelta
from typing import Final

from lucia._redis.commands import Call, Command, Eval, Nodes, OnNode, Transaction
from lucia._redis.transport.client_errors import is_answer, is_outage
from lucia.errors import StoreUnavailable

WRITE_SECONDS: Final = 30.0
"""How long a login or a renewal may take with all its commands, and any single command: half as long as a marker lives."""

_READS: Final = frozenset(
    {
        "MGET",
        "LRANGE",
        "LPOS",
        "SMEMBERS",
        "SRANDMEMBER",
        "SISMEMBER",
        "SSCAN",
        "PTTL",
        "TIME",
        "TYPE",
        "EXISTS",
        "LLEN",
        "SCARD",
    }
)

_ENDINGS: Final = frozenset({"DEL", "LREM", "SREM"})


class NoReply(Exception):
    """No server answered a command: a signal between two layers.

    Args:
        error: the client's error; None if the time was over.
        sent: whether a server may have received the command.
    """

    def __init__(self, error: Exception | None, *, sent: bool) -> None:
        super().__init__()
        self.error = error
        self.sent = sent

    def for_another(self) -> "NoReply":
        """The same for another command that was not answered either: raising an error changes it, so nobody shares one."""
        if self.error is None:
            return NoReply(None, sent=self.sent)
        try:
            error = copy.copy(self.error)
        except TypeError:  # a kind of the client's that is made of other arguments than it keeps
            error = ConnectionError(type(self.error).__name__)
        error.__cause__ = self.error
        return NoReply(error, sent=self.sent)


class BatchRejected(Exception):
    """A signal between two layers: nothing was changed, and the driver has to send the request.

    Either nothing was sent, since a replay of revocations comes first, or the server refused to
    answer several reads together.
    """

    def for_another(self) -> "BatchRejected":
        """Return a copy for another request: raising an error changes it, so nobody shares one."""
        return BatchRejected()


def is_read(command: Command) -> bool:
    """Whether the command changes nothing."""
    return (
        command.name in _READS if isinstance(command, Call) else isinstance(command, Nodes | OnNode)
    )


def is_repeatable(command: Call | Eval | Transaction | Nodes | OnNode) -> bool:
    """Whether executing the command twice, or late, does no more than executing it once."""
    if isinstance(command, Eval):
        return command.script.repeatable
    return is_read(command) or (isinstance(command, Call) and command.name in _ENDINGS)


def error_to_raise(lost: NoReply, *, wrote: bool) -> Exception:
    """Return the error for the caller: ``StoreUnavailable``, whose cause is the client's error.

    A server that refuses the connection, since the password or the database is wrong, is reached
    and will refuse it again: that is the client's own error, for somebody to mend the settings.

    Args:
        wrote: whether a write of this operation was executed or may have been.
    """
    if lost.error is not None and not wrote and is_answer(lost.error) and not is_outage(lost.error):
        return lost.error
    unavailable = StoreUnavailable(ambiguous=wrote)
    unavailable.__cause__ = lost.error
    return unavailable


def deadline_seconds(deadline: object) -> float:
    """A command's deadline in seconds.

    Raises:
        TypeError: it is no ``timedelta``; a bare number's unit would be a guess.
        ValueError: it is not more than 0, or longer than a login may take in all.
    """
    if not isinstance(deadline, timedelta):
        raise TypeError(f"deadline must be a datetime.timedelta, not {type(deadline).__name__}")
    seconds = deadline.total_seconds()
    if not 0 < seconds <= WRITE_SECONDS:
        raise ValueError(
            f"deadline must be more than 0 and at most {WRITE_SECONDS:.0f} seconds, not {seconds:g}"
        )
    return seconds
