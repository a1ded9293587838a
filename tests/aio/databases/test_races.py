"""Concurrent calls to an ``Auth`` over one database, on each server, at each isolation level."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from lucia._async.stores import sql_transactions as transactions
from lucia._sqlalchemy.sources import was_rolled_back
from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter
from tests.aio.support.races import AsyncRaces
from tests.aio.support.unsafe_adapters import UNSAFE
from tests.support.suite_databases import TABLES, AsyncSuiteDatabase, Place

pytestmark = pytest.mark.no_cover

NAMES: Final = [name for name in vars(AsyncRaces) if not name.startswith("_")]

PLACES: Final = AsyncSuiteDatabase.LEVELS

SERIALIZABLE: Final = [place for place in PLACES if place.level == "SERIALIZABLE"]

MANY: Final = 1_000
"""How often all sessions are revoked during log-ins and renewals, in all places together."""

FLAVOURS: Final = 2
"""The tests run with sync adapters too."""


@pytest.fixture(params=PLACES, ids=str)
async def races(request: pytest.FixtureRequest) -> AsyncIterator[AsyncRaces]:
    """Yield the races over an adapter on empty tables."""
    async with AsyncSuiteDatabase.at(request, request.param) as engine:
        yield AsyncRaces(AsyncSQLAlchemyAdapter(engine, TABLES), engine, request.param)


async def repeat(race: Callable[[int], Any], rounds: int) -> None:
    """Run a race many times."""
    for number in range(rounds):
        await race(number)


@pytest.mark.parametrize("name", NAMES)
async def test_race(races: AsyncRaces, name: str) -> None:
    """What the race promises holds, and no error of the database reaches a caller."""
    await getattr(races, name)(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
async def test_many_races(races: AsyncRaces, name: str) -> None:
    """What the race promises holds in many rounds."""
    many = -(-MANY // (FLAVOURS * len(PLACES)))
    await repeat(getattr(races, name), many if name == "sign_out" else 3)


@pytest.mark.parametrize("place", [each for each in PLACES if each.level is None], ids=str)
@pytest.mark.parametrize("name", NAMES)
async def test_race_finds_an_unsafe_adapter(
    request: pytest.FixtureRequest, place: Place, name: str
) -> None:
    """The check of each race fails for an adapter that lacks the guarantee.

    Or the database's own constraint refuses what that adapter does, which no caller may see.
    """
    async with AsyncSuiteDatabase.at(request, place) as engine:
        unsafe = AsyncRaces(UNSAFE[name](engine, TABLES), engine, place)
        with pytest.raises((AssertionError, IntegrityError)):
            await repeat(getattr(unsafe, name), 20)  # not each one hits the moment


@pytest.mark.parametrize("place", SERIALIZABLE, ids=str)
async def test_races_need_the_retries(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    """With a single attempt, a transaction that the database rolled back is the caller's error."""
    monkeypatch.setattr(transactions, "MAX_ATTEMPTS", 1)
    async with AsyncSuiteDatabase.at(request, place) as engine:
        impatient = AsyncRaces(AsyncSQLAlchemyAdapter(engine, TABLES), engine, place)
        with pytest.raises(DBAPIError) as caught:
            await repeat(impatient.sign_out, 200)
    assert was_rolled_back(caught.value)
