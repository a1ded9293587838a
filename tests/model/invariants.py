"""The invariants: what must hold in every world, and at the end of every operation.

The numbers are those of the invariants of the store's design.

* I1: a complete session is in the index, so that a sign-out everywhere finds it.
* I2: a revoked session never validates again, nor does any successor of it, however late.
* I3: every key has a TTL: a session until its expiry, an index at least as long as the sessions in
  it, a marker at most a minute.
* I4: a create with another session's id fails and changes nothing. Repeating the same create does
  not fail.
* I5: a renewal leaves its login one live session. No session that was handed out is lost, and the
  used id is dead.
* I5a: a renewal of a dead session returns nothing, even if its revocation is still in progress.
  Not checked for commands that are sent again, whose first try may have come before the
  revocation, nor with legacy writers, where a renewal goes on after the deciding command.
* I5b: a login has one live session that was handed out, however many renew it at once. The
  successor of a renewal that lost is dead.
* keep: the session that a sign-out everywhere keeps stays alive, itself or as its successor.
* cap: capped logins leave exactly as many logins as the limit, unless somebody revokes one. This
  holds at every moment or once all have returned. None of them fails.
* list: a listing has every session that was alive throughout, and none that was revoked before. It
  removes dead ids from the index (I7).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from lucia._redis.cluster import INDEX_SLACK_MS, PROVISIONAL_MS
from lucia._rules.sessions import MARKER_MS
from tests.model.scenarios import end_of
from tests.model.server import NOW
from tests.model.world import (
    LAYOUT,
    USER,
    Before,
    Frozen,
    Process,
    Scenario,
    Snapshot,
    Task,
    World,
    login_of,
    unmade,
)


def faults_of(scenario: Scenario, world: World) -> Iterator[str]:
    """Yield the invariants that do not hold in this world, each with the reason."""
    if world.fault is not None:
        yield world.fault
    for invariant in _INVARIANTS:
        yield from invariant(scenario, world)


def live_sessions_are_indexed(scenario: Scenario, world: World) -> Iterator[str]:
    """Check I1. Lucia JS may write a session before its index entry, but not hand it out."""
    live, originals = world.snapshot.live, js_logins_of(scenario)
    for id_ in live.keys() - world.snapshot.index:
        if id_ in world.released:
            yield f"I1: {id_} was handed out and validates, and is not in the index"
        elif live[id_] > NOW + PROVISIONAL_MS and id_ not in originals:
            yield f"I1: {id_} is complete, and is not in the index"


def js_logins_of(scenario: Scenario) -> set[str]:
    """Return the ids of the sessions that Lucia JS creates."""
    return {task.makes for task in scenario.tasks if task.kind == "js_login"}


def revoked_sessions_stay_revoked(scenario: Scenario, world: World) -> Iterator[str]:
    """Check I2."""
    snapshot = world.snapshot
    for id_ in world.revoked:
        for each in snapshot.chain(id_):
            if each in snapshot.live:
                yield f"I2: {id_} was revoked, and {each} validates"
    for id_ in world.released & snapshot.live.keys():
        if revoked := ancestors(scenario, [id_], world.forgotten) & world.revoked:
            yield (
                f"I2: {id_} validates, and was handed out in the place of "
                f"{', '.join(revoked)}, which was revoked"
            )


def gone_logins(snapshot: Snapshot, released: frozenset[str]) -> frozenset[str]:
    """Return the logins that were handed a session, and have no live one any more."""
    there = {
        login_of(id_)
        for id_ in released
        if not snapshot.live.keys().isdisjoint(snapshot.chain(id_))
    }
    return frozenset(map(login_of, released)) - there


def keys_have_ttls(scenario: Scenario, world: World) -> Iterator[str]:
    """Check I3. With Lucia JS an index has no TTL, and the sessions of Lucia JS a wrong one."""
    live, originals, index = (
        world.snapshot.live,
        js_logins_of(scenario),
        LAYOUT.index_key(USER).encode(),
    )
    for key, entry in world.snapshot.state:
        if key == index and scenario.legacy_writers:
            if entry.expires is not None and (key, entry.expires) not in [
                (name, first.expires) for name, first in scenario.database
            ]:
                yield "I3: the index may expire before a session of Lucia JS"
        elif entry.expires is None:
            yield f"I3: {key!r} has no TTL"
        elif key in world.snapshot.markers and entry.expires > NOW + MARKER_MS:
            yield f"I3: the marker {key!r} lives too long"
        elif key == index:
            yield from _index_expiring(world.snapshot, entry.expires)
    for id_, expires in live.items():
        allowed = {end_of(id_)} if id_ in world.released else {end_of(id_), NOW + PROVISIONAL_MS}
        if expires not in allowed and id_ not in originals:
            yield f"I3: {id_} expires at the wrong time"


def _index_expiring(snapshot: Snapshot, expires: int) -> Iterator[str]:
    if any(snapshot.live.get(id_, 0) > expires for id_ in snapshot.index):
        yield "I3: the index expires before a session in it"
    if expires > end_of("") + INDEX_SLACK_MS:
        yield "I3: the index lives longer than any session"


def taken_ids_are_not_overwritten(scenario: Scenario, world: World) -> Iterator[str]:
    """Check I4."""
    first, now = dict(scenario.database), dict(world.snapshot.state)
    created: Counter[str] = Counter()
    for task, process in zip(scenario.tasks, world.processes, strict=True):
        key = LAYOUT.session_key(task.makes).encode()
        if task.kind == "duplicate" and (
            process.status == "done" or now.get(key) != first.get(key)
        ):
            yield f"I4: {task.makes} was overwritten"
        if task.kind in ("create", "capped") and process.status == "done":
            created[task.makes] += 1
        own = not _is_contended(scenario, task) and unmade(task.makes) not in world.forgotten
        if (
            own
            and task.kind in ("create", "capped", "renew")
            and process.result == "DuplicateSessionId"
        ):
            yield f"I4: {task.makes} is a duplicate of itself"
    yield from (f"I4: {id_} was created twice" for id_, times in created.items() if times > 1)


def _is_contended(scenario: Scenario, task: Task) -> bool:
    return sum(each.makes == task.makes for each in scenario.tasks) > 1 or any(
        key == LAYOUT.session_key(task.makes).encode() for key, _ in scenario.database
    )


def renewals_lose_no_session(scenario: Scenario, world: World) -> Iterator[str]:
    """Check I5 for sessions that nobody revokes."""
    if any(task.kind in ("revoke", "capped") for task in scenario.tasks):
        return
    endable = {login_of(task.uses) for task in scenario.tasks if task.kind == "delete"}
    for id_ in world.released:
        chain = world.snapshot.chain(id_)
        if (
            login_of(id_) not in endable
            and world.forgotten.isdisjoint(chain)
            and world.snapshot.live.keys().isdisjoint(chain)
        ):
            yield f"I5: {id_} and what it was renewed to are gone, though nobody revoked them"


def used_ids_are_invalid(scenario: Scenario, world: World) -> Iterator[str]:
    """Check I5 and I5b for renewals that have returned."""
    for task, process in zip(scenario.tasks, world.processes, strict=True):
        if task.kind == "renew" and process.status == "done":
            if task.uses in world.snapshot.live:
                yield f"I5: the renewal of {task.uses} has returned, and {task.uses} validates"
            if process.result != task.makes and task.makes in world.snapshot.live:
                yield f"I5b: {task.makes} lost, and validates"


def login_has_one_session(_: Scenario, world: World) -> Iterator[str]:
    """Check I5b."""
    logins = Counter(login_of(id_) for id_ in world.released & world.snapshot.live.keys())
    yield from (
        f"I5b: login {login} has two sessions that were handed out and validate"
        for login, count in logins.items()
        if count > 1
    )


def kept_session_survives(scenario: Scenario, world: World) -> Iterator[str]:
    """Check keep, if this sign-out everywhere is the only operation that revokes sessions."""
    endings = [
        pair
        for pair in zip(scenario.tasks, world.processes, strict=True)
        if pair[0].kind in ("delete", "revoke", "capped")
    ]
    if len(endings) != 1 or not (keep := endings[0][0].uses) or endings[0][0].kind != "revoke":
        return
    chain = world.snapshot.chain(keep)
    if endings[0][1].status == "done" and world.forgotten.isdisjoint(chain):
        if endings[0][1].result is not True:
            yield f"keep: {keep} was not kept, though nobody had revoked it"
        if world.snapshot.live.keys().isdisjoint(chain):
            yield f"keep: {keep} was kept, and neither it nor its successor validates"


def cap_is_kept(scenario: Scenario, world: World) -> Iterator[str]:
    """Check cap."""
    limit = max(task.limit for task in scenario.tasks)
    if not limit:
        return
    live = world.snapshot.live.keys()
    logins = {
        login_of(id_) for id_ in (live if scenario.at_every_moment else live & world.released)
    }
    ways = [
        process
        for task, process in zip(scenario.tasks, world.processes, strict=True)
        if task.kind == "capped"
    ]
    returned = not world.late and all(process.status == "done" for process in ways)
    if len(logins) > limit and (returned or scenario.at_every_moment):
        yield f"cap: of the logins {', '.join(sorted(logins))} no more than {limit} may validate"
    if world.forgotten or any(task.kind in ("delete", "revoke") for task in scenario.tasks):
        return
    if len(logins) < limit and returned:
        yield f"cap: no more than {len(logins)} logins are left"
    if any(process.result == "ConcurrentlyRevoked" for process in ways):
        yield "cap: a login has failed, though nobody has revoked the user's sessions"


_INVARIANTS: tuple[Callable[[Scenario, World], Iterator[str]], ...] = (
    live_sessions_are_indexed,
    revoked_sessions_stay_revoked,
    keys_have_ttls,
    taken_ids_are_not_overwritten,
    renewals_lose_no_session,
    used_ids_are_invalid,
    login_has_one_session,
    kept_session_survives,
    cap_is_kept,
)


def end_fault(
    scenario: Scenario, task: Task, world: World, process: Process, result: Frozen
) -> str | None:
    """Check list and I5a when an operation returns, and return the invariant that is broken."""
    if task.kind == "list":
        return _listing_fault(scenario, world, process.before, result)
    forgotten = {login_of(id_) for id_ in world.forgotten}
    # If a command was sent again, its first try may have come before the revocation.
    certain = world.resends == scenario.resends and not scenario.legacy_writers
    if (
        certain
        and task.kind == "renew"
        and result == task.makes
        and login_of(result) in world.gone - forgotten
    ):
        return f"I5a: {task.uses} was dead, and has been renewed"
    return None


def _listing_fault(
    scenario: Scenario, world: World, before: Before, listed: frozenset[str]
) -> str | None:
    snapshot = world.snapshot
    expected = {login_of(id_) for id_ in before.released} & {
        login_of(id_) for id_ in snapshot.live
    } - {login_of(id_) for id_ in before.revoked}
    if missed := expected - {login_of(id_) for id_ in listed}:
        return f"list: the login of {', '.join(missed)} was alive throughout, and is not listed"
    if revoked := listed & before.revoked:
        return f"list: {', '.join(revoked)} was revoked before, and is listed"
    if not scenario.legacy_writers and (
        dead := before.dead & snapshot.index - snapshot.live.keys()
    ):
        return f"list: {', '.join(dead)} was dead before, and is still in the index"
    return None


def before_of(task: Task, world: World) -> Before:
    """Return the facts at the beginning of a task that its invariant needs."""
    if task.kind == "revoke":
        return Before(world.released)
    if task.kind == "list":
        return Before(
            world.released, world.revoked, world.snapshot.index.difference(world.snapshot.live)
        )
    return Before()


def revoked_by(task: Task, before: Before, result: Frozen) -> frozenset[str]:
    """Return the ids that an operation that has returned has revoked for ever."""
    if task.kind == "delete":
        return frozenset({task.uses})
    if task.kind == "revoke":
        kept_login = login_of(task.uses) if result is True else None
        return frozenset(id_ for id_ in before.released if login_of(id_) != kept_login)
    return frozenset()


def released_by(task: Task, result: Frozen) -> frozenset[str]:
    """Return the ids that an operation that has returned gave to its caller."""
    if task.kind in ("create", "capped", "js_login"):
        return frozenset({task.makes})
    return (
        frozenset({result})
        if task.kind in ("renew", "follow") and result is not None
        else frozenset()
    )


def ancestors(scenario: Scenario, ids: Iterable[str], forgotten: frozenset[str]) -> frozenset[str]:
    """Return the sessions that these were renewed from, unless their markers have expired."""
    found: set[str] = set()
    waiting = list(ids)
    while waiting:
        id_ = waiting.pop()
        used = (
            {task.uses for task in scenario.tasks if task.kind == "renew" and task.makes == id_}
            - found
            - forgotten
        )
        waiting += used
        found |= used
    return frozenset(found)
