"""Limits on wrong passwords: the settings, and the rules that every throttle store follows.

An attempt is counted as a failure before its password is verified, and taken back if the password
was right: so concurrent guesses can't all pass where one may. It is counted under two names, one
for the key and one for the address, and forgotten after a while. The first failures are free. Then
each attempt has to wait, from the last failure on, twice as long as the one before, up to a
maximum. An attempt that comes too early is refused without being counted, and makes nobody wait
longer.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from lucia._rules.sessions import milliseconds
from lucia.models import KeyRow

__all__ = ["Attempt", "FailureLimit", "FailureRule", "Throttle"]

MAX_FREE: Final = 1_000
"""The largest number of free failures: a store has an entry for each."""

FOREVER_MS: Final = 10 * 366 * 24 * 3_600_000
"""Longer than any single-use key lives, in milliseconds."""

SLACK_MS: Final = 60_000
"""How much longer than a single-use key its failures are counted, since clocks differ."""

_IPV6_PREFIX: Final = 64
_NAME_BYTES: Final = 16


class FailureRule(NamedTuple):
    """A limit as a throttle store needs it; all durations are in milliseconds.

    After ``free`` failures, the wait from the last failure on is ``first``, and doubles with each
    further failure up to ``longest``. A failure counts until it is ``forget`` old. What is stored
    expires ``life`` after the last failure.
    """

    free: int
    first: int
    longest: int
    forget: int
    life: int

    @property
    def kept(self) -> int:
        """How many of the newest failures a store has to keep: with so many the wait is longest."""
        return self.free + (self.longest // self.first).bit_length() + 1

    def counts(self, failed_at: int, now: int) -> bool:
        """Return whether a failure still counts.

        One that lies further in the future than the longest wait does not: the clock was set back.
        """
        return now - failed_at < self.forget and failed_at - now <= self.longest

    def judge(self, failures: Iterable[int], now: int) -> tuple[int, int]:
        """Return how long an attempt has to wait, 0 if it may be made now, and the failure count.

        Args:
            failures: the times of the failures, in any order.
            now: the time; all are in milliseconds since the epoch.
        """
        counted = [failed_at for failed_at in failures if self.counts(failed_at, now)]
        if len(counted) < self.free:
            return 0, len(counted)
        # The exponent is limited, since a store keeps no more failures than that, and a larger one
        # would only make a huge number.
        wait = min(self.first << min(len(counted), self.kept) - self.free, self.longest)
        # Not longer than the wait itself, though the last failure may lie in the future, if the
        # clock was set back.
        return max(0, min(max(counted) + wait - now, wait)), len(counted)


class Attempt(NamedTuple):
    """The result of an attempt in a throttle store.

    Args:
        wait: 0 if the attempt may be made; it is then counted as a failure under each of its names.
            Else the milliseconds to wait, and nothing was changed.
        failures: for each name how many failures count, this attempt included.
        entries: for each name the entry of this attempt, for
            :meth:`~lucia.ThrottleStore.take_back`; empty if it has to wait.
    """

    wait: int
    failures: Mapping[str, int]
    entries: Mapping[str, str]


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name} must be an int, not {type(count).__name__}")
    if not 1 <= count <= MAX_FREE:
        raise ValueError(f"{name} must be 1 to {MAX_FREE:,}, got {count}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """How many failed attempts are free, and how long further attempts have to wait.

    Args:
        free: the number of failures without a wait, 1 to 1,000.
        first_wait: how long the next attempt has to wait after the last failure; it doubles with
            each further failure.
        longest_wait: the maximum of the wait.
        forget: the time after which a failure no longer counts.

    Raises:
        TypeError: ``free`` is not an ``int``, or a duration is not a ``timedelta``.
        ValueError: ``free`` is out of range, the durations don't grow from first to longest to
            forget, or one is longer than ten years.
    """

    free: int
    first_wait: timedelta = timedelta(seconds=1)
    longest_wait: timedelta = timedelta(minutes=15)
    forget: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        _check_count("free", self.free)
        rule = self.rule
        if not 1 <= rule.first <= rule.longest <= rule.forget <= FOREVER_MS:
            raise ValueError(
                "first_wait must be at least a millisecond, longest_wait at least first_wait, "
                "forget at least longest_wait and at most ten years; "
                f"got {self.first_wait}, {self.longest_wait} and {self.forget}"
            )

    @property
    def rule(self) -> FailureRule:
        """The limit in milliseconds, for a throttle store."""
        first, longest, forget = (
            milliseconds(name, getattr(self, name))
            for name in ("first_wait", "longest_wait", "forget")
        )
        return FailureRule(self.free, first, longest, forget, forget)


_BY_KEY: Final = FailureLimit(free=5)
_BY_ADDRESS: Final = FailureLimit(
    free=50, longest_wait=timedelta(minutes=1), forget=timedelta(hours=1)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """Limits on logins with a wrong password, whether the key exists or not.

    Args:
        by_key: the failures for one key, from all addresses. By default 5 are free, then the wait
            is 1 s, 2 s, 4 s, up to 15 minutes; forgotten after 24 hours. None for no limit.
        by_address: the failures from one address, for all keys. By default 50 are free, then the
            wait is 1 s, 2 s, 4 s, up to one minute; forgotten after an hour. None for no limit.
        single_use_failures: how many wrong passwords consume a single-use key that has a password,
            1 to 1,000; None for no limit.

    Raises:
        TypeError: ``single_use_failures`` is not an ``int``.
        ValueError: ``single_use_failures`` is out of range.
    """

    by_key: FailureLimit | None = _BY_KEY
    by_address: FailureLimit | None = _BY_ADDRESS
    single_use_failures: int | None = 5

    def __post_init__(self) -> None:
        if self.single_use_failures is not None:
            _check_count("single_use_failures", self.single_use_failures)

    def rules(self, key_id: str | None, address: str | None) -> dict[str, FailureRule]:
        """Return the rules of an attempt, by the names that it is counted under.

        What is not known or has no limit is left out.
        """
        limits = (
            ("key", key_id, self.by_key),
            ("address", address and address_block(address), self.by_address),
        )
        return {
            failure_name(kind, text): limit.rule
            for kind, text, limit in limits
            if text and limit is not None
        }

    def single_use_rule(self, row: KeyRow, now: int) -> dict[str, FailureRule]:
        """Return the rule of an attempt with this single-use key, which lives as long as the key.

        Empty if there is no limit or no password to guess.
        """
        if (
            self.single_use_failures is None
            or row.expires is None
            or row.hashed_password is None
            or now > row.expires
        ):
            return {}
        # With the hash of the password, so that a later key with the same id has its own count.
        name = failure_name("single-use", f"{row.id}\0{row.hashed_password}")
        return {
            name: FailureRule(
                self.single_use_failures,
                FOREVER_MS,
                FOREVER_MS,
                FOREVER_MS,
                row.expires - now + SLACK_MS,
            )
        }


def failure_name(kind: str, text: str) -> str:
    """Return a name to count failures under: 32 hex digits, which don't reveal key or address."""
    return hashlib.sha256(f"lucia {kind}\0{text}".encode(errors="surrogatepass")).hexdigest()[
        : 2 * _NAME_BYTES
    ]


def address_block(address: str) -> str:
    """Return the block of an address, by which requests are counted.

    That is the address itself for IPv4, and its /64 for IPv6, since one subscriber has that many.
    Other text is returned as it is.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed, _IPV6_PREFIX), strict=False))


def seconds_to_wait(wait: int) -> int:
    """Convert milliseconds to whole seconds, rounded up."""
    return -(-wait // 1000)
