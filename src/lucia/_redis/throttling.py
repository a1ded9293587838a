"""Failed sign-ins in Redis: one list for each name, newest first; an entry is the time of the failure and a random word.

The lists of a key and of an address are in two slots of a cluster. There each is judged by a script of its own, side by side, and what one
of them counted is taken back if the other one refuses.

Where scripts are refused, an attempt is put into the list first and judged afterwards, from what the list held then: whoever reads an
attempt in the list comes to the same verdict on it as the one who made it, so that of attempts at once only as many pass as one after
another. One that is refused is taken out again by who made it; if that process crashes, it is still taken for a refused one.
"""

import hmac
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, Protocol

from lucia._redis.commands import Batch, Call, Eval, Operation, Transaction
from lucia._redis.operations import milliseconds_of
from lucia._redis.records import Layout
from lucia._redis.scripts import NOW, Script
from lucia._redis.transport.clients import is_cluster
from lucia._rules.throttling import Attempt, FailureRule

_PURPOSE: Final = b"\xfflucia throttle\x00"
"""Before a name; no session id begins like it, since it is no UTF-8."""

_ENTRY: Final = re.compile(rb"([0-9]{1,16})-")

ATTEMPT: Final = Script(
    "attempt",
    f"""
-- KEYS: lists of failures. ARGV: a word, then for each list: free, first wait, longest wait, memory and life in ms, how many are kept.
-- Returns the time and what is left of the longest wait in ms, then for each list how many failures count, this one included. It is
-- counted in every list if there is nothing to wait for, else in none. An entry is the time of the failure and the word.
{NOW}
local wait, counts, gone = 0, {{}}, {{}}
for i, key in ipairs(KEYS) do
  local rule = {{}}
  for j = 1, 6 do rule[j] = tonumber(ARGV[6 * i - 5 + j]) end
  local count, last = 0, 0
  gone[i] = {{}}
  for _, entry in ipairs(redis.call('LRANGE', key, 0, -1)) do
    local at = tonumber(string.match(entry, '^(%d+)%-') or 0)
    local counted = now - at < rule[4] and at - now <= rule[3]
    if counted then count, last = count + 1, math.max(last, at) end
    if not counted or count >= rule[6] then table.insert(gone[i], entry) end
  end
  if count >= rule[1] then
    local due = math.min(rule[2] * 2 ^ (math.min(count, rule[6]) - rule[1]), rule[3])
    wait = math.max(wait, math.min(last + due - now, due))
  end
  counts[i] = count + 1
end
if wait == 0 then
  local entry = string.format('%.0f', now) .. '-' .. ARGV[1]
  for i, key in ipairs(KEYS) do
    for _, old in ipairs(gone[i]) do redis.call('LREM', key, -1, old) end
    redis.call('LPUSH', key, entry)
    redis.call('PEXPIREAT', key, string.format('%.0f', now + tonumber(ARGV[6 * i])))
  end
end
return {{now, wait, unpack(counts)}}
""",
)
"""All reading before all writing, so that a key of another type fails it before anything was written."""

Rules = Mapping[str, FailureRule]


class ThrottleKeys(Protocol):
    """Where failures are: a :class:`Layout`, or :class:`KeyedNames` over it."""

    def throttle_key(self, name: str) -> str:
        """The key of the list for this name."""
        ...


class KeyedNames:
    """Where failures are if names must not be found out by hashing what they may stand for: each is hashed once more, with a secret.

    Args:
        layout: the key names.
        secret: the key that session ids are hashed with too, in another way.
    """

    def __init__(self, layout: Layout, secret: bytes) -> None:
        self._layout = layout
        self._secret = secret

    def throttle_key(self, name: str) -> str:
        """The key of the list for this name."""
        return self._layout.throttle_key(
            hmac.digest(self._secret, _PURPOSE + name.encode(), "sha256").hex()[: len(name)]
        )


class Throttle(Protocol):
    """How an attempt is judged and counted: by what the client is."""

    def attempt(self, rules: Rules, word: str) -> Operation[Attempt]:
        """Count an attempt under each name, or under none of them if it has to wait; ``word`` is a new random one."""
        ...


class SingleServerThrottle:
    """All lists in one script, so in one step."""

    def __init__(self, keys: ThrottleKeys) -> None:
        self._keys = keys

    def attempt(self, rules: Rules, word: str) -> Operation[Attempt]:
        """The script ATTEMPT: ``TIME``, ``LRANGE``, and if the attempt may be made ``LPUSH`` and ``PEXPIREAT``."""
        answer = yield _script(self._keys, rules, word)
        return _to_attempt(tuple(rules), word, answer)


class ClusterThrottle:
    """One script for each list, side by side, since they are in different slots."""

    def __init__(self, keys: ThrottleKeys) -> None:
        self._keys = keys

    def attempt(self, rules: Rules, word: str) -> Operation[Attempt]:
        """The script ATTEMPT for each; ``LREM`` of what one counted where another one refuses."""
        answers = yield Batch(
            tuple(_script(self._keys, {name: rule}, word) for name, rule in rules.items())
        )
        attempts = [
            _to_attempt((name,), word, answer) for name, answer in zip(rules, answers, strict=True)
        ]
        return (yield from _all_or_none(self._keys, attempts))


class PlainThrottle:
    """Commands alone, for servers that refuse scripts: counted first, then judged."""

    def __init__(self, keys: ThrottleKeys) -> None:
        self._keys = keys

    def attempt(self, rules: Rules, word: str) -> Operation[Attempt]:
        """For each ``TIME``; ``MULTI``, ``LPUSH``, ``PEXPIREAT``, ``EXEC``; ``LRANGE``; ``LREM`` of what was refused or is of no use."""
        attempts: list[Attempt] = []
        for name, rule in rules.items():
            attempts.append((yield from self._attempt(name, rule, word)))
        return (yield from _all_or_none(self._keys, attempts))

    def _attempt(self, name: str, rule: FailureRule, word: str) -> Operation[Attempt]:
        key = self._keys.throttle_key(name)
        now = milliseconds_of((yield Call("TIME", ())))
        entry = _entry(now, word)
        yield Transaction((Call("LPUSH", (key, entry)), Call("PEXPIREAT", (key, now + rule.life))))
        held: list[bytes] = yield Call("LRANGE", (key, 0, -1))
        before = list(takewhile(lambda other: other != entry.encode(), reversed(held)))
        counted = _counted(rule, before)
        wait, count = rule.judge(counted.values(), now)
        for useless in [entry.encode()] if wait else _useless(rule, before, counted, now):
            yield Call("LREM", (key, 0, useless))
        return Attempt(wait, {name: count + 1}, {} if wait else {name: entry})


def take_back(keys: ThrottleKeys, entries: Mapping[str, str]) -> Operation[None]:
    """Make an attempt uncounted: ``LREM`` of its entry for each name."""
    if entries:
        yield Batch(
            tuple(
                Call("LREM", (keys.throttle_key(name), 0, entry)) for name, entry in entries.items()
            )
        )


def _script(keys: ThrottleKeys, rules: Rules, word: str) -> Eval:
    numbers = [number for rule in rules.values() for number in (*rule, rule.kept)]
    return Eval(ATTEMPT, tuple(map(keys.throttle_key, rules)), (word, *numbers))


def _to_attempt(names: Sequence[str], word: str, answer: Sequence[int]) -> Attempt:
    now, wait, *counts = answer
    return Attempt(
        wait,
        dict(zip(names, counts, strict=True)),
        {} if wait else dict.fromkeys(names, _entry(now, word)),
    )


def _all_or_none(keys: ThrottleKeys, attempts: Iterable[Attempt]) -> Operation[Attempt]:
    """One attempt of several, each of which was judged by itself: counted everywhere, or taken back where it was."""
    attempts = list(attempts)
    wait = max((attempt.wait for attempt in attempts), default=0)
    entries = {name: entry for attempt in attempts for name, entry in attempt.entries.items()}
    failures = {name: count for attempt in attempts for name, count in attempt.failures.items()}
    if wait:
        yield from take_back(keys, entries)
    return Attempt(wait, failures, {} if wait else entries)


def _counted(rule: FailureRule, entries: Iterable[bytes]) -> dict[bytes, int]:
    """Which entries were counted, oldest first, and when: each is judged by those before it, as it was when it came."""
    counted: dict[bytes, int] = {}
    for entry in entries:
        at = _time_of(entry)
        if len(counted) < rule.free or rule.judge(counted.values(), at)[0] == 0:
            counted[entry] = at
    return counted


def _useless(
    rule: FailureRule, entries: Iterable[bytes], counted: Collection[bytes], now: int
) -> dict[bytes, None]:
    """The entries that are too old to count, and the oldest ones that are more than have to be known."""
    old = [entry for entry in entries if not rule.counts(_time_of(entry), now)]
    return dict.fromkeys([*old, *list(counted)[: max(0, len(counted) + 1 - rule.kept)]])


def _time_of(entry: bytes) -> int:
    """When an entry was made, 0 for one that is not ours."""
    found = _ENTRY.match(entry)
    return 0 if found is None else int(found[1])


def _entry(now: int, word: str) -> str:
    return f"{now}-{word}"


def choose_throttle(client: Any, keys: ThrottleKeys) -> Throttle:
    """One script for all lists where one server has them; one for each in a cluster."""
    return ClusterThrottle(keys) if is_cluster(client) else SingleServerThrottle(keys)
