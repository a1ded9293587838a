"""Failed logins in Redis: the commands, every interleaving, and a comparison with memory."""

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

pytestmark = pytest.mark.no_cover

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
    """Yield an inspector of an emptied server of each kind."""
    with Inspector(server) as found:
        yield found


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Throttle:
    """Return each protocol."""
    found: Throttle = PROTOCOLS[request.param](DEFAULT)
    return found


def run(client: Any, operation: Operation[Any]) -> Any:
    """Run an operation to its end, and return its result."""
    return Stepper(client, operation).finish()


# --- Commands


def replay(operation: Operation[Any], *replies: Reply) -> tuple[list[Command], Any]:
    """Return the commands of an operation that gets these replies, and its result."""
    commands = [next(operation)]
    for reply in replies:
        try:
            commands.append(operation.send(reply))
        except StopIteration as end:
            return commands, end.value
    raise AssertionError("the operation has not ended")


def test_one_script_in_one_trip() -> None:
    """On one server, one script with both keys checks and counts a key and an address."""
    numbers = (2, 10_000, 600_000, HOUR, HOUR, RULE.kept)
    commands, attempt = replay(
        SingleServerThrottle(DEFAULT).attempt({"a": RULE, "b": RULE}, "word"), [5, 0, 1, 2]
    )
    assert commands == [
        Eval(ATTEMPT, ("session:throttle:a", "session:throttle:b"), ("word", *numbers, *numbers))
    ]
    assert attempt == Attempt(0, {"a": 1, "b": 2}, {"a": "5-word", "b": "5-word"})


def test_scripts_side_by_side() -> None:
    """In a cluster, each key has its own script.

    If one of them refuses, the entry of the other is removed.
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
    """Without scripts, an attempt is added with an expiry before it is checked.

    A refused one is removed again.
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
    """Taking nothing back sends no command."""
    assert list(take_back(DEFAULT, {})) == []


# --- Effects


def test_failures_are_list_entries(inspector: Inspector, protocol: Throttle) -> None:
    """A failure is an entry in a list with a TTL.

    A refused attempt changes nothing. Entries that are taken back are removed, and the list with
    the last one.
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
    """Invalid entries, and those with an impossible time, are ignored and removed."""
    inspector.client.rpush(
        KEY, "", "nonsense", "-", "1-ancient", f"{'9' * 16}-x", f"{'9' * 400}-x", b"\xff-\xff"
    )
    attempt = run(inspector.client, protocol.attempt({"a": RULE}, "x"))
    assert (attempt.wait, attempt.failures) == (0, {"a": 1})
    assert inspector.client.lrange(KEY, 0, -1) == [attempt.entries["a"].encode()]


def test_a_key_of_another_type(inspector: Inspector, protocol: Throttle) -> None:
    """A key of another type is the server's error, and no attempt passes."""
    inspector.client.set(KEY, "x")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        run(inspector.client, protocol.attempt({"b": RULE, "a": RULE}, "x"))
    assert inspector.client.get(KEY) == b"x"


def test_a_count_that_was_forgotten_meanwhile(inspector: Inspector) -> None:
    """An attempt whose entry was removed meanwhile may pass."""
    stepper = Stepper(inspector.client, PlainThrottle(DEFAULT).attempt({"a": RULE}, "x")).step(2)
    inspector.client.delete(KEY)
    assert stepper.finish() == Attempt(
        0, {"a": 1}, stepper.result.entries if stepper.result else {}
    )


def test_sent_twice(inspector: Inspector) -> None:
    """A transaction that the client sends twice counts once, and is removed once."""
    stepper = Stepper(inspector.client, PlainThrottle(DEFAULT).attempt({"a": RULE}, "x")).step()
    stepper._execute(stepper.commands[-1])
    attempt = stepper.finish()
    assert attempt.failures == {"a": 1}
    run(inspector.client, take_back(DEFAULT, attempt.entries))
    assert inspector.keys() == set()


def test_lists_are_bounded(inspector: Inspector, protocol: Throttle) -> None:
    """The list keeps only as many failures as the rule needs."""
    quick = FailureRule(3, 1, 4, HOUR, HOUR)
    passed = 0
    while passed < 4 * quick.kept:
        passed += not run(inspector.client, protocol.attempt({"a": quick}, str(passed))).wait
        age(inspector.client, 5)
        assert inspector.client.llen(KEY) <= quick.kept
    assert inspector.client.llen(KEY) == quick.kept


# --- Comparison with memory


def age(client: Any, milliseconds: int) -> None:
    """Make all failures older by this time."""
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
"""The unit of time in these tests, in milliseconds: so large that real time does not matter."""

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
def test_redis_throttle_matches_memory(
    inspector: Inspector,
    name: str,
    rules: Mapping[str, FailureRule],
    taken: Sequence[tuple[str, Any]],
) -> None:
    """Any sequence of attempts, successes and pauses has the same results as in memory."""
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
    """Return the entries as :func:`age` has changed them."""
    held = {name: client.lrange(DEFAULT.throttle_key(name), 0, -1) for name in entries}
    words = {name: entry.partition("-")[2].encode() for name, entry in entries.items()}
    return {
        name: each.decode()
        for name, found in held.items()
        for each in found
        if each.partition(b"-")[2] == words[name]
    }


# --- Every interleaving, without scripts


@dataclass(frozen=True)
class World:
    """The state of a server and of all attempts.

    It has the replies of each attempt, the order of their pushes, and the number of clock reads.
    """

    state: State
    replies: tuple[tuple[Any, ...], ...]
    pushed: tuple[int, ...] = ()
    ticks: int = 0


def frozen(reply: Reply) -> Any:
    """Convert a reply to a hashable value."""
    return tuple(map(frozen, reply)) if isinstance(reply, list) else reply


def thawed(reply: Any) -> Reply:
    """Convert a hashable value back to a reply."""
    return list(map(thawed, reply)) if isinstance(reply, tuple) else reply


def resume(
    make: Callable[[int], Operation[Attempt]], number: int, replies: Sequence[Any]
) -> tuple[Command | None, Attempt | None]:
    """Return the next command of an attempt that got these replies, or its result."""
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
    """Return the world after the next step of an attempt, or None if it has ended.

    Each read of the clock is ``tick`` later than the one before.
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
    """Return the two parts of a reply to TIME."""
    return [(milliseconds, 1_000, 1), (milliseconds % 1_000, 1, 1_000)]


def worlds(make: Callable[[int], Operation[Attempt]], count: int, tick: int) -> Iterator[World]:
    """Yield every world that so many concurrent attempts can lead to.

    This includes those where some attempts have stopped for good.
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
    """A control that checks first, and counts afterwards."""

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
    """Return the violations in any world, and the numbers of attempts that may pass.

    The rule: verdicts are those of sequential attempts in the order of the list, even if some
    attempts have not ended; the list has as many entries; the list has a TTL.
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
def test_interleavings_match_sequential_execution(
    free: int, count: int, tick: int, totals: set[int]
) -> None:
    """In any interleaving, each attempt has the verdict of sequential execution.

    This holds even if some attempts stop. So of concurrent attempts only the free ones pass; a
    later one passes if it has waited, by the server's clock.
    """
    assert judge_all(PlainThrottle, RULE._replace(free=free), count, tick * SECOND) == (
        set(),
        totals,
    )


def test_control_check_before_count_is_detected() -> None:
    """Control: checking first and counting afterwards lets too many pass, and is detected."""
    faults, _ = judge_all(JudgedFirst, RULE, 3, 0)
    assert "another verdict" in faults
