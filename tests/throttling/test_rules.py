"""The limits on wrong passwords: settings, the rule, names, and the failures in memory."""

import re
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucia import FailureLimit, FailureRule, KeyRow, Throttle
from lucia._memory.throttling import FORGOTTEN_AT_ONCE, FailureLog
from lucia._rules.throttling import (
    FOREVER_MS,
    SLACK_MS,
    address_block,
    failure_name,
    seconds_to_wait,
)
from tests.support.clocks import NOW, Time

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def single_use(expires: int | None = NOW + HOUR, hashed: str | None = "hash") -> KeyRow:
    """Return a key that may be a single-use key with a password."""
    return KeyRow(
        id="reset:a", user_id="u", hashed_password=hashed, primary_key=False, expires=expires
    )


def waits(rule: FailureRule, attempts: int) -> list[int]:
    """Return the waits of somebody who always retries as soon as possible."""
    time = Time()
    log = FailureLog(time)
    waited: list[int] = []
    for _ in range(attempts):
        waited.append(log.attempt({"name": rule}).wait)
        time.now += waited[-1]
        if waited[-1]:
            assert log.attempt({"name": rule}).wait == 0
    return waited


# --- Settings


def test_the_waits_at_one_key() -> None:
    """By default five failures at a key are free; then the wait doubles, up to 15 minutes."""
    limit = Throttle().by_key
    assert limit is not None
    seconds = [wait // SECOND for wait in waits(limit.rule, 18)]
    assert seconds == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
    assert limit.rule.forget == limit.rule.life == DAY


def test_the_waits_from_one_address() -> None:
    """By default fifty failures are free; then the wait doubles, up to a minute.

    Each failure is forgotten after an hour.
    """
    limit = Throttle().by_address
    assert limit is not None
    assert [wait // SECOND for wait in waits(limit.rule, 59)] == [0] * 50 + [
        1,
        2,
        4,
        8,
        16,
        32,
        60,
        60,
        60,
    ]
    assert limit.rule.forget == limit.rule.life == HOUR


def test_guesses_in_a_day() -> None:
    """Continuous guessing at one key allows 109 guesses on the first day, and 96 on later ones."""
    limit = Throttle().by_key
    assert limit is not None
    time, guesses = Time(), [0, 0, 0]
    log = FailureLog(time)
    while time.now < NOW + 3 * DAY:
        wait = log.attempt({"name": limit.rule}).wait
        guesses[(time.now - NOW) // DAY] += not wait
        time.now += wait
    assert guesses == [109, 96, 96]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"free": 0}, ValueError, "free must be 1 to 1,000, got 0"),
        ({"free": 1_001}, ValueError, "free must be 1 to 1,000, got 1001"),
        ({"free": True}, TypeError, "free must be an int, not bool"),
        (
            {"free": 5, "first_wait": 1},
            TypeError,
            "first_wait must be a datetime.timedelta, not int",
        ),
        (
            {"free": 5, "first_wait": timedelta(0)},
            ValueError,
            "first_wait must be at least a millisecond",
        ),
        (
            {"free": 5, "longest_wait": timedelta(milliseconds=999)},
            ValueError,
            "longest_wait at least first_wait",
        ),
        ({"free": 5, "forget": timedelta(minutes=14)}, ValueError, "forget at least longest_wait"),
        ({"free": 5, "forget": timedelta(days=4_000)}, ValueError, "at most ten years"),
        ({"free": 5, "forget": timedelta(-1)}, ValueError, "forget must not be negative"),
    ],
)
def test_limits_that_are_none(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    """An invalid limit is refused when it is created; the error says what was expected."""
    with pytest.raises(error, match=words):
        FailureLimit(**settings)


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (1_001, ValueError), ("5", TypeError)]
)
def test_single_use_failures(count: Any, error: type[Exception]) -> None:
    """``single_use_failures`` must be from 1 to 1,000."""
    with pytest.raises(error, match="single_use_failures must be"):
        Throttle(single_use_failures=count)
    assert Throttle(single_use_failures=1_000).single_use_failures == 1_000


# --- The rule

rules = st.builds(
    lambda free, first, factor, rest: FailureRule(
        free, first, first * factor, first * factor + rest, first * factor + rest
    ),
    st.integers(1, 6),
    st.integers(1, 2_000),
    st.integers(1, 50),
    st.integers(0, 100_000),
)
steps = st.lists(st.integers(0, 5_000), max_size=40)


@given(rule=rules, paused=steps)
def test_what_is_kept_is_enough(rule: FailureRule, paused: list[int]) -> None:
    """The newest failures, as many as the rule keeps, give the same verdict as all of them."""
    time, everything = Time(), list[int]()
    log = FailureLog(time)
    for pause in paused:
        time.now += pause
        wait, count = rule.judge(everything, time.now)
        attempt = log.attempt({"name": rule})
        assert attempt.wait == wait
        assert attempt.failures["name"] == min(count, rule.kept) + 1
        if not wait:
            everything.append(time.now)


@given(rule=rules, failures=st.lists(st.integers(-200_000, 200_000), max_size=30))
def test_no_wait_is_longer_than_the_longest(rule: FailureRule, failures: list[int]) -> None:
    """No attempt waits longer than the longest wait, even after a clock that was ahead."""
    wait, count = rule.judge([NOW + at for at in failures], NOW)
    assert 0 <= wait <= rule.longest
    assert wait == 0 or count >= rule.free


@given(
    rule=rules,
    failures=st.lists(st.integers(0, 100_000), max_size=30),
    other=st.integers(0, 100_000),
)
def test_one_failure_more_never_shortens_a_wait(
    rule: FailureRule, failures: list[int], other: int
) -> None:
    """Another failure never shortens the wait."""
    before = [NOW - at for at in failures]
    assert rule.judge(before, NOW)[0] <= rule.judge([*before, NOW - other], NOW)[0]


def test_a_clock_that_was_set_back() -> None:
    """Failures further in the future than the longest wait are ignored."""
    time = Time()
    log = FailureLog(time)
    rule = FailureRule(1, SECOND, MINUTE, HOUR, HOUR)
    assert log.attempt({"name": rule}).wait == 0
    time.now -= MINUTE
    assert log.attempt({"name": rule}).wait == SECOND
    time.now -= 1
    assert log.attempt({"name": rule}).wait == 0


def test_seconds_are_rounded_up() -> None:
    """The seconds in the error are always long enough."""
    assert [seconds_to_wait(wait) for wait in (1, 999, 1_000, 1_001)] == [1, 1, 1, 2]


# --- Names


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("testclient", "testclient"),
        ("203.0.113.9:80", "203.0.113.9:80"),
        ("\ud800", "\ud800"),
    ],
    ids=[
        "four",
        "six",
        "six in capitals",
        "six with a zone",
        "four in six",
        "no address",
        "with a port",
        "no text",
    ],
)
def test_addresses(address: str, block: str) -> None:
    """IPv4 counts as a whole, IPv6 by its /64, and other text as it is.

    IPv4 in IPv6 counts as IPv4.
    """
    assert address_block(address) == block
    assert re.fullmatch("[0-9a-f]{32}", failure_name("address", address))


def test_names_are_hashes() -> None:
    """A name is a hash; a key and an address with the same text have different ones."""
    assert failure_name("key", "a") != failure_name("address", "a")
    assert re.fullmatch("[0-9a-f]{32}", failure_name("key", "email:alice@example.com"))


def test_what_an_attempt_is_counted_under() -> None:
    """An attempt counts for its key and its address block, if known and limited."""
    throttle = Throttle()
    key, address = failure_name("key", "a:b"), failure_name("address", "203.0.113.9")
    assert throttle.by_key is not None
    assert throttle.by_address is not None
    assert throttle.rules("a:b", "203.0.113.9") == {
        key: throttle.by_key.rule,
        address: throttle.by_address.rule,
    }
    assert throttle.rules("a:b", None).keys() == throttle.rules("a:b", "").keys() == {key}
    assert throttle.rules(None, "203.0.113.9").keys() == {address}
    assert Throttle(by_key=None).rules("a:b", "203.0.113.9").keys() == {address}
    assert Throttle(by_address=None).rules("a:b", "203.0.113.9").keys() == {key}


def test_a_single_use_key_has_a_count_of_its_own() -> None:
    """A single-use key has its own count, which lives as long as the key.

    A new key with the same id has a new count. A key without an expiry or a password has none.
    """
    rule_of = partial(Throttle().single_use_rule, now=NOW)
    ((name, rule),) = rule_of(single_use()).items()
    assert rule == (5, FOREVER_MS, FOREVER_MS, FOREVER_MS, HOUR + SLACK_MS)
    assert rule_of(single_use(hashed="other")).keys() != {name}
    assert rule_of(single_use(NOW)).keys() == {name}
    for nothing in (single_use(None), single_use(hashed=None), single_use(NOW - 1)):
        assert rule_of(nothing) == {}
    assert Throttle(single_use_failures=None).single_use_rule(single_use(), NOW) == {}


def test_single_use_key_stays_locked_until_it_expires() -> None:
    """After the last allowed failure, waiting does not help."""
    time = Time()
    log = FailureLog(time)
    for number in range(12):
        attempt = log.attempt(Throttle().single_use_rule(single_use(), time.now))
        assert (attempt.wait > 0) == (number >= 5)
        time.now += 5 * MINUTE


# --- In memory

RULE = FailureRule(2, SECOND, MINUTE, HOUR, HOUR)


def test_all_names_or_none() -> None:
    """An attempt that is throttled under one name counts under none, and has the longest wait."""
    log = FailureLog(Time())
    for _ in range(2):
        log.attempt({"a": RULE})
    for _ in range(3):
        refused = log.attempt({"a": RULE, "b": RULE})
        assert (refused.wait, refused.entries) == (SECOND, {})
    assert log.attempt({"b": RULE}).failures == {"b": 1}


def test_a_refused_attempt_prolongs_nothing() -> None:
    """A throttled attempt does not prolong the wait."""
    time = Time()
    log = FailureLog(time)
    for _ in range(2):
        log.attempt({"a": RULE})
    for left in range(SECOND, 0, -100):
        assert log.attempt({"a": RULE}).wait == left
        time.now += 100
    assert log.attempt({"a": RULE}).wait == 0


def test_taken_back_attempt_does_not_count() -> None:
    """An attempt that is taken back, once or twice, does not count; others still do."""
    log = FailureLog(Time())
    first = log.attempt({"a": RULE, "b": RULE})
    second = log.attempt({"a": RULE})
    for _ in range(2):
        log.take_back(first.entries)
        assert len(log) == 1
    assert log.attempt({"a": RULE}).failures == {"a": 2}
    log.take_back({"unknown": "1", **second.entries})
    assert log.attempt({"a": RULE}).failures == {"a": 2}


def test_memory_is_bounded() -> None:
    """If there are too many names, the one whose last failure is oldest is removed.

    Forgotten names are removed by later attempts.
    """
    time = Time()
    log = FailureLog(time, most_names=3)
    for name in ("a", "b", "a", "c", "d"):
        log.attempt({name: RULE})
    assert len(log) == 3
    assert log.attempt({"a": RULE}).wait == SECOND
    assert log.attempt({"b": RULE}).failures == {"b": 1}
    time.now += HOUR
    log.attempt({"e": RULE})
    assert len(log) == 1
    assert log.attempt({"a": RULE}).failures == {"a": 1}


def test_forgetting_in_passing_takes_a_bounded_time() -> None:
    """An attempt removes only a few forgotten names."""
    time = Time()
    log = FailureLog(time)
    for number in range(100):
        log.attempt({str(number): RULE})
    time.now += HOUR
    log.attempt({"new": RULE})
    assert len(log) == 101 - FORGOTTEN_AT_ONCE
