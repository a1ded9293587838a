"""Revocations that are remembered, and confirmed by replicas if the application asks for that.

An operation that revokes sessions sends the commands that do so by a :class:`RevocationRecorder`,
which takes the revoked ids from the reply. :class:`RevocationTracking` gives it the recorder, and
waits for the replicas at the end.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

from lucia._logs import revoked as log_revoked
from lucia._redis.commands import Command, Operation, ReplicationBarrier, Reply
from lucia._redis.keys import Layout
from lucia._redis.replay import Revocations
from lucia._rules.sessions import milliseconds
from lucia.errors import RevocationNotReplicated, StoreUnavailable

T = TypeVar("T")

TOMBSTONE: Final = b'{"ended":true}'
"""The value of a marker that names no successor: the session was revoked, not renewed."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """How many replicas have to confirm a revocation, and how long to wait for them.

    With 0 replicas none is asked.

    Raises:
        TypeError, ValueError: the number or the time is invalid.
    """

    replicas: int
    timeout: timedelta

    def __post_init__(self) -> None:
        if type(self.replicas) is not int:
            raise TypeError(
                f"revoke_ack must be a number of replicas, not {type(self.replicas).__name__}"
            )
        if self.replicas < 0:
            raise ValueError(
                f"revoke_ack is {self.replicas}: expected the number of replicas that have to "
                "confirm, or 0 to ask none"
            )
        # WAIT takes a timeout of 0 for "wait forever".
        if self.milliseconds < 1:
            raise ValueError(
                "revoke_ack_timeout is shorter than a millisecond, the shortest time that the "
                "server can wait"
            )

    def check_within(self, deadline: timedelta) -> None:
        """Raise `ValueError` if the replicas' time is not shorter than a command's deadline."""
        if self.replicas and self.timeout >= deadline:
            raise ValueError(
                f"revoke_ack_timeout ({self.timeout}) must be shorter than the deadline of a "
                f"command ({deadline})"
            )

    @property
    def milliseconds(self) -> int:
        return milliseconds("revoke_ack_timeout", self.timeout)


NO_ACKNOWLEDGEMENT: Final = Acknowledgement(0, timedelta(seconds=1))


class RevocationRecorder(Protocol):
    """Sends the commands that revoke sessions."""

    def send(
        self, command: Command, revoked_by: Callable[[Reply], Iterable[str]]
    ) -> Operation[Any]:
        """Send a command and return its reply.

        Args:
            command: revokes sessions.
            revoked_by: returns the ids that were revoked according to the reply.
        """
        ...


class Unrecorded:
    """Records nothing: for revocations that need no replay."""

    def send(
        self, command: Command, revoked_by: Callable[[Reply], Iterable[str]]
    ) -> Operation[Any]:
        return (yield command)


UNRECORDED: Final = Unrecorded()


class RevokedIds:
    """The ids that one operation has revoked, each remembered as soon as its reply is there.

    The operation may fail at its next command. What it has revoked before must be replayed too.
    """

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self.ids: set[str] = set()

    def send(
        self, command: Command, revoked_by: Callable[[Reply], Iterable[str]]
    ) -> Operation[Any]:
        # Read before the command is sent: if another server takes over while we wait, the former
        # primary may have executed it, and the replay has to repeat it on the new one.
        demand = self._revocations.newest_demand
        reply = yield command
        ids = list(revoked_by(reply))
        self._revocations.revoked(ids, demand)
        self.ids.update(ids)
        return reply


class RevocationTracking:
    """Remembers what the operations of a store revoke, and has replicas confirm it.

    A renewal is neither confirmed nor repeated by the replay: nobody asked to revoke the used
    session, and if a failover undoes the renewal, it goes on as it was. Neither are the logins that
    a cap revokes: if a failover undoes that, the next login revokes them.

    Args:
        layout: the key names.
        revocations: remembers the revoked ids.
        acknowledgement: how many replicas have to confirm a revocation.
    """

    def __init__(
        self,
        layout: Layout,
        revocations: Revocations | None = None,
        acknowledgement: Acknowledgement = NO_ACKNOWLEDGEMENT,
    ) -> None:
        self._layout = layout
        self._revocations = revocations or Revocations()
        self._acknowledgement = acknowledgement

    def renewed(self, used_id: str, successor_id: str) -> None:
        """Remember a renewal: a replay that revokes the successor revokes the used id too."""
        self._revocations.renewed(used_id, successor_id)

    def run(
        self, session_ids: Sequence[str], start: Callable[[RevocationRecorder], Operation[T]]
    ) -> Operation[T]:
        """Run an operation that revokes sessions; return its result once that is confirmed.

        Args:
            session_ids: the ids that the caller asked to revoke.
            start: starts the operation.

        Raises:
            RevocationNotReplicated: the sessions are revoked, but too few replicas confirmed it.
        """
        demand = self._revocations.newest_demand
        result = yield from self._remember(session_ids, start)
        if self._acknowledgement.replicas:
            yield from self._confirm(demand)
        return result

    def _remember(
        self, session_ids: Sequence[str], start: Callable[[RevocationRecorder], Operation[T]]
    ) -> Operation[T]:
        """Run the operation, and remember what it revoked."""
        demand, recorder = self._revocations.newest_demand, RevokedIds(self._revocations)
        try:
            result = yield from start(recorder)
        except BaseException as error:
            # Cancelled, or the reply was lost (I8): the server may have executed the command.
            if not isinstance(error, Exception) or (
                isinstance(error, StoreUnavailable) and error.ambiguous
            ):
                self._revocations.revoked(session_ids, demand)
            raise
        log_revoked(len(recorder.ids))
        # All ids that were asked for, unless no session was revoked: anybody can send any number of
        # ids that do not exist.
        if recorder.ids:
            others = [id_ for id_ in session_ids if id_ not in recorder.ids]
            self._revocations.revoked(others, demand)
        return result

    def _confirm(self, demand: int) -> Operation[None]:
        wanted = self._acknowledgement.replicas
        confirmed = yield ReplicationBarrier(
            f"{self._layout.session}:renewed:",
            TOMBSTONE,
            wanted,
            self._acknowledgement.milliseconds,
        )
        # Another server answered than the one that took the writes: its replicas confirm nothing.
        if self._revocations.newest_demand != demand:
            confirmed = 0
        if confirmed < wanted:
            raise RevocationNotReplicated(
                f"the sessions are revoked, but {confirmed} of {wanted} replicas confirmed it in "
                "time: if the primary fails now, the sessions can be valid again; revoking them "
                "again is safe, and asks the replicas again",
                wanted=wanted,
                acknowledged=confirmed,
            )
