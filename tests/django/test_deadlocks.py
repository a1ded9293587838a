"""Conflicts of transactions: repeated in the adapter's own, raised in the caller's."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, Final

import pytest
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError

from lucia import KeyRow
from lucia._django import adapters
from lucia._rules.database_errors import MAX_ATTEMPTS
from lucia.adapters.django import DjangoUserAdapter
from tests.support.django_site.models import Person, PersonKey
from tools.servers import PATIENCE, until

KEY: Final = KeyRow(
    id="email:anna@example.com", user_id="u1", hashed_password=None, primary_key=True, expires=None
)

COUNT_WAITING: Final = {
    "mariadb": "SELECT variable_value FROM information_schema.global_status "
    "WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'",
    "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
}


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> str:
    """Return the name of an empty database on each server."""
    alias: str = request.getfixturevalue(f"django_{request.param}")
    return alias


@pytest.fixture
def people(server: str) -> DjangoUserAdapter:
    """Return an adapter over a user with a key."""
    adapter = DjangoUserAdapter(PersonKey, using=server)
    adapter.set_user("u1", {}, KEY)
    return adapter


class Rivals:
    """Transactions that lock the user and then the keys: ``delete_user`` does the opposite.

    Each meets one transaction of this thread, before it locks the user, and survives the deadlock.
    """

    def __init__(self, alias: str, times: int) -> None:
        self.met = 0
        self._alias = alias
        self._times = times
        self._threads: list[Thread] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        """Run a statement of this thread, as a wrapper of ``execute_wrapper``."""
        if "FOR UPDATE" in sql and self.met < self._times:
            self.met += 1
            if self._alias == "postgresql":  # it aborts the first that looks for a deadlock
                self._query("SET LOCAL deadlock_timeout = '10ms'")
            thread = Thread(target=self._lock, args=[f"ballast-{self.met}-"])
            thread.start()
            self._threads.append(thread)
            until(lambda: int(self._query(COUNT_WAITING[self._alias])) > 0, PATIENCE)
        return execute(sql, params, many, context)

    def join(self) -> None:
        """Wait for the rivals."""
        for thread in self._threads:
            thread.join()

    def _lock(self, ballast: str) -> None:
        with transaction.atomic(using=self._alias):
            if self._alias == "postgresql":
                self._query("SET LOCAL deadlock_timeout = '1h'")
            else:  # it aborts the transaction that changed less
                rows = [Person(no=f"{ballast}{number}") for number in range(100)]
                Person.objects.using(self._alias).bulk_create(rows)
            Person.objects.using(self._alias).filter(pk="u1").update(town="Köln")
            PersonKey.objects.using(self._alias).filter(pk=KEY.id).update(expires=None)

    def _query(self, sql: str) -> Any:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None


@contextmanager
def deadlocks(alias: str, times: int) -> Iterator[Rivals]:
    """Let this thread's next transactions that delete a user end in a deadlock."""
    rivals = Rivals(alias, times)
    try:
        with connections[alias].execute_wrapper(rivals):
            yield rivals
    finally:
        rivals.join()


def test_deadlock(people: DjangoUserAdapter, server: str) -> None:
    """A transaction that a deadlock has rolled back is repeated."""
    with deadlocks(server, times=2) as rivals:
        people.delete_user("u1")
    assert rivals.met == 2
    assert people.get_user("u1") is None
    assert people.get_key(KEY.id) is None


def test_repetitions_are_bounded(
    people: DjangoUserAdapter, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last attempt's error is raised, and nothing was changed."""
    monkeypatch.setattr(adapters, "MAX_ATTEMPTS", 3)
    assert MAX_ATTEMPTS == 10
    with deadlocks(server, times=5) as rivals, pytest.raises(OperationalError):
        people.delete_user("u1")
    assert rivals.met == 3
    assert people.get_key(KEY.id) == KEY


def test_deadlock_in_a_block(people: DjangoUserAdapter, server: str) -> None:
    """In the caller's block it is raised: PostgreSQL goes on, on MariaDB the block is lost."""
    with deadlocks(server, times=1) as rivals, transaction.atomic(using=server):
        Person.objects.using(server).create(no="u2")
        with pytest.raises(OperationalError):
            people.delete_user("u1")
        if server == "mariadb":
            with pytest.raises(TransactionManagementError):
                people.get_user("u1")
        else:
            assert people.get_user("u2") is not None
    assert rivals.met == 1
    assert people.get_key(KEY.id) == KEY
    assert (people.get_user("u2") is None) == (server == "mariadb")


def test_no_other_error_is_repeated(people: DjangoUserAdapter, server: str) -> None:
    """An error that is no rollback is raised at once."""
    statements: list[str] = []

    def misspell(execute: Any, sql: str, *rest: Any) -> Any:
        statements.append(sql)
        return execute(sql.replace("key_of_person", "no_such_table"), *rest)

    misspelt = connections[server].execute_wrapper(misspell)
    with misspelt, pytest.raises(DatabaseError, match="no_such_table"):
        people.delete_keys_by_user_id("u1")
    assert len(statements) == 1
    assert people.get_key(KEY.id) == KEY
