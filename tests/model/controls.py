"""Protocols that are known to be wrong.

The explorer has to find the invariant that each breaks: a model that misses it proves nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from lucia._redis.cluster import INDEX_SLACK_MS, ClusterStore, ScriptedSteps
from lucia._redis.commands import Batch, Call, Eval, Operation
from lucia._redis.operations import (
    decode_rows,
    follow_chain,
    marker_or_none,
    resolve_chain,
    to_text,
)
from lucia._redis.records import Marker, encode_marker, encode_row
from lucia._redis.revocations import UNRECORDED, RevocationRecorder
from lucia._redis.single_server import SingleServerStore
from lucia._redis.store import Store
from lucia._rules.caps import surplus_sessions
from lucia._rules.sessions import MARKER_MS
from lucia.models import SessionRow
from tests.model.world import LAYOUT


class IndexFirst(ClusterStore):
    """A create that adds the id to the index before it writes the session.

    A sign-out in between removes the id for good.
    """

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        yield from self.steps.add_to_index(
            self._layout.index, self._layout.index_key(row.user_id), row.id, row.idle_expires
        )
        yield Call(
            "SET",
            (self._layout.session_key(row.id), encode_row(row), "NX", "PXAT", row.idle_expires),
        )


class IndexDeleted(ClusterStore):
    """The shipped protocol, but a sign-out everywhere deletes the index.

    Ids that it did not see are lost.
    """

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        index = self._layout.index_key(user_id)
        ids = yield from self._layout.index.read(index)
        yield from self._revoke(map(to_text, ids), set(), UNRECORDED)
        yield Call("DEL", (index,))
        return False


class LuciaJsProtocol(IndexDeleted):
    """The protocol of Lucia JS's adapter.

    A login sends both writes at once, and a sign-out everywhere deletes the index.
    """

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        push = Eval(
            self._layout.index.scripts.push,
            (self._layout.index_key(row.user_id),),
            (row.id, row.idle_expires, INDEX_SLACK_MS),
        )
        yield Batch(
            (
                push,
                Call(
                    "SET",
                    (self._layout.session_key(row.id), encode_row(row), "PXAT", row.idle_expires),
                ),
            )
        )


class SeparateIndexTtl(ClusterStore):
    """A create that sets the index's TTL in a step of its own.

    A crash before that step leaves a key without a TTL.
    """

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        index = self._layout.index_key(row.user_id)
        yield Call(
            "SET",
            (self._layout.session_key(row.id), encode_row(row), "NX", "PXAT", row.idle_expires),
        )
        yield Call("LPUSH", (index, row.id))
        yield Call("PEXPIREAT", (index, row.idle_expires + INDEX_SLACK_MS))


class Overwriting(ClusterStore):
    """A create that overwrites an existing session, as that of Lucia JS does after a check.

    With two creates at once, or a taken id, one session is lost.
    """

    def create(self, row: SessionRow, random_below: Callable[[int], int]) -> Operation[None]:
        yield Call(
            "SET", (self._layout.session_key(row.id), encode_row(row), "PXAT", row.idle_expires)
        )
        yield from self.steps.add_to_index(
            self._layout.index, self._layout.index_key(row.user_id), row.id, row.idle_expires
        )


class BlindPrune(ClusterStore):
    """A listing that removes all ids it saw from the index, even live ones."""

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        index = self._layout.index_key(user_id)
        ids = yield from self._layout.index.read(index)
        records = yield from self._read_records(ids)
        yield from self._remove_from_index(index, ids)
        return decode_rows(user_id, ids, records)


class NeverPruned(ClusterStore):
    """A listing that leaves dead ids in the index."""

    def get_by_user(self, user_id: str, now: int) -> Operation[list[SessionRow]]:
        ids = yield from self._layout.index.read(self._layout.index_key(user_id))
        return decode_rows(user_id, ids, (yield from self._read_records(ids)))


class MarkerFirst(ClusterStore):
    """A renewal that names its successor in the marker before it creates it.

    After a crash in between, the marker names a session that may be created later, or never.
    """

    def renew(
        self, used_id: str, successor: SessionRow, grace: int, sealed: str | None = None
    ) -> Operation[SessionRow | None]:
        used, pointer = self._layout.session_key(used_id), self._layout.marker_key(used_id)
        own = Marker(used_id, successor.id, grace, sealed)
        won = yield Call("SET", (pointer, encode_marker(own), "NX", "PX", MARKER_MS))
        if not won:
            (value,) = yield Call("MGET", (pointer,))
            marker = marker_or_none(value, used_id)
            return (
                yield from follow_chain(self._layout, None if marker is None else marker.successor)
            )
        if (yield Call("MGET", (used,)))[0] is None:
            return None
        yield from self._store(successor)
        yield Call("DEL", (used,))
        return successor


class CreateThenDelete(ClusterStore):
    """A renewal without a marker.

    A sign-out everywhere that saw only the used id misses the successor.
    """

    def renew(
        self, used_id: str, successor: SessionRow, grace: int, sealed: str | None = None
    ) -> Operation[SessionRow | None]:
        yield from self._store(successor)
        if (yield Call("DEL", (self._layout.session_key(used_id),))):
            return successor
        yield Call("DEL", (self._layout.session_key(successor.id),))
        return None


class LoserKeeps(ClusterStore):
    """A renewal that leaves its successor alive though another renewal won."""

    def renew(
        self, used_id: str, successor: SessionRow, grace: int, sealed: str | None = None
    ) -> Operation[SessionRow | None]:
        yield from self._store(successor)
        used, marker_key = self._layout.session_key(used_id), self._layout.marker_key(used_id)
        answer = yield from self.steps.replace_with_marker(
            used, marker_key, encode_marker(Marker(used_id, successor.id, grace, sealed))
        )
        found = None if answer is None else marker_or_none(answer[0], used_id)
        return (
            successor
            if answer is None
            else (yield from follow_chain(self._layout, None if found is None else found.successor))
        )


class MarkersIgnored(ClusterStore):
    """A revocation that misses the successors of sessions."""

    def _revoke(
        self, session_ids: Iterable[str], seen: set[str | None], recorder: RevocationRecorder
    ) -> Operation[set[str]]:
        revoked = {id_ for id_ in session_ids if id_ not in seen}
        for id_ in revoked:
            yield Call("DEL", (self._layout.session_key(id_),))
        return revoked


class HandleIgnored(ClusterStore):
    """A sign-out that keeps a session and its successors, but not one still being renewed to."""

    def delete_by_user(self, user_id: str, keep: str | None = None) -> Operation[bool]:
        index = self._layout.index_key(user_id)
        ids = yield from self._layout.index.read(index)
        found = None if keep is None else (yield from resolve_chain(self._layout, user_id, keep))
        spared: set[str | None] = set() if found is None else {*found[0]}
        revoked = [id_ for id_ in ids if to_text(id_) not in spared]
        yield from self._revoke(map(to_text, revoked), spared, UNRECORDED)
        yield from self._remove_from_index(index, revoked)
        return found is not None


class RevokesWithoutComparing(SingleServerStore):
    """A sign-out that revokes the ids it read, though the index may have changed."""

    def _revoke(
        self,
        index: str,
        ids: Sequence[bytes],
        kept: str | None,
        recorder: RevocationRecorder,
        *,
        whole: bool,
    ) -> Operation[bool]:
        return super()._revoke(index, ids, kept, recorder, whole=False)


class RevokesThenCreates(SingleServerStore):
    """A capped login that revokes the surplus, though the index may have changed."""

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        yield from self._make_room(row, limit, now)
        yield from self.create(row, random_below)
        return row


class SurplusBeforeCreate(ClusterStore):
    """A capped login that computes the surplus before it is indexed.

    Two such logins miss each other.
    """

    def create_capped(
        self, row: SessionRow, limit: int, now: int, random_below: Callable[[int], int]
    ) -> Operation[SessionRow]:
        rows = yield from self.get_by_user(row.user_id, now)
        yield from self.create(row, random_below)
        yield from self.delete(surplus_sessions(rows, row, limit, now))
        return row


class IgnoresSuccessors(ClusterStore):
    """A capped login that revokes the surplus, but not the successors of renewals meanwhile."""

    def _delete(self, session_ids: Iterable[str], recorder: RevocationRecorder) -> Operation[None]:
        for id_ in session_ids:
            yield Call("DEL", (self._layout.session_key(id_),))


class Control(NamedTuple):
    """A wrong protocol, the invariant that it breaks, and a scenario in which it does."""

    store: Store
    invariant: str
    scenario: str


CONTROLS: Final = (
    Control(IndexFirst(LAYOUT, ScriptedSteps()), "I1", "two logins, a sign-out"),
    Control(LuciaJsProtocol(LAYOUT, ScriptedSteps()), "I1", "two logins, a sign-out"),
    Control(IndexDeleted(LAYOUT, ScriptedSteps()), "I1", "two logins, a sign-out"),
    Control(BlindPrune(LAYOUT, ScriptedSteps()), "I1", "two listings, a login"),
    Control(MarkerFirst(LAYOUT, ScriptedSteps()), "I2", "a renewal, a sign-out, failing"),
    Control(CreateThenDelete(LAYOUT, ScriptedSteps()), "I2", "a renewal, a sign-out, failing"),
    Control(MarkersIgnored(LAYOUT, ScriptedSteps()), "I2", "a renewal, an end, failing"),
    Control(RevokesWithoutComparing(LAYOUT), "I2", "a renewal, a sign-out"),
    Control(SeparateIndexTtl(LAYOUT, ScriptedSteps()), "I3", "two logins, a sign-out"),
    Control(Overwriting(LAYOUT, ScriptedSteps()), "I4", "a login with a taken id"),
    Control(CreateThenDelete(LAYOUT, ScriptedSteps()), "I5", "two renewals, re-sent"),
    Control(LoserKeeps(LAYOUT, ScriptedSteps()), "I5b", "two renewals"),
    Control(RevokesThenCreates(LAYOUT), "cap", "two capped logins"),
    Control(SurplusBeforeCreate(LAYOUT, ScriptedSteps()), "cap", "two capped logins"),
    Control(IgnoresSuccessors(LAYOUT, ScriptedSteps()), "cap", "a capped login, a renewal"),
    Control(HandleIgnored(LAYOUT, ScriptedSteps()), "keep", "a renewal, others signed out"),
    Control(BlindPrune(LAYOUT, ScriptedSteps()), "list", "two listings, a login"),
    Control(NeverPruned(LAYOUT, ScriptedSteps()), "list", "two listings, a login"),
)
