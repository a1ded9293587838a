"""A process that serves the application of one library by uvicorn: ``python -m bench.web_worker LIBRARY LOOP URL SETTINGS``.

It is asked as :mod:`bench.worker` is. Requests come from elsewhere, but for those that log in.
"""

import asyncio
import gc
import importlib
import json
import sys
import time
from http.client import HTTPConnection
from socket import AF_INET, IPPROTO_TCP, SOCK_STREAM, socket
from typing import Any, Final, Literal

import uvicorn

from bench.drive import user_ids
from bench.peer import expect
from bench.web import Web
from bench.worker import loop_factory, serve

HOST: Final = "127.0.0.1"


class WebWorker:
    """The methods of an application's process that a runner calls."""

    def __init__(self, web: Web, port: int) -> None:
        self._guarded = web.guarded
        self._port = port

    async def check(self) -> list[str]:
        """Whether the application knows who has logged in.

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
        """The URL of what is measured."""
        return f"http://{HOST}:{self._port}/me"

    async def time(self) -> float:
        """The processor time that this process has used, in seconds."""
        return time.process_time()

    async def objects(self) -> int:
        """How many objects there are that the garbage collector looks at."""
        gc.collect()
        return len(gc.get_objects())

    async def log_in(self, count: int) -> list[str]:
        """Log so many in, and give what they send as their Cookie header."""
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
        answer: dict[str, str] = json.load(response)
        connection.close()
        return response.status, answer.get("user_id", "").replace("-", "")


def tune() -> None:
    """Keep what is there out of the garbage collector's sight, and let it look at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def main(
    library: str,
    url: str,
    http: Literal["h11", "httptools"],
    settings: dict[str, Any],
    *,
    tuned: bool,
) -> None:
    """Serve one application."""
    web: Web = importlib.import_module(f"bench.web.{library}").make_web(url, **settings)
    config = uvicorn.Config(
        web.app, http=http, lifespan="off", access_log=False, log_level="warning"
    )
    server = uvicorn.Server(config)
    listener = socket(
        AF_INET, SOCK_STREAM, IPPROTO_TCP
    )  # where the protocol is named, asyncio sets TCP_NODELAY, as on a socket of its own
    listener.bind((HOST, 0))
    listener.listen()  # so that who comes before the server is up waits
    if tuned:
        tune()
    serving = asyncio.create_task(server.serve([listener]))
    await serve(WebWorker(web, listener.getsockname()[1]))
    server.should_exit = True
    await serving


if __name__ == "__main__":
    library, loop, url, given = sys.argv[1:]
    settings = json.loads(given)
    http, tuned = settings.pop("http"), settings.pop("tuned")
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main(library, url, http, settings, tuned=tuned))
