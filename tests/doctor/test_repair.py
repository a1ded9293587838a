"""Repairs on real servers, with changes by an application between any two commands."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from lucia._redis.cluster import ClusterStore, PlainSteps, ScriptedSteps, SlotSteps
from lucia._redis.commands import Call, Eval, OnNode, Operation, Transaction
from lucia._redis.index import FIRST_PAGE, Index, IndexPage
from lucia._redis.keys import Layout
from lucia._redis.records import encode_row
from lucia._redis.repair import (
    PlainRepairs,
    Reindexed,
    Repair,
    RepairOperations,
    ScriptedRepairs,
    prefix_pattern,
)
from lucia._redis.single_server import SingleServerStore
from lucia._redis.store import Store
from lucia._rules.sessions import system_clock
from lucia.models import SessionRow
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import HOUR, row
from tests.support.stepped_operations import Stepper, explore
from tools.servers import Server

LAYOUTS: Final = {name: Layout.from_namespaces(None, name) for name in ("default", "lucia-v2")}

STEPS: Final[dict[str, Callable[[], SlotSteps]]] = {"scripted": ScriptedSteps, "plain": PlainSteps}

REPAIRS: Final[dict[str, Callable[[], RepairOperations]]] = {
    "scripted": ScriptedRepairs,
    "plain": PlainRepairs,
}


class Harness:
    """A factory of operations on one server, to run at once or step by step."""

    def __init__(self, inspector: Inspector, steps: SlotSteps) -> None:
        self.inspector = inspector
        self.layout = inspector.layout
        self.repair = Repair(self.layout, steps)
        self.stores: list[Store] = [ClusterStore(self.layout, steps)]
        if isinstance(steps, ScriptedSteps):
            self.stores.append(SingleServerStore(self.layout))

    def steps(self, operation: Operation[Any]) -> Stepper[Any]:
        """Return an operation to run step by step."""
        return Stepper(self.inspector.client, operation)

    def begin_with_lost(self, *session_ids: str) -> None:
        """Empty the server, and store these sessions in no index."""
        self.inspector.on_each("FLUSHALL")
        for session_id in session_ids:
            self.inspector.write(row(session_id))

    def reindexing(self) -> Stepper[Reindexed]:
        """Return a reindex that has read everything, just before its first change."""
        operation = self.steps(self.repair.reindex())
        while not isinstance(operation.commands[-1], Eval | Transaction):
            operation.step()
        return operation

    def ids(self) -> list[str]:
        """Return the ids in the user's index."""
        operation = self.layout.index.read(self.layout.index_key("u1"))
        return sorted(id_.decode() for id_ in self.steps(operation).finish())

    def check(self, *, ended: bool) -> None:
        """Check that a live session is indexed, and a revoked one is gone."""
        live = self.inspector.live()
        assert live == (set() if ended else {"s"})
        assert set(self.ids()) == live
        assert [key for key, entry in self.inspector.census().items() if entry.expires < 0] == []


@pytest.fixture(params=LAYOUTS)
def inspector(request: pytest.FixtureRequest, redis_server: Server) -> Iterator[Inspector]:
    """Yield an inspector of an emptied server, in each layout."""
    with Inspector(redis_server, LAYOUTS[request.param]) as found:
        yield found


@pytest.fixture(params=STEPS)
def harness(request: pytest.FixtureRequest, inspector: Inspector) -> Harness:
    """Return repairs with scripts, and without."""
    return Harness(inspector, STEPS[request.param]())


def test_reindex(harness: Harness) -> None:
    """Live sessions are added to their index; expired or unfinished ones are not."""
    harness.begin_with_lost("s")
    harness.inspector.write(row("other", "u2", life=2 * HOUR))
    harness.inspector.client.set("session:dead", encode_row(row("dead", life=-HOUR)), px=HOUR)
    harness.inspector.client.set("session:young", encode_row(row("young")), px=9_000)
    harness.inspector.client.set("session:damaged", "{}", px=HOUR)
    harness.inspector.client.set(
        "session:renewed:{session:s}", encode_row(row("renewed:{session:s}")), px=HOUR
    )
    harness.inspector.client.hset("session:hash", "a", "b")
    assert harness.steps(harness.repair.reindex()).finish() == Reindexed(sessions=2, indexed=2)
    assert harness.ids() == ["s"]
    assert (
        harness.inspector.client.pexpiretime(harness.layout.index_key("u2"))
        > system_clock() + HOUR + HOUR // 2
    )
    assert harness.steps(harness.repair.reindex()).finish() == Reindexed(sessions=2, indexed=0)


def test_reindex_with_an_index_of_another_type(harness: Harness) -> None:
    """A session whose index key has another type is skipped, and other sessions are indexed."""
    harness.begin_with_lost("s")
    harness.inspector.write(row("other", "u2"))
    harness.inspector.client.set(harness.layout.index_key("u2"), "no index")
    assert harness.steps(harness.repair.reindex()).finish() == Reindexed(sessions=2, indexed=1)
    assert harness.ids() == ["s"]


def test_reindex_during_revocation(harness: Harness) -> None:
    """In every order of commands, a session revoked during a reindex is not in its index."""
    for store in harness.stores:

        def begin(store: Store = store) -> list[Stepper[Any]]:
            harness.begin_with_lost("s")
            return [harness.reindexing(), harness.steps(store.delete(["s"]))]

        assert explore(begin, lambda: harness.check(ended=True)) > 1


class Blind(Repair):
    """A wrong repair that indexes a session without checking that it still exists."""

    def add_to_index(self, row: SessionRow) -> Operation[bool]:
        yield from self._steps.add_to_index(
            self._layout.index, self._layout.index_key(row.user_id), row.id, row.idle_expires
        )
        return True


def test_control_reindex_without_recheck_is_detected(harness: Harness) -> None:
    """Without that check, in some order the id of a revoked session stays in the index."""
    harness.repair = Blind(harness.layout, harness.repair._steps)

    def begin() -> list[Stepper[Any]]:
        harness.begin_with_lost("s")
        return [harness.reindexing(), harness.steps(harness.stores[0].delete(["s"]))]

    with pytest.raises(AssertionError):
        explore(begin, lambda: harness.check(ended=True))


def test_reindex_during_login(harness: Harness) -> None:
    """In every order of commands, a login during a reindex is in the index."""
    for store in harness.stores:

        def begin(store: Store = store) -> list[Stepper[Any]]:
            harness.begin_with_lost("s")
            return [harness.reindexing(), harness.steps(store.create(row("new"), lambda _: 0))]

        def check() -> None:
            assert set(harness.ids()) == harness.inspector.live() == {"s", "new"}

        assert explore(begin, check) > 1


def test_reindex_during_renewal(harness: Harness) -> None:
    """In every order of commands, a session renewed during a reindex leaves its successor."""
    for store in harness.stores:

        def begin(store: Store = store) -> list[Stepper[Any]]:
            harness.begin_with_lost("s")
            return [harness.reindexing(), harness.steps(store.renew("s", row("new"), 60_000))]

        def check() -> None:
            assert harness.inspector.live() == {"new"}
            assert "new" in harness.ids()

        assert explore(begin, check) > 1


def test_crash_of_a_reindex(harness: Harness) -> None:
    """A crash leaves at most the id of a revoked session, which the next reader removes."""
    for steps in range(12):
        harness.begin_with_lost("s")
        reindex = harness.steps(harness.repair.reindex())
        for _ in range(steps):
            if not reindex.done:
                reindex.step()
        harness.steps(harness.stores[0].delete(["s"])).finish()
        assert harness.steps(harness.stores[0].get_by_user("u1", system_clock())).finish() == []
        assert harness.ids() == []


def test_exhaustive_sign_out(harness: Harness) -> None:
    """An exhaustive sign-out revokes a user's sessions in no index too, and no other user's."""
    harness.begin_with_lost("s", "t")
    harness.inspector.write(row("other", "u2"))
    for store in harness.stores:
        harness.steps(harness.repair.delete_by_scan("u1", store.delete)).finish()
        assert harness.inspector.live() == {"other"}
        harness.inspector.write(row("s"))
        harness.steps(harness.repair.delete_by_scan("nobody", store.delete)).finish()
        assert harness.inspector.live() == {"s", "other"}


def _pages(harness: Harness, size: int) -> Iterator[IndexPage]:
    place, key = FIRST_PAGE, harness.layout.index_key("u1")
    while True:
        page: IndexPage = harness.steps(harness.layout.index.read_page(key, place, size)).finish()
        yield page
        if page.next is None:
            return
        place = page.next


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 2_000])
def test_pages(harness: Harness, count: int) -> None:
    """An index is read completely by pages, each id of a list once."""
    index, key = harness.layout.index, harness.layout.index_key("u1")
    for number in range(count):
        (harness.inspector.client.lpush if index.type == "list" else harness.inspector.client.sadd)(
            key, str(number)
        )
    pages = list(_pages(harness, 2 if count < 100 else 100))
    ids = [id_ for page in pages for id_ in page.ids]
    assert set(ids) == {str(number).encode() for number in range(count)}
    assert index.type == "set" or len(ids) == count
    assert not any(page.has_moved for page in pages)


def test_page_that_moved(harness: Harness) -> None:
    """A page reports that earlier entries of a list were removed; logins move nothing."""
    if harness.layout.index.type == "set":
        return
    key = harness.layout.index_key("u1")
    for ended, has_moved in (("0", True), ("9", False)):
        harness.inspector.client.delete(key)
        harness.inspector.client.rpush(key, *map(str, reversed(range(10))))
        pages = _pages(harness, 4)
        assert next(pages).ids == [b"3", b"2", b"1", b"0"]
        harness.inspector.client.lpush(key, "new")
        harness.inspector.client.lrem(key, 0, ended)
        assert next(pages).has_moved is has_moved


def test_index_that_is_gone_meanwhile(harness: Harness) -> None:
    """An index that is emptied while it is read ends with an empty page."""
    if harness.layout.index.type == "set":
        return
    key = harness.layout.index_key("u1")
    harness.inspector.client.rpush(key, *map(str, range(10)))
    pages = _pages(harness, 4)
    next(pages)
    harness.inspector.client.delete(key)
    assert next(pages) == IndexPage([], None, has_moved=True)


# Changes of one key


@pytest.fixture(params=REPAIRS)
def repairs(request: pytest.FixtureRequest) -> RepairOperations:
    """Return changes of one key with scripts, and without."""
    return REPAIRS[request.param]()


SESSION = row("s")
KEY = b"session:s"


def _set_expiry(
    repairs: RepairOperations, inspector: Inspector, session: SessionRow
) -> Stepper[bool]:
    return Stepper(inspector.client, repairs.set_expiry(KEY, encode_row(session), session))


def test_set_expiry(repairs: RepairOperations, inspector: Inspector) -> None:
    """A session's key gets its expiry; a key with another record, or gone, is left alone."""
    inspector.client.set(KEY, encode_row(SESSION))
    assert _set_expiry(repairs, inspector, SESSION).finish()
    assert inspector.client.pexpiretime(KEY) == SESSION.idle_expires
    inspector.client.set(KEY, "another", px=HOUR)
    assert not _set_expiry(repairs, inspector, SESSION).finish()
    assert inspector.client.pttl(KEY) > HOUR // 2
    inspector.client.delete(KEY)
    assert not _set_expiry(repairs, inspector, SESSION).finish()
    assert inspector.client.exists(KEY) == 0


def test_set_expiry_during_extension(inspector: Inspector) -> None:
    """In every order of commands, a longer life that another writer gives a session stays."""
    longer = row("s", life=3 * HOUR)

    def prolong() -> Operation[None]:
        yield Call("SET", (KEY, encode_row(longer), "PXAT", longer.idle_expires))

    for make in REPAIRS.values():

        def begin(make: Callable[[], RepairOperations] = make) -> list[Stepper[Any]]:
            inspector.client.set(KEY, encode_row(SESSION))
            return [_set_expiry(make(), inspector, SESSION), Stepper(inspector.client, prolong())]

        assert explore(begin, lambda: _is_longer(inspector, longer)) > 1


def _is_longer(inspector: Inspector, longer: SessionRow) -> None:
    assert json.loads(inspector.client.get(KEY))["idle_expires"] == longer.idle_expires
    assert inspector.client.pexpiretime(KEY) == longer.idle_expires


def test_set_expiry_of_changing_session(inspector: Inspector) -> None:
    """Without scripts, a session that changes at every read is left alone."""
    inspector.client.set(KEY, encode_row(SESSION))
    settling = _set_expiry(PlainRepairs(), inspector, SESSION)
    for life in range(2, 8):
        settling.step(2)
        inspector.client.set(KEY, encode_row(row("s", life=life * HOUR)))
        settling.step()
        if settling.done:
            break
    assert settling.result is False


def test_extend_expiry(repairs: RepairOperations, inspector: Inspector) -> None:
    """A key's life is only ever extended; a key without an expiry gets one only if asked."""
    now = system_clock()
    for before, endless, after in (
        (now + HOUR, False, now + 2 * HOUR),
        (now + 3 * HOUR, True, now + 3 * HOUR),
        (None, False, -1),
        (None, True, now + 2 * HOUR),
    ):
        inspector.client.set(KEY, "x", pxat=before)
        Stepper(
            inspector.client, repairs.extend_expiry(KEY, now + 2 * HOUR, endless=endless)
        ).finish()
        assert inspector.client.pexpiretime(KEY) == after
    inspector.client.delete(KEY)
    Stepper(inspector.client, repairs.extend_expiry(KEY, now + HOUR, endless=True)).finish()
    assert inspector.client.exists(KEY) == 0


def test_delete_unchanged(repairs: RepairOperations, inspector: Inspector) -> None:
    """A key is deleted only if it has the type and the value that were read."""
    inspector.client.set(KEY, "x")
    for kind, value, erased in (
        (b"list", None, False),
        (b"string", b"y", False),
        (b"string", b"x", True),
        (b"string", b"x", False),
    ):
        assert (
            Stepper(inspector.client, repairs.delete_unchanged(KEY, kind, value)).finish() is erased
        )
    inspector.client.rpush(KEY, "x")
    assert Stepper(inspector.client, repairs.delete_unchanged(KEY, b"list", None)).finish()
    assert inspector.client.exists(KEY) == 0


def test_remove_duplicates(inspector: Inspector) -> None:
    """A script removes all entries of an id except the oldest; without scripts none is removed."""
    inspector.client.rpush(KEY, "a", "b", "a", "c", "a")
    assert not Stepper(inspector.client, PlainRepairs().remove_duplicates(KEY, b"a")).finish()
    assert Stepper(inspector.client, ScriptedRepairs().remove_duplicates(KEY, b"a")).finish()
    assert inspector.client.lrange(KEY, 0, -1) == [b"b", b"c", b"a"]
    assert not Stepper(inspector.client, ScriptedRepairs().remove_duplicates(KEY, b"a")).finish()


def test_long_indexes_are_searched_in_parts(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids of one batch are limited by the entries that are searched for them."""
    monkeypatch.setattr("lucia._redis.repair.MAX_ENTRIES_SEARCHED", 25)
    entries: list[tuple[str, str]] = []
    for user, count in (("u1", 10), ("u2", 30), ("u3", 0)):
        key = harness.layout.index_key(user)
        for number in range(count):
            (
                harness.inspector.client.lpush
                if harness.layout.index.type == "list"
                else harness.inspector.client.sadd
            )(key, str(number))
        entries += [(key, "0"), (key, "x")]
    searching = harness.steps(harness.repair.are_indexed("", entries))
    assert searching.finish() == [True, False, True, False, False, False]
    assert [
        len(command.commands) for command in searching.commands if isinstance(command, OnNode)
    ] == [3, 2, 1, 1, 2]


def test_index_count(inspector: Inspector) -> None:
    """An id is counted in both kinds of index."""
    index: Index = inspector.layout.index
    (inspector.client.rpush if index.type == "list" else inspector.client.sadd)(KEY, "a", "b")
    assert Stepper(inspector.client, index.count(KEY, "a")).finish() == 1
    assert Stepper(inspector.client, index.count(KEY, "c")).finish() == 0


def test_prefix_pattern_escapes_special_characters(inspector: Inspector) -> None:
    """A namespace with special characters matches itself alone."""
    for name in ("a[b]*?^\\-:1", "ab:1", "a[b]xx:1"):
        inspector.client.set(name, "x")
    assert inspector.client.keys(prefix_pattern("a[b]*?^\\-:")) == [b"a[b]*?^\\-:1"]
