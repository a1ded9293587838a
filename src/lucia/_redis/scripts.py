"""The Lua scripts. Each declares every key it touches, and runs on Redis 6.2 and on Valkey.

Scripts are atomic, but not rolled back: what was written before an error stays. So each checks
before it writes what could fail later. Strings are read by MGET, which returns nil for a key of
another type where GET fails. A script that writes an index asks for its length first, which fails
if the index is of another type.

The scripts that touch an index exist for each kind of index. :mod:`lucia._redis.index` puts these
functions before them:

* ``index_length(key)`` and ``index_ids(key)``,
* ``index_add(key, id)``, which returns the new length,
* ``index_remove(key, id)``, and ``index_remove_oldest(key, id)`` for an id that is probably the
  oldest, and is found at once at the end of a list.

They exist once more for ``legacy_writers``: others add an id to an index before they write its
session, perhaps, and set no expiry on the index. Then our scripts set none either, and remove an id
only together with its session.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script.

    Args:
        name: for logs and errors.
        text: the source.
        repeatable: whether it may be sent again after a lost reply: running it twice, or late,
            changes no more than running it once.
        sha: the SHA-1 by which servers cache it.
    """

    name: str
    text: str = field(repr=False)
    repeatable: bool = field(default=False, repr=False)
    sha: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        )


TAKEN: Final = 0
"""Another session has this id (I4); nothing was changed."""

ALREADY_EXPIRED: Final = -3
"""The session has expired by the server's clock; nothing was changed."""

CHANGED: Final = -1
"""Something has changed since it was read; nothing was changed by the script."""

# A script may read the time before it writes: replicas are sent the writes, and not the
# script.
NOW: Final = (
    "local time = redis.call('TIME'); local now = time[1] * 1000 + math.floor(time[2] / 1000)"
)

# The index lives as long as the longest of its sessions (I3). No PEXPIREAT with GT: a key without
# an expiry counts as infinite, so GT does nothing on a new index, and Redis 6.2 does not know it.
# An index without an expiry that is not new was written by Lucia JS, whose sessions live for 57
# years.
_EXTEND = """
local function extend(index, length, now, expires)
  if legacy_writers then return redis.call('PERSIST', index) end
  local ttl = redis.call('PTTL', index)
  if length == 1 or (ttl >= 0 and now + ttl < tonumber(expires)) then
    redis.call('PEXPIREAT', index, expires)
  end
end
"""

# After the check of the expiry: SET with PXAT in the past answers OK and stores nothing.
_STORE: Final = f"""\
if not redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PXAT', ARGV[3]) then
  if redis.call('MGET', KEYS[1])[1] ~= ARGV[2] then return {TAKEN} end
  index_remove(KEYS[2], ARGV[1]) -- our own record: the script was sent twice
end"""

_CREATE: Final = f"""{_EXTEND}
-- KEYS: session, index. ARGV: id, record, idle end in ms. Returns the index's
-- length, 0 (TAKEN) or -3 (ALREADY_EXPIRED).
{NOW}
if tonumber(ARGV[3]) <= now then return {ALREADY_EXPIRED} end
index_length(KEYS[2])
{_STORE}
local length = index_add(KEYS[2], ARGV[1])
extend(KEYS[2], length, now, ARGV[3])
return length
"""

_CREATE_CAPPED: Final = f"""{_EXTEND}
-- KEYS: session, index, then the sessions that were counted, those to revoke first.
-- ARGV: id, record, idle end in ms, how many sessions to revoke, how many ids to remove from the
-- index, these ids, those to revoke first, then all ids that the index held.
-- Returns the index's length, 0 (TAKEN), -3 (ALREADY_EXPIRED), or -1 (CHANGED) if the index holds
-- other ids now, or a session that was counted is gone.
{NOW}
if tonumber(ARGV[3]) <= now then return {ALREADY_EXPIRED} end
local revoked, removed = tonumber(ARGV[4]), tonumber(ARGV[5])
local ids, listed = index_ids(KEYS[2]), {{}}
if #ids ~= #ARGV - 5 - removed then return {CHANGED} end
for i = 6 + removed, #ARGV do listed[ARGV[i]] = true end
for _, id in ipairs(ids) do
  if not listed[id] then return {CHANGED} end
end
-- A session that is gone has made room: one of the others need not be revoked.
for i = 3, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return {CHANGED} end
end
{_STORE}
for i = 1, revoked do redis.call('DEL', KEYS[2 + i]) end
for i = 1, removed do index_remove_oldest(KEYS[2], ARGV[5 + i]) end
local length = index_add(KEYS[2], ARGV[1])
extend(KEYS[2], length, now, ARGV[3])
return length
"""

_RENEW: Final = f"""{_EXTEND}
-- KEYS: used session, successor, index, marker.
-- ARGV: used id, successor's id, record, idle end in ms, marker, marker's life in ms.
-- Returns 1, 0 (TAKEN) or -3 (ALREADY_EXPIRED); if the used session is gone, its marker and the
-- TTL of that.
{NOW}
if not redis.call('MGET', KEYS[1])[1] then
  return {{redis.call('MGET', KEYS[4])[1], redis.call('PTTL', KEYS[4])}}
end
if tonumber(ARGV[4]) <= now then return {ALREADY_EXPIRED} end
index_length(KEYS[3])
-- The used session goes after its successor and its marker: nothing is undone, and if the server
-- refuses one of these, the session must not be lost (I5).
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
-- KEYS: for each id its session and its marker. Returns for each what they held: a session that was
-- renewed is gone, and its successor, which the marker names, has to be deleted too.
local held = {}
for i = 1, #KEYS, 2 do
  held[#held + 1] = redis.call('MGET', KEYS[i], KEYS[i + 1])
  -- The marker stays: if this reply is lost, the script is sent again, and has to find it.
  redis.call('DEL', KEYS[i])
end
return held
""",
    repeatable=True,
)

_REVOKE: Final = """
-- KEYS: index, then the sessions to revoke, then the one to keep, if any.
-- ARGV: '1' if the index must hold no other ids, the id to keep or '', then the ids to revoke, the
-- oldest first. Returns 1, or 0 if something has changed: then nothing was done.
local keep = ARGV[2]
-- The session to keep was renewed or revoked since its id was resolved.
if keep ~= '' and redis.call('EXISTS', KEYS[#KEYS]) == 0 then return 0 end
if ARGV[1] == '1' then
  local listed = {}
  for i = 3, #ARGV do listed[ARGV[i]] = true end
  for _, id in ipairs(index_ids(KEYS[1])) do
    if id ~= keep and not listed[id] then return 0 end
  end
end
for i = 3, #ARGV do
  local deleted = redis.call('DEL', KEYS[i - 1])
  if deleted == 1 or not legacy_writers then index_remove_oldest(KEYS[1], ARGV[i]) end
end
return 1
"""

_PRUNE: Final = """
-- KEYS: index, then sessions. ARGV: their ids. Removes those from the index whose session is gone.
-- That is checked once more, at the moment at which the id is removed.
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then index_remove(KEYS[1], ARGV[i - 1]) end
end
return 1
"""

_PUSH: Final = f"""{_EXTEND}
-- KEYS: index. ARGV: id, idle end in ms, slack in ms. Returns the index's length, or -3
-- (ALREADY_EXPIRED).
{NOW}
if tonumber(ARGV[2]) <= now then return {ALREADY_EXPIRED} end
local length = index_add(KEYS[1], ARGV[1])
extend(KEYS[1], length, now, ARGV[2] + ARGV[3])
return length
"""

REPLACE_WITH_MARKER: Final = Script(
    "swap",
    """
-- KEYS: used session, marker. ARGV: marker, its life in ms.
-- Returns 1; if the used session is gone, the marker that is there and its TTL.
if not redis.call('MGET', KEYS[1])[1] then
  return {redis.call('MGET', KEYS[2])[1], redis.call('PTTL', KEYS[2])}
end
-- In this order: nothing is undone, so if the server refuses the marker, the session must stay.
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[1])
return 1
""",
)

_DROP: Final = """
-- KEYS: index. ARGV: ids to remove, oldest first.
-- Several ids of a list are removed from its end, where each is found at once. One pass over what
-- is left then finds those that were there more than once. In a set no id is.
if #ARGV < 2 or index_remove_oldest == index_remove then
  for i = 1, #ARGV do index_remove(KEYS[1], ARGV[i]) end
  return 1
end
local removed = {}
for i = 1, #ARGV do
  index_remove_oldest(KEYS[1], ARGV[i])
  removed[ARGV[i]] = true
end
for _, id in ipairs(index_ids(KEYS[1])) do
  if removed[id] then index_remove(KEYS[1], id) end
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
    """Return the scripts over an index that these Lua functions read and change.

    Args:
        kind: a suffix of the scripts' names.
        functions: the Lua functions.
        legacy_writers: whether others write to the index too.
    """
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
    # What creates or renews a session is not sent again after a lost reply (I6), and a push that
    # runs twice would put an id into a list twice.
    repeatable = {"revoke", "prune", "drop"}
    return IndexScripts(
        **{
            name: Script(name + suffix, functions + text, name in repeatable)
            for name, text in texts.items()
        }
    )
