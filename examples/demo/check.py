"""Check the demo without a browser.

The application runs on a real port, with two clients; each step prints what is in Redis. The first
promise that is not kept ends the check with the exit code 1.
"""

import asyncio
import re
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis

from lucia import generate_random_string

from .accounts import Accounts
from .app import COOKIE, create_app
from .pages import duration
from .redis_view import HeldKey, Recorded, RedisView
from .servers import LOOPBACK, Server
from .visit import Demo

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PHONE = (
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/141.0.0.0 Mobile Safari/537.36"
)
PASSWORD, NEW_PASSWORD = (
    "correct horse battery",
    "staple of the correct horse",
)  # of an account that lives for seconds
READS = {"MGET", "LRANGE", "PTTL"}
AT_ONCE = 20


class Broken(Exception):
    """A promise was not kept."""


@dataclass
class World:
    """The application, the clients of two browsers, and a client of Redis."""

    url: str
    demo: Demo
    redis: RedisView
    inspector: Any  # redis-py types its commands for sync and async at once
    first: httpx2.AsyncClient
    second: httpx2.AsyncClient
    name: str = field(default_factory=lambda: f"check-{generate_random_string(12)}".lower())
    user_id: str = ""

    async def get(self, client: httpx2.AsyncClient) -> str:
        """Return the client's page, which may not contain the id in its cookie."""
        return _checked(client, await client.get("/"))

    async def post(
        self, client: httpx2.AsyncClient, path: str, status: int = 200, **fields: str
    ) -> str:
        """Send a form as a browser does, and return the page that follows."""
        answer = await client.post(path, data=fields)
        must(
            answer.status_code == status,
            f"POST {path} is answered with {status}",
            f"it was {answer.status_code}",
        )
        return _checked(client, answer)

    async def held(self) -> list[HeldKey]:
        """Return what Redis holds about the user."""
        return await self.redis.held(self.user_id, "", time.time_ns() // 1_000_000)

    async def sessions(self) -> list[str]:
        """Return the hashes of ids in the user's list."""
        hashes: list[str] = await self.inspector.lrange(f"userSession:{self.user_id}", 0, -1)
        return hashes

    @contextmanager
    def sent(self) -> Generator[list[Recorded], None, None]:
        """Yield a list that gets the commands that the application sends during the block."""
        before = self.redis.log.count
        commands: list[Recorded] = []
        yield commands
        commands += self.redis.log.since(before)


Step = Callable[[World], Awaitable[None]]


async def check(server: Server, folder: Path, steps: Sequence[Step] | None = None) -> int:
    """Run every step, and return the exit code: 0, or 1 for a broken promise."""
    began = time.monotonic()
    print(f"Redis: {server.about}")
    async with asyncio.timeout(120), _world(server, folder) as world:
        try:
            for number, step in enumerate(steps or STEPS, 1):
                print(f"\n{number}. {step.__doc__}")
                await step(world)
                _print_held(await world.held() if world.user_id else [])
        except Broken as broken:
            print(f"  BROKEN  {broken}")
            return 1
    print(f"\nEvery promise was kept, in {time.monotonic() - began:.1f} seconds.")
    return 0


def must(kept: bool, promise: str, otherwise: str = "it did not") -> None:
    """Print that a promise was kept.

    Raises:
        Broken: it was not.
    """
    if not kept:
        raise Broken(f"{promise}: {otherwise}")
    print(f"  ok  {promise}")


async def sign_up(world: World) -> None:
    """Sign up in the first browser."""
    page = await world.post(
        world.first, "/signup", username=world.name, password=PASSWORD, display_name="Check"
    )
    world.user_id = (await world.demo.auth.get_key("username", world.name)).user_id
    must(is_member(page), "signing up logs in")
    must(
        await world.sessions() == [world.redis.stored(world.first.cookies[COOKIE])],
        "the user's list holds the hash of its id",
    )


async def log_in_elsewhere(world: World) -> None:
    """Log in in the second browser."""
    answer = await world.second.post(
        "/login", data={"username": world.name, "password": PASSWORD}, follow_redirects=False
    )
    cookie = next(
        value for value in answer.headers.get_list("set-cookie") if value.startswith(COOKIE)
    )
    must(
        "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie,
        "the cookie is HttpOnly and SameSite=Lax",
    )
    must("no-store" in answer.headers["cache-control"], "the answer that sets it is not cached")
    names = re.findall(r'<p class="name">([^<]+?) *<', await world.get(world.first))
    must(
        names == ["Chrome on Android", "Firefox on Linux"],
        "the first browser sees both logins, by name",
        f"it sees {names}",
    )


async def wrong_password(world: World) -> None:
    """Try a wrong password."""
    with world.sent() as sent:
        page = await world.post(world.second, "/login", 401, username=world.name, password="wrong")  # noqa: S106 # as it says
    must("Wrong name or password" in page and not is_member(page), "a wrong password is refused")
    named = [key for command in sent for key in command.keys]
    must(
        all("session:throttle:" in key for key in named),
        "Redis counts a failure, and no session is touched",
        f"it got {named}",
    )
    must(is_member(await world.get(world.second)), "who was logged in stays so")


async def active_request(world: World) -> None:
    """Use an active session."""
    before = await _values(world)
    with world.sent() as sent:
        await world.get(world.first)
    names = [command.name for command in sent]
    must(
        names[0] == "MGET" and set(names) <= READS,
        "an active session is read, and nothing is written",
        f"Redis got {names}",
    )
    must(await _values(world) == before, "each record and the list are what they were")


async def renewal(world: World) -> None:
    """Let the first browser's session go idle, then send 20 requests with it at once."""
    used, handle = world.first.cookies[COOKIE], await _handle(world, world.first)
    await world.post(world.first, "/idle")
    must(world.first.cookies[COOKIE] == used, "looking at an idle session does not renew it")
    answers = await asyncio.gather(*(_get_with(world, used) for _ in range(AT_ONCE)))
    must(all(is_member(answer.text) for answer in answers), f"all {AT_ONCE} are logged in")
    successors = {answer.cookies[COOKIE] for answer in answers}
    must(
        len(successors) == 1 and used not in successors,
        "all get one and the same new id",
        f"there are {len(successors)}",
    )
    hashes = set(await world.sessions())
    must(
        len(hashes) == 2
        and world.redis.stored(used) not in hashes
        and set(map(world.redis.stored, successors)) < hashes,
        "the list holds its hash in the place of the used one's",
    )
    marker = [key for key in await world.held() if key.kind == "marker"]
    must(
        len(marker) == 1 and 0 < marker[0].left <= 60_000,
        "a marker leads from the used id to it, for 60 seconds at most",
    )
    must(
        is_member(await world.get(world.first)),
        "the used id still works meanwhile, for a response that got lost",
    )
    must({world.first.cookies[COOKIE]} == successors, "and leads to the same session")
    must(await _handle(world, world.first) == handle, "its handle is the same")


async def log_one_out(world: World) -> None:
    """Log the second browser out from the first."""
    revoked, handle = world.second.cookies[COOKIE], await _handle(world, world.second)
    await world.post(world.first, "/devices/logout", handle=handle)
    record = f"session:{world.redis.stored(revoked)}"
    must(await world.inspector.exists(record) == 0, "its record is gone")
    must(not is_member(await world.get(world.second)), "at its next click it is a visitor")
    must(is_member(await world.get(world.first)), "the first browser is still logged in")


async def cross_site(world: World) -> None:
    """Send the first browser's cookie from another site's page."""
    with world.sent() as sent:
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        ):
            answer = await world.first.post("/logout/everywhere", headers=headers)
            must(
                answer.status_code == 403 and "another site" in answer.text,
                f"refused with {' and '.join(headers)}, and explained",
            )
    must(not sent, "Redis is not asked at all")
    must(is_member(await world.get(world.first)), "the first browser is still logged in")


async def log_out_everywhere(world: World) -> None:
    """Log the second browser in again, then log out everywhere in the first."""
    must(
        is_member(await world.post(world.second, "/login", username=world.name, password=PASSWORD)),
        "the second browser is back",
    )
    await world.post(world.first, "/logout/everywhere")
    must(not is_member(await world.get(world.first)), "the first browser is a visitor")
    must(not is_member(await world.get(world.second)), "the second browser is a visitor")
    must(
        not [key for key in await world.held() if key.kind != "marker"],
        "Redis holds no session and no list of this user",
    )


async def change_password(world: World) -> None:
    """Log both in, and change the password in the first."""
    for client in (world.first, world.second):
        await world.post(client, "/login", username=world.name, password=PASSWORD)
    used, handle = world.first.cookies[COOKIE], await _handle(world, world.first)
    must(
        is_member(
            await world.post(world.first, "/password", password=PASSWORD, new_password=NEW_PASSWORD)
        ),
        "the first stays logged in",
    )
    must(
        world.first.cookies[COOKIE] != used and await _handle(world, world.first) == handle,
        "under a new id and the same handle",
    )
    must(not is_member((await _get_with(world, used)).text), "the id it had is dead at once")
    must(not is_member(await world.get(world.second)), "the second browser is a visitor")
    must(
        not is_member(
            await world.post(world.second, "/login", 401, username=world.name, password=PASSWORD)
        ),
        "the old password is refused",
    )
    must(
        is_member(
            await world.post(world.second, "/login", username=world.name, password=NEW_PASSWORD)
        ),
        "the new one is good",
    )


async def census(world: World) -> None:
    """Look through all commands up to now for session ids, and for keys without an expiry."""
    ids = {client.cookies[COOKIE].encode() for client in (world.first, world.second)}
    sent = b" ".join(part for command in world.redis.log.commands for part in command.arguments)
    must(not any(id_ in sent for id_ in ids), "Redis got hashes, and never a session id")
    named = {key for command in world.redis.log.commands for key in command.keys}
    left = [await world.inspector.pttl(key) for key in sorted(named)]
    must(
        not left.count(-1),
        f"of {len(left)} keys not one is without an expiry",
        f"{left.count(-1)} are",
    )
    held = await world.held()
    kinds = sorted({key.kind for key in held})
    must(
        kinds == ["list", "marker", "record"], "there are keys of every kind", f"there are {kinds}"
    )
    ends = {key.left for key in held if key.kind == "record"}
    longest = next(key.left for key in held if key.kind == "list")
    must(
        max(ends) - 1_000 <= longest <= max(ends) + 1_000,
        "the list expires with the last session in it",
    )


async def delete_account(world: World) -> None:
    """Delete the account."""
    await world.post(world.first, "/delete", password=NEW_PASSWORD)
    must(
        not is_member(await world.get(world.first))
        and not is_member(await world.get(world.second)),
        "both browsers are visitors",
    )
    must(
        not is_member(
            await world.post(
                world.second, "/login", 401, username=world.name, password=NEW_PASSWORD
            )
        ),
        "nobody can log in",
    )
    held = await world.held()
    must(
        not [key for key in held if key.kind != "marker"],
        "Redis holds no session and no list of this user",
    )
    must(
        all(0 < key.left <= 60_000 for key in held),
        "what is left are markers that lead nowhere and vanish within 60 seconds",
    )


STEPS: tuple[Step, ...] = (
    sign_up,
    log_in_elsewhere,
    wrong_password,
    active_request,
    renewal,
    log_one_out,
    cross_site,
    log_out_everywhere,
    change_password,
    census,
    delete_account,
)


def is_member(page: str) -> bool:
    """Return whether this is the page of a user who is logged in."""
    return 'data-page="member"' in page


def _checked(client: httpx2.AsyncClient, answer: httpx2.Response) -> str:
    session_id = client.cookies.get(COOKIE)
    if session_id is not None and session_id in answer.text:
        raise Broken("no page carries a whole session id: one did")
    return answer.text


async def _get_with(world: World, session_id: str) -> httpx2.Response:
    async with httpx2.AsyncClient(
        base_url=world.url, cookies={COOKIE: session_id}, timeout=None
    ) as client:
        return await client.get("/")


async def _handle(world: World, client: httpx2.AsyncClient) -> str:
    return (await world.demo.auth.get_session(client.cookies[COOKIE])).handle


async def _values(world: World) -> list[tuple[str, str]]:
    return [(key.name, key.value) for key in await world.held()]


def _print_held(held: list[HeldKey]) -> None:
    print("  Redis holds" if held else "  Redis holds nothing about this user.")
    for key in held:
        value = re.sub(r"\s+", " ", key.value)
        shown = value if len(value) <= 100 else f"{value[:100]}…"
        print(f"    {key.name:<44} TTL {duration(key.left):<14} {shown}")


@asynccontextmanager
async def _world(server: Server, folder: Path) -> AsyncGenerator[World, None]:
    redis = RedisView.connect(server.url, server.about, secrets.token_bytes(32))
    app = create_app(Accounts(folder / "check.sqlite3"), redis)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(_served(app))
        inspector = await stack.enter_async_context(
            Redis.from_url(server.url, decode_responses=True)
        )
        first, second = [
            await stack.enter_async_context(
                httpx2.AsyncClient(
                    base_url=url,
                    follow_redirects=True,
                    timeout=None,
                    headers={"origin": url, "user-agent": agent},
                )
            )
            for agent in (FIREFOX, PHONE)
        ]
        yield World(url, app.state.demo, redis, inspector, first, second)


@asynccontextmanager
async def _served(app: FastAPI) -> AsyncGenerator[str, None]:
    """Serve the application on a free port of this machine, and yield its URL."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", proxy_headers=False))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
