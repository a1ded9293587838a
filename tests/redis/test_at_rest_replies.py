"""The operations with hashed ids, reply by reply: their commands, and mismatched replies."""

from typing import Any, Final

import pytest

from lucia._redis.at_rest import HashedIdStore
from lucia._redis.cluster import ClusterStore, ScriptedSteps
from lucia._redis.commands import Batch, Call, Command, DropConnections, Eval, Operation
from lucia._redis.records import Marker, encode_marker
from lucia._redis.single_server import SingleServerStore
from lucia._rules.id_hashes import HashedIds, RawIds
from tests.support.redis_inspectors import DEFAULT
from tests.support.sessions import row

KEY, OLD = (bytes([number]) * 32 for number in (1, 2))
ID: Final = "IdOneIdOneIdOneIdOneIdOneIdOneIdOneIdOne"


def store(*, one_server: bool = True, raw_ids: RawIds = "read") -> HashedIdStore:
    """Return a store with a ring of two keys."""
    protocol = SingleServerStore(DEFAULT) if one_server else ClusterStore(DEFAULT, ScriptedSteps())
    return HashedIdStore(protocol, DEFAULT, HashedIds([KEY, OLD], raw_ids), one_server=one_server)


def commands(operation: Operation[Any], *replies: Any) -> list[Command]:
    """Return the commands of an operation that gets these replies."""
    found = [next(operation)]
    found += [operation.send(reply) for reply in replies]
    return found


def keys_of(operation: Operation[Any]) -> tuple[Any, ...]:
    """Return the keys that the operation reads first, on one server."""
    (command,) = commands(operation)
    assert isinstance(command, Call)
    assert command.name == "MGET"
    return command.arguments


SESSIONS: Final = tuple(map(DEFAULT.session_key, HashedIds([KEY, OLD]).candidates(ID)))
MARKERS: Final = tuple(map(DEFAULT.marker_key, HashedIds([KEY, OLD]).candidates(ID)))
PAIRS: Final = tuple(zip(SESSIONS, MARKERS, strict=True))


def test_one_command() -> None:
    """On one server all candidates of an id are read by one command."""
    assert keys_of(store().get(ID)) == SESSIONS
    assert keys_of(store().get_successor(ID)) == MARKERS
    assert (
        keys_of(store().renew(ID, row("new"), 0))
        == keys_of(store().delete_by_user("u1", ID))
        == (*PAIRS[0], *PAIRS[1], *PAIRS[2])
    )
    assert keys_of(store().delete([ID])) == PAIRS[2]


def test_one_command_a_slot() -> None:
    """In a cluster the candidates are a batch of commands for one slot each.

    An id whose marker would be in another slot has none.
    """
    assert commands(store(one_server=False).get(ID)) == [
        Batch(tuple(Call("MGET", (key,)) for key in SESSIONS))
    ]
    assert commands(store(one_server=False).renew(ID, row("new"), 0)) == [
        Batch(tuple(Call("MGET", pair) for pair in PAIRS))
    ]
    assert commands(store(one_server=False).delete(["a}b"])) == [
        Batch((Call("MGET", ("session:a}b",)),))
    ]


def test_nothing_to_find_out() -> None:
    """If raw ids are refused, revoking needs no read first."""
    (command,) = commands(store(raw_ids="refuse").delete([ID]))
    assert isinstance(command, Eval)
    assert command.keys == (*PAIRS[0], *PAIRS[1])


@pytest.mark.parametrize(
    "crossed", [b"PONG", None, 1, [], [None], [None, None, 1], [None, None, [b"x"]]], ids=range(7)
)
def test_mismatched_reply_drops_connections(crossed: Any) -> None:
    """A reply of another shape drops the connections, and the read is sent again.

    A second such reply means that there is no session.
    """
    operation = store().get(ID)
    first, drop, again = commands(operation, crossed, None)
    assert drop == DropConnections()
    assert again == first
    with pytest.raises(StopIteration) as end:
        operation.send(crossed)
    assert end.value.value is None


def test_mismatched_marker_drops_connections() -> None:
    """A marker of another id is treated as a mismatched reply too."""
    other = encode_marker(Marker("other", "somebody's", 60_000))
    operation = store().get_successor(ID)
    assert commands(operation, [other, None, None])[-1] == DropConnections()


def test_revocation_succeeds_despite_mismatched_replies() -> None:
    """After two mismatched replies, a revocation revokes all candidates of the id."""
    *_, end = commands(store().delete([ID]), b"PONG", None, b"PONG")
    assert isinstance(end, Eval)
    assert end.keys == (*PAIRS[0], *PAIRS[1], *PAIRS[2])
