"""The Django adapters: ids, attributes, transactions, races, and errors without secrets."""

# Types of fields come from the mypy plugin of django-stubs, which is not used here.
# mypy: disable-error-code="var-annotated"

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.management import call_command
from django.db import DataError, IntegrityError, connections, models, transaction
from django.db.models import ProtectedError, signals
from django.test.utils import isolate_apps, override_settings

from lucia import (
    Auth,
    AutoUserIdGenerationNotSupported,
    DuplicateKeyId,
    InvalidUserId,
    KeyRow,
    LuciaError,
    UserRow,
)
from lucia._testing.racing_calls import RacingCalls
from lucia.adapters.django import AsyncDjangoUserAdapter, DjangoUserAdapter
from lucia.adapters.django.base_key import AbstractKey
from lucia.adapters.django.fields import ExactCharField
from lucia.adapters.django.models import Key
from lucia.adapters.memory import MemoryAdapter
from tests.support.django_site.models import Editor, Person, PersonKey

HASH = "s2:0123456789abcdef:0123456789abcdef0123456789abcdef"
EMAIL = "anna@example.com"
OTHER_EMAIL = "dora@example.com"


def key(name: str = "anna@example.com", user_id: str = "u1", *, primary: bool = False) -> KeyRow:
    """Return a key with a password."""
    return KeyRow(
        id=f"email:{name}",
        user_id=user_id,
        hashed_password=HASH,
        primary_key=primary,
        expires=None,
    )


@pytest.fixture
def people(django_database: str) -> DjangoUserAdapter:
    """Return an adapter over an empty table of people, on each kind of database."""
    return DjangoUserAdapter(PersonKey, using=django_database)


@pytest.fixture
def on_sqlite(django_sqlite: str) -> DjangoUserAdapter:
    """Return an adapter over an empty table of people in SQLite."""
    return DjangoUserAdapter(PersonKey, using=django_sqlite)


@contextmanager
def received(signal: Any, receiver: Callable[..., None]) -> Iterator[None]:
    """Call a function for each of a model's signals."""
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)


# Ids


@pytest.mark.parametrize(
    "user_id", ["007", " 7", "+7", "٧", "7.0", "1e3", "seven", "-7", "2147483648", "9" * 400]
)
def test_texts_that_are_no_number(django_database: str, user_id: str) -> None:
    """A text that is not the one text of a number in the column's range is the id of no user."""
    adapter = DjangoUserAdapter(using=django_database)
    adapter.set_user("7", {"username": "anna"}, None)
    assert adapter.get_user(user_id) is None
    assert adapter.get_keys_by_user_id(user_id) == []
    assert adapter.update_user_attributes(user_id, {"email": EMAIL}) is None
    with pytest.raises(InvalidUserId):
        adapter.set_key(key(user_id=user_id))
    adapter.delete_keys_by_user_id(user_id)
    adapter.delete_user(user_id)
    assert adapter.get_user("7") is not None


def test_texts_that_are_no_uuid(django_database: str) -> None:
    """Only the usual text of a UUID is an id, so each user has one."""
    adapter = DjangoUserAdapter("django_site.MemberKey", using=django_database)
    member = UUID(int=0xABC)
    stored = adapter.set_user(str(member), {}, None)
    assert stored.id == str(member)
    for text in (str(member).upper(), member.hex, f"{{{member}}}", "anna"):
        assert adapter.get_user(text) is None
        with pytest.raises(InvalidUserId):
            adapter.set_key(key(user_id=text))


def test_generated_id_for_a_number(django_sqlite: str) -> None:
    """A new id that the column can't hold is refused, and the error says what to do."""
    adapter = DjangoUserAdapter(using=django_sqlite)
    with pytest.raises(AutoUserIdGenerationNotSupported, match=r"auth\.User .* an AutoField; "):
        adapter.set_user("k3v9x0q8w2e7r1t", {"username": "anna"}, None)
    uuids = DjangoUserAdapter("django_site.MemberKey", using=django_sqlite)
    with pytest.raises(AutoUserIdGenerationNotSupported, match="a UUIDField; "):
        uuids.set_user("k3v9x0q8w2e7r1t", {}, None)


@isolate_apps("tests.support.django_site")
def test_types_of_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ``Auth`` with ids of another type than the primary key's is refused where it is made.

    Before Django has loaded its models the type is unknown.
    """

    class Dated(models.Model):
        day = models.DateField(primary_key=True)

        class Meta:
            app_label = "django_site"

    class DatedKey(AbstractKey):
        user = models.ForeignKey(Dated, models.CASCADE)

        class Meta(AbstractKey.Meta):
            app_label = "django_site"

    assert DjangoUserAdapter(DatedKey).user_id_type is None
    for key_model, kind in (
        ("lucia.Key", int),
        ("django_site.MemberKey", UUID),
        ("django_site.PersonKey", str),
    ):
        for users in (DjangoUserAdapter(key_model), AsyncDjangoUserAdapter(key_model)):
            assert users.user_id_type is not None
            assert users.user_id_type.python_type is kind
    with pytest.raises(TypeError, match="DjangoUserAdapter has user ids of the type int"):
        Auth(users=DjangoUserAdapter(), sessions=MemoryAdapter(), env="DEV")
    monkeypatch.setattr(apps, "models_ready", False)
    Auth(users=DjangoUserAdapter(), sessions=MemoryAdapter(), env="DEV")


def test_nobody_assigns_ids(on_sqlite: DjangoUserAdapter) -> None:
    """A user without an id is refused if the primary key has no default."""
    with pytest.raises(ImproperlyConfigured, match=r"Person assigns no ids: .* an ExactCharField "):
        on_sqlite.add_user({}, None)


def test_default_ids(django_sqlite: str) -> None:
    """The primary key's default assigns ids too."""
    adapter = DjangoUserAdapter("django_site.MemberKey", using=django_sqlite)
    member = adapter.add_user({"name": "Anna"}, None)
    assert str(UUID(member.id)) == member.id
    assert adapter.get_user(member.id) == member


def test_id_that_is_too_long(people: DjangoUserAdapter) -> None:
    """A key for an id that is longer than its column is refused as that of an unknown user."""
    with pytest.raises(InvalidUserId) as caught:
        people.set_key(key(user_id="u" * 300))
    assert caught.value.__context__ is None


# Attributes


def test_attributes(on_sqlite: DjangoUserAdapter) -> None:
    """Attributes are named by their fields, foreign keys by their columns; defaults are stored."""
    on_sqlite.set_user("u0", {}, None)
    stored = on_sqlite.set_user("u1", {"name": "Anna", "inviter_id": "u0"}, None)
    assert stored == UserRow(
        id="u1",
        attributes={
            "name": "Anna",
            "town": None,
            "email": None,
            "visits": 1,
            "inviter_id": "u0",
        },
    )


@pytest.mark.parametrize("name", ["no", "id", "inviter", "age", "personkey"])
def test_unknown_attribute(on_sqlite: DjangoUserAdapter, name: str) -> None:
    """An attribute that is no column is refused, and the error lists those that are."""
    known = f"Person has no attribute {name}; .* are: email, inviter_id, name, town, visits"
    calls: list[Callable[[], object]] = [
        lambda: on_sqlite.set_user("u1", {name: "x"}, None),
        lambda: DjangoUserAdapter(PersonKey).add_user({name: "x"}, None),
        lambda: on_sqlite.update_user_attributes("u1", {name: "x"}),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=known):
            call()
    assert on_sqlite.get_user("u1") is None


def test_password_of_django(django_sqlite: str) -> None:
    """Django's own password is unusable, can't be written, and is no attribute."""
    adapter = DjangoUserAdapter(using=django_sqlite)
    stored = adapter.set_user("7", {"username": "anna"}, None)
    assert "password" not in stored.attributes
    user = User.objects.using(django_sqlite).get(pk=7)
    assert not user.has_usable_password()
    assert not user.check_password("")
    with pytest.raises(ValueError, match="no attribute password"):
        adapter.update_user_attributes("7", {"password": "x"})


def test_inherited_users(django_database: str) -> None:
    """A user may have two tables, by inheritance; a taken id changes neither."""
    adapter = DjangoUserAdapter("django_site.EditorKey", using=django_database)
    stored = adapter.set_user("u1", {"name": "Anna", "desk": "News"}, key(primary=True))
    assert (stored.id, stored.attributes["name"], stored.attributes["desk"]) == (
        "u1",
        "Anna",
        "News",
    )
    changed = adapter.update_user_attributes("u1", {"name": "Anne", "desk": "Arts"})
    assert changed == adapter.get_user("u1")
    Person.objects.using(django_database).create(no="u2", name="Bert")
    with pytest.raises(IntegrityError):
        adapter.set_user("u2", {"name": "Carl"}, None)
    assert Person.objects.using(django_database).get(pk="u2").name == "Bert"
    adapter.delete_user("u1")
    assert not Editor.objects.using(django_database).exists()


# The model's own behaviour


def test_signals(on_sqlite: DjangoUserAdapter) -> None:
    """Users are stored and removed with the signals of their model."""
    seen: list[tuple[str, object]] = []

    def saved(sender: type, created: bool, update_fields: Any, **_: Any) -> None:
        if sender is Person:
            seen.append(("created" if created else "saved", update_fields))

    def deleted(sender: type, **_: Any) -> None:
        if sender is Person:
            seen.append(("deleted", None))

    with received(signals.post_save, saved), received(signals.post_delete, deleted):
        on_sqlite.set_user("u1", {}, key())
        on_sqlite.update_user_attributes("u1", {"name": "Anna"})
        on_sqlite.update_user_attributes("u1", {})
        on_sqlite.delete_user("u1")
        on_sqlite.delete_user("u1")
    assert seen == [("created", None), ("saved", frozenset({"name"})), ("deleted", None)]


def test_protected_user(people: DjangoUserAdapter) -> None:
    """A user whom another row protects is not removed, nor is a key of theirs."""
    people.set_user("u1", {}, key(primary=True))
    people.set_user("u2", {"inviter_id": "u1"}, None)
    with pytest.raises(ProtectedError):
        people.delete_user("u1")
    assert people.get_user("u1") is not None
    assert people.get_keys_by_user_id("u1") == [key(primary=True)]


def test_update_of_a_user_who_is_being_deleted(people: DjangoUserAdapter) -> None:
    """A user who is deleted between the read and the write of an update is not stored again."""
    people.set_user("u1", {}, None)

    def delete(sender: type, using: str, **_: Any) -> None:
        other = Thread(target=people.delete_user, args=["u1"])
        other.start()
        other.join()

    with received(signals.pre_save, delete):
        assert people.update_user_attributes("u1", {"name": "Anna"}) is None
    assert people.get_user("u1") is None


# Transactions


def test_commit(people: DjangoUserAdapter, django_database: str) -> None:
    """In the caller's block everything is stored with the caller's own rows."""
    with transaction.atomic(using=django_database):
        people.set_user("u1", {}, key(primary=True))
        Person.objects.using(django_database).filter(pk="u1").update(town="Köln")
        people.set_key(key("second"))
    user = people.get_user("u1")
    assert user is not None
    assert user.attributes["town"] == "Köln"
    assert len(people.get_keys_by_user_id("u1")) == 2


def test_rollback(people: DjangoUserAdapter, django_database: str) -> None:
    """What the caller's block rolls back is gone, also from a nested block."""
    with transaction.atomic(using=django_database):
        people.set_user("u1", {}, key(primary=True))
        with suppress(KeyError), transaction.atomic(using=django_database):
            people.set_user("u2", {}, key("second", "u2"))
            raise KeyError
        assert people.get_user("u2") is None
        assert people.get_user("u1") is not None
        transaction.set_rollback(True, using=django_database)
    assert people.get_user("u1") is None
    assert people.get_key(key().id) is None


def test_refused_writes_in_a_block(people: DjangoUserAdapter, django_database: str) -> None:
    """A refused write is undone alone: the caller's block goes on, and is committed."""
    people.set_user("u1", {"email": EMAIL}, key(primary=True))
    with transaction.atomic(using=django_database):
        Person.objects.using(django_database).create(no="u2")
        with pytest.raises(DuplicateKeyId):
            people.set_user("u3", {}, key(user_id="u3", primary=True))
        with pytest.raises(DuplicateKeyId):
            people.set_key(key(user_id="u2"))
        with pytest.raises(InvalidUserId):
            people.set_key(key("unknown", "unknown"))
        with pytest.raises(IntegrityError):
            people.update_user_attributes("u2", {"email": EMAIL})
        assert people.get_user("u3") is None
        people.set_key(key("second", "u2"))
    assert people.get_user("u2") is not None
    assert people.get_key(key("second").id) == key("second", "u2")


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_without_autocommit(request: pytest.FixtureRequest, kind: str) -> None:
    """With autocommit switched off, the transaction is the caller's.

    Not on SQLite, whose driver begins no transaction before a savepoint.
    """
    using: str = request.getfixturevalue(f"django_{kind}")
    people = DjangoUserAdapter(PersonKey, using=using)
    connection = connections[using]
    connection.set_autocommit(False)
    try:
        people.set_user("u1", {}, key(primary=True))
        with pytest.raises(DuplicateKeyId):
            people.set_key(key())
        connection.rollback()
    finally:
        connection.set_autocommit(True)
    assert people.get_user("u1") is None


def test_async_calls_in_a_block(django_database: str, people: DjangoUserAdapter) -> None:
    """Async code that sync code calls within a block takes part in its transaction."""
    adapter = AsyncDjangoUserAdapter(PersonKey, using=django_database)
    with transaction.atomic(using=django_database):
        async_to_sync(adapter.set_user)("u1", {}, key(primary=True))
        assert people.get_user("u1") is not None
        transaction.set_rollback(True, using=django_database)
    assert people.get_user("u1") is None


async def test_sync_adapter_in_an_event_loop(django_sqlite: str) -> None:
    """Django refuses the sync adapter on an event loop, which it would hold up."""
    adapter = DjangoUserAdapter(PersonKey, using=django_sqlite)
    with pytest.raises(SynchronousOnlyOperation):
        adapter.get_user("u1")


def test_database_by_router(django_sqlite: str) -> None:
    """Without ``using``, everything goes to the database that the routers name for writes."""

    class Router:
        def db_for_write(self, model: type, **_: Any) -> str:
            return django_sqlite

    with override_settings(DATABASE_ROUTERS=[Router()]):
        adapter = DjangoUserAdapter(PersonKey)
        adapter.set_user("u1", {}, key(primary=True))
        assert adapter.get_key(key().id) == key(primary=True)
    assert PersonKey.objects.using(django_sqlite).count() == 1


# Races


def test_many_creations_of_one_key(people: DjangoUserAdapter) -> None:
    """Of fifty concurrent creations of one key, for several users, one succeeds."""
    for number in range(5):
        people.set_user(f"u{number}", {}, None)
    results = RacingCalls.gather_results(
        *(partial(people.set_key, key(user_id=f"u{number % 5}")) for number in range(50))
    )
    refused = [result for result in results if result is not None]
    assert [type(result) for result in refused] == [DuplicateKeyId] * 49
    found = people.get_key(key().id)
    assert found is not None
    assert people.get_keys_by_user_id(found.user_id) == [found]


def test_many_uses_of_one_key(people: DjangoUserAdapter) -> None:
    """Of fifty concurrent calls that consume a single-use key, one counts it."""
    people.set_user("u1", {}, None)
    people.set_key(key())
    results = RacingCalls.gather_results(*[partial(people.delete_non_primary_key, key().id)] * 50)
    assert sorted(map(str, results)) == ["0"] * 49 + ["1"]


def test_keys_of_a_user_who_is_being_deleted(people: DjangoUserAdapter) -> None:
    """A key that is created while its user is deleted is refused, or removed with the user."""
    for number in range(8):
        people.set_user("u1", {}, key(primary=True))
        calls = [partial(people.set_key, key(f"other-{number}")), partial(people.delete_user, "u1")]
        results = RacingCalls.gather_results(*(calls if number % 2 else reversed(calls)))
        assert {type(result) for result in results} <= {type(None), InvalidUserId}
        assert people.get_user("u1") is None
        assert people.get_keys_by_user_id("u1") == []


def test_many_keys_are_removed(people: DjangoUserAdapter) -> None:
    """More keys than fit into one statement are removed and counted."""
    people.set_user("u1", {}, None)
    names = [f"number-{number}" for number in range(1_100)]
    rows = [PersonKey(id=f"email:{name}", user_id="u1", primary_key=False) for name in names]
    PersonKey.objects.using(people._using).bulk_create(rows)
    ids = [row.id for row in rows]
    assert people.delete_non_primary_key(*ids, *ids[:600]) == 1_100


# Secrets


def everything_shown(error: BaseException) -> str:
    """Return what a log shows of an error: its traceback, causes included, and its attributes."""
    texts = traceback.format_exception(error)
    causes = [link for link in (error, error.__cause__) if link is not None]
    return "".join([*texts, *(str({**vars(link), "args": link.args}) for link in causes)])


def test_no_values_in_errors(people: DjangoUserAdapter) -> None:
    """A database's error quotes no value: neither a given one, nor one of the row in question."""
    towns = [f"the-town-of-{number}" for number in range(2)]
    people.set_user("u1", {"email": EMAIL, "town": towns[0]}, key(primary=True))
    people.set_user("u2", {"town": towns[1]}, None)
    calls: list[Callable[[], object]] = [
        lambda: people.set_user("u3", {"email": EMAIL}, key("carl", "u3")),
        lambda: people.set_user("u5", {"email": EMAIL}, None),
        lambda: people.update_user_attributes("u2", {"email": EMAIL}),
        lambda: people.update_user_attributes("u2", {"name": None}),
        lambda: people.set_user("u4", {"name": None, "email": OTHER_EMAIL}, None),
    ]
    for call in calls:
        with pytest.raises(IntegrityError) as caught:
            call()
        shown = everything_shown(caught.value)
        hidden = (EMAIL, OTHER_EMAIL, HASH, *towns)
        assert [value for value in hidden if value in shown] == []


@contextmanager
def columns_of_uuids(using: str) -> Iterator[None]:
    """Hide the tables of people by temporary ones whose ids are UUIDs, until a rollback."""
    with transaction.atomic(using=using):
        with connections[using].cursor() as cursor:
            for model, columns in ((Person, ["no"]), (PersonKey, ["id", "user_id"])):
                table = model._meta.db_table
                cursor.execute(f"CREATE TEMPORARY TABLE {table} AS TABLE {table}")
                for name in columns:
                    cursor.execute(f"ALTER TABLE {table} ALTER {name} TYPE uuid USING {name}::uuid")
        yield


def test_no_values_in_errors_of_reads(django_postgresql: str) -> None:
    """The error of a read, also of one after a refused write, quotes no id.

    PostgreSQL quotes a text that it can't compare, since the column is not of the model's type.
    """
    people, user_id = DjangoUserAdapter(PersonKey, using=django_postgresql), "the-id-of-anna"
    calls: list[Callable[[], object]] = [
        lambda: people.get_user(user_id),
        lambda: people.update_user_attributes(user_id, {"name": "Anna"}),
        lambda: people.get_key(key().id),
        lambda: people.get_keys_by_user_id(user_id),
        lambda: people.set_key(key(user_id=user_id)),
    ]
    for call in calls:
        with pytest.raises(DataError) as caught, columns_of_uuids(django_postgresql):
            call()
        shown = everything_shown(caught.value)
        assert "invalid input syntax" in shown
        assert [value for value in (user_id, EMAIL, HASH) if value in shown] == []


def test_library_errors_have_no_context(people: DjangoUserAdapter) -> None:
    """The library's errors have no context: the database's error may quote ids."""
    people.set_user("u1", {}, key(primary=True))
    calls: list[Callable[[], object]] = [
        lambda: people.set_key(key()),
        lambda: people.set_key(key("other", "unknown")),
        lambda: people.set_user("u2", {}, key(user_id="u2")),
    ]
    for call in calls:
        with pytest.raises(LuciaError) as caught:
            call()
        assert (caught.value.__context__, caught.value.__cause__) == (None, None)


def test_keys_show_only_their_provider() -> None:
    """Neither the text nor the ``repr`` of a key shows its id, which may be a secret."""
    row = Key(id="reset:the-secret", hashed_password=HASH)
    assert (str(row), repr(row)) == ("reset key", "<Key: reset key>")


# Models


def test_no_model_of_keys() -> None:
    """Without the app, and for an unknown model, the error says what to do."""
    with pytest.raises(
        ImproperlyConfigured, match=r"put 'lucia\.adapters\.django' into INSTALLED_A"
    ):
        DjangoUserAdapter("nowhere.Key").get_user("u1")


@isolate_apps("tests.support.django_site")
def test_unusable_models() -> None:
    """Models that can't be used are refused, and the message says why."""

    class Lonely(AbstractKey):
        class Meta(AbstractKey.Meta):
            app_label = "django_site"

    class Named(AbstractKey):
        user = models.CharField(max_length=10)

        class Meta(AbstractKey.Meta):
            app_label = "django_site"

    class Numbered(models.Model):
        code = models.CharField(max_length=10, primary_key=True)
        id = models.IntegerField()
        email = models.CharField(max_length=10, unique=True)

        class Meta:
            app_label = "django_site"

    class ByEmail(AbstractKey):
        user = models.ForeignKey(Numbered, models.CASCADE, to_field="email")

        class Meta(AbstractKey.Meta):
            app_label = "django_site"

    class ByCode(AbstractKey):
        user = models.ForeignKey(Numbered, models.CASCADE)

        class Meta(AbstractKey.Meta):
            app_label = "django_site"

    for model in (Lonely, Named, ByEmail):
        with pytest.raises(ImproperlyConfigured, match=f"{model.__name__} needs a field user"):
            DjangoUserAdapter(model).get_user("u1")
    with pytest.raises(ImproperlyConfigured, match="Numbered has a field 'id' that is not its pri"):
        DjangoUserAdapter(ByCode).get_user("u1")


@isolate_apps("tests.support.django_site")
def test_user_without_attributes() -> None:
    """The error for an unknown attribute says so if the users have none."""

    class Bare(models.Model):
        class Meta:
            app_label = "django_site"

    class BareKey(AbstractKey):
        user = models.ForeignKey(Bare, models.CASCADE)

        class Meta(AbstractKey.Meta):
            app_label = "django_site"

    with pytest.raises(ValueError, match="Bare has no attribute email; its attributes are: none"):
        DjangoUserAdapter(BareKey).set_user("1", {"email": EMAIL}, None)


def test_migration_is_complete() -> None:
    """The migration in the package creates the model as it is."""
    call_command("makemigrations", "lucia", check=True, dry_run=True, verbosity=0)


def test_collations_of_mariadb(django_mariadb: str) -> None:
    """On MariaDB, ids and hashes get a collation that compares every byte."""
    with connections[django_mariadb].cursor() as cursor:
        cursor.execute(
            "SELECT column_name, collation_name FROM information_schema.columns WHERE table_name = "
            "'lucia_key' AND table_schema = DATABASE() AND collation_name IS NOT NULL"
        )
        assert dict(cursor.fetchall()) == {
            "id": "utf8mb4_nopad_bin",
            "hashed_password": "utf8mb4_nopad_bin",
        }


def test_collation_of_mysql() -> None:
    """MySQL, which does not know MariaDB's collations, gets one of its own."""
    connection: Any = connections.create_connection("mariadb")
    connection.mysql_is_mariadb = False
    field = ExactCharField(max_length=255)
    assert field.db_parameters(connection)["collation"] == "utf8mb4_0900_bin"


def test_other_import_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that fails for another reason than missing Django raises its own error."""
    monkeypatch.delitem(sys.modules, "lucia.adapters.django")
    monkeypatch.setitem(sys.modules, "lucia._django.adapters", None)
    with pytest.raises(ImportError, match=r"lucia\._django\.adapters"):
        import_module("lucia.adapters.django")
