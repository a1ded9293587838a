"""During a flood of logins, other requests are served and other addresses can log in."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Final

import pytest

from lucia import (
    AsyncAuth,
    Auth,
    InvalidCredentials,
    KeyRow,
    LuciaError,
    Overloaded,
    PasswordPool,
    ScryptHash,
    User,
)
from lucia._compat import password_pool
from lucia.adapters.memory import AsyncMemoryAdapter, MemoryAdapter

SERVER_THREADS: Final = 20
LOG_INS: Final = 100
OTHERS: Final = 41
IN_FLIGHT: Final = 45
"""Logins in flight per flooding address, fewer than the limit per address allows."""

PATIENCE: Final = 60
PASSWORD: Final = "correct horse battery staple"


class SlowHash:
    """A hasher that takes some milliseconds, and counts its verifications."""

    def __init__(self, ln: int) -> None:
        self._hasher = ScryptHash(ln=ln, r=8, p=1)
        self._lock = threading.Lock()
        self.verified = 0

    def hash(self, password: str, /) -> str:
        """Return the hash to store."""
        return self._hasher.hash(password)

    def verify(self, password: str, hashed: str, /) -> bool:
        """Return whether the hash is this password's, and count the call."""
        is_right = self._hasher.verify(password, hashed)
        with self._lock:
            self.verified += 1
        return is_right

    def needs_rehash(self, hashed: str, /) -> bool:
        """Return whether the hash has another cost."""
        return self._hasher.needs_rehash(hashed)


# --- sync: logins wait in the server's threads


def verified_before_a_page(pool: PasswordPool | None) -> int:
    """Flood a server's threads, then request a page; return the verifications before the page."""
    store, hasher = MemoryAdapter(), SlowHash(ln=11)
    auth = Auth(users=store, sessions=store, env="DEV", hash=hasher, password_pool=pool)

    def log_in(number: int) -> None:
        with suppress(InvalidCredentials, Overloaded):
            auth.use_key("username", f"name {number}", PASSWORD)

    with ThreadPoolExecutor(SERVER_THREADS) as server:
        flood = [server.submit(log_in, number) for number in range(LOG_INS)]
        before = server.submit(lambda: hasher.verified).result(PATIENCE)
        for each in flood:
            each.result(PATIENCE)
    return before


def test_sync_pages_are_served_during_a_flood() -> None:
    """Surplus logins are refused at once, so that a page does not wait for them."""
    assert verified_before_a_page(None) < LOG_INS / 3


def test_control_long_queue_delays_pages() -> None:
    """If the queue is longer than the server's threads, a page waits for all earlier logins."""
    assert verified_before_a_page(PasswordPool(workers=2, queue=64)) > LOG_INS - 2 * SERVER_THREADS


def test_a_sync_log_in_from_another_address_takes_the_place_of_the_floods() -> None:
    """While one address floods, every login from another address succeeds."""
    hasher = SlowHash(ln=11)
    store, stop = sync_store(hasher), threading.Event()
    auth = Auth(users=store, sessions=store, env="DEV", hash=hasher)

    def flood(number: int) -> None:
        while not stop.is_set():
            with suppress(LuciaError):
                auth.use_key("username", f"flood 0 {number}", PASSWORD, address="203.0.113.0")
            stop.wait(0.001)

    with ThreadPoolExecutor(SERVER_THREADS) as server:
        flooding = [server.submit(flood, number) for number in range(SERVER_THREADS)]
        try:
            for number in range(OTHERS):
                key = auth.use_key(
                    "username", f"name {number}", PASSWORD, address=f"198.51.100.{number}"
                )
                assert key.user_id == f"name {number}"
        finally:
            stop.set()
        for each in flooding:
            each.result(PATIENCE)


def rows_of(hasher: SlowHash) -> list[KeyRow]:
    """Return keys with one password: of two flooders, one per login in flight, and of others."""
    hashed = hasher.hash(PASSWORD)
    names = [f"flood {who} {number}" for who in range(2) for number in range(IN_FLIGHT)]
    names += [f"name {number}" for number in range(OTHERS)]
    return [
        KeyRow(
            id=f"username:{name}",
            user_id=name,
            hashed_password=hashed,
            primary_key=True,
            expires=None,
        )
        for name in names
    ]


def sync_store(hasher: SlowHash) -> MemoryAdapter:
    """Return a store with those keys and their users."""
    store = MemoryAdapter()
    for row in rows_of(hasher):
        store.set_user(row.user_id, {}, row)
    return store


# --- async: two flooding addresses have valid passwords


class FirstComeTurns(password_pool._Turns):
    """A control that serves in order of arrival, and refuses newcomers when the queue is full."""

    def _pop_next(self) -> "password_pool._Turn | None":
        if not self._waiting:
            return None
        turn = self._waiting.pop(0)
        self._begin(turn)
        return turn

    def _pop_heaviest(self, newcomer: str) -> "password_pool._Turn":
        raise Overloaded


async def make_flooded() -> tuple[AsyncAuth[User], SlowHash]:
    """Return an auth with the default limits and pool, and the users of :func:`rows_of`."""
    store, hasher = AsyncMemoryAdapter(), SlowHash(ln=10)
    for row in rows_of(hasher):
        await store.set_user(row.user_id, {}, row)
    return AsyncAuth(users=store, sessions=store, env="DEV", hash=hasher), hasher


async def flood(auth: AsyncAuth[User], who: int, number: int, begun: asyncio.Event) -> None:
    """Log in with a valid password again and again."""
    for _ in count():
        with suppress(Overloaded):
            await auth.use_key(
                "username", f"flood {who} {number}", PASSWORD, address=f"203.0.113.{who}"
            )
            begun.set()
        await asyncio.sleep(0.001)


async def log_in(auth: AsyncAuth[User], number: int) -> bool:
    """Log in once from an address of its own, and return whether that succeeded."""
    try:
        key = await auth.use_key(
            "username", f"name {number}", PASSWORD, address=f"198.51.100.{number}"
        )
    except Overloaded:
        return False
    return key.user_id == f"name {number}"


async def succeeded_in_a_flood(*, at_once: bool) -> tuple[int, int]:
    """Let two addresses flood while others log in.

    Return how many of the others succeeded, and the most verifications that one waited for.
    """
    auth, hasher = await make_flooded()
    begun = asyncio.Event()
    tasks = [
        asyncio.create_task(flood(auth, who, number, begun))
        for who in range(2)
        for number in range(IN_FLIGHT)
    ]
    succeeded = longest = 0
    try:
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            if at_once:
                succeeded = sum(
                    await asyncio.gather(*(log_in(auth, number) for number in range(OTHERS)))
                )
            else:
                for number in range(OTHERS):
                    before = hasher.verified
                    succeeded += await log_in(auth, number)
                    longest = max(longest, hasher.verified - before)
                    await asyncio.sleep(0.002)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await auth.aclose()
    return succeeded, longest


async def test_log_ins_from_other_addresses_succeed_during_a_flood() -> None:
    """While two addresses flood, other logins succeed after few verifications of the flood."""
    succeeded, longest = await succeeded_in_a_flood(at_once=False)
    assert succeeded == OTHERS
    assert longest < password_pool.ASYNC_QUEUE / 2


async def test_log_ins_from_other_addresses_succeed_at_once() -> None:
    """Other logins also succeed if all of them arrive at once."""
    assert (await succeeded_in_a_flood(at_once=True))[0] == OTHERS


async def test_control_fifo_queue_denies_other_logins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In order of arrival, two flooding addresses deny most other logins."""
    monkeypatch.setattr(password_pool, "_Turns", FirstComeTurns)
    assert (await succeeded_in_a_flood(at_once=True))[0] < OTHERS / 2
