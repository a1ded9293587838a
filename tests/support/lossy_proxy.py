"""A proxy in front of a server that loses the replies to some commands."""

import select
import threading
from contextlib import suppress
from socket import create_connection, create_server, socket

__all__ = ["LossyProxy"]


class LossyProxy:
    """A proxy that loses the replies to some commands by closing the client's connection.

    Args:
        port: the port of the server.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._word = b""
        self._count = self._passed_on = 0
        self._halves = False
        self.lost = 0

    def __enter__(self) -> "LossyProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def lose(
        self, word: str, count: int = 1_000, *, after: int = 0, halves: bool = False
    ) -> "LossyProxy":
        """Lose the replies to commands that contain this word from now on.

        Args:
            word: the word in the commands.
            count: the number of replies to lose.
            after: the number of replies to forward first.
            halves: forward the first half of each reply, and keep the connection open.
        """
        self._word, self._count, self._passed_on, self._halves, self.lost = (
            word.encode(),
            count,
            after,
            halves,
            0,
        )
        return self

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket) -> None:
        with suppress(OSError), near, create_connection(("127.0.0.1", self._target)) as far:
            while True:
                readable, _, _ = select.select([near, far], [], [])
                source, target = (far, near) if far in readable else (near, far)
                data = source.recv(1 << 16)
                target.sendall(data)
                if not data:
                    return
                if source is near and self._loses(data):
                    reply = far.recv(1 << 16)
                    if self._halves:
                        near.sendall(reply[: len(reply) // 2])
                    self.lost += 1
                    while (
                        self._halves
                        and select.select([near, far], [], [])[0] == [far]
                        and far.recv(1 << 16)
                    ):
                        pass  # read and drop the other half
                    return

    def _loses(self, data: bytes) -> bool:
        """Return whether these bytes have a command whose reply is to be lost."""
        if self._word not in data or not self._count:
            return False
        if self._passed_on:
            self._passed_on -= 1
            return False
        self._count -= 1
        return True
