"""Store very many sessions quickly, as copies of one that the library has created.

A measured second reads hundreds of thousands of sessions, if each is read only once. Creating them
with the library would take several times as long as measuring. So the library creates one session,
and the Redis keys that have its id in their name are copied in a pipeline, each copy with another
session id and user id. Other keys, such as the user's list of sessions, are not copied: no
validation reads them.
"""

import random
import secrets
import uuid
from collections.abc import Iterator, Sequence
from socket import create_connection
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis

from bench.drive import SESSIONS_EACH

if TYPE_CHECKING:
    from bench.subjects import Running

__all__ = ["Stock", "session_ids", "stock", "users_of"]

HOST: Final = "127.0.0.1"
PIECE: Final = 1_000
"""The number of sessions whose commands are sent at once."""

PREFIX_BYTES: Final = 4
OK: Final = b"+OK\r\n"


class Stock(NamedTuple):
    """The pattern of the ids of stored sessions.

    Args:
        prefix: the prefix of all ids of this stock.
        length: the length of an id. The session's number follows the prefix, in hexadecimal.
    """

    prefix: str
    length: int


def stock(subject: "Running", port: int, count: int) -> Stock | None:
    """Store `count` sessions of a subject on the server at this port.

    Returns:
        The stock; None if the library has no key with the session's id in its name.

    Raises:
        AssertionError: the server has not stored all of them.
    """
    session_id, user_id = subject.ask("template")
    client: Any
    with redis.Redis(host=HOST, port=port, protocol=2) as client:
        commands = [_command(client, key) for key in client.keys(f"*{session_id}*")]
        if not commands:
            return None
        made = Stock(secrets.token_hex(PREFIX_BYTES), len(session_id))
        before: int = client.dbsize()
        _send(port, _filled(b"".join(commands), session_id, user_id, made, count))
        stored: int = client.dbsize()
    assert stored - before == count * len(commands), (
        f"{count:,} sessions were stored as {stored - before:,} keys"
    )
    return made


def session_ids(made: Stock, numbers: Sequence[int]) -> list[str]:
    """Return the ids of the sessions with these numbers."""
    digits = made.length - len(made.prefix)
    return [f"{made.prefix}{number:0{digits}x}" for number in numbers]


def users_of(numbers: Sequence[int]) -> list[str]:
    """Return the user ids of the sessions with these numbers."""
    return [f"{number // SESSIONS_EACH:032x}" for number in numbers]


def _command(client: Any, key: bytes) -> bytes:
    """Return the encoded command that writes this key with its value and TTL."""
    words = [b"SET", key, client.get(key), b"PX", b"%d" % client.pttl(key)]
    return b"*%d\r\n%b" % (
        len(words),
        b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words),
    )


def _filled(
    command: bytes, session_id: str, user_id: str, made: Stock, count: int
) -> Iterator[bytes]:
    """Yield the commands for all sessions, with the first session's ids replaced.

    The order is random, so that reads in order of the numbers spread over the server's memory.
    """
    of_session, of_user, dashed = (
        session_id.encode(),
        user_id.encode(),
        str(uuid.UUID(user_id)).encode(),
    )
    numbers = random.sample(range(count), count)
    for begin in range(0, count, PIECE):
        some = numbers[begin : begin + PIECE]
        piece: list[bytes] = []
        for own, user in zip(session_ids(made, some), users_of(some), strict=True):
            filled = command.replace(of_session, own.encode()).replace(of_user, user.encode())
            piece.append(
                filled.replace(dashed, str(uuid.UUID(user)).encode())
                if dashed in command
                else filled
            )
        yield b"".join(piece)


def _send(port: int, pieces: Iterator[bytes]) -> None:
    """Send commands without replies, and wait until the server has executed all."""
    with create_connection((HOST, port)) as connection:
        connection.sendall(b"CLIENT REPLY OFF\r\n")
        for piece in pieces:
            connection.sendall(piece)
        connection.sendall(b"CLIENT REPLY ON\r\n")
        answer = connection.recv(len(OK))
        assert answer == OK, answer
