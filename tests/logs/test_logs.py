"""Rate limits of log lines, the end of an outage, and untrusted text in logs."""

import asyncio
import logging
import subprocess
import sys
from textwrap import dedent
from typing import Any

import pytest

from lucia import Overloaded, PasswordPool, StoreUnavailable, _logs
from lucia._compat.password_pool import AsyncPasswordWorkers, PasswordWorkers
from tests.support.clocks import Time


def test_limit_for_each_subject() -> None:
    """Each subject has a limit of lines per minute; the next line counts those left out."""
    clock = Time(0)
    limiter = _logs.Limiter(clock)
    assert [limiter.admit("a", 2, ("x",)) for _ in range(4)] == [0, 0, None, None]
    assert limiter.admit("a", 2, ("y",)) == 2
    assert limiter.admit("a", 2, ("y", "x")) is None
    assert limiter.admit("b", 2, ("x",)) == 0
    clock.now = 60
    assert limiter.admit("a", 2, ("x",)) == 1


def test_limit_for_many_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a limited number of subjects is counted, and further ones get no line.

    Other events are not affected.
    """
    monkeypatch.setattr(_logs, "MAX_SUBJECTS", 3)
    clock = Time(0)
    limiter = _logs.Limiter(clock)
    assert [limiter.admit("a", 9, (subject,)) for subject in "vwxyz"] == [0, 0, 0, None, None]
    assert limiter.admit("a", 9, ("v",)) == 2
    assert limiter.admit("b", 9, ("z",)) == 0
    clock.now = 60
    assert limiter.admit("a", 9, ("z",)) == 0


def test_outage(caplog: pytest.LogCaptureFixture) -> None:
    """An outage writes two lines, however many requests fail or succeed meanwhile."""
    clock = Time(0)
    outage = _logs.Outage(clock)
    unreachable = StoreUnavailable()
    unreachable.__cause__ = ConnectionError("secret")
    for clock.now in (1, 2, 6, 10):
        outage.failed(unreachable)
        outage.answered()
    clock.now = 15
    assert outage.is_on
    outage.answered()
    outage.answered()
    assert not outage.is_on
    outage.failed(StoreUnavailable())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "the session store does not reply: ConnectionError"),
        ("WARNING", "the session store replies again: 4 requests failed within 9 s"),
        ("ERROR", "the session store does not reply: StoreUnavailable"),
    ]


@pytest.mark.parametrize(
    "use",
    [
        "Limiter(clock).admit('event', 1, ('subject',))",
        "Outage(clock).failed(ConnectionError())",
        "during_outage().answered()",
    ],
)
def test_a_fork_while_a_line_is_counted(use: str) -> None:
    """A forked child counts lines and failures, even if another thread was just doing so."""
    made, method = use.rsplit(".", 1)
    program = f"""
        import os, signal, threading, time
        from lucia._logs import Limiter, Outage

        counting, forked = threading.Event(), threading.Event()

        def clock():
            if threading.current_thread() is not threading.main_thread():
                counting.set()
                forked.wait()
            return time.monotonic()

        def during_outage():
            outage = Outage(clock)
            outage.failed(ConnectionError())
            return outage

        shared = {made}
        thread = threading.Thread(target=lambda: shared.{method})
        thread.start()
        counting.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # ends a child that waits for ever
            shared.{method}
            os._exit(0)
        forked.set()
        thread.join()
        assert os.waitpid(child, 0)[1] == 0, "the child was held up"
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_text_from_outside(caplog: pytest.LogCaptureFixture) -> None:
    """Untrusted text is truncated, and control and direction characters are escaped."""
    caplog.set_level(logging.INFO, "lucia")
    _logs.signed_in("a\r\n\x1b[2Jb\u202ec\u2028\ud800é" + "x" * 10_000)
    (record,) = caplog.records
    shown = record.__dict__["user_id"]
    assert shown.startswith("a\\r\\n\\x1b[2Jb\\u202ec\\u2028\\ud800éxxx")
    assert len(shown) < 1_050
    assert record.getMessage() == f"user '{shown}' signed in"
    record.getMessage().encode()


def test_nothing_is_counted_that_nobody_reads(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of a disabled level is not counted."""
    monkeypatch.setattr(_logs, "_limiter", None)
    caplog.set_level(logging.CRITICAL, "lucia.auth")
    _logs.overloaded("something")


def test_outside_of_an_event() -> None:
    """A fact that is reported while no event is open is ignored."""
    _logs.key_found(None)
    _logs.revoked(1, "alice")


class Reentrant:
    """A hasher that calls its own workers while they are all busy."""

    def __init__(self) -> None:
        self.again: Any = None

    def hash(self, password: str, /) -> str:
        """Hash again, with the same workers."""
        self.again(password)
        raise AssertionError

    def verify(self, password: str, hashed: str, /) -> bool:
        """Fail: it is never called."""
        raise AssertionError

    def needs_rehash(self, hashed: str, /) -> bool:
        """Fail: it is never called."""
        raise AssertionError


@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_overload(flavour: str, caplog: pytest.LogCaptureFixture) -> None:
    """A password that is refused because too many wait writes a line once a minute."""
    hasher, pool = Reentrant(), PasswordPool(workers=1, queue=0)
    if flavour == "async":
        workers = AsyncPasswordWorkers(hasher, pool)
        hasher.again = lambda password: asyncio.run(workers.hash(password))
    else:
        hasher.again = PasswordWorkers(hasher, pool).hash
    for _ in range(3):
        with pytest.raises(Overloaded):
            hasher.again("a password")
    assert [record.getMessage() for record in caplog.records] == [
        "refused, since too many wait: passwords to be hashed"
    ]


def test_suppressed_lines_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line after suppressed ones gives their number, in its text and in a field."""
    clock: Any = Time(0)
    monkeypatch.setattr(_logs, "_limiter", _logs.Limiter(clock))
    _logs.store_corrupt()
    _logs.store_corrupt()
    clock.now = 61
    _logs.store_corrupt()
    first, second = caplog.records
    assert (first.__dict__["suppressed"], second.__dict__["suppressed"]) == (0, 1)
    assert second.getMessage().endswith("(1 more since the last such line)")
