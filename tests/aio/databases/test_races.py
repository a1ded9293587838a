"""Concurrent calls to an ``Auth`` over one database, on each server, at each isolation level."""

from collections.abc import AsyncIterator

import pytest

from lucia.adapters.sqlalchemy import AsyncSQLAlchemyAdapter
from tests.aio.support.races import AsyncRaces
from tests.support.suite_databases import TABLES, AsyncSuiteDatabase

NAMES = [name for name in vars(AsyncRaces) if not name.startswith("_")]


@pytest.fixture(params=AsyncSuiteDatabase.LEVELS, ids=str)
async def races(request: pytest.FixtureRequest) -> AsyncIterator[AsyncRaces]:
    """Yield the races over an adapter on empty tables."""
    async with AsyncSuiteDatabase.at(request, request.param) as engine:
        yield AsyncRaces(AsyncSQLAlchemyAdapter(engine, TABLES), engine, request.param)


@pytest.mark.parametrize("name", NAMES)
async def test_race(races: AsyncRaces, name: str) -> None:
    """What the race promises holds, and no error of the database reaches a caller."""
    await getattr(races, name)(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
async def test_many_races(races: AsyncRaces, name: str) -> None:
    """What the race promises holds each time."""
    for number in range(int(__import__("os").environ.get("R", "20"))):
        await getattr(races, name)(number)
