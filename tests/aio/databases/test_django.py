"""The Django adapters: the suite on each kind of database, by the type of the users' ids."""

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5
from zlib import crc32

import pytest

from lucia import DuplicateKeyId
from lucia.adapters.django import AsyncDjangoUserAdapter
from lucia.models import KeyRow, UserRow
from lucia.testing import AsyncUserAdapterSuite


class AsyncNamedUsers(AsyncDjangoUserAdapter):
    """Gives each user of ``django.contrib.auth`` the user name that Django needs."""

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        return await super().set_user(user_id, {"username": uuid4().hex, **attributes}, key)


class TestNumbers(AsyncUserAdapterSuite):
    """Users of ``django.contrib.auth``, whose ids are numbers."""

    text_columns = ("first_name", "last_name")

    def user_id(self, name: str) -> str:
        return str(crc32(name.encode()) >> 1)  # fits into an AutoField

    @pytest.fixture
    def adapter(self, django_database: str) -> AsyncDjangoUserAdapter:
        return AsyncNamedUsers(using=django_database)


class TestUuids(AsyncUserAdapterSuite):
    """Users with UUIDs, and a key model of their own."""

    def user_id(self, name: str) -> str:
        return str(uuid5(NAMESPACE_OID, name))

    @pytest.fixture
    def adapter(self, django_database: str) -> AsyncDjangoUserAdapter:
        return AsyncDjangoUserAdapter("django_site.MemberKey", using=django_database)


class TestTexts(AsyncUserAdapterSuite):
    """Users with ids of text, which the database compares byte for byte."""

    longest_user_id = 255

    @pytest.fixture
    def adapter(self, django_database: str) -> AsyncDjangoUserAdapter:
        return AsyncDjangoUserAdapter("django_site.PersonKey", using=django_database)


async def test_other_spellings(django_database: str) -> None:
    """With ids in the database's default collation too, another spelling of an id is unknown."""
    adapter = AsyncDjangoUserAdapter("django_site.GuestKey", using=django_database)
    await AsyncUserAdapterSuite().test_other_spellings(adapter)


async def test_assigned_ids(django_database: str) -> None:
    """The database assigns the id of a new user, whose key is stored with it, both or neither."""
    adapter = AsyncDjangoUserAdapter(using=django_database)
    made: list[str] = []

    def make_key(user_id: str) -> KeyRow:
        made.append(user_id)
        return KeyRow(
            id="email:anna", user_id=user_id, hashed_password=None, primary_key=True, expires=None
        )

    anna = await adapter.add_user({"username": "anna"}, make_key)
    bert = await adapter.add_user({"username": "bert"}, None)
    assert anna.id.isdecimal()
    assert anna.id != bert.id
    assert await adapter.get_user(anna.id) == anna
    assert [key.id for key in await adapter.get_keys_by_user_id(anna.id)] == ["email:anna"]
    for name in ("anna", "carl"):
        with pytest.raises(DuplicateKeyId):
            await adapter.add_user({"username": name}, make_key)
    assert made[-1].isdecimal()
    assert await adapter.get_user(made[-1]) is None
    assert await adapter.get_keys_by_user_id(bert.id) == []
