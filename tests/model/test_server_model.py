"""The model's server behaves as a real one.

The same commands, scripts and transactions have the same replies, and leave the same keys.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Final

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from lucia._redis import scripts
from lucia._redis.commands import Argument, Call, Eval, Operation, Transaction
from lucia._redis.index import LEGACY_LIST, LEGACY_SET, LIST, SET, Index
from lucia._redis.scripts import IndexScripts, Script
from lucia._rules.sessions import system_clock
from lucia._sync.stores.redis.driver import RedisDriver
from lucia.errors import StoreCorrupt
from tests.model.server import NOW, SCRIPTS, Database, State, Value, WrongType
from tests.model.world import Part
from tools.servers import Server

pytestmark = pytest.mark.slow

TOLERANCE: Final = 20_000
"""Milliseconds by which a real expiry may differ, since the model's time stands still.

The expiries in the examples are further apart.
"""

INDEXES: Final[dict[str, Index]] = {
    "": LIST,
    " set": SET,
    " legacy": LEGACY_LIST,
    " set legacy": LEGACY_SET,
}
"""Kinds of index by the suffix of their scripts' names."""

SHIPPED: Final = {
    script.name for script in vars(scripts).values() if isinstance(script, Script)
} | {
    getattr(index.scripts, field.name).name
    for index in INDEXES.values()
    for field in fields(IndexScripts)
}

keys = st.sampled_from(["k1", "k2", "k3"])
ids = st.sampled_from(["a", "b", "c"])
records = st.sampled_from(["r1", "r2", ""])
positions = st.integers(-4, 4)
lives = st.sampled_from([100_000, 200_000, 300_000])


class At(int):
    """A time by the model's clock, to be shifted to that of the real server."""


times = st.sampled_from(
    [At(NOW - 1_000), *(At(NOW + 50_000 + 100_000 * number) for number in range(4))]
)
conditions = st.sampled_from([(), ("NX",), ("GT",)])

calls = st.one_of(
    st.builds(lambda *names: Call("MGET", names), keys, keys),
    st.builds(lambda key: Call("EXISTS", (key,)), keys),
    st.builds(lambda key: Call("DEL", (key,)), keys),
    st.builds(lambda key: Call("PTTL", (key,)), keys),
    st.builds(lambda key: Call("PERSIST", (key,)), keys),
    st.builds(lambda key: Call("LLEN", (key,)), keys),
    st.builds(lambda key, value: Call("SET", (key, value)), keys, records),
    st.builds(
        lambda key, value, life: Call("SET", (key, value, "NX", "PX", life)), keys, records, lives
    ),
    st.builds(lambda key, value, at: Call("SET", (key, value, "PXAT", at)), keys, records, times),
    st.builds(
        lambda key, value, at: Call("SET", (key, value, "NX", "PXAT", at)), keys, records, times
    ),
    st.builds(lambda key, life: Call("PEXPIRE", (key, life)), keys, lives),
    st.builds(
        lambda key, at, condition: Call("PEXPIREAT", (key, at, *condition)), keys, times, conditions
    ),
    st.builds(lambda key, id_: Call("LPUSH", (key, id_)), keys, ids),
    st.builds(lambda key, *bounds: Call("LRANGE", (key, *bounds)), keys, positions, positions),
    st.builds(
        lambda key, count, id_: Call("LREM", (key, count, id_)), keys, st.integers(-2, 2), ids
    ),
    st.builds(lambda key: Call("SCARD", (key,)), keys),
    st.builds(lambda key: Call("SMEMBERS", (key,)), keys),
    st.builds(lambda key: Call("SRANDMEMBER", (key, 3)), keys),
    st.builds(lambda key, id_: Call("SADD", (key, id_)), keys, ids),
    st.builds(lambda key, *found: Call("SREM", (key, *found)), keys, ids, ids),
)

transactions = st.builds(
    lambda found: Transaction(tuple(found)), st.lists(calls, min_size=1, max_size=3)
)

lists = st.builds(
    lambda key, found: Transaction(tuple(Call("LPUSH", (key, id_)) for id_ in found)),
    st.sampled_from(["k1", "k1", "k2"]),
    st.lists(ids, min_size=2, max_size=5),
)
sets = st.builds(
    lambda key, found: Transaction(tuple(Call("SADD", (key, id_)) for id_ in found)),
    st.sampled_from(["k1", "k1", "k2"]),
    st.lists(ids, min_size=2, max_size=5),
)

whole = st.sampled_from([0, 1])
some = st.lists(ids, max_size=3, unique=True)


def _revoke(
    script: Script,
    index: str,
    session_keys: Sequence[str],
    revoked: Sequence[str],
    kept: tuple[str, str] | None,
    at_once: int,
) -> Eval:
    """Return a revocation with as many keys as ids."""
    pairs = list(zip(session_keys, revoked, strict=False))
    kept_key, kept_id = ((), "") if kept is None else ((kept[0],), kept[1])
    return Eval(
        script,
        (index, *(key for key, _ in pairs), *kept_key),
        (at_once, kept_id, *(id_ for _, id_ in pairs if id_ != kept_id)),
    )


def _create_capped(
    script: Script,
    key: str,
    counted: Sequence[str],
    gone: Sequence[str],
    seen: Sequence[str],
    *rest: Argument,
) -> Eval:
    """Return a capped login that revokes as many counted sessions as it can."""
    return Eval(
        script,
        (key, "k1", *counted),
        (*rest, min(len(counted), len(gone)), len(gone), *gone, *seen),
    )


def _evals(found: IndexScripts) -> dict[str, st.SearchStrategy[Eval]]:
    """Return the scripts of an index with arguments."""
    return {
        found.create.name: st.builds(
            lambda key, index, *rest: Eval(found.create, (key, index), rest),
            keys,
            keys,
            ids,
            records,
            times,
        ),
        found.create_capped.name: st.builds(
            _create_capped,
            st.just(found.create_capped),
            st.sampled_from(["k2", "k3"]),
            st.lists(st.sampled_from(["k2", "k3"]), max_size=2),
            some,
            st.lists(ids, max_size=3),
            ids,
            records,
            times,
        ),
        found.renew.name: st.builds(
            lambda names, *rest: Eval(found.renew, tuple(names), rest),
            st.lists(keys, min_size=4, max_size=4),
            ids,
            ids,
            records,
            times,
            records,
            lives,
        ),
        found.revoke.name: st.builds(
            _revoke,
            st.just(found.revoke),
            st.just("k1"),
            st.lists(st.sampled_from(["k2", "k3"]), min_size=2, max_size=3),
            some,
            st.none() | st.tuples(st.sampled_from(["k1", "k2"]), ids),
            whole,
        ),
        found.prune.name: st.builds(
            lambda index, *rest: Eval(found.prune, (index, *rest[:2]), rest[2:]),
            keys,
            keys,
            keys,
            ids,
            ids,
        ),
        found.push.name: st.builds(
            lambda index, id_, at: Eval(found.push, (index,), (id_, at, 60_000)), keys, ids, times
        ),
        found.drop.name: st.builds(
            lambda index, gone: Eval(found.drop, (index,), tuple(gone)), keys, some
        ),
    }


EVALS: Final[dict[str, st.SearchStrategy[Eval]]] = {
    "delete": st.builds(lambda *names: Eval(scripts.DELETE, names, ()), keys, keys, keys, keys),
    "swap": st.builds(
        lambda used, marker, *rest: Eval(scripts.REPLACE_WITH_MARKER, (used, marker), rest),
        keys,
        keys,
        records,
        lives,
    ),
    **{name: evals for index in INDEXES.values() for name, evals in _evals(index.scripts).items()},
}

FIRST: Final = EVALS.keys() - {name for name in EVALS if name.endswith((" set", " legacy"))}
"""The scripts of the default layout. The others have the same source."""

parts = st.one_of(calls, transactions, *EVALS.values())


@pytest.fixture(scope="module")
def client(redis_server: Server) -> Iterator[redis.Redis]:
    """Yield a client of a real server, for all examples."""
    with redis.Redis.from_url(redis_server.url) as found:
        yield found


def test_each_script_has_a_model() -> None:
    """Each shipped script has a twin in the model, and examples of its arguments."""
    assert SHIPPED == SCRIPTS.keys() == EVALS.keys()


@settings(max_examples=400)
@given(sent=st.lists(parts, min_size=1, max_size=12))
def test_commands_match_a_real_server(client: redis.Redis, sent: list[Part]) -> None:
    """Any sequence of commands has the same replies and keys in the model as on a server."""
    _hold(client, sent)


@pytest.mark.parametrize("name", EVALS)
def test_scripts_match_a_real_server(client: redis.Redis, name: str) -> None:
    """Each script has the same replies and leaves the same keys as its twin."""

    @settings(max_examples=100 if name in FIRST else 40)
    @given(
        filled=st.lists(lists | sets, max_size=2),
        prepared=st.lists(calls, max_size=3),
        evals=st.lists(EVALS[name], min_size=1, max_size=3),
    )
    def hold(filled: list[Part], prepared: list[Part], evals: list[Part]) -> None:
        _hold(client, [*filled, *prepared, *evals])

    hold()


def _hold(client: redis.Redis, sent: Sequence[Part]) -> None:
    client.flushall()
    database, driver, shift = Database(), RedisDriver(client), system_clock() - NOW
    for part in sent:
        found = _on_server(driver, part, shift)
        assert _is_alike(_ordered(part, found), _in_model(database, part)), part
        assert _is_alike(_keys_of(driver), _life_of(database.state())), part
    driver.close()


def _ordered(part: Part, reply: Any) -> Any:
    """Sort a reply that has the members of a set."""
    if isinstance(part, Transaction) and isinstance(reply, list):
        return [_ordered(each, found) for each, found in zip(part.commands, reply, strict=True)]
    return (
        sorted(reply)
        if isinstance(part, Call)
        and part.name in ("SMEMBERS", "SRANDMEMBER")
        and reply is not WrongType
        else reply
    )


def _on_server(driver: RedisDriver, part: Part, shift: int) -> Any:
    try:
        return driver.run(_once(_shifted(part, shift)))
    except StoreCorrupt:
        return WrongType


def _in_model(database: Database, part: Part) -> Any:
    try:
        return database.run(part)
    except WrongType:
        return WrongType


def _once(part: Part) -> Operation[Any]:
    return (yield part)


def _shifted(part: Any, shift: int) -> Any:
    """Return the same command with times of the server's clock."""
    if isinstance(part, Transaction):
        return Transaction(tuple(_shifted(each, shift) for each in part.commands))
    arguments: tuple[Argument, ...] = tuple(
        each + shift if isinstance(each, At) else each for each in part.arguments
    )
    return (
        Eval(part.script, part.keys, arguments)
        if isinstance(part, Eval)
        else Call(part.name, arguments)
    )


def _keys_of(driver: RedisDriver) -> dict[bytes, tuple[Value, int]]:
    """Return the server's keys: their values and TTLs in milliseconds, or -1 for none."""
    found: dict[bytes, tuple[Value, int]] = {}
    for key in _ask(driver, "KEYS", "*"):
        found[key] = _READ[_ask(driver, "TYPE", key)](driver, key), _ask(driver, "PTTL", key)
    return found


_READ: Final[dict[bytes, Callable[[RedisDriver, bytes], Value]]] = {
    b"string": lambda driver, key: bytes(_ask(driver, "GET", key)),
    b"list": lambda driver, key: tuple(_ask(driver, "LRANGE", key, 0, -1)),
    b"set": lambda driver, key: frozenset(_ask(driver, "SMEMBERS", key)),
}


def _ask(driver: RedisDriver, name: str, *arguments: Argument) -> Any:
    return driver.run(_once(Call(name, arguments)))


def _life_of(state: State) -> dict[bytes, tuple[Value, int]]:
    return {
        key: (entry.value, -1 if entry.expires is None else entry.expires - NOW)
        for key, entry in state
    }


def _is_alike(found: Any, expected: Any) -> bool:
    """Return whether two replies are equal, except for times.

    Only times are large numbers.
    """
    if isinstance(found, dict):
        return found.keys() == expected.keys() and all(
            _is_alike(found[key], expected[key]) for key in found
        )
    if isinstance(found, list | tuple):
        return len(found) == len(expected) and all(map(_is_alike, found, expected))
    if isinstance(found, int) and isinstance(expected, int) and found > 1_000:
        return abs(found - expected) < TOLERANCE
    return bool(found == expected)
