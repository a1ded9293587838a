"""The Lua scripts of a single server. Each declares every key it touches and runs on Redis 6.2 and later and on Valkey.

All reads of strings go through MGET, which answers nil for a key of another type where GET would fail; every script that writes an
index asks for its length first, so that a key of another type fails it before anything was written.

Those that touch an index are made once for each kind of index, whose functions :mod:`lucia._redis.index` puts before them:
``index_length(key)``, ``index_ids(key)``, ``index_add(key, id)``, which returns the new length, ``index_remove(key, id)``, and
``index_remove_oldest(key, id)`` for ids that are most likely its oldest. And once more with ``legacy_writers``: beside others who put an
id into an index that gets no end by them, and maybe before they write its session. Then an index has no end, and an id goes out of it
only with its session.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the SHA-1 by which servers cache it; ``repeatable`` if running it twice, or late, does no more than once."""

    name: str
    text: str = field(repr=False)
    repeatable: bool = field(default=False, repr=False)
    sha: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        )


TAKEN: Final = 0
"""The id is another session's; nothing was changed."""

ALREADY_EXPIRED: Final = -3
"""The session's end is past by the server's clock; nothing was changed."""

CHANGED: Final = -1
"""Something is not as it was seen; nothing was changed."""

NOW: Final = (
    "local time = redis.call('TIME'); local now = time[1] * 1000 + math.floor(time[2] / 1000)"
)

_EXTEND = """
local function extend(index, length, now, expires)
  if legacy_writers then return redis.call('PERSIST', index) end
  local ttl = redis.call('PTTL', index)
  if length == 1 or (ttl >= 0 and now + ttl < tonumber(expires)) then redis.call('PEXPIREAT', index, expires) end
end
"""

_STORE: Final = f"""\
if not redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PXAT', ARGV[3]) then
  if redis.call('MGET', KEYS[1])[1] ~= ARGV[2] then return {TAKEN} end
  index_remove(KEYS[2], ARGV[1]) -- the same create once more, since its reply was lost
end"""

_CREATE: Final = f"""{_EXTEND}
-- KEYS: session, index. ARGV: id, record, idle end in ms. Returns the index's length, 0 (taken) or -3 (born dead).
{NOW}
if tonumber(ARGV[3]) <= now then return {ALREADY_EXPIRED} end
index_length(KEYS[2])
{_STORE}
local length = index_add(KEYS[2], ARGV[1])
extend(KEYS[2], length, now, ARGV[3])
return length
"""

_CREATE_CAPPED: Final = f"""{_EXTEND}
-- KEYS: session, index, then the sessions that were counted, those to end first. ARGV: id, record, idle end in ms, how many are to end,
-- how many ids go out of the index, these ids, those to end first, then all ids that the index held. Returns the index's length,
-- 0 (taken), -3 (born dead), or -1 if the index holds other ids by now, or a session that was counted is gone.
{NOW}
if tonumber(ARGV[3]) <= now then return {ALREADY_EXPIRED} end
local ended, dropped = tonumber(ARGV[4]), tonumber(ARGV[5])
local ids, listed = index_ids(KEYS[2]), {{}}
if #ids ~= #ARGV - 5 - dropped then return {CHANGED} end
for i = 6 + dropped, #ARGV do listed[ARGV[i]] = true end
for _, id in ipairs(ids) do
  if not listed[id] then return {CHANGED} end
end
for i = 3, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return {CHANGED} end
end
{_STORE}
for i = 1, ended do redis.call('DEL', KEYS[2 + i]) end
for i = 1, dropped do index_remove_oldest(KEYS[2], ARGV[5 + i]) end
local length = index_add(KEYS[2], ARGV[1])
extend(KEYS[2], length, now, ARGV[3])
return length
"""

_RENEW: Final = f"""{_EXTEND}
-- KEYS: used session, successor, index, marker. ARGV: used id, successor's id, record, idle end in ms, marker, marker's life in ms.
-- Returns 1, 0 (taken) or -3 (born dead); if the used session is gone, the marker and what is left of its life.
{NOW}
if not redis.call('MGET', KEYS[1])[1] then return {{redis.call('MGET', KEYS[4])[1], redis.call('PTTL', KEYS[4])}} end
if tonumber(ARGV[4]) <= now then return {ALREADY_EXPIRED} end
index_length(KEYS[3])
if not redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PXAT', ARGV[4]) then return {TAKEN} end
redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[6])
redis.call('DEL', KEYS[1])
local length = index_add(KEYS[3], ARGV[2])
extend(KEYS[3], length, now, ARGV[4])
index_remove(KEYS[3], ARGV[1])
return 1
"""

DELETE: Final = Script(
    "delete",
    """
-- KEYS: for each id its session and its marker. Returns for each what they held.
local held = {}
for i = 1, #KEYS, 2 do
  held[#held + 1] = redis.call('MGET', KEYS[i], KEYS[i + 1])
  redis.call('DEL', KEYS[i])
end
return held
""",
    repeatable=True,
)

_REVOKE: Final = """
-- KEYS: index, then the sessions to end, then the one to keep, if any. ARGV: '1' if the index has to hold nothing else, the id to
-- keep or '', then the ids to end, oldest first. Returns 1, or 0 if something changed meanwhile: then nothing was done.
local keep = ARGV[2]
if keep ~= '' and redis.call('EXISTS', KEYS[#KEYS]) == 0 then return 0 end
if ARGV[1] == '1' then
  local listed = {}
  for i = 3, #ARGV do listed[ARGV[i]] = true end
  for _, id in ipairs(index_ids(KEYS[1])) do
    if id ~= keep and not listed[id] then return 0 end
  end
end
for i = 3, #ARGV do
  local ended = redis.call('DEL', KEYS[i - 1])
  if ended == 1 or not legacy_writers then index_remove_oldest(KEYS[1], ARGV[i]) end
end
return 1
"""

_PRUNE: Final = """
-- KEYS: index, then sessions. ARGV: their ids. Takes those out of the index whose session is gone.
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then index_remove(KEYS[1], ARGV[i - 1]) end
end
return 1
"""

_PUSH: Final = f"""{_EXTEND}
-- KEYS: index. ARGV: id, idle end in ms, slack in ms. Returns the index's length, or -3 (born dead).
{NOW}
if tonumber(ARGV[2]) <= now then return {ALREADY_EXPIRED} end
local length = index_add(KEYS[1], ARGV[1])
extend(KEYS[1], length, now, ARGV[2] + ARGV[3])
return length
"""

SWAP: Final = Script(
    "swap",
    """
-- KEYS: used session, marker. ARGV: marker, its life in ms.
-- Returns 1; if the used session is gone, the marker that is there and what is left of its life.
if not redis.call('MGET', KEYS[1])[1] then return {redis.call('MGET', KEYS[2])[1], redis.call('PTTL', KEYS[2])} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[1])
return 1
""",
)

_DROP: Final = """
-- KEYS: index. ARGV: ids, which go out of it; if many, the oldest first.
if #ARGV < 2 or index_remove_oldest == index_remove then -- the latter in a set, where no id is twice
  for i = 1, #ARGV do index_remove(KEYS[1], ARGV[i]) end
  return 1
end
local dropped = {}
for i = 1, #ARGV do
  index_remove_oldest(KEYS[1], ARGV[i])
  dropped[ARGV[i]] = true
end
for _, id in ipairs(index_ids(KEYS[1])) do
  if dropped[id] then index_remove(KEYS[1], id) end -- it was there more than once
end
return 1
"""


@dataclass(frozen=True, slots=True)
class IndexScripts:
    """The scripts that touch an index, for one kind of index."""

    create: Script
    create_capped: Script
    renew: Script
    revoke: Script
    prune: Script
    push: Script
    drop: Script


def index_scripts(kind: str, functions: str, *, legacy_writers: bool) -> IndexScripts:
    """The scripts over an index that these Lua functions read and change; the kind is in their names."""
    suffix = f"{kind}{' legacy' if legacy_writers else ''}"
    functions = f"\nlocal legacy_writers = {str(legacy_writers).lower()}{functions}"
    texts = {
        "create": _CREATE,
        "create_capped": _CREATE_CAPPED,
        "renew": _RENEW,
        "revoke": _REVOKE,
        "prune": _PRUNE,
        "push": _PUSH,
        "drop": _DROP,
    }
    endings = {"revoke", "prune", "drop"}
    return IndexScripts(
        **{
            name: Script(name + suffix, functions + text, name in endings)
            for name, text in texts.items()
        }
    )
