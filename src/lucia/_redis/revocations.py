"""A protocol of the store whose endings are remembered, and confirmed by replicas where that is asked for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from lucia._logs import revoked
from lucia._redis.cluster import TOMBSTONE, SlotSteps
from lucia._redis.commands import (
    Argument,
    Batch,
    Call,
    Command,
    Eval,
    Operation,
    ReplicationBarrier,
    Reply,
)
from lucia._redis.operations import to_text
from lucia._redis.records import Layout
from lucia._redis.replay import Revocations
from lucia._redis.store import StoreProtocol
from lucia._rules.sessions import milliseconds
from lucia.errors import RevocationNotReplicated, StoreUnavailable
from lucia.models import SessionRow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """How many replicas have to confirm an ending, and how long they have for it; nobody is asked if it is 0.

    Raises:
        TypeError, ValueError: the number or the time can't be one.
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
                f"revoke_ack is {self.replicas}: expected 0, which asks nobody, or how many replicas have to confirm"
            )
        if self.milliseconds < 1:
            raise ValueError(
                "revoke_ack_timeout is shorter than a millisecond, and the server would take 0 for no end"
            )

    def check_within(self, deadline: timedelta) -> None:
        """Refuse a time that a command does not have.

        Raises:
            ValueError: it is not shorter than the deadline.
        """
        if self.replicas and self.timeout >= deadline:
            raise ValueError(
                f"revoke_ack_timeout ({self.timeout}) must be shorter than the deadline of a command ({deadline})"
            )

    @property
    def milliseconds(self) -> int:
        return milliseconds("revoke_ack_timeout", self.timeout)


class RevocationTracking:
    """The operations of a protocol.

    A renewal is neither confirmed nor done again: nobody asked to end the used session, and if a renewal is undone it goes on where it was.
    Nor is what a cap ends: if that is undone, the next login ends it.
    """

    def __init__(
        self,
        protocol: StoreProtocol,
        layout: Layout,
        revocations: Revocations,
        acknowledgement: Acknowledgement,
    ) -> None:
        self.lookup = protocol.lookup
        self._protocol = protocol
        self._layout = layout
        self._revocations = revocations
        self._acknowledgement = acknowledgement

    @property
    def steps(self) -> SlotSteps:
        """Those of the protocol."""
        return self._protocol.steps

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        """Store a new session."""
        return self._protocol.create(row, random_below)

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        """Store the session of a new login, and end the user's oldest logins beyond the limit."""
        return self._protocol.create_capped(row, limit, now, random_below)

    def get(self, session_id: str) -> Operation[SessionRow | None]:
        """Read one session."""
        return self._protocol.get(session_id)

    def get_once(self, session_id: str) -> Operation[SessionRow | None]:
        """The same, if no reply is another's."""
        return self._protocol.get_once(session_id)

    def get_successor(self, used_id: str) -> Operation[SessionRow | None]:
        """Follow a used id to the live end of its chain of renewals."""
        return self._protocol.get_successor(used_id)

    def renew(
        self, used_id: str, successor: SessionRow, grace: int, sealed: str | None = None
    ) -> Operation[SessionRow | None]:
        """Put ``successor`` in the place of a session, once."""
        found = yield from self._protocol.renew(used_id, successor, grace, sealed)
        if found is successor:
            self._revocations.renewed(used_id, successor.id)
        return found

    def delete(self, session_ids: Iterable[str]) -> Operation[None]:
        """End sessions and what they were renewed to."""
        ids = list(session_ids)
        yield from self._confirmed(self._protocol.delete(ids), ids)

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        """Read a user's sessions, in the order of the index."""
        return self._protocol.get_by_user(user_id, now)

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        """End a user's sessions, but for ``keep`` or what that was renewed to; says whether one was kept."""
        return (yield from self._confirmed(self._protocol.delete_by_user(user_id, keep)))

    def delete_records(self, session_ids: Iterable[str]) -> Operation[None]:
        """Revoke again what was revoked before."""
        return self._protocol.delete_records(session_ids)

    def _confirmed(self, operation: Operation[T], session_ids: Sequence[str] = ()) -> Operation[T]:
        """What the operation returns, once it is remembered and confirmed.

        Raises:
            RevocationNotReplicated: it is done, but not confirmed by all.
        """
        since = self._revocations.changes
        result = yield from self._remembered(operation, session_ids)
        wanted = self._acknowledgement.replicas
        if wanted:
            found = yield ReplicationBarrier(
                f"{self._layout.session}:renewed:",
                TOMBSTONE,
                wanted,
                self._acknowledgement.milliseconds,
            )
            if self._revocations.changes != since:  # another server answered than took the writes
                found = 0
            if found < wanted:
                raise RevocationNotReplicated(
                    f"the sessions are ended, but {found} of {wanted} replicas confirmed it in time: "
                    "if the primary fails now, they can be alive again; ending them again is safe, and asks again",
                    wanted=wanted,
                    acknowledged=found,
                )
        return result

    def _remembered(self, operation: Operation[T], session_ids: Sequence[str]) -> Operation[T]:
        """The operation, of which is remembered what its replies say that it ended.

        These ids too, if it ended anything, or may have: not those that nobody has, of which there can be any number.
        """
        since, ended = self._revocations.changes, set[str]()
        try:
            result = yield from self._watched(operation, ended)
        except BaseException as error:
            if not isinstance(error, Exception) or (
                isinstance(error, StoreUnavailable) and error.ambiguous
            ):
                self._revocations.revoked(session_ids, since)
            raise
        revoked(len(ended))
        if ended and (others := [id_ for id_ in session_ids if id_ not in ended]):
            self._revocations.revoked(others, since)
        return result

    def _watched(self, operation: Operation[T], ended: set[str]) -> Operation[T]:
        """The operation, which adds to ``ended``."""
        advance: Callable[[Any], Command] = operation.send
        outcome: Reply = None
        while True:
            try:
                command = advance(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            since = self._revocations.changes
            try:
                outcome = yield command
            except Exception as error:
                advance, outcome = operation.throw, error
            else:
                advance = operation.send
                found = [self._id_at(key) for key in _ended_keys(command, outcome)]
                if found:
                    self._revocations.revoked(found, since)
                    ended.update(found)

    def _id_at(self, key: Argument) -> str:
        name = to_text(key) if isinstance(key, bytes) else str(key)
        return name.removeprefix(self._layout.session_key(""))


def _ended_keys(command: Command, reply: Reply) -> Sequence[Argument]:
    """The keys of the sessions that a command ended."""
    match command:
        case Batch(commands):
            return [
                key
                for each, its_reply in zip(commands, reply, strict=True)
                for key in _ended_keys(each, its_reply)
            ]
        case Call("DEL", keys) if reply:
            return keys
        case Eval(script, keys) if script.name == "delete":
            return [
                key for key, (record, _) in zip(keys[::2], reply, strict=True) if record is not None
            ]
        case Eval(script, keys, (_, kept, *_)) if script.name.startswith("revoke") and reply == 1:
            return keys[1:-1] if kept else keys[1:]
        case _:
            return ()
