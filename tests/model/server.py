"""A Redis with the few commands of the store, as a pure function of its state.

``test_server_model.py`` compares it with a real server. Time stands still, and a key expires when
the explorer says so.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from lucia._redis.commands import Argument, Call, Eval, Reply, Transaction

NOW: Final = 1_000_000
"""The server's time, in milliseconds since the epoch."""

Value = bytes | tuple[bytes, ...] | frozenset[bytes]
"""A string, a list or a set."""


class Entry(NamedTuple):
    """A key's value, and its expiry in milliseconds since the epoch or None."""

    value: Value
    expires: int | None


State = tuple[tuple[bytes, Entry], ...]
"""The keys in order, so that equal servers have equal states."""


class WrongType(Exception):
    """WRONGTYPE Operation against a key holding the wrong kind of value."""


class Database:
    """A state that commands can change.

    ``timed`` has the keys whose expiry was set meanwhile, even to the same time.
    """

    def __init__(self, state: State = ()) -> None:
        self.keys = dict(state)
        self.timed: set[bytes] = set()

    def state(self) -> State:
        """Return the current keys."""
        return tuple(sorted(self.keys.items()))

    def run(self, command: Call | Eval | Transaction) -> Reply:
        """Execute a command, script or transaction."""
        if isinstance(command, Transaction):
            return self._transact(command)
        if isinstance(command, Eval):
            return SCRIPTS[command.script.name](
                self, _texts(command.keys), _texts(command.arguments)
            )
        return _COMMANDS[command.name](self, *_texts(command.arguments))

    def _transact(self, command: Transaction) -> Reply:
        """Execute all commands of a transaction, and raise the first error.

        As in MULTI and EXEC, an error in one command does not stop the others.
        """
        replies = [self._attempt(each) for each in command.commands]
        if errors := [reply for reply in replies if isinstance(reply, WrongType)]:
            raise errors[0]
        return replies

    def _attempt(self, command: Call) -> Reply:
        try:
            return self.run(command)
        except WrongType as error:
            return error

    def time(self) -> list[bytes]:
        """Execute TIME."""
        return [b"%d" % (NOW // 1000), b"%d" % (NOW % 1000 * 1000)]

    def mget(self, *keys: bytes) -> list[bytes | None]:
        """Execute MGET, which returns None for a key of another type."""
        return [self._text(key) for key in keys]

    def exists(self, key: bytes) -> int:
        """Execute EXISTS."""
        return int(key in self.keys)

    def set(self, key: bytes, value: bytes, *options: bytes) -> bytes | None:
        """Execute SET with NX, PX and PXAT."""
        words = [option.upper() for option in options]
        if b"NX" in words and key in self.keys:
            return None
        expires = None
        if b"PX" in words:
            expires = NOW + int(options[words.index(b"PX") + 1])
        if b"PXAT" in words:
            expires = int(options[words.index(b"PXAT") + 1])
        self.keys[key] = Entry(value, expires)
        self._expire(key)
        return b"OK"

    def delete(self, *keys: bytes) -> int:
        """Execute DEL."""
        return sum(self.keys.pop(key, None) is not None for key in keys)

    def pttl(self, key: bytes) -> int:
        """Execute PTTL."""
        entry = self.keys.get(key)
        if entry is None:
            return -2
        return -1 if entry.expires is None else entry.expires - NOW

    def pexpire(self, key: bytes, life: bytes) -> int:
        """Execute PEXPIRE."""
        return self.pexpireat(key, b"%d" % (NOW + int(life)))

    def pexpireat(self, key: bytes, when: bytes, condition: bytes = b"") -> int:
        """Execute PEXPIREAT with NX and GT. For GT, a key without a TTL never expires."""
        entry = self.keys.get(key)
        if entry is None:
            return 0
        if condition == b"NX" and entry.expires is not None:
            return 0
        if condition == b"GT" and (entry.expires is None or entry.expires >= int(when)):
            return 0
        self.keys[key] = Entry(entry.value, int(when))
        self._expire(key)
        return 1

    def persist(self, key: bytes) -> int:
        """Execute PERSIST."""
        entry = self.keys.get(key)
        if entry is None or entry.expires is None:
            return 0
        self.keys[key] = Entry(entry.value, None)
        return 1

    def llen(self, key: bytes) -> int:
        """Execute LLEN."""
        return len(self._list(key))

    def lpush(self, key: bytes, value: bytes) -> int:
        """Execute LPUSH."""
        self._put(key, (value, *self._list(key)))
        return self.llen(key)

    def lrange(self, key: bytes, first: bytes, last: bytes) -> list[bytes]:
        """Execute LRANGE."""
        values = self._list(key)
        begin, end = (
            each if each >= 0 else max(0, len(values) + each + after) - after
            for each, after in ((int(first), 0), (int(last), 1))
        )
        return list(values[begin : end + 1])

    def lrem(self, key: bytes, count: bytes, value: bytes) -> int:
        """Execute LREM."""
        values, left = list(self._list(key)), abs(int(count)) or len(self._list(key))
        if int(count) < 0:
            values.reverse()
        kept: list[bytes] = []
        for each in values:
            if each == value and left:
                left -= 1
            else:
                kept.append(each)
        if int(count) < 0:
            kept.reverse()
        self._put(key, tuple(kept))
        return len(values) - len(kept)

    def scard(self, key: bytes) -> int:
        """Execute SCARD."""
        return len(self._set(key))

    def sadd(self, key: bytes, value: bytes) -> int:
        """Execute SADD."""
        values = self._set(key)
        self._put(key, values | {value})
        return int(value not in values)

    def srem(self, key: bytes, *values: bytes) -> int:
        """Execute SREM."""
        found = self._set(key)
        self._put(key, found.difference(values))
        return len(found.intersection(values))

    def smembers(self, key: bytes) -> list[bytes]:
        """Execute SMEMBERS. Callers must not rely on the order."""
        return sorted(self._set(key))

    def srandmember(self, key: bytes, count: bytes) -> list[bytes]:
        """Execute SRANDMEMBER. The choice is always the same."""
        return self.smembers(key)[: int(count)]

    def _text(self, key: bytes) -> bytes | None:
        entry = self.keys.get(key)
        return entry.value if entry is not None and isinstance(entry.value, bytes) else None

    def _list(self, key: bytes) -> tuple[bytes, ...]:
        entry = self.keys.get(key)
        value = () if entry is None else entry.value
        if not isinstance(value, tuple):
            raise WrongType
        return value

    def _set(self, key: bytes) -> frozenset[bytes]:
        entry = self.keys.get(key)
        value = frozenset[bytes]() if entry is None else entry.value
        if not isinstance(value, frozenset):
            raise WrongType
        return value

    def _put(self, key: bytes, values: tuple[bytes, ...] | frozenset[bytes]) -> None:
        old = self.keys.pop(key, None)
        if values:
            self.keys[key] = Entry(values, None if old is None else old.expires)

    def _expire(self, key: bytes) -> None:
        self.timed.add(key)
        expires = self.keys[key].expires
        if expires is not None and expires <= NOW:
            del self.keys[key]


def _texts(arguments: Sequence[Argument]) -> list[bytes]:
    return [each if isinstance(each, bytes) else str(each).encode() for each in arguments]


_COMMANDS: dict[str, Callable[..., Reply]] = {
    "TIME": Database.time,
    "MGET": Database.mget,
    "EXISTS": Database.exists,
    "SET": Database.set,
    "DEL": Database.delete,
    "PTTL": Database.pttl,
    "PEXPIRE": Database.pexpire,
    "PEXPIREAT": Database.pexpireat,
    "PERSIST": Database.persist,
    "LLEN": Database.llen,
    "LPUSH": Database.lpush,
    "LRANGE": Database.lrange,
    "LREM": Database.lrem,
    "SCARD": Database.scard,
    "SADD": Database.sadd,
    "SREM": Database.srem,
    "SMEMBERS": Database.smembers,
    "SRANDMEMBER": Database.srandmember,
}

Words = list[bytes]


class _List:
    """A list as an index, as the scripts see it."""

    legacy_writers = False

    def __init__(self, database: Database) -> None:
        self._database = database

    def length(self, key: bytes) -> int:
        return self._database.llen(key)

    def ids(self, key: bytes) -> list[bytes]:
        return self._database.lrange(key, b"0", b"-1")

    def add(self, key: bytes, id_: bytes) -> int:
        return self._database.lpush(key, id_)

    def remove(self, key: bytes, id_: bytes) -> None:
        self._database.lrem(key, b"0", id_)

    def remove_oldest(self, key: bytes, id_: bytes) -> None:
        self._database.lrem(key, b"-1", id_)


class _Set(_List):
    """A set as an index."""

    def length(self, key: bytes) -> int:
        return self._database.scard(key)

    def ids(self, key: bytes) -> list[bytes]:
        return self._database.smembers(key)

    def add(self, key: bytes, id_: bytes) -> int:
        self._database.sadd(key, id_)
        return self._database.scard(key)

    def remove(self, key: bytes, id_: bytes) -> None:
        self._database.srem(key, id_)

    remove_oldest = remove


class _LegacyList(_List):
    legacy_writers = True


class _LegacySet(_Set):
    legacy_writers = True


Kind = type[_List]
_KINDS: Final[dict[str, Kind]] = {
    "": _List,
    " set": _Set,
    " legacy": _LegacyList,
    " set legacy": _LegacySet,
}
"""Kinds of index by the suffix of their scripts' names."""


def _extend(kind: Kind, database: Database, index: bytes, length: int, expires: bytes) -> None:
    if kind.legacy_writers:
        database.persist(index)
        return
    ttl = database.pttl(index)
    if length == 1 or (ttl >= 0 and NOW + ttl < int(expires)):
        database.pexpireat(index, expires)


def _create(kind: Kind, database: Database, keys: Words, arguments: Words) -> Reply:
    id_, record, expires = arguments
    if int(expires) <= NOW:
        return -3
    kind(database).length(keys[1])
    if not database.set(keys[0], record, b"NX", b"PXAT", expires):
        if database.mget(keys[0])[0] != record:
            return 0
        kind(database).remove(keys[1], id_)
    length = kind(database).add(keys[1], id_)
    _extend(kind, database, keys[1], length, expires)
    return length


def _create_capped(kind: Kind, database: Database, keys: Words, arguments: Words) -> Reply:
    id_, record, expires, revoked, dropped, *ids = arguments
    if int(expires) <= NOW:
        return -3
    session, index, *counted = keys
    gone, seen = ids[: int(dropped)], ids[int(dropped) :]
    found = kind(database).ids(index)
    if len(found) != len(seen) or set(found) - set(seen) or not all(map(database.exists, counted)):
        return -1
    if not database.set(session, record, b"NX", b"PXAT", expires):
        if database.mget(session)[0] != record:
            return 0
        kind(database).remove(index, id_)
    database.delete(*counted[: int(revoked)])
    for each in gone:
        kind(database).remove_oldest(index, each)
    length = kind(database).add(index, id_)
    _extend(kind, database, index, length, expires)
    return length


def _renew(kind: Kind, database: Database, keys: Words, arguments: Words) -> Reply:
    used, successor, index, marker = keys
    used_id, successor_id, record, expires, value, life = arguments
    if database.mget(used)[0] is None:
        return [database.mget(marker)[0], database.pttl(marker)]
    if int(expires) <= NOW:
        return -3
    kind(database).length(index)
    if not database.set(successor, record, b"NX", b"PXAT", expires):
        return 0
    database.set(marker, value, b"PX", life)
    database.delete(used)
    length = kind(database).add(index, successor_id)
    _extend(kind, database, index, length, expires)
    kind(database).remove(index, used_id)
    return 1


def _delete(database: Database, keys: Words, _: Words) -> Reply:
    held = []
    for session, marker in zip(keys[::2], keys[1::2], strict=True):
        held.append(database.mget(session, marker))
        database.delete(session)
    return held


def _revoke(kind: Kind, database: Database, keys: Words, arguments: Words) -> Reply:
    whole, keep, *ids = arguments
    if keep and not database.exists(keys[-1]):
        return 0
    if whole == b"1" and set(kind(database).ids(keys[0])) - {keep, *ids}:
        return 0
    for session, id_ in zip(keys[1:], ids, strict=False):
        if database.delete(session) or not kind.legacy_writers:
            kind(database).remove_oldest(keys[0], id_)
    return 1


def _prune(kind: Kind, database: Database, keys: Words, ids: Words) -> Reply:
    for session, id_ in zip(keys[1:], ids, strict=True):
        if not database.exists(session):
            kind(database).remove(keys[0], id_)
    return 1


def _push(kind: Kind, database: Database, keys: Words, arguments: Words) -> Reply:
    id_, expires, slack = arguments
    if int(expires) <= NOW:
        return -3
    length = kind(database).add(keys[0], id_)
    _extend(kind, database, keys[0], length, b"%d" % (int(expires) + int(slack)))
    return length


def _swap(database: Database, keys: Words, arguments: Words) -> Reply:
    used, marker = keys
    if database.mget(used)[0] is None:
        return [database.mget(marker)[0], database.pttl(marker)]
    database.set(marker, arguments[0], b"PX", arguments[1])
    database.delete(used)
    return 1


def _drop(kind: Kind, database: Database, keys: Words, ids: Words) -> Reply:
    for id_ in ids:
        kind(database).remove(keys[0], id_)
    return 1


_INDEX_SCRIPTS: dict[str, Callable[[Kind, Database, Words, Words], Reply]] = {
    "create": _create,
    "create_capped": _create_capped,
    "renew": _renew,
    "revoke": _revoke,
    "prune": _prune,
    "push": _push,
    "drop": _drop,
}

SCRIPTS: dict[str, Callable[[Database, Words, Words], Reply]] = {
    "delete": _delete,
    "swap": _swap,
    **{
        name + suffix: partial(twin, kind)
        for name, twin in _INDEX_SCRIPTS.items()
        for suffix, kind in _KINDS.items()
    },
}
"""The twins of the scripts, by name."""
