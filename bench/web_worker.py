"""A process that serves one web application: with uvicorn, or one of WSGI with waitress.

``python -m bench.web_worker APPLICATION LOOP URL SETTINGS``, where the loop ``threads`` stands for
WSGI. It reads requests from stdin as :mod:`bench.worker` does. Only the HTTP requests that log in
are its own.
"""

import asyncio
import gc
import importlib
import json
import logging
import sys
import threading
import time
from http.client import HTTPConnection
from socket import AF_INET, IPPROTO_TCP, SOCK_STREAM, socket
from typing import Any, Final, Literal

import uvicorn
from waitress.server import create_server  # type: ignore[import-untyped] # it has no types

from bench.drive import user_ids
from bench.peer import expect
from bench.peers import CONNECTIONS
from bench.web import Web
from bench.worker import loop_factory, serve

HOST: Final = "127.0.0.1"
THREADS: Final = 8
"""The number of threads in which applications of WSGI run."""


class WebWorker:
    """The methods that the runner calls, for a web application."""

    def __init__(self, web: Web, port: int) -> None:
        self._guarded = web.guarded
        self._port = port

    async def check(self) -> list[str]:
        """Check that the application recognises a logged-in user.

        Raises:
            AssertionError: it does not.
        """
        alice = user_ids(1)[0]
        (cookie,) = await self.log_in(1)
        expect("whose cookie it is", await asyncio.to_thread(self._who, cookie), (200, alice))
        if self._guarded:
            other = cookie[:-1] + ("b" if cookie[-1] == "a" else "a")
            expect(
                "an unknown cookie's answer", (await asyncio.to_thread(self._who, other))[0], 401
            )
        return ["load"]

    async def address(self) -> str:
        """Return the URL of the measured endpoint."""
        return f"http://{HOST}:{self._port}/me"

    async def time(self) -> float:
        """Return the processor time that this process has used, in seconds."""
        return time.process_time()

    async def objects(self) -> int:
        """Return the number of objects that the garbage collector tracks."""
        gc.collect()
        return len(gc.get_objects())

    async def log_in(self, count: int) -> list[str]:
        """Log `count` users in, and return their Cookie headers."""
        if not self._guarded:  # nobody can log in, but requests have a cookie all the same
            return [f"session={user_id}" for user_id in user_ids(count)]
        return await asyncio.to_thread(self._log_in, count)

    def _log_in(self, count: int) -> list[str]:
        connection = HTTPConnection(HOST, self._port)
        cookies: list[str] = []
        for user_id in user_ids(count):
            connection.request(
                "POST", f"/login/{user_id}", headers={"Origin": f"http://{HOST}:{self._port}"}
            )
            response = connection.getresponse()
            response.read()
            cookies.append(response.headers["Set-Cookie"].partition(";")[0])
        connection.close()
        return cookies

    def _who(self, cookie: str) -> tuple[int, str]:
        connection = HTTPConnection(HOST, self._port)
        connection.request("GET", "/me", headers={"Cookie": cookie})
        response = connection.getresponse()
        answer: dict[str, str] = json.load(response) if response.status == 200 else {}
        connection.close()
        return response.status, answer.get("user_id", "").replace("-", "")


def tune() -> None:
    """Freeze existing objects, and let the garbage collector run less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def serve_asgi(web: Web, *, http: Literal["h11", "httptools"], tuned: bool) -> None:
    """Serve an application with uvicorn until stdin is closed."""
    config = uvicorn.Config(
        web.app, http=http, lifespan="off", access_log=False, log_level="warning"
    )
    server = uvicorn.Server(config)
    # asyncio sets TCP_NODELAY only if the socket names its protocol, as asyncio's own sockets do.
    listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP)
    listener.bind((HOST, 0))
    listener.listen()  # requests that arrive before the server has started wait
    if tuned:
        tune()
    serving = asyncio.create_task(server.serve([listener]))
    await serve(WebWorker(web, listener.getsockname()[1]))
    server.should_exit = True
    await serving


async def serve_wsgi(web: Web) -> None:
    """Serve an application with waitress until stdin is closed."""
    # It would warn of each request that waits for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server: Any = create_server(
        web.app, host=HOST, port=0, threads=THREADS, connection_limit=CONNECTIONS
    )
    threading.Thread(target=server.run, daemon=True).start()
    await serve(WebWorker(web, server.effective_port))


def main(application: str, loop: str, url: str, settings: dict[str, Any]) -> None:
    """Make one application and serve it."""
    server = {name: settings.pop(name) for name in ("http", "tuned") if name in settings}
    # Outside of the event loop, in which Django would refuse to create its tables.
    web: Web = importlib.import_module(f"bench.web.{application}").make_web(url, **settings)
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(serve_wsgi(web) if loop == "threads" else serve_asgi(web, **server))


if __name__ == "__main__":
    application, loop, url, settings = sys.argv[1:]
    main(application, loop, url, json.loads(settings))
