"""``python -m examples.demo``: serve the demo, or check it without a browser."""

import argparse
import asyncio
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType

import uvicorn

from lucia import SessionExpiry

from .accounts import Accounts
from .app import create_app
from .check import check
from .redis_view import RedisView
from .servers import ADVICE, LOOPBACK, Server, ServerError, redis_server

DEFAULT_PORT = 8000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit code: 1 if the check failed, 2 without a server."""
    options = parse(arguments)
    # Exit by an exception, so that the Redis server that was started is stopped too.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    # A shell starts background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with folder(options.data) as data, redis_server(data) as server:
            if options.check:
                return run_check(data, server)
            serve(options, data, server)
    except (ServerError, OSError) as error:
        print(f"{error}\n{ADVICE}" if isinstance(error, ServerError) else error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before it served, or during the check
        return 128 + signal.SIGINT
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description="Serve the demo, or check it."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="run the whole job without a browser, and say what Redis holds at each step",
    )
    parser.add_argument(
        "--host", default=LOOPBACK, help="the address to listen on (default: this machine alone)"
    )
    parser.add_argument(
        "--port",
        type=int,
        help=f"the port to listen on (default: {DEFAULT_PORT}, or a free one if that is taken)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep the users and the key of their session ids here "
        "(default: a folder that is removed at the end)",
    )
    parser.add_argument(
        "--active",
        type=float,
        default=86_400,
        metavar="SECONDS",
        help="the active period of a session (default: a day)",
    )
    parser.add_argument(
        "--idle",
        type=float,
        default=14 * 86_400,
        metavar="SECONDS",
        help="the idle period after it (default: 14 days)",
    )
    return parser.parse_args(arguments)


def run_check(data: Path, server: Server | None) -> int:
    """Run the check with this server, and return the exit code."""
    if server is None:
        print(f"There is no Redis server, and the check needs one.\n{ADVICE}", file=sys.stderr)
        return 2
    return asyncio.run(check(server, data))


def serve(options: argparse.Namespace, data: Path, server: Server | None) -> None:
    """Serve the demo until it is stopped."""
    expiry = SessionExpiry(
        active=timedelta(seconds=options.active),
        idle=timedelta(seconds=options.idle),
        absolute=timedelta(days=90),
    )
    key = session_key(data)
    redis = RedisView.connect(server.url, server.about, key) if server else None
    app = create_app(Accounts(data / "users.sqlite3"), redis, expiry)
    with listen(options.host, options.port) as listener:
        in_memory = f"in memory, since there is no Redis server. {ADVICE}"
        print(f"Sessions: {server.about if server else in_memory}")
        print(f"Users:    {data / 'users.sqlite3'}")
        print(f"Open:     {address(options.host, listener)}   (Ctrl-C ends it)", flush=True)
        run_until_signal(
            uvicorn.Server(
                uvicorn.Config(app, log_level="warning", proxy_headers=False, server_header=False)
            ),
            listener,
        )


def run_until_signal(server: uvicorn.Server, listener: socket.socket) -> None:
    """Run the server until SIGINT, SIGTERM or SIGHUP.

    Raises:
        SystemExit: a signal was not SIGINT; the code is 128 plus its number.
    """
    received: list[int] = []

    # No exception here: if the garbage collector runs a ``__del__`` just then, Python drops it.
    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    # While it serves, uvicorn handles SIGINT and SIGTERM itself; at its end it raises them again.
    # Later signals are ignored, so that nothing interrupts the clean-up.
    server.run(sockets=[listener])
    ended_by = next((number for number in received if number != signal.SIGINT), None)
    if ended_by is not None:
        _leave(ended_by, None)


def listen(host: str, port: int | None) -> socket.socket:
    """Open a listening socket. Without a port, it is the default one or, if taken, a free one."""
    if port is not None:
        return _listen(host, port)
    try:
        return _listen(host, DEFAULT_PORT)
    except OSError:
        return _listen(host, 0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def address(host: str, listener: socket.socket) -> str:
    """Return the URL to open; for a wildcard address, with this machine's name."""
    port = listener.getsockname()[1]
    name = (
        socket.gethostname()
        if host in ("0.0.0.0", "::")  # noqa: S104 -- compared, not bound
        else "localhost"
        if host == LOOPBACK
        else host
    )
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


@contextmanager
def folder(data: Path | None) -> Generator[Path, None, None]:
    """Yield the folder for all files: the given one, or a temporary one."""
    if data is not None:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="lucia-demo-") as temporary:
        yield Path(temporary)


def session_key(data: Path) -> bytes:
    """Return the key under which ids are hashed, which is made once for each folder."""
    file = data / "session.key"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_bytes(secrets.token_bytes(32))
    return file.read_bytes()


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
