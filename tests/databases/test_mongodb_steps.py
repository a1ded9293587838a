"""The MongoDB operations, stopped between any two commands, in every order, and for good."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, product
from typing import Any, Final

import pytest
from pymongo.errors import DuplicateKeyError

from lucia._mongodb import operations as steps
from lucia.adapters.mongodb import MongoUserAdapter
from lucia.errors import DuplicateKeyId, InvalidUserId
from lucia.models import UserRow
from tests.support.mongo_kills import KEY, OPERATIONS, prepare
from tests.support.mongo_servers import Mongo, MongoServer

KILLS: Final = 50
"""How many processes are killed at least, on each server."""

FOREVER: Final = 1_000
"""More commands than an operation sends."""


class Stopped:
    """An operation that runs one command at a time, on a server.

    Args:
        adapter: sends the commands.
        operation: the operation.
        commands: after how many commands its process dies.
    """

    def __init__(
        self, adapter: MongoUserAdapter, operation: steps.Steps[Any], commands: int = FOREVER
    ) -> None:
        self._left = commands
        self._adapter = adapter
        self._operation = operation
        self._command: steps.Command | None = None
        self.result: Any = None
        self._advance(lambda: next(operation))

    @property
    def done(self) -> bool:
        return self._command is None or not self._left

    def step(self) -> None:
        """Execute the next command."""
        assert self._command is not None
        self._left -= 1
        try:
            reply = self._adapter._execute(self._command)
        except DuplicateKeyError as error:
            failure = error
            self._advance(lambda: self._operation.throw(failure))
        else:
            self._advance(lambda: self._operation.send(reply))

    def run(self, commands: int = FOREVER) -> "Stopped":
        """Execute so many commands, or all that are left."""
        while not self.done and commands > 0:
            commands -= 1
            self.step()
        return self

    def _advance(self, advance: Callable[[], steps.Command]) -> None:
        self._command = None
        try:
            self._command = advance()
        except StopIteration as end:
            self.result = end.value
        except (DuplicateKeyId, InvalidUserId, DuplicateKeyError) as error:
            self.result = error


class Scene:
    """A server with the operations that run on it.

    Sign-ups have one key, and one value of a field that is unique among users.
    """

    def __init__(self, adapter: MongoUserAdapter) -> None:
        self.adapter = adapter
        self._form = adapter._format
        self._database = adapter._database

    def reset(self) -> None:
        """Empty the server; the user ``owner`` is left."""
        for name in ("auth_users", "auth_keys"):
            self._database[name].delete_many({})
        self.adapter.set_user("owner", {"email": "owner"}, None)

    def sign_up(self, user_id: str, email: str = "same", commands: int = FOREVER) -> Stopped:
        key = replace(KEY, user_id=user_id, primary_key=True)
        operation = steps.set_user(self._form, user_id, {"email": email}, key)
        return Stopped(self.adapter, operation, commands)

    def set_key(self, user_id: str = "owner") -> Stopped:
        return Stopped(self.adapter, steps.set_key(self._form, replace(KEY, user_id=user_id)))

    def delete_user(self, user_id: str = "owner") -> Stopped:
        return Stopped(self.adapter, steps.delete_user(self._form, user_id))

    def holder(self) -> str | None:
        """Return whose the key is."""
        found = self.adapter.get_key(KEY.id)
        return None if found is None else found.user_id

    def exists(self, user_id: str) -> bool:
        return self.adapter.get_user(user_id) is not None

    def documents(self) -> list[dict[str, Any]]:
        """Return all documents of both collections."""
        return [
            document
            for name in ("auth_users", "auth_keys")
            for document in self._database[name].find()
        ]

    def check_whole(self, *user_ids: str) -> None:
        """Check that each sign-up is there with its user and its key, or with neither."""
        holder = self.holder()
        for user_id in user_ids:
            assert self.exists(user_id) is (holder == user_id)

    def check_clean(self) -> None:
        """Check that no mark is left, and that each key has its user."""
        documents = self.documents()
        assert not [document for document in documents if "lucia_unfinished" in document]
        users = {document["_id"] for document in documents if "user_id" not in document}
        assert {document["user_id"] for document in documents if "user_id" in document} <= users


@pytest.fixture
def scene(mongo_server: MongoServer) -> Iterator[Scene]:
    """Yield an empty server, with an index of the application's own."""
    with Mongo(mongo_server) as database:
        database["auth_users"].create_index("email", unique=True)
        yield Scene(MongoUserAdapter(database))


def orders(scene: Scene, begin: Callable[[], Sequence[Stopped]]) -> Iterator[Sequence[Stopped]]:
    """Yield the finished operations after each order of their commands."""
    planned: list[int] = []
    while True:
        scene.reset()
        operations, choices = begin(), list[tuple[int, int]]()
        while running := [operation for operation in operations if not operation.done]:
            chosen = planned[len(choices)] if len(choices) < len(planned) else 0
            choices.append((chosen, len(running)))
            running[chosen].step()
        yield operations
        while choices and choices[-1][0] + 1 == choices[-1][1]:
            choices.pop()
        if not choices:
            return
        planned = [chosen for chosen, _ in choices]
        planned[-1] += 1


def stops(
    scene: Scene, begin: Callable[[], tuple[Stopped, Stopped]]
) -> Iterator[tuple[Stopped, Stopped]]:
    """Stop one operation after each of its commands in turn, then run another; yield both."""
    for commands in count():
        scene.reset()
        first, second = begin()
        has_ended = first.run(commands).done
        yield first, second.run()
        if has_ended:
            return


def check_sign_ups(scene: Scene, operations: Sequence[Stopped]) -> None:
    """Check that exactly one of finished sign-ups has succeeded, and that the rest left nothing."""
    winners = [each.result.id for each in operations if isinstance(each.result, UserRow)]
    losers = [each.result for each in operations if not isinstance(each.result, UserRow)]
    assert all(isinstance(error, DuplicateKeyId) for error in losers)
    assert [scene.holder()] == winners
    scene.check_whole("a", "b")
    scene.check_clean()


def test_slow_sign_ups(scene: Scene) -> None:
    """Of two sign-ups that pause anywhere, one after the other, exactly one succeeds."""
    for commands in product(range(6), repeat=2):
        scene.reset()
        first, second = scene.sign_up("a", "1"), scene.sign_up("b", "2")
        first.run(commands[0])
        second.run(commands[1])
        scene.check_whole("a", "b")
        check_sign_ups(scene, [first.run(), second.run()])


def test_abandoned_sign_up(scene: Scene) -> None:
    """A sign-up that ends anywhere can be repeated, under another id and with its unique field.

    If it was committed before, its key is taken.
    """
    for _, second in stops(scene, lambda: (scene.sign_up("a"), scene.sign_up("b"))):
        scene.check_whole("a", "b")
        assert scene.exists("a") is not isinstance(second.result, UserRow)
        scene.check_clean()


def test_seen_sign_up(scene: Scene) -> None:
    """Anywhere in a sign-up, its user and its key are both there, or neither is."""
    for commands in count():
        scene.reset()
        sign_up = scene.sign_up("a").run(commands)
        scene.check_whole("a")
        assert (scene.adapter.get_keys_by_user_id("a") == []) is not scene.exists("a")
        if sign_up.done:
            break
        sign_up.run()
        check_sign_ups(scene, [sign_up])


def test_refused_sign_up(scene: Scene) -> None:
    """A sign-up that the application's own index refuses leaves nothing, wherever it paused."""
    scene.reset()
    assert isinstance(scene.sign_up("a", "owner").run().result, DuplicateKeyError)
    assert [document["_id"] for document in scene.documents()] == ["owner"]
    for first, second in stops(scene, lambda: (scene.sign_up("a"), scene.sign_up("b"))):
        first.run()
        assert sum(isinstance(each.result, UserRow) for each in (first, second)) == 1
        assert isinstance(first.result, UserRow | DuplicateKeyId | DuplicateKeyError)
        scene.check_whole("a", "b")
        scene.check_clean()


def test_key_during_a_sign_up(scene: Scene) -> None:
    """Of a sign-up and another user's new key with one id, one succeeds."""
    for first, second in stops(scene, lambda: (scene.sign_up("a"), scene.set_key())):
        first.run()
        assert isinstance(first.result, UserRow) is isinstance(second.result, DuplicateKeyId)
        assert scene.holder() == ("a" if isinstance(first.result, UserRow) else "owner")
        scene.check_whole("a")
        scene.check_clean()


def test_key_of_a_deleted_user(scene: Scene) -> None:
    """A key that is stored while its user is deleted is nobody's, also if the id is used again."""
    for first, _ in stops(scene, lambda: (scene.set_key(), scene.delete_user())):
        first.run()
        assert scene.holder() is None
        scene.adapter.set_user("owner", {"email": "again"}, None)
        assert scene.holder() is None
        assert scene.adapter.get_keys_by_user_id("owner") == []
        assert scene.set_key().run().result is None
        assert scene.holder() == "owner"


def test_abandoned_deletion(scene: Scene) -> None:
    """A deletion that ends anywhere leaves no key that works, and can be repeated."""
    for commands in range(3):
        scene.reset()
        scene.set_key().run()
        scene.delete_user().run(commands)
        assert (scene.holder() is None) is (commands > 0)
        scene.delete_user().run()
        assert scene.documents() == []


def test_finished_meanwhile(scene: Scene) -> None:
    """A user whose sign-up is finished between the reads of another call is found."""
    scene.reset()
    sign_up = scene.sign_up("a").run(4)
    reading = Stopped(scene.adapter, steps.get_user(scene.adapter._format, "a")).run(1)
    sign_up.run()
    scene.adapter.delete_keys_by_user_id("a")
    assert isinstance(reading.run().result, UserRow)


def test_keys_of_an_unmarked_user(scene: Scene) -> None:
    """Deleting the keys of a user whose sign-up ended just after its commit leaves the user."""
    for commands in count():
        scene.reset()
        if scene.sign_up("a").run(commands).done:
            break
        exists = scene.exists("a")
        scene.reset()
        scene.sign_up("a").run(commands)
        scene.adapter.delete_keys_by_user_id("a")
        assert scene.exists("a") is exists
        assert scene.holder() is None


def test_id_taken_by_a_collation(scene: Scene) -> None:
    """If MongoDB says that an id is taken but has no key of that id, it is taken."""
    operation = steps.set_key(scene.adapter._format, KEY)
    user = {"_id": "owner"}
    assert next(operation) == steps.Find("users", user)
    assert isinstance(operation.send(user), steps.Find)
    assert isinstance(operation.send(None), steps.Insert)
    refusal = DuplicateKeyError("", 11000, {"keyPattern": {"_id": 1}})
    assert isinstance(operation.throw(refusal), steps.Find)
    with pytest.raises(DuplicateKeyId):
        operation.send(None)


def test_key_refused_by_another_index(scene: Scene) -> None:
    """A duplicate in another index than that of the ids is raised as it is."""
    operation = steps.set_key(scene.adapter._format, KEY)
    for reply in (None, {"_id": "owner"}, None):
        operation.send(reply)
    refusal = DuplicateKeyError("", 11000, {"keyPattern": {"hashed_password": 1}})
    with pytest.raises(DuplicateKeyError):
        operation.throw(refusal)


@pytest.mark.slow
@pytest.mark.parametrize("mongo_server", ["nx_27017"], indirect=True)
def test_every_order_of_two_sign_ups(scene: Scene) -> None:
    """In every order of the commands of two sign-ups, exactly one succeeds."""
    number = 0
    for operations in orders(scene, lambda: [scene.sign_up("a", "1"), scene.sign_up("b", "2")]):
        number += 1
        check_sign_ups(scene, operations)
    assert number > 500


@pytest.mark.slow
@pytest.mark.parametrize("mongo_server", ["nx_27017"], indirect=True)
@pytest.mark.parametrize("commands", range(1, 6))
def test_every_order_with_a_dead_sign_up(scene: Scene, commands: int) -> None:
    """In every order of two sign-ups of which one dies, neither is left by half."""
    for _, second in orders(
        scene, lambda: [scene.sign_up("a", "1", commands), scene.sign_up("b", "2")]
    ):
        scene.check_whole("a", "b")
        assert (scene.holder() == "b") is isinstance(second.result, UserRow)
        if scene.holder() is None:
            assert isinstance(scene.sign_up("c", "3").run().result, UserRow)
            scene.check_whole("a", "b", "c")


@pytest.mark.slow
@pytest.mark.parametrize("mongo_server", ["nx_27017"], indirect=True)
def test_every_order_of_a_sign_up_and_a_key(scene: Scene) -> None:
    """In every order of the commands of a sign-up and of a new key with its id, one succeeds."""
    for first, second in orders(scene, lambda: [scene.sign_up("a"), scene.set_key()]):
        assert isinstance(first.result, UserRow) is isinstance(second.result, DuplicateKeyId)
        scene.check_whole("a")
        scene.check_clean()


@pytest.mark.slow
@pytest.mark.parametrize("mongo_server", ["nx_27017"], indirect=True)
def test_every_order_of_a_key_and_a_deletion(scene: Scene) -> None:
    """In every order of the commands of a new key and its user's deletion, no key is left."""
    for first, _ in orders(scene, lambda: [scene.set_key(), scene.delete_user()]):
        assert first.result is None or isinstance(first.result, InvalidUserId)
        assert scene.holder() is None


@pytest.mark.slow
def test_killed_processes(mongo_server: MongoServer) -> None:
    """A process that is killed before or after any command leaves nothing that works by half."""
    with Mongo(mongo_server) as database:
        adapter = MongoUserAdapter(database)
        command = [
            sys.executable,
            "-m",
            "tests.support.mongo_kills",
            mongo_server.url,
            mongo_server.database,
        ]
        kills = 0
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            while kills < KILLS:
                for operation in OPERATIONS:
                    for number, moment in ((n, m) for n in count(1) for m in ("before", "after")):
                        for name in ("auth_users", "auth_keys"):
                            database[name].delete_many({})
                        prepare(adapter)
                        worker.stdin.write(json.dumps([operation, number, moment]) + "\n")
                        worker.stdin.flush()
                        ended = worker.stdout.readline().strip()
                        check_after_kill(adapter, operation)
                        if ended == "done":
                            break
                        assert ended == "killed"
                        kills += 1
            worker.stdin.close()


def check_after_kill(adapter: MongoUserAdapter, operation: str) -> None:
    """Check what a process has left, and that its operation can be repeated."""
    new, anna = adapter.get_user("new"), adapter.get_user("anna")
    key = adapter.get_key(KEY.id)
    if operation == "sign up":
        assert (new is None) is (key is None)
        if new is None:
            adapter.set_user("other", {}, replace(KEY, user_id="other", primary_key=True))
            assert adapter.get_key(KEY.id) is not None
            assert adapter.get_user("new") is None
    elif operation == "set key":
        assert anna is not None
        if key is None:
            adapter.set_key(replace(KEY, user_id="anna"))
        assert adapter.get_key(KEY.id) == replace(KEY, user_id="anna")
    elif operation == "delete user":
        remaining = adapter.get_keys_by_user_id("anna")
        assert anna is not None or remaining == []
        adapter.delete_user("anna")
        assert adapter.get_user("anna") is None
        assert adapter.get_key("email:anna") is None
    else:
        stored = adapter.get_key("email:anna")
        assert stored is not None
        assert stored.hashed_password in ("old", "new")
