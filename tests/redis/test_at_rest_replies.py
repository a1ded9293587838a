"""The operations over hashed ids, reply by reply.

What is asked in one command, and replies that were crossed.
"""

from typing import Any, Final

import pytest

from lucia._redis.at_rest import HashedIds, HashedIdStore, RawIds
from lucia._redis.cluster import ClusterStore, ScriptedSteps
from lucia._redis.commands import Batch, Call, Command, DropConnections, Eval, Operation
from lucia._redis.records import Marker, encode_marker
from lucia._redis.single_server import SingleServerStore
from tests.support.redis_inspectors import DEFAULT
from tests.support.sessions import row

KEY, OLD = (bytes([number]) * 32 for number in (1, 2))
ID: Final = "IdOneIdOneIdOneIdOneIdOneIdOneIdOneIdOne"


def store(*, one_server: bool = True, raw_ids: RawIds = "read") -> HashedIdStore:
    """The operations by two keys."""
    protocol = SingleServerStore(DEFAULT) if one_server else ClusterStore(DEFAULT, ScriptedSteps())
    return HashedIdStore(protocol, DEFAULT, HashedIds([KEY, OLD], raw_ids), one_server=one_server)


def commands(operation: Operation[Any], *replies: Any) -> list[Command]:
    """The commands of an operation that gets these replies."""
    found = [next(operation)]
    found += [operation.send(reply) for reply in replies]
    return found


def keys_of(operation: Operation[Any]) -> tuple[Any, ...]:
    """The keys that the operation asks for first, on one server."""
    (command,) = commands(operation)
    assert isinstance(command, Call)
    assert command.name == "MGET"
    return command.arguments


SESSIONS: Final = tuple(map(DEFAULT.session_key, HashedIds([KEY, OLD]).candidates(ID)))
MARKERS: Final = tuple(map(DEFAULT.marker_key, HashedIds([KEY, OLD]).candidates(ID)))
PAIRS: Final = tuple(zip(SESSIONS, MARKERS, strict=True))


def test_one_command() -> None:
    """On one server a read asks for all candidates in one command, and so does what finds out which
    of them it is.
    """
    assert keys_of(store().get(ID)) == SESSIONS
    assert keys_of(store().get_successor(ID)) == MARKERS
    assert (
        keys_of(store().renew(ID, row("new"), 0))
        == keys_of(store().delete_by_user("u1", ID))
        == (*PAIRS[0], *PAIRS[1], *PAIRS[2])
    )
    assert keys_of(store().delete([ID])) == PAIRS[2]


def test_one_command_a_slot() -> None:
    """In a cluster it is a batch, of commands whose keys are in one slot.

    An id whose marker can't be there has none.
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
    """Where only hashes stand for ids, ending asks for nothing first."""
    (command,) = commands(store(raw_ids="refuse").delete([ID]))
    assert isinstance(command, Eval)
    assert command.keys == (*PAIRS[0], *PAIRS[1])


@pytest.mark.parametrize(
    "crossed", [b"PONG", None, 1, [], [None], [None, None, 1], [None, None, [b"x"]]], ids=range(7)
)
def test_crossed_reply(crossed: Any) -> None:
    """A reply of another shape drops the connections, and is asked for once more.

    Wrong again is no session.
    """
    operation = store().get(ID)
    first, drop, again = commands(operation, crossed, None)
    assert drop == DropConnections()
    assert again == first
    with pytest.raises(StopIteration) as end:
        operation.send(crossed)
    assert end.value.value is None


def test_crossed_marker() -> None:
    """Another id's marker is a crossed reply too."""
    other = encode_marker(Marker("other", "somebody's", 60_000))
    operation = store().get_successor(ID)
    assert commands(operation, [other, None, None])[-1] == DropConnections()


def test_ending_in_spite_of_crossed_replies() -> None:
    """What is asked for before an end can't prevent it.

    If replies are crossed twice, all that may stand for the id is revoked.
    """
    *_, end = commands(store().delete([ID]), b"PONG", None, b"PONG")
    assert isinstance(end, Eval)
    assert end.keys == (*PAIRS[0], *PAIRS[1], *PAIRS[2])
