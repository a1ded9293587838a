"""``lucia sessions stats`` on Redis and Valkey: exact counts, estimates, and interruptions."""

import re
import signal
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from lucia._redis import statistics
from lucia._redis.commands import Operation
from lucia._redis.statistics import Count, estimated
from lucia._rules.sessions import system_clock
from lucia.cli.shared import progress_bar
from tests.support.command_runs import Outcome, finish, lucia, start
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_inspectors import DEFAULT, LUCIA_V2, ClusterInspector, Inspector
from tests.support.redis_servers import shut_down
from tests.support.sessions import HOUR, row
from tools.servers import own_server, until

# redis-py 7's cluster clients cause deprecation warnings themselves.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*lib_:DeprecationWarning")

LAYOUTS: Final = {"default": DEFAULT, "lucia-v2": LUCIA_V2}


@pytest.fixture(params=["default", "lucia-v2"])
def layout(request: pytest.FixtureRequest) -> str:
    """Return the name of each layout in turn."""
    return str(request.param)


@pytest.fixture(params=["redis", "valkey", "old_redis", "cluster"])
def inspector(request: pytest.FixtureRequest, layout: str) -> Iterator[Inspector]:
    """Yield an inspector of an empty server or cluster."""
    if request.param == "cluster":
        cluster = request.getfixturevalue("cluster")
        with ClusterInspector(cluster, LAYOUTS[layout]) as found:
            yield found
    else:
        server = request.getfixturevalue(f"{request.param}_server")
        with Inspector(server, LAYOUTS[layout]) as found:
            yield found


default_layout = pytest.mark.parametrize("layout", ["default"], indirect=True)
one_server = pytest.mark.parametrize("inspector", ["redis"], indirect=True)


def stats(inspector: Inspector, *arguments: object, url: str = "") -> Outcome:
    """Run the command on the store of an inspector."""
    name = next(name for name, layout in LAYOUTS.items() if layout == inspector.layout)
    options = ("--layout", name, "--store", url or inspector.server.url)
    return lucia("sessions", "stats", *options, *arguments)


def fill(inspector: Inspector, users: int, sessions: int) -> None:
    """Store live sessions of each user."""
    for number in range(users):
        inspector.fill(f"user-{number}", sessions)


def damage(inspector: Inspector) -> None:
    """Store keys that are neither a live session nor the index of one."""
    client: Any = inspector.client
    layout = inspector.layout
    # Records of sessions that are over, which live on as those of Lucia JS do.
    for number in range(3):
        inspector.write(row(f"over-{number}", "over", life=-HOUR))
        over = row(f"over-{number}", "over")
        inspector.write(over)
        client.set(
            layout.session_key(over.id),
            client.get(layout.session_key(over.id)).replace(
                str(over.idle_expires).encode(), str(system_clock() - HOUR).encode()
            ),
        )
        inspector.enter(over.id, user_id="over")
    # Indexes that lead to nothing, or to another user's session.
    inspector.enter("gone", user_id="gone")
    inspector.enter("user-0-0", user_id="foreign")
    client.set(layout.index_key("no index"), "x")
    client.set(layout.session_key("no-record"), "x")
    client.rpush(layout.session_key("no-string"), "x")
    client.set(layout.marker_key("user-0-0"), "{}")
    client.rpush(layout.throttle_key("0" * 32), "x")
    client.set("foreign", "x")


def test_exact(inspector: Inspector) -> None:
    """Live sessions are counted, and users who have one, whatever else is in the store."""
    fill(inspector, 7, 3)
    damage(inspector)
    # A user whose newest sessions are over, but not the oldest.
    inspector.fill("lasting", 1)
    inspector.enter("gone-1", "gone-2", user_id="lasting")
    outcome = stats(inspector, "--json")
    assert outcome.report == {
        "version": 1,
        "exact": True,
        "read": len(inspector.all_keys()),
        "sessions": {"estimate": 22, "low": 22, "high": 22},
        "users": {"estimate": 8, "low": 8, "high": 8},
        "exit_code": 0,
    }
    assert outcome.code == 0
    assert stats(inspector) == Outcome(0, "Live sessions: 22\nUsers with a live session: 8\n", "")


@default_layout
def test_many_dead_entries(inspector: Inspector) -> None:
    """A user counts if any session in a long index is alive."""
    inspector.fill("lasting", 1)
    inspector.enter(*(f"gone-{number}" for number in range(1_100)), user_id="lasting")
    inspector.enter(*(f"gone-{number}" for number in range(1_100)), user_id="gone")
    assert stats(inspector).out == "Live sessions: 1\nUsers with a live session: 1\n"


@one_server
def test_empty(inspector: Inspector) -> None:
    """An empty store has no sessions, which is no failure."""
    for arguments in ((), ("--sample", 100)):
        outcome = stats(inspector, *arguments)
        assert outcome == Outcome(0, "Live sessions: 0\nUsers with a live session: 0\n", "")


# Samples


@default_layout
def test_sample(inspector: Inspector) -> None:
    """An estimate from random keys is near the truth, and says how near it is."""
    fill(inspector, 250, 4)
    total = 1_250
    report = stats(inspector, "--sample", 1_200, "--json").report
    assert (report["exact"], report["read"]) == (False, 1_200)
    # Six standard deviations; far more than the interval, which errs in one run of twenty.
    assert abs(report["sessions"]["estimate"] - 1_000) < 6 * total * (0.8 * 0.2 / 1_200) ** 0.5
    assert abs(report["users"]["estimate"] - 250) < 6 * total * (0.8 * 0.2 / 1_200) ** 0.5
    for count in (report["sessions"], report["users"]):
        assert count["low"] < count["estimate"] < count["high"]
    words = stats(inspector, "--sample", 1_200).out
    number = r"[\d,]+"
    assert re.fullmatch(
        rf"Live sessions: about {number} \(with 95 % confidence {number} to {number}\)\n"
        rf"Users with a live session: about {number} \(with 95 % confidence {number} to {number}\)"
        rf"\nEstimated from 1,200 random keys\.\n",
        words,
    )


@default_layout
def test_sample_of_a_small_store(inspector: Inspector) -> None:
    """If the sample would be as large as the store, everything is read."""
    fill(inspector, 20, 4)
    assert stats(inspector, "--sample", 100, "--json").report["exact"]


@default_layout
@one_server
def test_sample_without_the_right_to_count_keys(inspector: Inspector) -> None:
    """Without DBSIZE nothing can be estimated, but everything can be counted."""
    fill(inspector, 2, 3)
    inspector.on_each("ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-dbsize")
    url = inspector.server.url.replace("//", "//limited:secret@")
    refused = stats(inspector, "--sample", 100, url=url)
    counted = stats(inspector, url=url)
    inspector.on_each("ACL", "DELUSER", "limited")
    message = "lucia sessions stats: --sample needs the right to DBSIZE\n"
    assert refused == Outcome(2, "", message)
    assert counted.out == "Live sessions: 6\nUsers with a live session: 2\n"


@default_layout
@one_server
@pytest.mark.parametrize("size", [0, 99, "many"])
def test_sample_size(inspector: Inspector, size: object) -> None:
    """A sample that is too small to tell anything is refused."""
    assert stats(inspector, "--sample", size).code == 2


@default_layout
@one_server
def test_emptied_while_it_is_sampled(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is emptied after its keys were counted is not sampled for ever."""
    fill(inspector, 50, 4)
    count = statistics.number_of_keys

    def count_and_flush(node: str) -> Operation[int | None]:
        found = yield from count(node)
        inspector.on_each("FLUSHALL")
        return found

    monkeypatch.setattr(statistics, "number_of_keys", count_and_flush)
    message = "lucia sessions stats: a server was emptied meanwhile: run it again\n"
    assert stats(inspector, "--sample", 100) == Outcome(2, "", message)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (0, Count(0, 0, 37_000)),
        (50, Count(500_000, 403_831, 596_169)),
        (100, Count(1_000_000, 963_000, 1_000_000)),
    ],
)
def test_interval(found: int, expected: Count) -> None:
    """The interval is Wilson's: it is not empty where a sample has none, or nothing else."""
    count = estimated(found, 100, 1_000_000)
    assert count.estimate == expected.estimate
    assert count.low == pytest.approx(expected.low, rel=0.01)
    assert count.high == pytest.approx(expected.high, rel=0.01)


# Progress and interruptions


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar shows how many of how many are done, on a terminal only."""
    monkeypatch.setenv("TERM", "xterm")  # the tests may run without a terminal
    text = StringIO()
    with progress_bar(Console(file=text, force_terminal=is_terminal)) as show:
        show(0, None, "keys")
        show(30, 20, "keys")
    assert ("30/30" in text.getvalue()) is is_terminal


@default_layout
@one_server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(inspector: Inspector, number: signal.Signals) -> None:
    """A signal ends the command with one line and exit code 2, and nothing is counted by half."""
    fill(inspector, 10, 150)
    with LossyProxy(inspector.server.port).lose("SCAN", 1, after=1, halves=True) as proxy:
        process = start("sessions", "stats", "--store", f"redis://127.0.0.1:{proxy.port}")
        until(lambda: proxy.lost or process.poll() is not None, 60)
        process.send_signal(number)
        assert finish(process) == Outcome(2, "", "lucia sessions stats: interrupted\n")


@pytest.mark.parametrize("arguments", [(), ("--sample", "1000")], ids=["exact", "sample"])
def test_outage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A server that goes away ends the command with the client's error and exit code 2."""
    word = "RANDOMKEY" if arguments else "SCAN"
    with own_server("redis-server", tmp_path) as server, Inspector(server) as inspector:
        fill(inspector, 10, 150)
        with LossyProxy(server.port).lose(word, 1, after=1, halves=True) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            process = start("sessions", "stats", "--store", url, *arguments)
            until(lambda: proxy.lost or process.poll() is not None, 60)
            shut_down(server.port)
            outcome = finish(process)
    assert (outcome.code, outcome.out) == (2, "")
    assert re.fullmatch(r"lucia sessions stats: \w+Error: [^\n]+\n", outcome.errors)


# Rights


RIGHTS: Final = ("scan", "mget", "time", "type", "lrange")
SAMPLING: Final = ("dbsize", "randomkey")


def works(inspector: Inspector, rights: Sequence[str], *arguments: object) -> bool:
    """Return whether a user with these rights can count."""
    patterns = [f"~{inspector.layout.session_key('*')}", f"~{inspector.layout.index_key('*')}"]
    commands = [f"+{right}" for right in rights]
    inspector.on_each("ACL", "SETUSER", "nurse", "reset", "on", ">secret", *patterns, *commands)
    url = inspector.server.url.replace("//", "//nurse:secret@")
    outcome = stats(inspector, *arguments, url=url)
    inspector.on_each("ACL", "DELUSER", "nurse")
    return outcome.code == 0


@one_server
@pytest.mark.parametrize("sample", [(), ("--sample", 100)], ids=["exact", "sample"])
def test_least_rights(inspector: Inspector, sample: tuple[object, ...]) -> None:
    """The documented rights suffice, and each of them is needed."""
    fill(inspector, 30, 4)
    inspector.enter("gone", user_id="gone")  # else no index is read to its end
    is_set = inspector.layout.index.type == "set"
    rights = ["mget", "time", "type", *(("srandmember", "sscan") if is_set else ("lrange",))]
    rights += SAMPLING if sample else ["scan"]
    assert works(inspector, rights, *sample)
    # Which index is drawn is chance, so an exact count shows which commands read one.
    needed = ("dbsize", "randomkey", "mget", "time") if sample else rights
    for right in needed:
        assert not works(inspector, [each for each in rights if each != right], *sample), right


@default_layout
@pytest.mark.parametrize("inspector", ["cluster"], indirect=True)
def test_least_rights_in_a_cluster(inspector: Inspector) -> None:
    """A cluster needs two more rights."""
    fill(inspector, 30, 4)
    assert works(inspector, (*RIGHTS, "cluster|slots", "command"), "--cluster")
