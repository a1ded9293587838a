"""Users and keys in a database, by Django's ORM."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from time import sleep
from typing import Any, Final, TypeVar

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    connections,
    router,
    transaction,
)
from django.db.models import Model, QuerySet

from lucia._compat.blocks import Blocks
from lucia._django.tables import KEY_COLUMNS, AuthModels, exactly, key_row
from lucia._rules.database_errors import MAX_ATTEMPTS, hide_values, is_rollback, retry_pause
from lucia._rules.user_ids import UserIdType
from lucia.errors import DuplicateKeyId, InvalidUserId, LuciaError
from lucia.models import UNSET, KeyRow, Unset, UserRow

__all__ = ["AsyncDjangoUserAdapter", "DjangoUserAdapter"]

T = TypeVar("T")

_ANY_USER: Final = "any user"
"""Stands for a user's id where that does not matter."""


class DjangoUserAdapter:
    """Users and keys in a database, by Django's ORM.

    The users are the rows of ``AUTH_USER_MODEL``, or of the model that the field ``user`` of
    another ``key_model`` refers to. A user's id is the text of the primary key. The attributes are
    the other columns, by the names of the model's fields; foreign keys by those of the columns
    (``team_id``). A ``password`` that Django's own login would check is no attribute: it is set
    unusable, and never read, since Lucia keeps its hashes in keys.

    Outside of ``transaction.atomic`` each call is a short transaction of its own. It is repeated,
    ten times at most, if the database rolls it back because of another one, such as by a deadlock.
    Within it everything happens in the caller's transaction, and a refused write is rolled back to
    a savepoint, so that the transaction stays usable.

    Users are stored by ``save()`` and removed by ``delete()`` of the model, with its signals and
    its ``on_delete`` rules, and found by its default manager. Nothing is validated
    (``full_clean()``).

    ========================== =====================================================================
    method                     what the ORM is asked for
    ========================== =====================================================================
    ``get_user``               ``SELECT id, … FROM auth_user WHERE id = :id``
    ``set_user``, ``add_user`` ``User(…).save(force_insert=…)``; with a key
                               ``Key.objects.create(…)``; then see ``get_user``
    ``delete_user``            ``DELETE FROM lucia_key WHERE user_id = :id``; ``SELECT … FROM
                               auth_user WHERE id = :id FOR UPDATE``; ``user.delete()``
    ``update_user_attributes`` ``SELECT … FROM auth_user WHERE id = :id``;
                               ``user.save(update_fields=…)``; then see ``get_user``
    ``get_key``                ``SELECT … FROM lucia_key WHERE id = :id``
    ``get_keys_by_user_id``    ``SELECT … FROM lucia_key WHERE user_id = :user_id``
    ``set_key``                ``Key.objects.create(…)``; ``SELECT … FROM auth_user WHERE id =
                               :user_id``, ``FOR NO KEY UPDATE`` where foreign keys are deferred
    ``update_key_password``    ``UPDATE lucia_key SET hashed_password = :new WHERE id = :id`` and,
                               with ``expected``, ``AND hashed_password = :expected`` or ``IS
                               NULL``; then see ``get_key``
    ``delete_non_primary_key`` ``DELETE FROM lucia_key WHERE id IN (…) AND NOT primary_key``
    ``delete_keys_by_user_id`` ``DELETE FROM lucia_key WHERE user_id = :user_id``
    ========================== =====================================================================

    On MySQL and MariaDB each comparison with a user's id that is text also compares the bytes. When
    the database refuses a write, one or two SELECTs find out whether the key's id is taken (with
    ``FOR UPDATE``), or whether the user is missing. Every other error of the database is raised
    unchanged, but without ids, hashes and attributes in its text.

    Args:
        key_model: the model of keys, a subclass of
            :class:`~lucia.adapters.django.base_key.AbstractKey`, or its label. Models are looked up
            by the first call, so an adapter may be made while Django still loads them.
        using: the name of the database, as in ``QuerySet.using()``; by default the one that
            ``DATABASE_ROUTERS`` name for writes. It is read too, since a replica lags behind.

    The first call raises ``ImproperlyConfigured`` if there is no such model, or if its ``user`` is
    no foreign key to the primary key of a model.
    """

    def __init__(
        self, key_model: type[Model] | str = "lucia.Key", *, using: str | None = None
    ) -> None:
        self._key_model = key_model
        self._database = using

    @property
    def user_id_type(self) -> UserIdType[Any] | None:
        """The type of the users' primary key; None if unknown, as before Django has started."""
        return self._models.user_id_type() if apps.models_ready else None

    def get_user(self, user_id: str, /) -> UserRow | None:
        return self._transact(
            lambda: self._first_user(self._users(user_id)), atomic=False, hidden=[user_id]
        )

    def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        models = self._models
        models.check_attributes(attributes)
        pk = models.new_user_pk(user_id, self._using)
        return self._write(
            lambda: self._insert_user({**models.pk_values(pk), **attributes}, lambda _: key),
            lambda: self._why_refused(key),
            hidden=[user_id, dict(attributes), *_secrets(key)],
        )

    def add_user(
        self, attributes: Mapping[str, Any], make_key: Callable[[str], KeyRow] | None, /
    ) -> UserRow:
        self._models.check_attributes(attributes)
        self._models.check_assigned_ids()
        # The key of any user has the same id and hash: the database may refuse the user first.
        sample = None if make_key is None else make_key(_ANY_USER)
        return self._write(
            lambda: self._insert_user(attributes, make_key or (lambda _: None)),
            lambda: self._why_refused(sample),
            hidden=[dict(attributes), *_secrets(sample)],
        )

    def delete_user(self, user_id: str, /) -> None:
        self._transact(lambda: self._delete_user(user_id), hidden=[user_id])

    def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        self._models.check_attributes(attributes)
        # Read before the transaction, which then begins with a write: on SQLite, one that has read
        # before can't wait for another's write.
        user = self._transact(lambda: self._users(user_id).first(), atomic=False, hidden=[user_id])
        if user is None:
            return None
        try:
            return self._transact(
                lambda: self._update_user(user, attributes), hidden=[user_id, dict(attributes)]
            )
        except DatabaseError as error:
            failure = error
        # Django raises one also if the user was deleted meanwhile.
        if self.get_user(user_id) is None:
            return None
        raise failure

    def get_key(self, key_id: str, /) -> KeyRow | None:
        return self._transact(lambda: self._first_key(key_id), atomic=False, hidden=[key_id])

    def get_keys_by_user_id(self, user_id: str, /) -> Sequence[KeyRow]:
        return self._transact(
            lambda: [key_row(row) for row in self._keys_of(user_id).values_list(*KEY_COLUMNS)],
            atomic=False,
            hidden=[user_id],
        )

    def set_key(self, key: KeyRow, /) -> None:
        self._write(
            lambda: self._insert_key_of_user(key),
            lambda: self._why_refused(key) or self._why_no_user(key.user_id),
            hidden=[key.user_id, *_secrets(key)],
        )

    def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        unchanged = {} if isinstance(expected, Unset) else {"hashed_password": expected}
        return self._transact(
            lambda: (
                self._first_key(key_id)
                if self._keys.filter(pk=key_id, **unchanged).update(hashed_password=hashed_password)
                else None
            ),
            hidden=[key_id, hashed_password, expected],
        )

    def delete_non_primary_key(self, /, *key_ids: str) -> int:
        return self._transact(lambda: self._delete_non_primary_keys(key_ids), hidden=key_ids)

    def delete_keys_by_user_id(self, user_id: str, /) -> None:
        self._transact(lambda: self._keys_of(user_id).delete(), hidden=[user_id])

    @cached_property
    def _models(self) -> AuthModels:
        return AuthModels(self._key_model)

    @property
    def _using(self) -> str:
        return self._database or router.db_for_write(self._models.key)

    @property
    def _keys(self) -> QuerySet[Any]:
        keys: QuerySet[Any] = self._models.key._base_manager.using(self._using)
        return keys

    def _keys_of(self, user_id: str) -> QuerySet[Any]:
        pk = self._models.user_pk(user_id, self._using)
        return self._keys.none() if pk is None else exactly(self._keys, "user_id", pk)

    def _users(self, user_id: str) -> QuerySet[Any]:
        """Return the user with this id, or none."""
        users: QuerySet[Any] = self._models.user._default_manager.using(self._using)
        pk = self._models.user_pk(user_id, self._using)
        return users.none() if pk is None else exactly(users, "pk", pk)

    def _first_user(self, users: QuerySet[Any]) -> UserRow | None:
        row = users.values_list("pk", *self._models.attributes).first()
        return None if row is None else self._models.user_row(row)

    def _stored_user(self, pk: Any) -> UserRow:
        """Return a user that was just written, with the database's defaults.

        The default manager may leave it out, as one for active users does.
        """
        users = self._models.user._base_manager.using(self._using)
        return self._models.user_row(users.values_list("pk", *self._models.attributes).get(pk=pk))

    def _first_key(self, key_id: str) -> KeyRow | None:
        row = self._keys.filter(pk=key_id).values_list(*KEY_COLUMNS).first()
        return None if row is None else key_row(row)

    def _insert_user(
        self, values: Mapping[str, Any], make_key: Callable[[str], KeyRow | None]
    ) -> UserRow:
        user = self._models.user(**values)
        if self._models.has_django_password:
            user.set_unusable_password()
        # Of the parents' tables too, where the model inherits from another one.
        user.save(force_insert=(Model,), using=self._using)
        key = make_key(str(user.pk))
        if key is not None:
            self._insert_key(key, user.pk)
        return self._stored_user(user.pk)

    def _insert_key(self, key: KeyRow, user_pk: Any) -> None:
        self._keys.create(
            id=key.id,
            user_id=user_pk,
            hashed_password=key.hashed_password,
            primary_key=key.primary_key,
            expires=key.expires,
        )

    def _insert_key_of_user(self, key: KeyRow) -> None:
        pk = self._models.user_pk(key.user_id, self._using)
        if pk is None:
            raise InvalidUserId
        self._insert_key(key, pk)
        # Where Django's foreign keys are deferred, a missing user would be noticed at the end of
        # the transaction, which may be the caller's. With the lock nobody deletes the user until
        # then. Elsewhere the INSERT has locked the user, and another lock would be a deadlock.
        users = self._users(key.user_id)
        features = connections[self._using].features
        if features.can_defer_constraint_checks:
            users = users.select_for_update(no_key=features.has_select_for_no_key_update)
        if not users.exists():
            raise InvalidUserId

    def _update_user(self, user: Any, attributes: Mapping[str, Any]) -> UserRow:
        if attributes:
            for name, value in attributes.items():
                setattr(user, name, value)
            user.save(using=self._using, update_fields=list(attributes))
        return self._stored_user(user.pk)

    def _delete_user(self, user_id: str) -> None:
        # A write first, for SQLite.
        self._keys_of(user_id).delete()
        # With the lock nobody adds a key until the commit, or anything else that refers to the
        # user, which ``delete()`` would not find.
        if self._users(user_id).select_for_update().exists():
            user = self._users(user_id).get()
            user.delete(using=self._using)

    def _delete_non_primary_keys(self, key_ids: Iterable[str]) -> int:
        count = 0
        for block in Blocks(dict.fromkeys(key_ids)):
            _, deleted = self._keys.filter(pk__in=block, primary_key=False).delete()
            count += deleted.get(self._models.key._meta.label, 0)
        return count

    def _why_refused(self, key: KeyRow | None) -> LuciaError | None:
        """Return DuplicateKeyId if the key's id is taken, else None.

        By the rows that are there, since error texts and codes differ between databases.
        """
        # At REPEATABLE READ, MySQL and MariaDB refuse a row that others have stored meanwhile, but
        # a SELECT finds it only if it locks it.
        if key is not None and self._keys.select_for_update().filter(pk=key.id).exists():
            return DuplicateKeyId()
        return None

    def _why_no_user(self, user_id: str) -> LuciaError | None:
        return None if self._users(user_id).exists() else InvalidUserId()

    def _write(
        self,
        operation: Callable[[], T],
        why_refused: Callable[[], LuciaError | None],
        *,
        hidden: Sequence[Any],
    ) -> T:
        """Run an operation, and find out which of our errors a refused write stands for."""
        try:
            return self._transact(operation, hidden=hidden)
        except (IntegrityError, DataError) as error:
            failure = error
        # Not in the handler: there the database's error, which may quote ids, would become the
        # context of ours.
        raise self._transact(why_refused, hidden=hidden) or failure

    def _transact(
        self, operation: Callable[[], T], *, atomic: bool = True, hidden: Sequence[Any]
    ) -> T:
        """Run an operation completely or not at all.

        It is repeated if the database rolled back its transaction, but not if that is the caller's.

        Args:
            operation: reads everything again in each attempt.
            atomic: False for an operation of one SELECT, which needs no transaction.
            hidden: the values to remove from the database's error.
        """
        using = self._using
        attempt = 1
        while True:
            # Also with autocommit switched off, the transaction is the caller's.
            is_ours = connections[using].get_autocommit()
            scope: AbstractContextManager[Any] = (
                transaction.atomic(using=using) if atomic else nullcontext()
            )
            try:
                with scope:
                    return operation()
            except Error as error:
                hide_values(error, hidden)
                if not is_ours or attempt == MAX_ATTEMPTS or not is_rollback(error.__cause__):
                    raise
            sleep(retry_pause(attempt))
            attempt += 1


def _secrets(key: KeyRow | None) -> Sequence[Any]:
    return () if key is None else (key.id, key.hashed_password)


class AsyncDjangoUserAdapter:
    """The async form of :class:`DjangoUserAdapter`: one thread hop for each call.

    Each call runs whole in Django's thread for sync code (``sync_to_async`` with
    ``thread_sensitive=True``), as Django's own async methods of the ORM do. So it uses the
    connection that they use, and that of sync code which is called by ``sync_to_async`` in the same
    request. Django has no ``transaction.atomic`` for async code: to sign somebody up within a
    transaction, do it in a sync function with :class:`DjangoUserAdapter`.

    Args:
        key_model, using: see :class:`DjangoUserAdapter`.
    """

    def __init__(
        self, key_model: type[Model] | str = "lucia.Key", *, using: str | None = None
    ) -> None:
        self._adapter = DjangoUserAdapter(key_model, using=using)

    @property
    def user_id_type(self) -> UserIdType[Any] | None:
        return self._adapter.user_id_type

    async def get_user(self, user_id: str, /) -> UserRow | None:
        return await sync_to_async(self._adapter.get_user)(user_id)

    async def set_user(
        self, user_id: str, attributes: Mapping[str, Any], key: KeyRow | None, /
    ) -> UserRow:
        return await sync_to_async(self._adapter.set_user)(user_id, attributes, key)

    async def add_user(
        self, attributes: Mapping[str, Any], make_key: Callable[[str], KeyRow] | None, /
    ) -> UserRow:
        return await sync_to_async(self._adapter.add_user)(attributes, make_key)

    async def delete_user(self, user_id: str, /) -> None:
        await sync_to_async(self._adapter.delete_user)(user_id)

    async def update_user_attributes(
        self, user_id: str, attributes: Mapping[str, Any], /
    ) -> UserRow | None:
        return await sync_to_async(self._adapter.update_user_attributes)(user_id, attributes)

    async def get_key(self, key_id: str, /) -> KeyRow | None:
        return await sync_to_async(self._adapter.get_key)(key_id)

    async def get_keys_by_user_id(self, user_id: str, /) -> Sequence[KeyRow]:
        return await sync_to_async(self._adapter.get_keys_by_user_id)(user_id)

    async def set_key(self, key: KeyRow, /) -> None:
        await sync_to_async(self._adapter.set_key)(key)

    async def update_key_password(
        self, key_id: str, hashed_password: str | None, /, *, expected: str | Unset | None = UNSET
    ) -> KeyRow | None:
        return await sync_to_async(self._adapter.update_key_password)(
            key_id, hashed_password, expected=expected
        )

    async def delete_non_primary_key(self, /, *key_ids: str) -> int:
        return await sync_to_async(self._adapter.delete_non_primary_key)(*key_ids)

    async def delete_keys_by_user_id(self, user_id: str, /) -> None:
        await sync_to_async(self._adapter.delete_keys_by_user_id)(user_id)
