"""Operations that run concurrently, by the name of their scenario."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from lucia._redis.commands import Batch, Call, Operation
from lucia._redis.index import LIST, Index
from lucia._redis.operations import get_session, get_successor
from lucia._redis.records import Marker, encode_marker, encode_row
from lucia._redis.single_server import SingleServerStore
from lucia._redis.store import Store
from lucia._rules.sessions import MARKER_MS
from lucia.models import SessionRow
from tests.model.server import NOW, Entry, State
from tests.model.world import LAYOUT, USER, Scenario, Task, login_of

LARGE: Final = os.environ.get("LUCIA_MODEL") == "large"
"""Whether the long scenarios are run too."""

_LIFE = 1_000_000_000
_ORDER = "doxabcj"
"""The logins from the oldest to the newest."""


def end_of(id_: str) -> int:
    """Return when a session expires: each at another time, none later than the empty id."""
    return NOW + _LIFE - 100_000 * sum(id_.encode())


def row(id_: str, **attributes: str) -> SessionRow:
    """Return a session. Those of one login share a handle and the time of the login."""
    end, login = end_of(id_), login_of(id_)
    of_login = {"handle": login, "created_at": NOW + _ORDER.index(login)}
    return SessionRow(
        id=id_,
        user_id=USER,
        active_expires=end,
        idle_expires=end,
        attributes={**of_login, **attributes},
    )


def stored(
    *live: str, dead: tuple[str, ...] = (), renewed: tuple[tuple[str, str], ...] = ()
) -> State:
    """Return keys with these sessions, newest first, dead ids in the index, and markers."""
    keys = {LAYOUT.session_key(id_): Entry(encode_row(row(id_)), end_of(id_)) for id_ in live}
    if ids := (*live, *dead):
        keys[LAYOUT.index_key(USER)] = Entry(tuple(map(str.encode, ids)), max(map(end_of, ids)))
    for used, successor in renewed:
        keys[LAYOUT.marker_key(used)] = Entry(
            encode_marker(Marker(used, successor, 0)), NOW + MARKER_MS
        )
    return tuple(sorted((key.encode(), entry) for key, entry in keys.items()))


def with_sets(scenario: Scenario) -> Scenario:
    """Return the same scenario with a set as the index."""
    database = tuple(
        (
            key,
            entry._replace(value=frozenset(entry.value))
            if isinstance(entry.value, tuple)
            else entry,
        )
        for key, entry in scenario.database
    )
    return replace(scenario, database=database)


class Tasks:
    """The operations of one protocol as tasks."""

    def __init__(self, store: Store, index: Index = LIST) -> None:
        self._store = store
        self._index = index

    def create(self, id_: str, **attributes: str) -> Task:
        return Task(
            "create", lambda: self._store.create(row(id_, **attributes), _oldest), makes=id_
        )

    def js_login(self, id_: str) -> Task:
        """Return a login by Lucia JS's adapter.

        It sends the index entry and the session at once, with an absolute time as the TTL.
        """

        def start() -> Operation[None]:
            add = self._index.add(LAYOUT.index_key(USER), id_)[:1]
            yield Batch(
                (
                    *add,
                    Call("SET", (LAYOUT.session_key(id_), encode_row(row(id_)), "PX", end_of(id_))),
                )
            )

        return Task("js_login", start, makes=id_)

    def capped(self, id_: str, limit: int) -> Task:
        return Task(
            "capped",
            lambda: self._store.create_capped(row(id_), limit, NOW, _oldest),
            makes=id_,
            limit=limit,
        )

    def capped_scenario(
        self,
        *tasks: Task,
        live: tuple[str, ...],
        resends: int = 0,
        failures: int = 0,
        expiries: bool = True,
    ) -> Scenario:
        """Return a scenario of capped logins over these sessions.

        The limit holds at every moment only where one script sees all keys.
        """
        strict = isinstance(self._store, SingleServerStore)
        return Scenario(
            tasks,
            stored(*live),
            frozenset(live),
            resends=resends,
            failures=failures,
            expiries=expiries,
            at_every_moment=strict,
        )

    def duplicate(self, id_: str) -> Task:
        return Task(
            "duplicate", lambda: self._store.create(row(id_, noted="other"), _oldest), makes=id_
        )

    def renew(self, used: str, successor: str, grace: int = MARKER_MS) -> Task:
        return Task(
            "renew",
            lambda: self._store.renew(used, row(successor), grace),
            makes=successor,
            uses=used,
        )

    def follow(self, used: str) -> Task:
        return Task("follow", lambda: _follow(used), uses=used)

    def delete(self, id_: str) -> Task:
        return Task("delete", lambda: self._store.delete([id_]), uses=id_)

    def revoke(self, keep: str | None = None) -> Task:
        return Task("revoke", lambda: self._store.delete_by_user(USER, keep), uses=keep or "")

    def list(self) -> Task:
        return Task("list", lambda: self._store.get_by_user(USER, NOW))


def _oldest(length: int) -> int:
    return length - 1


def _follow(used: str) -> Operation[SessionRow | None]:
    """Read a session as a request does, following its marker."""
    found = yield from get_session(LAYOUT, used)
    return found or (yield from get_successor(LAYOUT, used))


def _o(*others: str) -> frozenset[str]:
    return frozenset({"o", *others})


SCENARIOS: Final[dict[str, Callable[[Tasks], Scenario]]] = {
    "two logins, a sign-out": lambda do: Scenario((do.create("a"), do.create("b"), do.revoke())),
    "a login, two sign-outs": lambda do: Scenario((do.create("a"), do.revoke(), do.revoke())),
    "a login, a sign-out, re-sent": lambda do: Scenario((do.create("a"), do.revoke()), resends=2),
    "a login, a sign-out, failing": lambda do: Scenario((do.create("a"), do.revoke()), failures=2),
    "a login, a sign-out, late and again": lambda do: Scenario(
        (do.create("a"), do.revoke()), stored("o"), _o(), zombies=2
    ),
    "a login, a listing, a sign-out": lambda do: Scenario((do.create("a"), do.list(), do.revoke())),
    "a login, a listing, failing": lambda do: Scenario(
        (do.create("a"), do.list()), stored("o", dead=("d",)), _o(), failures=1
    ),
    "two listings, a login": lambda do: Scenario(
        (do.list(), do.list(), do.create("a")), stored("o", dead=("d",)), _o()
    ),
    "a login with a taken id": lambda do: Scenario(
        (do.duplicate("o"), do.create("a"), do.list()), stored("o"), _o(), resends=1
    ),
    "a renewal with a taken id": lambda do: Scenario(
        (do.renew("o", "x"), do.list()), stored("o", "x"), _o("x"), resends=1
    ),
    "two renewals": lambda do: Scenario(
        (do.renew("o", "o1"), do.renew("o", "o2")), stored("o"), _o()
    ),
    "two renewals, re-sent": lambda do: Scenario(
        (do.renew("o", "o1"), do.renew("o", "o2")), stored("o"), _o(), resends=1
    ),
    "two renewals, failing": lambda do: Scenario(
        (do.renew("o", "o1"), do.renew("o", "o2")), stored("o"), _o(), failures=1
    ),
    "two renewals without grace": lambda do: Scenario(
        (do.renew("o", "o1", 0), do.renew("o", "o2", 0)), stored("o"), _o(), resends=1
    ),
    "a renewal, two followers": lambda do: Scenario(
        (do.renew("o", "o1"), do.follow("o"), do.follow("o")), stored("o"), _o()
    ),
    "a renewal, an end": lambda do: Scenario(
        (do.renew("o", "o1"), do.delete("o")), stored("o", "x"), _o("x"), resends=1
    ),
    "a renewal, an end, failing": lambda do: Scenario(
        (do.renew("o", "o1"), do.delete("o")), stored("o", "x"), _o("x"), failures=1
    ),
    "two renewals, an end": lambda do: Scenario(
        (do.renew("o", "o1"), do.renew("o", "o2"), do.delete("o")), stored("o"), _o()
    ),
    "a renewal, a sign-out": lambda do: Scenario(
        (do.renew("o", "o1"), do.revoke()), stored("o", "x"), _o("x"), resends=1
    ),
    "a renewal, a sign-out, failing": lambda do: Scenario(
        (do.renew("o", "o1"), do.revoke()), stored("o"), _o(), failures=1
    ),
    "a renewal, a follower, a sign-out": lambda do: Scenario(
        (do.renew("o", "o1"), do.follow("o"), do.revoke()), stored("o"), _o()
    ),
    "a renewal, a listing": lambda do: Scenario(
        (do.renew("o", "o1"), do.list()), stored("o", "x", dead=("d",)), _o("x")
    ),
    "a renewal of a renewed one, an end": lambda do: Scenario(
        (do.renew("o", "o1"), do.renew("o1", "o2"), do.delete("o")), stored("o"), _o()
    ),
    "a renewal, others signed out": lambda do: Scenario(
        (do.renew("o", "o1"), do.revoke("o")), stored("o", "x"), _o("x"), resends=1
    ),
    "a renewal without grace, others signed out": lambda do: Scenario(
        (do.renew("o", "o1", 0), do.revoke("o")), stored("o", "x"), _o("x")
    ),
    "renewed before, others signed out": lambda do: Scenario(
        (do.revoke("o"), do.renew("o1", "o2")),
        stored("o1", "x", renewed=(("o", "o1"),)),
        _o("o1", "x"),
    ),
    "a login, others signed out": lambda do: Scenario(
        (do.create("a"), do.revoke("o")), stored("o", "x"), _o("x"), failures=1
    ),
    "renewed before, an end": lambda do: Scenario(
        (do.delete("o"), do.renew("o1", "o2")), stored("o1", renewed=(("o", "o1"),)), _o("o1")
    ),
    "two capped logins": lambda do: do.capped_scenario(
        do.capped("a", 1), do.capped("b", 1), live=()
    ),
    "a capped login, a renewal": lambda do: do.capped_scenario(
        do.capped("a", 1), do.renew("o", "o1"), live=("o",)
    ),
    "a capped login, an end": lambda do: do.capped_scenario(
        do.capped("a", 2), do.delete("x"), live=("x", "o")
    ),
    "a capped login, a sign-out": lambda do: do.capped_scenario(
        do.capped("a", 1), do.revoke(), live=("o",), failures=1
    ),
}
"""The scenarios for every protocol.

In any scenario a command that lost its reply could be sent again at once; ``resends`` is 0 only to
limit the number of worlds. A command that was sent again and also executes late (``zombies``) is
never one of a create or a renewal, since these are not sent again.
"""

LEGACY_SCENARIOS: Final[dict[str, Callable[[Tasks], Scenario]]] = {
    "a JS login, a sign-out": lambda do: Scenario(
        (do.js_login("j"), do.revoke(), do.create("a")), legacy_writers=True
    ),
    "a JS login, two sign-outs": lambda do: Scenario(
        (do.js_login("j"), do.revoke(), do.revoke()), legacy_writers=True
    ),
    "a JS login, a listing": lambda do: Scenario(
        (do.js_login("j"), do.list(), do.list()),
        stored("o", dead=("d",)),
        _o(),
        failures=1,
        legacy_writers=True,
    ),
    "a JS login, others signed out": lambda do: Scenario(
        (do.js_login("j"), do.revoke("o"), do.renew("o", "o1")),
        stored("o", "x"),
        _o("x"),
        legacy_writers=True,
    ),
    "a JS login that is renewed, an end": lambda do: Scenario(
        (do.js_login("j"), do.renew("j", "j1"), do.delete("j")), legacy_writers=True
    ),
}
"""The scenarios for protocols with ``legacy_writers``, where Lucia JS writes to the same keys."""

SINGLE_USE: Final[dict[str, Callable[[Tasks], Scenario]]] = {
    "two logins with one id": lambda do: Scenario(
        (do.create("a"), do.create("a", metadata="other")), expiries=False, resends=1
    ),
}
"""Two creates of one id, in practice impossible.

Expiries are left out: if the first session expired before it is complete, the first create would
complete the second session, and both would succeed.
"""

LARGE_SCENARIOS: Final[dict[str, Callable[[Tasks], Scenario]]] = {
    "two capped logins over two others": lambda do: do.capped_scenario(
        do.capped("a", 2), do.capped("b", 2), live=("x", "o")
    ),
    "two capped logins, a renewal": lambda do: do.capped_scenario(
        do.capped("a", 1), do.capped("b", 1), do.renew("o", "o1"), live=("o",), expiries=False
    ),
    "three capped logins": lambda do: do.capped_scenario(
        do.capped("a", 1), do.capped("b", 1), do.capped("c", 1), live=(), expiries=False
    ),
    "two renewals, a sign-out": lambda do: Scenario(
        (do.renew("o", "o1"), do.renew("o", "o2"), do.revoke()), stored("o"), _o()
    ),
    "two renewals, others signed out": lambda do: Scenario(
        (do.renew("o", "o1"), do.renew("o", "o2"), do.revoke("o")), stored("o", "x"), _o("x")
    ),
    "a renewal of a renewed one, a sign-out": lambda do: Scenario(
        (do.renew("o", "o1"), do.renew("o1", "o2"), do.revoke()), stored("o"), _o()
    ),
    "a renewal, an end, a sign-out": lambda do: Scenario(
        (do.renew("o", "o1"), do.delete("o"), do.revoke()), stored("o"), _o()
    ),
    "two logins, two sign-outs": lambda do: Scenario(
        (do.create("a"), do.create("b"), do.revoke(), do.revoke())
    ),
    "a login, two sign-outs, re-sent": lambda do: Scenario(
        (do.create("a"), do.revoke(), do.revoke()), resends=1
    ),
    "a login, a listing, a sign-out, failing": lambda do: Scenario(
        (do.create("a"), do.list(), do.revoke()), failures=1
    ),
    "a login, a renewal, others signed out": lambda do: Scenario(
        (do.create("a"), do.renew("o", "o1"), do.revoke("o")), stored("o", "x"), _o("x")
    ),
    "two renewals, an end, failing": lambda do: Scenario(
        (do.renew("o", "o1"), do.renew("o", "o2"), do.delete("o")), stored("o"), _o(), failures=1
    ),
}
