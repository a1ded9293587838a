"""What must hold in every world, and at the end of every operation.

Numbers as in the invariants of the store's design.

* I1: a complete session is in the index, so that a sign-out everywhere finds it.
* I2: what was revoked never validates again, nor does anything that it was renewed to, however
  late.
* I3: every key expires: a session at its end, an index no earlier than the sessions in it, a marker
  within a minute.
* I4: a create with another session's id fails and changes nothing; the same create once more does
  not fail.
* I5: a renewal leaves its login one live session: none that was handed out is lost, and the used id
  is dead.
* I5a: a renewal of what is dead, be its end still in progress, gives nothing; unless it is sent
  again, its first try having come before. Nor is it judged beside Lucia JS, where a renewal has one
  more command after the one that decides.
* I5b: a login has one live session that was handed out, however many renew it at once; a loser's
  successor is dead.
* keep: what a sign-out everywhere was told to keep lives on, itself or as its successor.
* cap: capped logins leave as many logins as the limit, at every moment or once all have returned,
  unless somebody revokes one; none fails.
* list: a listing has every session that lived all the while, and none that was revoked before; it
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
    """The laws that do not hold in this world, each with what breaks it."""
    if world.fault is not None:
        yield world.fault
    for law in _LAWS:
        yield from law(scenario, world)


def reachable(scenario: Scenario, world: World) -> Iterator[str]:
    """I1; Lucia JS may write a session before its index entry, and tells nobody meanwhile"""
    live, originals = world.snapshot.live, originals_of(scenario)
    for id_ in live.keys() - world.snapshot.index:
        if id_ in world.released:
            yield f"I1: {id_} was handed out and validates, and is not in the index"
        elif live[id_] > NOW + PROVISIONAL_MS and id_ not in originals:
            yield f"I1: {id_} is whole, and not in the index"


def originals_of(scenario: Scenario) -> set[str]:
    """The ids of the sessions that Lucia JS makes."""
    return {task.makes for task in scenario.tasks if task.kind == "original"}


def dead_for_ever(scenario: Scenario, world: World) -> Iterator[str]:
    """I2"""
    snapshot = world.snapshot
    for id_ in world.revoked:
        for each in snapshot.chain(id_):
            if each in snapshot.live:
                yield f"I2: {id_} was revoked, and {each} validates"
    for id_ in world.released & snapshot.live.keys():
        if revoked := ancestors(scenario, [id_], world.forgotten) & world.revoked:
            yield f"I2: {id_} was handed out in the place of {', '.join(revoked)}, which was revoked, and validates"


def gone_logins(snapshot: Snapshot, released: frozenset[str]) -> frozenset[str]:
    """The logins that were handed a session, of which none validates, nor what it was renewed to."""
    there = {
        login_of(id_)
        for id_ in released
        if not snapshot.live.keys().isdisjoint(snapshot.chain(id_))
    }
    return frozenset(map(login_of, released)) - there


def expiring(scenario: Scenario, world: World) -> Iterator[str]:
    """I3; beside Lucia JS an index has no expiry, and Lucia JS's sessions have a wrong one"""
    live, originals, index = (
        world.snapshot.live,
        originals_of(scenario),
        LAYOUT.index_key(USER).encode(),
    )
    for key, entry in world.snapshot.state:
        if key == index and scenario.legacy_writers:
            if entry.expires is not None and (key, entry.expires) not in [
                (name, first.expires) for name, first in scenario.database
            ]:
                yield "I3: the index has an expiry, which may come before that of a session of Lucia JS"
        elif entry.expires is None:
            yield f"I3: {key!r} has no expiry"
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


def no_overwrite(scenario: Scenario, world: World) -> Iterator[str]:
    """I4"""
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


def no_lock_out(scenario: Scenario, world: World) -> Iterator[str]:
    """I5: what nobody ends"""
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


def used_is_dead(scenario: Scenario, world: World) -> Iterator[str]:
    """I5 and I5b, of a renewal that has returned"""
    for task, process in zip(scenario.tasks, world.processes, strict=True):
        if task.kind == "renew" and process.status == "done":
            if task.uses in world.snapshot.live:
                yield f"I5: the renewal of {task.uses} has returned, and {task.uses} validates"
            if process.result != task.makes and task.makes in world.snapshot.live:
                yield f"I5b: {task.makes} lost, and validates"


def one_successor(_: Scenario, world: World) -> Iterator[str]:
    """I5b"""
    logins = Counter(login_of(id_) for id_ in world.released & world.snapshot.live.keys())
    yield from (
        f"I5b: login {login} has two sessions that were handed out and validate"
        for login, count in logins.items()
        if count > 1
    )


def kept(scenario: Scenario, world: World) -> Iterator[str]:
    """keep: if this sign-out everywhere is the only one who revokes sessions"""
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


def capped(scenario: Scenario, world: World) -> Iterator[str]:
    """cap"""
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


_LAWS: tuple[Callable[[Scenario, World], Iterator[str]], ...] = (
    reachable,
    dead_for_ever,
    expiring,
    no_overwrite,
    no_lock_out,
    used_is_dead,
    one_successor,
    kept,
    capped,
)


def end_fault(
    scenario: Scenario, task: Task, world: World, process: Process, result: Frozen
) -> str | None:
    """What is judged when an operation returns: a listing, and I5a."""
    if task.kind == "list":
        return _listing_fault(scenario, world, process.before, result)
    forgotten = {login_of(id_) for id_ in world.forgotten}
    certain = (
        world.resends == scenario.resends and not scenario.legacy_writers
    )  # else it may have been renewed before the end
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
        return f"list: the login of {', '.join(missed)} was alive all the while, and is not in the listing"
    if revoked := listed & before.revoked:
        return f"list: {', '.join(revoked)} was revoked before, and is in the listing"
    if not scenario.legacy_writers and (
        dead := before.dead & snapshot.index - snapshot.live.keys()
    ):
        return f"list: {', '.join(dead)} was dead before, and is still in the index"
    return None


def before_of(task: Task, world: World) -> Before:
    """What the law about this task will ask for."""
    if task.kind == "revoke":
        return Before(world.released)
    if task.kind == "list":
        return Before(
            world.released, world.revoked, world.snapshot.index.difference(world.snapshot.live)
        )
    return Before()


def revoked_by(task: Task, before: Before, result: Frozen) -> frozenset[str]:
    """What an operation that has returned has revoked for ever."""
    if task.kind == "delete":
        return frozenset({task.uses})
    if task.kind == "revoke":
        kept_login = login_of(task.uses) if result is True else None
        return frozenset(id_ for id_ in before.released if login_of(id_) != kept_login)
    return frozenset()


def released_by(task: Task, result: Frozen) -> frozenset[str]:
    """The ids that an operation that has returned gave to its caller."""
    if task.kind in ("create", "capped", "original"):
        return frozenset({task.makes})
    return (
        frozenset({result})
        if task.kind in ("renew", "follow") and result is not None
        else frozenset()
    )


def ancestors(scenario: Scenario, ids: Iterable[str], forgotten: frozenset[str]) -> frozenset[str]:
    """What these sessions are made in the place of, as far as it is not forgotten."""
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
