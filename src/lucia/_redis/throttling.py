"""Failed sign-ins in Redis: a list for each name, newest first, of the times of the failures.

A name stands for an account or an address. An entry of its list is the time of a failure and a
random word. An attempt is counted as a failure before the password is checked, and is uncounted if
that succeeds.

On one server a script judges all names of an attempt in one step. In a cluster the lists are in
different slots: each is judged by a script of its own, and if one refuses the attempt, what others
have counted is taken back.

Where scripts are refused, an attempt is put into the list first, and judged then by what was in the
list before it. Whoever reads the entry comes to the same verdict on it as who made it, so that of
several attempts at once only as many pass as one after another. An entry that is refused is removed
by who made it; if that process crashes, others still see that it was refused.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, Protocol

from lucia._redis.commands import Batch, Call, Eval, Operation, Transaction
from lucia._redis.keys import Layout
from lucia._redis.operations import milliseconds_of
from lucia._redis.scripts import NOW, Script
from lucia._redis.transport.clients import is_cluster
from lucia._rules.id_hashes import throttle_name
from lucia._rules.throttling import Attempt, FailureRule

_ENTRY: Final = re.compile(rb"([0-9]{1,16})-")

ATTEMPT: Final = Script(
    "attempt",
    f"""
-- KEYS: lists of failures.
-- ARGV: a word, then for each list: how many failures are free, first wait, longest wait, how long
-- a failure counts and how long the list lives in ms, and how many entries are kept.
-- Returns the time, the longest of the waits in ms, and for each list how many failures count, this
-- one included. It is added to all lists if there is nothing to wait for, else to none.
-- Everything is read before anything is written, so that a key of another type fails the script
-- before it has changed anything.
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
    -- This attempt needs a place too: the list is newest first, so the oldest ones go.
    if not counted or count >= rule[6] then table.insert(gone[i], entry) end
  end
  if count >= rule[1] then
    local due = math.min(rule[2] * 2 ^ (math.min(count, rule[6]) - rule[1]), rule[3])
    -- Not longer than the wait itself, though the last failure may lie in the future, if the
    -- clock was set back.
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

Rules = Mapping[str, FailureRule]


class ThrottleKeys(Protocol):
    """Names the lists: a :class:`Layout`, or :class:`KeyedNames` over it."""

    def throttle_key(self, name: str) -> str:
        """Return the key of the list for this name."""
        ...


class KeyedNames:
    """Hashes each name with a secret, so that who reads Redis can't find out what it stands for.

    Args:
        layout: the key names.
        secret: the key that session ids are hashed with too, in another way.
    """

    def __init__(self, layout: Layout, secret: bytes) -> None:
        self._layout = layout
        self._secret = secret

    def throttle_key(self, name: str) -> str:
        """Return the key of the list for this name."""
        return self._layout.throttle_key(throttle_name(self._secret, name))


class Throttle(Protocol):
    """Judges attempts and counts them; there is one for each kind of client."""

    def attempt(self, rules: Rules, word: str) -> Operation[Attempt]:
        """Count an attempt under each name, or under none of them if it has to wait.

        Args:
            rules: for each name.
            word: a new random one.
        """
        ...


class SingleServerThrottle:
    """Judges all lists by one script."""

    def __init__(self, keys: ThrottleKeys) -> None:
        self._keys = keys

    def attempt(self, rules: Rules, word: str) -> Operation[Attempt]:
        """Run the script ATTEMPT: ``TIME``, ``LRANGE``; then ``LPUSH``, ``PEXPIREAT``."""
        answer = yield _script(self._keys, rules, word)
        return _to_attempt(tuple(rules), word, answer)


class ClusterThrottle:
    """Judges each list by a script of its own, since they are in different slots."""

    def __init__(self, keys: ThrottleKeys) -> None:
        self._keys = keys

    def attempt(self, rules: Rules, word: str) -> Operation[Attempt]:
        """Run the script ATTEMPT for each; if one refuses, ``LREM`` what others counted."""
        answers = yield Batch(
            tuple(_script(self._keys, {name: rule}, word) for name, rule in rules.items())
        )
        attempts = [
            _to_attempt((name,), word, answer) for name, answer in zip(rules, answers, strict=True)
        ]
        return (yield from _all_or_none(self._keys, attempts))


class PlainThrottle:
    """Counts with commands alone, then judges: for servers that refuse scripts."""

    def __init__(self, keys: ThrottleKeys) -> None:
        self._keys = keys

    def attempt(self, rules: Rules, word: str) -> Operation[Attempt]:
        """Count the attempt under each name.

        For each: ``TIME``; ``MULTI``, ``LPUSH``, ``PEXPIREAT``, ``EXEC``; ``LRANGE``; ``LREM`` of a
        refused attempt, or of entries that are not needed any more.
        """
        attempts: list[Attempt] = []
        for name, rule in rules.items():
            attempts.append((yield from self._attempt(name, rule, word)))
        return (yield from _all_or_none(self._keys, attempts))

    def _attempt(self, name: str, rule: FailureRule, word: str) -> Operation[Attempt]:
        key = self._keys.throttle_key(name)
        now = milliseconds_of((yield Call("TIME", ())))
        entry = _entry(now, word)
        # Together: a crash between the two would leave a key without an expiry.
        yield Transaction((Call("LPUSH", (key, entry)), Call("PEXPIREAT", (key, now + rule.life))))
        entries: list[bytes] = yield Call("LRANGE", (key, 0, -1))
        # Those that were pushed before this one, oldest first. Later ones don't count against it:
        # everybody who reads the list comes to the same verdict on each entry.
        before = list(takewhile(lambda other: other != entry.encode(), reversed(entries)))
        counted = _counted(rule, before)
        wait, count = rule.judge(counted.values(), now)
        for unneeded in [entry.encode()] if wait else _unneeded(rule, before, counted, now):
            yield Call("LREM", (key, 0, unneeded))
        return Attempt(wait, {name: count + 1}, {} if wait else {name: entry})


def take_back(keys: ThrottleKeys, entries: Mapping[str, str]) -> Operation[None]:
    """Uncount an attempt: ``LREM`` of its entry for each name."""
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
    """Combine the verdicts on each name: if one refuses, take back what the others counted."""
    attempts = list(attempts)
    wait = max((attempt.wait for attempt in attempts), default=0)
    entries = {name: entry for attempt in attempts for name, entry in attempt.entries.items()}
    failures = {name: count for attempt in attempts for name, count in attempt.failures.items()}
    if wait:
        yield from take_back(keys, entries)
    return Attempt(wait, failures, {} if wait else entries)


def _counted(rule: FailureRule, entries: Iterable[bytes]) -> dict[bytes, int]:
    """Return the entries that passed, and their times, oldest first."""
    counted: dict[bytes, int] = {}
    for entry in entries:
        at = _time_of(entry)
        # Judged by those before it, as it was when it was made.
        if len(counted) < rule.free or rule.judge(counted.values(), at)[0] == 0:
            counted[entry] = at
    return counted


def _unneeded(
    rule: FailureRule, entries: Iterable[bytes], counted: Collection[bytes], now: int
) -> dict[bytes, None]:
    """Return the entries that are too old to count, and the oldest of more than are kept."""
    old = [entry for entry in entries if not rule.counts(_time_of(entry), now)]
    return dict.fromkeys([*old, *list(counted)[: max(0, len(counted) + 1 - rule.kept)]])


def _time_of(entry: bytes) -> int:
    """Return when an entry was made; 0 if it is not ours."""
    found = _ENTRY.match(entry)
    return 0 if found is None else int(found[1])


def _entry(now: int, word: str) -> str:
    return f"{now}-{word}"


def choose_throttle(client: Any, keys: ThrottleKeys) -> Throttle:
    """Return the throttle for a client: one script on one server, one a list in a cluster."""
    return ClusterThrottle(keys) if is_cluster(client) else SingleServerThrottle(keys)
