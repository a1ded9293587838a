"""Failed sign-ins in Redis.

Each operation in steps, every order of several at once, and against the failures in memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lucia._memory.throttling import FailureLog
from lucia._redis.commands import Batch, Call, Command, Eval, Operation, Reply, Transaction
from lucia._redis.throttling import (
    ATTEMPT,
    ClusterThrottle,
    PlainThrottle,
    SingleServerThrottle,
    Throttle,
    take_back,
)
from lucia._rules.throttling import Attempt, FailureRule
from tests.model.server import NOW, Database, State
from tests.support.clocks import Time
from tests.support.redis_inspectors import DEFAULT, Inspector
from tests.support.stepped_operations import Stepper
from tools.servers import Server

SECOND: Final = 1_000
HOUR: Final = 3_600 * SECOND
RULE: Final = FailureRule(2, 10 * SECOND, 600 * SECOND, HOUR, HOUR)
KEY: Final = DEFAULT.throttle_key("a")
PROTOCOLS: Final[Mapping[str, type[Any]]] = {
    "one script": SingleServerThrottle,
    "a script for each": ClusterThrottle,
    "no scripts": PlainThrottle,
}


@pytest.fixture
def inspector(server: Server) -> Iterator[Inspector]:
    """A look into an emptied server of each kind."""
    with Inspector(server) as found:
        yield found


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Throttle:
    """Each way of counting."""
    found: Throttle = PROTOCOLS[request.param](DEFAULT)
    return found


def run(client: Any, operation: Operation[Any]) -> Any:
    """Run an operation to its end."""
    return Stepper(client, operation).finish()


# --- what each sends


def replay(operation: Operation[Any], *replies: Reply) -> tuple[list[Command], Any]:
    """The commands of an operation that gets these replies, and what it returns."""
    commands = [next(operation)]
    for reply in replies:
        try:
            commands.append(operation.send(reply))
        except StopIteration as end:
            return commands, end.value
    raise AssertionError("it has not come to its end")


def test_one_script_in_one_trip() -> None:
    """On one server a key and an address are judged and counted by one script, which declares both
    lists.
    """
    numbers = (2, 10_000, 600_000, HOUR, HOUR, RULE.kept)
    commands, attempt = replay(
        SingleServerThrottle(DEFAULT).attempt({"a": RULE, "b": RULE}, "word"), [5, 0, 1, 2]
    )
    assert commands == [
        Eval(ATTEMPT, ("session:throttle:a", "session:throttle:b"), ("word", *numbers, *numbers))
    ]
    assert attempt == Attempt(0, {"a": 1, "b": 2}, {"a": "5-word", "b": "5-word"})


def test_scripts_side_by_side() -> None:
    """In a cluster each list has a script of its own.

    What one counted is taken back if the other refuses.
    """
    operation = ClusterThrottle(DEFAULT).attempt({"a": RULE, "b": RULE}, "word")
    commands, attempt = replay(operation, [[5, 0, 1], [6, 700, 3]], [1])
    assert isinstance(commands[0], Batch)
    assert [each.keys for each in commands[0].commands if isinstance(each, Eval)] == [
        ("session:throttle:a",),
        ("session:throttle:b",),
    ]
    assert commands[1:] == [Batch((Call("LREM", ("session:throttle:a", 0, "5-word")),))]
    assert attempt == Attempt(700, {"a": 1, "b": 3}, {})


def test_plain_commands() -> None:
    """Without scripts an attempt is counted, with an expiry, before it is judged.

    One that is refused is taken out again.
    """
    operation = PlainThrottle(DEFAULT).attempt({"a": RULE}, "word")
    commands, attempt = replay(
        operation, [b"5", b"0"], [3, 1], [b"5000-word", b"4000-y", b"3000-x"], 1
    )
    assert commands == [
        Call("TIME", ()),
        Transaction((Call("LPUSH", (KEY, "5000-word")), Call("PEXPIREAT", (KEY, 5_000 + HOUR)))),
        Call("LRANGE", (KEY, 0, -1)),
        Call("LREM", (KEY, 0, b"5000-word")),
    ]
    assert attempt == Attempt(9_000, {"a": 3}, {})


def test_nothing_to_do_sends_nothing() -> None:
    """Taking nothing back is no command."""
    assert list(take_back(DEFAULT, {})) == []


# --- what they do


def test_a_list(inspector: Inspector, protocol: Throttle) -> None:
    """A failure is an entry of a list that expires.

    A refused attempt changes nothing; what is taken back is gone, list and all.
    """
    attempts = [
        run(inspector.client, protocol.attempt({"a": RULE, "b": RULE}, word)) for word in ("x", "y")
    ]
    assert [attempt.failures for attempt in attempts] == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]
    before = inspector.census()
    assert before.keys() == {"session:throttle:a", "session:throttle:b"}
    assert [entry.decode() for entry in before[KEY].value] == [
        attempt.entries["a"] for attempt in attempts[::-1]
    ]
    assert before[KEY].expires == int(attempts[1].entries["a"].partition("-")[0]) + HOUR
    refused = run(inspector.client, protocol.attempt({"a": RULE, "c": RULE}, "z"))
    assert 0 < refused.wait <= 10 * SECOND
    assert refused.entries == {}
    assert inspector.client.lrange(KEY, 0, -1) == before[KEY].value
    assert inspector.keys() == before.keys()
    run(inspector.client, take_back(DEFAULT, attempts[0].entries))
    assert inspector.client.lrange(KEY, 0, -1) == [attempts[1].entries["a"].encode()]
    run(inspector.client, take_back(DEFAULT, attempts[1].entries))
    assert inspector.keys() == set()


def test_entries_that_are_not_ours(inspector: Inspector, protocol: Throttle) -> None:
    """What is no entry, or one of a time that can't be, is no failure, and goes away."""
    inspector.client.rpush(
        KEY, "", "nonsense", "-", "1-ancient", f"{'9' * 16}-x", f"{'9' * 400}-x", b"\xff-\xff"
    )
    attempt = run(inspector.client, protocol.attempt({"a": RULE}, "x"))
    assert (attempt.wait, attempt.failures) == (0, {"a": 1})
    assert inspector.client.lrange(KEY, 0, -1) == [attempt.entries["a"].encode()]


def test_a_key_of_another_type(inspector: Inspector, protocol: Throttle) -> None:
    """It is the server's error, and no attempt passes."""
    inspector.client.set(KEY, "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        run(inspector.client, protocol.attempt({"b": RULE, "a": RULE}, "x"))
    assert inspector.client.get(KEY) == b"x"


def test_a_count_that_was_forgotten_meanwhile(inspector: Inspector) -> None:
    """An attempt that finds its own entry gone, since somebody removed the list in between, may go
    on.
    """
    stepper = Stepper(inspector.client, PlainThrottle(DEFAULT).attempt({"a": RULE}, "x")).step(2)
    inspector.client.delete(KEY)
    assert stepper.finish() == Attempt(
        0, {"a": 1}, stepper.result.entries if stepper.result else {}
    )


def test_sent_twice(inspector: Inspector) -> None:
    """A transaction that a client sends again is one failure, and taken back as one."""
    stepper = Stepper(inspector.client, PlainThrottle(DEFAULT).attempt({"a": RULE}, "x")).step()
    stepper._execute(stepper.commands[-1])
    attempt = stepper.finish()
    assert attempt.failures == {"a": 1}
    run(inspector.client, take_back(DEFAULT, attempt.entries))
    assert inspector.keys() == set()


def test_lists_are_bounded(inspector: Inspector, protocol: Throttle) -> None:
    """Of many failures only as many are kept as have to be known."""
    quick = FailureRule(3, 1, 4, HOUR, HOUR)
    passed = 0
    while passed < 4 * quick.kept:
        passed += not run(inspector.client, protocol.attempt({"a": quick}, str(passed))).wait
        age(inspector.client, 5)
        assert inspector.client.llen(KEY) <= quick.kept
    assert inspector.client.llen(KEY) == quick.kept


# --- the same as in memory


def age(client: Any, milliseconds: int) -> None:
    """Let all failures be older by so much."""
    for key in client.keys("session:throttle:*"):
        entries, end = client.lrange(key, 0, -1), client.pexpiretime(key)
        older = [
            b"%d-%s" % (int(at) - milliseconds, word)
            for at, _, word in (entry.partition(b"-") for entry in entries)
        ]
        client.delete(key)
        client.rpush(key, *older)
        client.pexpireat(key, end - milliseconds)


LARGE: Final = 1_000_000
"""So many milliseconds are a unit of time in these tests.

Real time that passes meanwhile makes no difference.
"""

large_rules = st.builds(
    lambda free, factor, rest: FailureRule(
        free, LARGE, LARGE * factor, LARGE * (factor + rest), LARGE * (factor + rest)
    ),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 30),
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("attempt"), st.sets(st.sampled_from("ab"), min_size=1)),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("take back"), st.integers(0, 5)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=st.fixed_dictionaries({"a": large_rules, "b": large_rules}), taken=actions)
def test_as_in_memory(
    inspector: Inspector,
    name: str,
    rules: Mapping[str, FailureRule],
    taken: Sequence[tuple[str, Any]],
) -> None:
    """Any sequence of attempts, successes and pauses has in Redis the outcome that it has in
    memory.
    """
    inspector.client.flushall()
    protocol, time = PROTOCOLS[name](DEFAULT), Time()
    log, made = FailureLog(time), list[tuple[Attempt, Attempt]]()
    for number, (what, argument) in enumerate(taken):
        match what:
            case "attempt":
                chosen = {each: rules[each] for each in sorted(argument)}
                real, expected = (
                    run(inspector.client, protocol.attempt(chosen, str(number))),
                    log.attempt(chosen),
                )
                assert round(real.wait / LARGE) == expected.wait / LARGE
                assert real.failures == expected.failures
                assert real.entries.keys() == expected.entries.keys()
                made.append((real, expected))
            case "wait":
                age(inspector.client, argument * LARGE)
                time.now += argument * LARGE
            case _ if made:
                real, expected = made[argument % len(made)]
                run(inspector.client, take_back(DEFAULT, aged(inspector.client, real.entries)))
                log.take_back(expected.entries)
            case _:
                pass
    inspector.check()


def aged(client: Any, entries: Mapping[str, str]) -> dict[str, str]:
    """What became of these entries by :func:`age`."""
    held = {name: client.lrange(DEFAULT.throttle_key(name), 0, -1) for name in entries}
    words = {name: entry.partition("-")[2].encode() for name, entry in entries.items()}
    return {
        name: each.decode()
        for name, found in held.items()
        for each in found
        if each.partition(b"-")[2] == words[name]
    }


# --- every order, without scripts


@dataclass(frozen=True)
class World:
    """A server, what each attempt was answered so far, the order of their pushes, and how often the
    clock was read.
    """

    state: State
    replies: tuple[tuple[Any, ...], ...]
    pushed: tuple[int, ...] = ()
    ticks: int = 0


def frozen(reply: Reply) -> Any:
    """A reply that can be hashed."""
    return tuple(map(frozen, reply)) if isinstance(reply, list) else reply


def thawed(reply: Any) -> Reply:
    """The reply as a server gives it."""
    return list(map(thawed, reply)) if isinstance(reply, tuple) else reply


def resume(
    make: Callable[[int], Operation[Attempt]], number: int, replies: Sequence[Any]
) -> tuple[Command | None, Attempt | None]:
    """Where an attempt is that got these replies: its next command, or its outcome."""
    operation = make(number)
    command = next(operation)
    for reply in replies:
        try:
            command = operation.send(thawed(reply))
        except StopIteration as end:
            return None, end.value
    return command, None


def follow(
    world: World, make: Callable[[int], Operation[Attempt]], number: int, tick: int
) -> World | None:
    """The world after the next step of an attempt; None if it has none.

    Each reading of the clock is ``tick`` later than the one before.
    """
    command, _ = resume(make, number, world.replies[number])
    if command is None:
        return None
    assert isinstance(command, Call | Transaction)
    database, pushed, ticks = Database(world.state), world.pushed, world.ticks
    reply = database.run(command)
    if isinstance(command, Transaction):
        pushed = (*pushed, number)
    elif command.name == "TIME":
        ticks += 1
        reply = [
            b"%d" % (milliseconds // divisor * factor)
            for milliseconds, divisor, factor in times_of(NOW + ticks * tick)
        ]
    replies = tuple(
        (*old, frozen(reply)) if each == number else old for each, old in enumerate(world.replies)
    )
    return World(database.state(), replies, pushed, ticks)


def times_of(milliseconds: int) -> list[tuple[int, int, int]]:
    """The two parts of a reply to TIME."""
    return [(milliseconds, 1_000, 1), (milliseconds % 1_000, 1, 1_000)]


def worlds(make: Callable[[int], Operation[Attempt]], count: int, tick: int) -> Iterator[World]:
    """Every world that so many attempts at once can lead to.

    Those in which some have stopped for good are among them.
    """
    waiting, seen = [World((), ((),) * count)], set[World]()
    while waiting:
        world = waiting.pop()
        if world not in seen:
            seen.add(world)
            yield world
            waiting += [
                after
                for number in range(count)
                if (after := follow(world, make, number, tick)) is not None
            ]


class JudgedFirst(PlainThrottle):
    """A control: looks whether an attempt may be made, and counts it then."""

    def attempt(self, rules: Mapping[str, FailureRule], word: str) -> Operation[Attempt]:
        ((name, rule),) = rules.items()
        key = self._keys.throttle_key(name)
        seconds, microseconds = yield Call("TIME", ())
        now = int(seconds) * 1000 + int(microseconds) // 1000
        held = yield Call("LRANGE", (key, 0, -1))
        wait, count = rule.judge([int(entry.partition(b"-")[0]) for entry in held], now)
        if not wait:
            yield Transaction(
                (Call("LPUSH", (key, f"{now}-{word}")), Call("PEXPIREAT", (key, now + rule.life)))
            )
        return Attempt(wait, {name: count + 1}, {} if wait else {name: f"{now}-{word}"})


def judge_all(
    protocol: type[PlainThrottle], rule: FailureRule, count: int, tick: int
) -> tuple[set[str], set[int]]:
    """What is against the law in any world, and how many attempts may pass in all.

    The law: the verdicts are those of one attempt after the other, in the order in which they were
    put into the list, whichever of them have come to their end; as many are left in the list; the
    list expires.
    """

    def make(number: int) -> Operation[Attempt]:
        return protocol(DEFAULT).attempt({"a": rule}, str(number))

    faults, totals = set[str](), set[int]()
    for world in worlds(make, count, tick):
        outcomes = [
            resume(make, number, replies)[1] for number, replies in enumerate(world.replies)
        ]
        passed: list[int] = []
        for number in world.pushed:
            seconds, microseconds = world.replies[number][0]
            now, outcome = int(seconds) * 1000 + int(microseconds) // 1000, outcomes[number]
            wait, _ = rule.judge(passed, now)
            passed += [] if wait else [now]
            if outcome is not None and outcome.wait != wait:
                faults.add("another verdict")
        if any(entry.expires is None for _, entry in world.state):
            faults.add("no expiry")
        if None not in outcomes:
            totals.add(len(passed))
            if sum(len(entry.value) for _, entry in world.state) != len(passed):
                faults.add("another count")
    return faults, totals


@pytest.mark.parametrize(
    ("free", "count", "tick", "totals"),
    [(2, 4, 0, {2}), (1, 3, 0, {1}), (1, 3, 6, {1, 2}), (1, 3, 10, {1, 2}), (2, 3, 10, {2, 3})],
)
def test_every_order(free: int, count: int, tick: int, totals: set[int]) -> None:
    """However the steps of attempts interleave, and wherever some stop, each has the verdict that
    it has one after the other.

    So of those at once as many pass as are free; one that comes as many seconds later, by the
    server's clock, once it has waited.
    """
    assert judge_all(PlainThrottle, RULE._replace(free=free), count, tick * SECOND) == (
        set(),
        totals,
    )


def test_every_order_has_power() -> None:
    """Looking first and counting then lets more pass than are allowed, and is caught."""
    faults, _ = judge_all(JudgedFirst, RULE, 3, 0)
    assert "another verdict" in faults
