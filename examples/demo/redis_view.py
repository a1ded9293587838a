"""Show what happens in Redis: the commands of one request, and the keys of one user.

Redis holds hashes of session ids. They are long, so each is cut to its first six characters, and so
is every other long word: no complete id can leave this module, whatever was stored.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, ResponseError

from lucia._redis.keys import Layout
from lucia._redis.records import decode_row
from lucia._redis.scripts import DELETE
from lucia._redis.throttling import ATTEMPT
from lucia._rules.id_hashes import HashedIds

_LAYOUT = Layout.from_namespaces(None)
_INDEX = _LAYOUT.index.scripts
_SCRIPTS = (_INDEX.create, _INDEX.renew, DELETE, _INDEX.revoke, _INDEX.prune, ATTEMPT)
_MARKER = _LAYOUT.marker_key("").removesuffix("}")
_FAILURES = _LAYOUT.throttle_key("")
_LONG_WORD = re.compile(r"(?a)(?<![\w-])([\w-]{6})[\w-]{34,}=*")
_LONGEST_REPLY = 160
_HANDSHAKE = {"AUTH", "CLIENT", "HELLO", "INFO", "SELECT"}

_WHY = {
    "create": "A login, in one step: store the record unless its id is taken, put the id at the "
    "head of the user's list, and give both an expiry. Returns the list's length.",
    "renew": "A renewal, in one step: store the successor, leave a marker for 60 seconds that "
    "leads from the used id to it, delete the used record, and swap the ids in the list. The "
    "marker carries the new id sealed: only the used id and the application's key open it. Whoever "
    "comes second gets the marker instead.",
    "delete": "Revokes sessions, and returns what their keys held: a record names the user from "
    "whose list the id has to be removed, a marker names a successor to be revoked too.",
    "revoke": "Revokes many sessions of one user in one step. If a login came in between, it does "
    "nothing and returns 0, and is tried again.",
    "prune": "Removes ids from the list whose session has expired.",
    "attempt": "Before a password is checked: counts a failure for this name and this address, "
    "whose hashes are in the keys' names; or, after too many, returns how long to wait.",
    "LREM failures": "The password was right: removes this attempt from the failures.",
    "NOSCRIPT": "The server does not know this script yet, so its text is sent next, once.",
    "MGET session": "Reads a session. For an active session this is all: one read, no write.",
    "MGET marker": "Was this id renewed within the last minute? Then a marker names the successor.",
    "PTTL": "How old is the marker? Only within the grace does it lead to the successor.",
    "LRANGE": "Reads the user's list of session ids.",
    "LREM": "Removes the revoked session from the user's list.",
    "GET": "The demo itself reads the record …",
    "SET": "… and writes it back with an active period that is over: only if it is still there "
    "(XX), and with the expiry that it has (KEEPTTL).",
}


def shorten(text: str) -> str:
    """Cut each long word in a text, such as an id or a hash, to six characters."""
    return _LONG_WORD.sub(r"\1…", text)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A command as it was sent, and its reply or error."""

    arguments: tuple[bytes, ...]
    reply: object

    @property
    def name(self) -> str:
        """The name of the command, such as ``MGET``."""
        return _text(self.arguments[0])

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that the command names."""
        arguments = [_text(argument) for argument in self.arguments]
        if self.name in ("EVAL", "EVALSHA"):
            return tuple(arguments[3 : 3 + int(arguments[2])])
        return tuple(arguments[1:] if self.name == "MGET" else arguments[1:2])

    @property
    def written(self) -> tuple[str, ...]:
        """The keys that the command may change."""
        if self.name in ("MGET", "GET", "LRANGE", "PTTL"):
            return ()
        # The last key of "revoke" is the session to keep, which the script only reads.
        keeps_one = self.script == "revoke" and bool(self.arguments[4 + len(self.keys)])
        return self.keys[:-1] if keeps_one else self.keys

    @property
    def script(self) -> str | None:
        """The name of the script that the command runs."""
        if self.name not in ("EVAL", "EVALSHA"):
            return None
        text = _text(self.arguments[1])
        return next((script.name for script in _SCRIPTS if text in (script.sha, script.text)), None)


class Log:
    """The last commands that were answered, oldest first, without those of handshakes."""

    def __init__(self) -> None:
        self.commands: deque[Recorded] = deque(maxlen=1_000)
        self.count = 0

    def note(self, command: Recorded) -> None:
        """Add a command."""
        if command.name not in _HANDSHAKE:
            self.commands.append(command)
            self.count += 1

    def since(self, count: int) -> list[Recorded]:
        """Return the commands after the first ``count``, as far as they are still kept."""
        return list(self.commands)[max(len(self.commands) - (self.count - count), 0) :]


class RecordingConnection(AbstractConnection):
    """A mixin for a connection class that records each command and its reply.

    The session adapter makes its own connections, with the connection class of the client that it
    is given: so they are recorded too.
    """

    def __init__(self, *, log: Log, **options: Any) -> None:
        super().__init__(**options)
        self._log = log
        self._unanswered: deque[list[bytes]] = deque()

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send commands, and keep them until they are answered."""
        await super().send_packed_command(command, check_health)
        self._unanswered.extend(_unpacked(command))

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read the next reply, and record it with its command."""
        try:
            reply = cast(object, await super().read_response(*args, **options))
        except ResponseError as error:
            self._answered(error)
            raise
        self._answered(reply)
        return reply

    async def disconnect(self, *args: Any, **options: Any) -> None:
        """Close the connection: commands without a reply get none any more."""
        self._unanswered.clear()
        await super().disconnect(*args, **options)

    def _answered(self, reply: object) -> None:
        self._log.note(Recorded(tuple(self._unanswered.popleft()), reply))


def _unpacked(packed: bytes | Iterable[bytes]) -> Iterator[list[bytes]]:
    """Parse the commands in packed bytes."""
    reader = hiredis.Reader()
    reader.feed(packed if isinstance(packed, bytes) else b"".join(packed))
    while command := reader.gets():
        yield cast(list[bytes], command)


@dataclass(frozen=True, slots=True)
class Shown:
    """A command as the page shows it; for a script, with its name, keys, arguments and text."""

    line: str
    reply: str
    why: str
    script: str = ""
    keys: tuple[tuple[str, str], ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()
    text: str = ""


def show(command: Recorded) -> Shown:
    """Describe a command. Ids are cut, nothing else is changed."""
    arguments = [_text(argument) for argument in command.arguments]
    script = next((script for script in _SCRIPTS if script.name == command.script), None)
    if script is None:
        return Shown(shorten(" ".join(arguments)), _reply(command.reply), _why(command))
    shown = shorten(script.sha) if command.name == "EVALSHA" else "(its text)"
    line = f"{command.name} {shown} {arguments[2]}"
    if isinstance(command.reply, NoScriptError):
        return Shown(line, "NOSCRIPT", _WHY["NOSCRIPT"], script.name)
    keys = tuple((f"KEYS[{n}]", shorten(key)) for n, key in enumerate(command.keys, 1))
    values = tuple(
        (f"ARGV[{n}]", shorten(value)) for n, value in enumerate(arguments[3 + len(keys) :], 1)
    )
    return Shown(
        line,
        _reply(command.reply),
        _WHY[script.name],
        script.name,
        keys,
        values,
        _filled_in(script.text, keys),
    )


def _filled_in(script: str, keys: tuple[tuple[str, str], ...]) -> str:
    """Return a script's text with the keys of this call filled in."""
    for name, key in keys:
        script = script.replace(name, f"'{key}'")
    return script.strip()


def _why(command: Recorded) -> str:
    if command.name == "MGET" and command.keys[0].startswith(_MARKER):
        return _WHY["MGET marker"]
    if command.name == "LREM" and command.keys[0].startswith(_FAILURES):
        return _WHY["LREM failures"]
    return _WHY.get("MGET session" if command.name == "MGET" else command.name, "")


def _reply(reply: object) -> str:
    text = shorten(_reply_text(reply))
    return text if len(text) <= _LONGEST_REPLY else f"{text[:_LONGEST_REPLY]}…"


def _reply_text(reply: object) -> str:
    if isinstance(reply, list):
        return f"[{', '.join(_reply_text(item) for item in cast(list[object], reply))}]"
    if isinstance(reply, Exception):
        return f"{type(reply).__name__}"
    return "(nil)" if reply is None else _text(reply)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key as it is now.

    Args:
        name: the name, with its ids cut.
        kind: the record of a session, the user's list, or the marker of a renewal.
        value: the record as indented JSON, the list line by line, or the marker.
        left: the remaining life in milliseconds; -1 for a key that never expires, a defect.
        mine: whether this is the record of the current session.
        active_left: what is left of a record's active period, in milliseconds; negative if idle.
    """

    name: str
    kind: Literal["record", "list", "marker"]
    value: str
    left: int
    mine: bool = False
    active_left: int = 0


class RedisView:
    """Reads what Redis holds about one user.

    Args:
        client: the client for the session adapter, whose connections are recorded.
        plain: the client for reading, whose connections are not.
        log: the recorded commands.
        about: a description of the server.
        key: the key under which ids are hashed.
    """

    def __init__(self, client: Redis, plain: Redis, log: Log, about: str, key: bytes) -> None:
        self.client: Any = client  # redis-py types its commands for sync and async at once
        self.plain: Any = plain
        self.log = log
        self.about = about
        self.key = key
        self.stored = HashedIds([key], "refuse").stored
        """Returns what the session with an id is stored under."""

    @classmethod
    def connect(cls, url: str, about: str, key: bytes) -> Self:
        """Return a view of the server at this URL."""
        log = Log()
        pool: Any = ConnectionPool.from_url(url, protocol=2, log=log)
        pool.connection_class = type("Recording", (RecordingConnection, pool.connection_class), {})
        return cls(
            Redis.from_pool(pool),
            Redis.from_url(url, decode_responses=True, protocol=2),
            log,
            about,
            key,
        )

    async def close(self) -> None:
        """Close both clients."""
        await self.client.aclose()
        await self.plain.aclose()

    async def held(self, user_id: str, mine: str, now: int) -> list[HeldKey]:
        """Return the user's keys: the list, the record of each session, and recent markers.

        Args:
            user_id: the user.
            mine: the id of the current session.
            now: the time in milliseconds since the epoch.
        """
        index = _LAYOUT.index_key(user_id)
        hashes = await self._list(index)
        held = [_list(index, hashes, await self._left(index))] if hashes else []
        for stored in hashes:
            key = _LAYOUT.session_key(stored)
            value, left = await self._value(key)
            row = None if value is None else decode_row(value.encode(), stored)
            if value is not None and row is not None:
                held.append(
                    HeldKey(
                        shorten(key),
                        "record",
                        _pretty(value),
                        left,
                        stored == self.stored(mine),
                        row.active_expires - now,
                    )
                )
        for key in self._markers(index):
            value, left = await self._value(key)
            if value is not None:
                held.append(HeldKey(shorten(key), "marker", shorten(value), left))
        return held

    async def missing(self, keys: set[str]) -> list[str]:
        """Return those of the keys that do not exist, except markers, which seldom exist."""
        gone = [
            key
            for key in sorted(keys)
            if not key.startswith(_MARKER) and not await self.plain.exists(key)
        ]
        return [shorten(key) for key in gone]

    async def let_go_idle(self, session_id: str, now: int) -> None:
        """End a session's active period now, as if the user had been away for a day."""
        key = _LAYOUT.session_key(self.stored(session_id))
        record = await self.client.execute_command("GET", key)
        if record is not None:
            changed = {**json.loads(record), "active_expires": now - 1}
            await self.client.execute_command(
                "SET",
                key,
                json.dumps(changed, separators=(",", ":"), ensure_ascii=False),
                "XX",
                "KEEPTTL",
            )

    def _markers(self, index: str) -> list[str]:
        """Return the keys of the markers of this user's renewals, as far as the log goes back."""
        renewals = [
            command
            for command in self.log.commands
            if command.script == "renew" and command.keys[2] == index
        ]
        return list(dict.fromkeys(command.keys[3] for command in renewals))

    async def _list(self, key: str) -> list[str]:
        return cast(list[str], await self.plain.lrange(key, 0, -1))

    async def _left(self, key: str) -> int:
        return cast(int, await self.plain.pttl(key))

    async def _value(self, key: str) -> tuple[str | None, int]:
        (value,) = cast(list[str | None], await self.plain.mget(key))
        return value, await self._left(key)


def _list(key: str, hashes: list[str], left: int) -> HeldKey:
    lines = [f"{n}  {shorten(stored)}" for n, stored in enumerate(hashes)]
    return HeldKey(shorten(key), "list", "\n".join(lines), left)


def _pretty(value: str) -> str:
    return shorten(json.dumps(json.loads(value), indent=2, ensure_ascii=False))
