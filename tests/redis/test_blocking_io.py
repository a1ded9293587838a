"""A socket with one deadline for all its calls."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

import pytest

from lucia._redis.transport.blocking_io import TimedSocket

MUCH: Final = b"x" * 4_000_000
"""More than the buffers of a socket pair can hold."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def in_seconds(seconds: float) -> float:
    return time.monotonic() + seconds


def receive_all(from_: socket.socket | TimedSocket, count: int, into: bytearray) -> None:
    while len(into) < count:
        into += from_.recv(65_536)


def test_sends_all(pair: tuple[socket.socket, socket.socket]) -> None:
    """Data that does not fit into one packet is sent whole."""
    received = bytearray()
    reader = threading.Thread(target=receive_all, args=(pair[1], len(MUCH), received))
    reader.start()
    TimedSocket(pair[0], in_seconds(30)).sendall(MUCH)
    reader.join(30)
    assert received == MUCH


def test_send_stops_at_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    """Sending stops at the deadline."""
    with pytest.raises(TimeoutError):
        TimedSocket(pair[0], in_seconds(0.1)).sendall(MUCH)


def test_reads_byte_by_byte(pair: tuple[socket.socket, socket.socket]) -> None:
    """Receiving stops at the deadline, however often something arrives."""
    timed = TimedSocket(pair[0], in_seconds(0.3))
    is_over = threading.Event()

    def send_bytes() -> None:
        while not is_over.wait(0.02):
            pair[1].sendall(b"x")

    sender = threading.Thread(target=send_bytes)
    sender.start()
    received = bytearray()
    try:
        with pytest.raises(TimeoutError):
            receive_all(timed, 1_000, received)
    finally:
        is_over.set()
        sender.join()
    assert received


def test_nothing_is_received_after_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    """After the deadline not even waiting data is received; a new deadline allows it."""
    pair[1].sendall(b"x")
    timed = TimedSocket(pair[0], in_seconds(0))
    buffer = bytearray(1)
    with pytest.raises(TimeoutError):
        timed.recv_into(buffer)
    timed.deadline = in_seconds(10)
    assert timed.recv_into(buffer) == 1
    assert buffer == b"x"


def test_non_blocking_socket_does_not_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    """A non-blocking socket does not wait, whatever the deadline."""
    timed = TimedSocket(pair[0], in_seconds(30))
    timed.settimeout(0)
    with pytest.raises(BlockingIOError):
        timed.recv(1)
