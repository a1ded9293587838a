"""Log lines for operators: every line that the library writes, with its logger, level and fields.

A line's ``extra`` has ``event``, one of the names in :data:`EVENTS`, and that event's fields. No
line contains a secret: no session id, password, hash or token. None contains the name of a key,
which is often an e-mail address. Text from requests is cut, and its control characters are escaped.

Some facts are known only in a deeper layer, such as how many sessions a store revoked. The layer
calls :func:`revoked` or :func:`key_found`, which add them to the current event, if there is one, by
a context variable. An event within another one adds to it and writes no line itself.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from logging import ERROR, INFO, WARNING
from typing import Final, NamedTuple

from lucia._compat.per_loop import PerProcess
from lucia._rules.origins import OriginFailure
from lucia._rules.throttling import address_block, failure_name
from lucia.errors import InvalidCredentials, TooManyAttempts
from lucia.models import KeyRow

__all__: list[str] = []

MINUTE: Final = 60.0

MAX_SUBJECTS: Final = 1_000
"""For how many subjects an event's lines are counted; lines for further subjects are dropped."""

MAX_TEXT_LENGTH: Final = 1_000
"""How many characters of a text from a request a line shows."""

QUIET_SECONDS: Final = 5.0
"""An outage is over when the store replies and no request has failed for this long. Otherwise a
store that fails now and then would cause a line for each request."""


class Event(NamedTuple):
    """A kind of line.

    Args:
        logger: the logger's name.
        level: one of logging's levels.
        fields: the members of ``extra`` besides ``event``.
        most: how many lines a minute are written for each subject; None for no limit. With a limit,
            ``extra`` also has ``suppressed``: how many were dropped since the last line.
        once: whether a process writes it only once.
    """

    logger: str
    level: int
    fields: tuple[str, ...] = ()
    most: int | None = None
    once: bool = False


_ROOT, _AUTH, _REDIS = "lucia", "lucia.auth", "lucia.redis"

EVENTS: Final = {
    "signed_in": Event(_AUTH, INFO, ("user_id", "provider_id")),
    "credentials_refused": Event(_AUTH, INFO, ("reason", "provider_id", "user_id"), most=100),
    "sign_in_throttled": Event(_AUTH, WARNING, ("provider_id", "address", "retry_after"), most=1),
    "overloaded": Event(_AUTH, WARNING, ("waiting",), most=1),
    "signed_out": Event(_AUTH, INFO, ("user_id",)),
    "sessions_revoked": Event(_AUTH, INFO, ("user_id", "count")),
    "revocation_failed": Event(_AUTH, ERROR, ("user_id", "reason"), most=1),
    "cross_site_request": Event(_ROOT, WARNING, ("expected", "received"), most=100),
    "secure_cookie_dropped": Event(_ROOT, WARNING, once=True),
    "row_ignored": Event(_ROOT, WARNING, most=100),
    "store_unavailable": Event(_REDIS, ERROR, ("reason",)),
    "store_available": Event(_REDIS, WARNING, ("failures", "seconds")),
    "store_corrupt": Event(_REDIS, ERROR, most=1),
    "record_ignored": Event(_REDIS, WARNING, ("reason",), most=100),
    "marker_unreadable": Event(_ROOT, WARNING, most=100),
    "revocations_not_replayed": Event(_REDIS, WARNING, ("reason",), most=10),
    "client_used_as_it_is": Event(_REDIS, WARNING, ("client",)),
    "near_cache_off": Event(_REDIS, WARNING, ("reason",)),
}
"""Every kind of line, by its name."""


class Limiter:
    """Limits the rate of lines, so that nobody can flood the log.

    Args:
        clock: returns monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = PerProcess(threading.Lock)  # another thread may hold it during a fork
        self._windows: dict[str, dict[str, tuple[float, int]]] = {}
        self._suppressed: dict[str, int] = {}
        self._written: set[str] = set()

    def admit_once(self, event: str) -> bool:
        """Return whether this is the first line of this event."""
        with self._lock.get():
            is_first = event not in self._written
            self._written.add(event)
            return is_first

    def admit(self, event: str, most: int, subjects: tuple[str, ...]) -> int | None:
        """Count a line, and return whether to write it.

        Args:
            event: the name of the event.
            most: how many lines a minute are written for each subject.
            subjects: what the line is about. If one of them has reached the limit, the line is
                dropped.

        Returns:
            How many lines of this event were dropped since the last one; None to drop this one.
        """
        with self._lock.get():
            now = self._clock()
            windows = self._windows_of(event, now)
            counted = {subject: _in_window(windows.get(subject), now) for subject in subjects}
            is_full = len(windows.keys() | counted.keys()) > MAX_SUBJECTS
            if is_full or any(count >= most for _, count in counted.values()):
                self._suppressed[event] = self._suppressed.get(event, 0) + 1
                return None
            windows.update({subject: (begun, n + 1) for subject, (begun, n) in counted.items()})
            return self._suppressed.pop(event, 0)

    def _windows_of(self, event: str, now: float) -> dict[str, tuple[float, int]]:
        """Return for each subject when its current minute began, and its lines since."""
        # Each event has its own subjects: a flood of one event must not suppress lines of another.
        windows = self._windows.setdefault(event, {})
        if len(windows) >= MAX_SUBJECTS:
            for subject in [each for each, (begun, _) in windows.items() if now - begun >= MINUTE]:
                del windows[subject]
        return windows


def _in_window(window: tuple[float, int] | None, now: float) -> tuple[float, int]:
    return (now, 0) if window is None or now - window[0] >= MINUTE else window


_limiter = Limiter()


class Outage:
    """Writes one line when a store stops replying, and one when it replies again.

    ``is_on`` is True during an outage; only then :meth:`answered` has to be called.

    Args:
        clock: returns monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_on = False
        self._clock = clock
        self._lock = PerProcess(threading.Lock)  # another thread may hold it during a fork
        self._first = self._last = 0.0
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Count a request that failed since the store did not reply or is unavailable."""
        with self._lock.get():
            self._last = self._clock()
            self._failures += 1
            if self.is_on:
                return
            self.is_on, self._first, self._failures = True, self._last, 1
        reason = type(error.__cause__ or error).__name__
        _write("store_unavailable", "the session store does not reply: %s", reason=reason)

    def answered(self) -> None:
        """End the outage, if the last failure is long enough ago."""
        with self._lock.get():
            if not self.is_on or self._clock() - self._last < QUIET_SECONDS:
                return
            self.is_on = False
            failures, seconds = self._failures, round(self._last - self._first, 1)
        text = "the session store replies again: %s requests failed within %s s"
        _write("store_available", text, failures=failures, seconds=seconds)


class _Open:
    """The facts known about the current event."""

    def __init__(self) -> None:
        self.user_id: str | None = None
        self.revoked: int | None = None
        self.is_signed_in = False


_open: ContextVar[_Open | None] = ContextVar("lucia_event", default=None)


@contextmanager
def credentials(provider_id: str, provider_user_id: str, address: str | None) -> Generator[None]:
    """Write the result of checking a key and its password: a login, a refusal or a throttle."""
    with _opened() as (event, _):
        try:
            yield
        except InvalidCredentials as error:
            _credentials_refused(type(error).__name__, provider_id, event.user_id)
            raise
        except TooManyAttempts as error:
            _sign_in_throttled(provider_id, provider_user_id, address, error.retry_after)
            raise
    if event.is_signed_in:
        _write(
            "signed_in",
            "user %s signed in with a key of %s",
            user_id=event.user_id,
            provider_id=provider_id,
        )


def key_found(row: KeyRow | None) -> None:
    """Add the user of the key that is being checked to the current event."""
    event = _open.get()
    if event is not None and row is not None:
        event.user_id = row.user_id


def signed_in(user_id: str) -> None:
    """Write that a user has logged in, or add it to the current event."""
    event = _open.get()
    if event is not None:
        event.user_id, event.is_signed_in = user_id, True
    else:
        _write("signed_in", "user %s signed in", user_id=user_id, provider_id=None)


@contextmanager
def signing_out(user_id: str | None) -> Generator[None]:
    """Write that a request's session was revoked, unless there was none."""
    with _opened() as (event, _):
        event.user_id = user_id
        yield
    if event.revoked != 0:
        _write("signed_out", "user %s signed out", user_id=event.user_id)


@contextmanager
def revocation(user_id: str | None = None) -> Generator[None]:
    """Write how many sessions were revoked, or that this failed."""
    with _opened() as (event, is_inner):
        event.user_id = event.user_id or user_id
        try:
            yield
        except Exception as error:
            _revocation_failed(event.user_id, type(error).__name__)
            raise
    # Nothing is written for an id that no session has: a client may have made it up.
    if not is_inner and (event.revoked != 0 or user_id is not None):
        text = "sessions of user %s were revoked: %s"
        _write("sessions_revoked", text, user_id=event.user_id, count=event.revoked)


def revoked(count: int, user_id: str | None = None) -> None:
    """Add to the current event how many sessions were revoked, and of which user if known."""
    event = _open.get()
    if event is not None:
        event.revoked = (event.revoked or 0) + count
        event.user_id = event.user_id or user_id


def overloaded(waiting: str) -> None:
    """Write that something was refused since the queue is full."""
    _write("overloaded", "refused, since too many wait: %s", waiting, waiting=waiting)


def store_corrupt() -> None:
    """Write that the key of an index has a value of another type."""
    _write(
        "store_corrupt",
        "an index of the session store is of another type: run lucia doctor to find it",
    )


def record_ignored(reason: str) -> None:
    """Write that the value at a session's key is not a session."""
    _write("record_ignored", "a session record was ignored: %s", reason=reason)


def marker_unreadable() -> None:
    """Write that none of the keys decrypts what a used id was renewed to."""
    _write(
        "marker_unreadable",
        "a used session id leads nowhere: none of id_keys opens the id that it was renewed to",
    )


def revocations_not_replayed(error: Exception) -> None:
    """Write that the server lost its history, and recent revocations could not be repeated."""
    _write(
        "revocations_not_replayed",
        "the server's history changed, and recent revocations could not be repeated yet: %s",
        reason=type(error).__name__,
    )


def client_used_as_it_is(client: object) -> None:
    """Write that the client can't be copied, so that its own connections are used."""
    _write(
        "client_used_as_it_is",
        "this %s can't be copied, so it is used as it is: it may repeat a login whose reply was "
        "lost, and has no deadline; pass a client of redis-py or valkey-py that does not override "
        "execute_command",
        client=type(client).__name__,
    )


def near_cache_off(reason: str) -> None:
    """Write that the server refuses what the near cache needs."""
    text = "the near cache is off, and each session is read from the server, since %s"
    _write("near_cache_off", text, reason=reason)


def cross_site_request(failure: OriginFailure) -> None:
    """Write that a request failed the origin check."""
    _write(
        "cross_site_request",
        "origin check failed: expected %s, received %s",
        expected=failure.expected,
        received=failure.received,
    )


def secure_cookie_dropped() -> None:
    """Write that a Secure cookie was set by http, where browsers drop it."""
    _write(
        "secure_cookie_dropped",
        "a Secure session cookie was set in the response to a request by http, and browsers drop "
        "it there: use env='DEV' for development without TLS; behind a proxy that terminates TLS, "
        "let the server trust the proxy's X-Forwarded-Proto",
    )


def row_ignored() -> None:
    """Write that a row of a database's session table is not a session."""
    _write("row_ignored", "a row of the session table is not a session and is ignored")


def _credentials_refused(reason: str, provider_id: str, user_id: str | None) -> None:
    text = "credentials were refused: %s, a key of %s, user %s"
    _write("credentials_refused", text, reason=reason, provider_id=provider_id, user_id=user_id)


def _sign_in_throttled(
    provider_id: str,
    provider_user_id: str,
    address: str | None,
    retry_after: int,
) -> None:
    block = None if address is None else address_block(address)
    key = failure_name("key", f"{provider_id}:{provider_user_id}")
    subjects = (key,) if block is None else (key, block)
    _write(
        "sign_in_throttled",
        "too many wrong passwords at a key of %s, from address %s: the next attempt in %s s",
        *subjects,
        provider_id=provider_id,
        address=block,
        retry_after=retry_after,
    )


def _revocation_failed(user_id: str | None, reason: str) -> None:
    text = "sessions of user %s may not be revoked: %s"
    _write("revocation_failed", text, user_id or "", user_id=user_id, reason=reason)


@contextmanager
def _opened() -> Generator[tuple[_Open, bool]]:
    """Yield the current event and True; if there is none, a new one and False."""
    outer = _open.get()
    if outer is not None:
        yield outer, True
        return
    event = _Open()
    token = _open.set(event)
    try:
        yield event, False
    finally:
        _open.reset(token)


def _write(name: str, text: str, *subjects: str, **fields: str | float | None) -> None:
    """Write a line; ``text`` has a ``%s`` for each of the first fields, in their order."""
    event = EVENTS[name]
    logger = _logger(event.logger)
    if not logger.isEnabledFor(event.level):
        return
    extra = {"event": name, **{field: _shown(value) for field, value in fields.items()}}
    values = [_quoted(field, extra[field]) for field in list(fields)[: text.count("%s")]]
    if event.once and not _limiter.admit_once(name):
        return
    if event.most is not None:
        suppressed = _limiter.admit(name, event.most, subjects or ("",))
        if suppressed is None:
            return
        extra["suppressed"] = suppressed
        if suppressed:
            text, values = f"{text} (%s more since the last such line)", [*values, suppressed]
    logger.log(event.level, text, *values, extra=extra)


_logger: Final = cache(logging.getLogger)
"""``logging.getLogger`` takes a lock each time."""


def _shown(value: str | float | None) -> str | float | None:
    """Return a value for a line: text is cut, and its control characters are escaped."""
    if not isinstance(value, str):
        return value
    escaped = "".join(map(_escaped, value[:MAX_TEXT_LENGTH]))
    return escaped if len(value) <= MAX_TEXT_LENGTH else f"{escaped}…"


def _escaped(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


def _quoted(field: str, value: str | float | None) -> str | float:
    """Return a field for a line's text; quotes separate what a client chose from our words."""
    if value is None:
        return "unknown"
    return f"'{value}'" if field in {"user_id", "provider_id"} else value
