"""Stores with every kind of damage that ``lucia doctor`` finds, and a way to run it."""

import json
import re
from collections import Counter
from typing import Any, Final

from lucia._redis.doctor.findings import Kind
from lucia._redis.keys import Layout, LayoutName
from lucia._redis.records import Marker, encode_marker, encode_row
from lucia._redis.revocations import TOMBSTONE
from lucia._rules.sessions import new_session_id, system_clock
from lucia.models import SessionRow
from tests.support.command_runs import Outcome, lucia
from tests.support.redis_inspectors import Inspector
from tests.support.sessions import HOUR, row

NAMES: Final[tuple[LayoutName, ...]] = ("default", "lucia-v2")

LAYOUTS: Final[dict[str, Layout]] = {name: Layout.from_namespaces(None, name) for name in NAMES}

DAMAGE: Final = (Kind.UNDECODABLE_RECORD, Kind.DAMAGED_MARKER, Kind.WRONG_TYPE)
"""Kinds that are fixed only with --delete-damaged."""

BARE: Final = (Kind.BARE_SESSION, Kind.BARE_INDEX)
"""Kinds that are fixed only with --move-bare."""


def name_of(layout: str) -> LayoutName:
    """Return the name of a layout with its literal type."""
    return next(name for name in NAMES if name == layout)


def doctor(*arguments: object, environment: dict[str, str] | None = None) -> Outcome:
    """Run ``lucia doctor`` in this process."""
    return lucia("doctor", *arguments, **environment or {})


class DamagedStore:
    """Damages the server of an inspector, and counts the damage by kind."""

    def __init__(self, inspector: Inspector) -> None:
        self.inspector = inspector
        self.client: Any = inspector.client
        self.layout = inspector.layout
        self.damage: Counter[str] = Counter()
        self.secrets: list[str] = []
        self.foreign: list[str] = []

    def session(
        self, user_id: str, *, life: int = HOUR, indexed: bool = True, whole: bool = True
    ) -> SessionRow:
        """Store a session as the library does, or damaged on request."""
        session = row(new_session_id(), user_id, life=life, handle=f"handle-{len(self.secrets)}")
        self.secrets.append(session.id)
        self.client.set(self.layout.session_key(session.id), encode_row(session))
        if whole:
            self.client.pexpireat(
                self.layout.session_key(session.id),
                max(session.idle_expires, system_clock() + HOUR),
            )
        if indexed:
            self.add(user_id, session.id, session.idle_expires)
        return session

    def add(self, user_id: str, session_id: str, expires: int | None = None) -> None:
        """Add an id to an index."""
        key = self.layout.index_key(user_id)
        (self.client.lpush if self.layout.index.type == "list" else self.client.sadd)(
            key, session_id
        )
        if expires is not None:
            self.client.pexpireat(key, max(expires, self.client.pexpiretime(key)))

    def hurt(self, kind: Kind, count: int = 1) -> None:
        """Count damage of this kind."""
        self.damage[str(kind)] += count

    def in_every_way(self, *, bare: bool = True) -> None:
        """Store every kind of damage, and healthy sessions."""
        for number in range(30):
            self.session(f"healthy-{number % 7}")
        self._sessions()
        self._indexes()
        self._others()
        if bare:
            self._bare()

    def _sessions(self) -> None:
        session = self.session("original")
        # As Lucia JS did it: the end as a TTL, which is about 57 years.
        self.client.expire(self.layout.session_key(session.id), session.idle_expires // 1000)
        self.hurt(Kind.SESSION_WRONG_TTL)
        self.session("endless", whole=False)
        self.hurt(Kind.SESSION_WITHOUT_TTL)
        self.client.persist(
            self.layout.session_key(self.session("over", life=-2 * HOUR, indexed=False).id)
        )
        self.session("over", life=-2 * HOUR)
        self.hurt(Kind.DEAD_SESSION, 2)
        self.session("lost", indexed=False)
        self.session("lost", indexed=False, whole=False)
        self.hurt(Kind.UNINDEXED_SESSION, 2)
        self.hurt(Kind.SESSION_WITHOUT_TTL)
        for value in (
            "no JSON",
            "{}",
            json.dumps({"id": "another", "user_id": "u", "active_expires": 1, "idle_expires": 2}),
            "",
        ):
            self.client.set(self.layout.session_key(new_session_id()), value, px=HOUR)
            self.hurt(Kind.UNDECODABLE_RECORD)
        self.client.hset(self.layout.session_key(new_session_id()), "a", "b")
        self.hurt(Kind.WRONG_TYPE)

    def _indexes(self) -> None:
        self.session("forever")
        self.client.persist(self.layout.index_key("forever"))
        self.hurt(Kind.INDEX_WITHOUT_TTL)
        for number in range(3):
            self.add("forever", f"gone-{number}-{new_session_id()}")
        self.hurt(Kind.DEAD_ENTRY, 3)
        self.session("short")
        self.client.pexpire(self.layout.index_key("short"), HOUR // 2)
        self.hurt(Kind.INDEX_SHORT_TTL)
        foreign = self.session("healthy-1")
        self.add("short", foreign.id)
        self.hurt(Kind.FOREIGN_ENTRY)
        if self.layout.index.type == "list":
            twice = self.session("twice")
            self.session("twice")
            self.add("twice", twice.id)
            self.add("twice", twice.id)
            self.hurt(Kind.DUPLICATE_ENTRY)
        self.client.set(self.layout.index_key("mallory"), "no index")
        self.session("mallory", indexed=False)
        self.hurt(Kind.WRONG_TYPE)
        self.hurt(Kind.UNINDEXED_SESSION)

    def _others(self) -> None:
        for used in ("a-used-id", "another", "a third"):
            self.client.set(
                self.layout.marker_key(used),
                encode_marker(Marker(used, "its-successor", 1)),
                px=50_000,
            )
        self.client.persist(self.layout.marker_key("another"))
        self.client.pexpire(self.layout.marker_key("a third"), HOUR)
        self.hurt(Kind.MARKER_TTL, 2)
        self.client.set(self.layout.marker_key("damaged"), "{}", px=50_000)
        self.client.set(
            f"{self.layout.session}:renewed:nothing",
            encode_marker(Marker("nothing", "its-successor", 1)),
            px=50_000,
        )
        self.client.set(f"{self.layout.session}:renewed:{{0}}", TOMBSTONE, px=50_000)
        self.client.rpush(self.layout.marker_key("a list"), "x")
        self.client.set(self.layout.marker_key("a tombstone"), TOMBSTONE, px=50_000)
        self.hurt(Kind.DAMAGED_MARKER, 3)
        self.client.rpush(f"{self.layout.session}:throttle:{'0' * 32}", "1")
        self.client.rpush(f"{self.layout.session}:throttle:{'1' * 32}", "1")
        self.client.pexpire(f"{self.layout.session}:throttle:{'1' * 32}", HOUR)
        self.hurt(Kind.THROTTLE_WITHOUT_TTL)
        self.foreign += ["somebody else's", "a list of somebody else's"]
        self.client.set(self.foreign[0], "x")
        self.client.rpush(self.foreign[1], "x")

    def _bare(self) -> None:
        for number in range(3):
            session = row(new_session_id(), "abcdefghijklmno", life=HOUR if number else -HOUR)
            self.secrets.append(session.id)
            self.client.set(session.id, encode_row(session), ex=session.idle_expires // 1000)
            self.client.lpush("abcdefghijklmno", session.id)
            self.hurt(Kind.BARE_SESSION)
        self.hurt(Kind.BARE_INDEX)
        self.foreign.append(new_session_id())
        self.client.set(self.foreign[-1], "of somebody else")


def dump(inspector: Inspector) -> dict[str, Any]:
    """Return every key with its contents and its expiry."""
    return {
        key: (entry.type, entry.value, entry.expires) for key, entry in inspector.census().items()
    }


def assert_tells_no_secret(outcome: Outcome, secrets: list[str]) -> None:
    """Check that no session id is in the output."""
    words = set(re.findall(r"[0-9A-Za-z]{40}", outcome.out + outcome.errors))
    assert not words & set(secrets)
