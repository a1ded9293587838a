"""Retry policy: which commands may be sent again after a lost reply, and which error is raised.

A command is sent again at most once, at once, on a fresh connection, and only if that is safe:
either no byte of it was sent, or it reads or revokes something, so that running it twice changes
nothing. What creates or renews a session is not sent again (I6): a first attempt that hangs in a
dying connection could arrive after the session was revoked, and make it live again.
"""

import copy
import time
from dataclasses import dataclass, field
from typing import Final

from lucia._redis.commands import (
    DEFAULT_MODE,
    Call,
    Command,
    Eval,
    Nodes,
    OnNode,
    SendMode,
    Transaction,
)
from lucia._redis.transport.client_errors import is_error_reply, is_outage
from lucia.errors import StoreUnavailable

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

# Safe to repeat, even late: ids are used once (I6), so they can't hit a newer session.
_REVOKES: Final = frozenset({"DEL", "LREM", "SREM"})

_ASK_NODES: Final = (Nodes, OnNode)

SingleCommand = Call | Eval | Transaction | Nodes | OnNode
"""Commands that are sent in one round trip."""


class NoReply(Exception):
    """A signal between two layers: no server answered a command.

    Args:
        error: the client's error; None if the time was over.
        sent: whether a server may have received the command.
    """

    def __init__(self, error: Exception | None, *, sent: bool) -> None:
        super().__init__()
        self.error = error
        self.sent = sent

    def for_another(self) -> "NoReply":
        """Return a copy for another command: raising an error changes it, so nobody shares one."""
        if self.error is None:
            return NoReply(None, sent=self.sent)
        try:
            error = copy.copy(self.error)
        except TypeError:  # some errors of the clients are made of other arguments than they keep
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


@dataclass(slots=True)
class OperationState:
    """How far an operation is, and what follows when a reply is lost.

    Args:
        end: the deadline of the operation, by the monotonic clock.
        during_replay: whether it is the replay itself, which nothing has to wait for.
        is_retry: whether its first command was sent before; then that is not sent again.
        wrote: whether anything may have been written.
        end_of_command: the deadline of the current command.
        lost: the signal for a command that is not sent again.
        began: when the operation began, by the monotonic clock.
    """

    end: float
    during_replay: bool = False
    is_retry: bool = False
    wrote: bool = False
    end_of_command: float = 0.0
    lost: NoReply | None = None
    began: float = field(default_factory=time.monotonic)

    def begin_command(self, seconds: float) -> None:
        """Give the next command so many seconds, within the operation's deadline."""
        self.end_of_command = min(time.monotonic() + seconds, self.end)

    def seconds_left(self) -> float:
        """Return the seconds that the current command has left.

        Raises:
            NoReply: the time is over.
        """
        seconds = self.end_of_command - time.monotonic()
        if seconds <= 0:
            raise NoReply(None, sent=False)
        return seconds

    def mode(self, *, is_retry: bool) -> SendMode:
        """Return how the current command is sent."""
        if is_retry or self.during_replay:
            return SendMode(
                alone=self.during_replay, fresh=is_retry, during_replay=self.during_replay
            )
        return DEFAULT_MODE

    def answered(self, command: SingleCommand) -> None:
        """Record that a command was answered."""
        self.wrote = self.wrote or not is_read(command)

    def error_after_loss(
        self, command: SingleCommand, lost: NoReply, *, is_retry: bool
    ) -> Exception | None:
        """Record a lost reply; return the error to raise, or None to send the command again."""
        self.wrote = self.wrote or (lost.sent and not is_read(command))
        is_safe = not lost.sent or is_repeatable(command)
        if is_safe and not is_retry and lost.error is not None:  # else the time is over
            return None
        self.lost = lost
        return error_to_raise(lost, wrote=self.wrote)


def is_read(command: Command) -> bool:
    """Return whether a command changes nothing."""
    if isinstance(command, Call):
        return command.name in _READS
    return isinstance(command, _ASK_NODES)


def is_repeatable(command: SingleCommand) -> bool:
    """Return whether running a command twice, or late, does no more than running it once."""
    if isinstance(command, Eval):
        return command.script.repeatable
    return is_read(command) or (isinstance(command, Call) and command.name in _REVOKES)


def error_to_raise(lost: NoReply, *, wrote: bool) -> Exception:
    """Return the error for the caller: ``StoreUnavailable``, whose cause is the client's error.

    It is the client's own error if the server refused, and nothing was written.

    Args:
        wrote: whether a write of this operation was executed or may have been (I8).
    """
    # For example, the password is wrong or a right is missing. It will be refused again: somebody
    # has to correct the settings.
    if (
        lost.error is not None
        and not wrote
        and is_error_reply(lost.error)
        and not is_outage(lost.error)
    ):
        return lost.error
    unavailable = StoreUnavailable(ambiguous=wrote)
    unavailable.__cause__ = lost.error
    return unavailable
