"""The command line: output, exit codes, and resuming after an interruption."""

import json
import signal
import stat
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lucia._redis.doctor.findings import Kind
from lucia._rules.sessions import new_session_id
from lucia.cli import doctor as doctor_command
from tests.doctor.damaged_stores import (
    LAYOUTS,
    DamagedStore,
    assert_tells_no_secret,
    doctor,
    dump,
)
from tests.support.command_runs import Outcome, finish, start
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_inspectors import ClusterInspector, Inspector
from tests.support.redis_servers import shut_down
from tools.servers import Cluster, Server, own_server, until, unused_port

MANY = 4_000
"""A number of sessions that fills about eight pages of SCAN."""


def fill(inspector: Inspector, users: int, sessions: int, *, endless: int = 0) -> None:
    """Store healthy sessions of each user, and some that never expire."""
    for number in range(users):
        inspector.fill(f"user-{number}", sessions)
    for number in range(endless):
        inspector.client.persist(inspector.layout.session_key(f"user-{number}-0"))


def test_nothing_is_wrong(server: Server) -> None:
    """On a healthy store, nothing is reported as wrong and the exit code is 0."""
    with Inspector(server) as inspector:
        fill(inspector, 3, 4)
        outcome = doctor(server.url)
        assert outcome.code == 0
        assert outcome.out == "Keys examined: 12 session, 3 index\nNothing is wrong.\n"
        assert outcome.errors == ""


def test_empty(redis_server: Server) -> None:
    """An empty server is healthy."""
    with Inspector(redis_server):
        assert doctor(redis_server.url).out == "Keys examined: none\nNothing is wrong.\n"


def test_human_readable_output(redis_server: Server) -> None:
    """The output has counts and advice; --verbose adds users and handles, but no session id."""
    with Inspector(redis_server) as inspector:
        patient = DamagedStore(inspector)
        patient.in_every_way()
        outcome = doctor(redis_server.url)
        assert outcome.code == 1
        assert "live sessions that are not in their user's index" in outcome.out
        assert "--fix --delete-damaged" in outcome.out
        assert "Run it again with --fix" in outcome.out
        assert "healthy-1" not in outcome.out
        assert_tells_no_secret(outcome, patient.secrets)
        verbose = doctor(redis_server.url, "--verbose", "--fix")
        assert "unindexed_session: user 'lost', handle handle-" in verbose.out
        assert "Run it again with --fix" not in verbose.out
        assert_tells_no_secret(verbose, patient.secrets)


def test_control_characters_of_a_user_id_are_not_printed(redis_server: Server) -> None:
    """Control characters in a user id do not reach the terminal."""
    with Inspector(redis_server) as inspector:
        patient = DamagedStore(inspector)
        session = patient.session("\x1b[2Jmallory")
        inspector.client.persist(inspector.layout.session_key(session.id))
        assert "\x1b" not in doctor(redis_server.url, "--verbose").out


def test_examples_are_few(redis_server: Server) -> None:
    """At most twenty findings of each kind are shown, and only with --verbose."""
    with Inspector(redis_server) as inspector:
        fill(inspector, 30, 1, endless=30)
        report = doctor(redis_server.url, "--json", "--verbose").report
        assert report["findings"]["session_without_ttl"] == {"found": 30, "fixed": 0, "left": 30}
        assert len(report["examples"]) == 20
        assert report["examples"][0].keys() == {"kind", "user", "handle", "key", "fixed"}
        assert "examples" not in doctor(redis_server.url, "--json").report


def test_shape_of_the_json(redis_server: Server) -> None:
    """The JSON has every kind of finding, also those with zeros, and the options of the run."""
    with Inspector(redis_server) as inspector:
        fill(inspector, 1, 1)
        assert doctor(redis_server.url, "--json").report == {
            "version": 2,
            "complete": True,
            "layout": "default",
            "session_namespace": "session",
            "user_session_namespace": "userSession",
            "fix": False,
            "legacy_writers": False,
            "delete_damaged": False,
            "move_bare": False,
            "others": True,
            "servers": [{"name": "", "eviction_policy": "noeviction"}],
            "keys": {"session": 1, "index": 1, "marker": 0, "throttle": 0, "other": 0},
            "findings": {str(kind): {"found": 0, "fixed": 0, "left": 0} for kind in Kind},
            "exit_code": 0,
        }


def test_address_in_the_environment(redis_server: Server) -> None:
    """The URL, with its password, can come from LUCIA_REDIS_URL."""
    with Inspector(redis_server):
        assert doctor(environment={"LUCIA_REDIS_URL": redis_server.url}).code == 0


def test_namespaces(redis_server: Server) -> None:
    """With other namespaces, keys outside of them count as other."""
    with Inspector(redis_server) as inspector:
        fill(inspector, 1, 1, endless=1)
        outcome = doctor(
            redis_server.url,
            "--session-namespace",
            "shop:s",
            "--user-session-namespace",
            "shop:u",
            "--json",
        )
        assert outcome.code == 0
        assert outcome.report["keys"]["other"] == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--layout", "lucia-v3"), "unknown layout 'lucia-v3'"),
        (("--session-namespace", "x", "--user-session-namespace", "x"), "collide"),
        (("--delete-damaged",), "need --fix"),
        (("--move-bare",), "need --fix"),
    ],
)
def test_wrong_arguments(redis_server: Server, arguments: tuple[str, ...], told: str) -> None:
    """Wrong options are reported in one line, with exit code 2."""
    outcome = doctor(redis_server.url, *arguments)
    assert outcome.code == 2
    assert told in outcome.errors
    assert outcome.out == ""


def test_no_server() -> None:
    """An invalid URL or a missing server is reported without the password; the exit code is 2."""
    for address in (f"redis://:hunter2@127.0.0.1:{unused_port()}", "nonsense://:hunter2@x"):
        outcome = doctor(address)
        assert outcome.code == 2
        assert outcome.errors.startswith("lucia doctor: ")
        assert "hunter2" not in outcome.errors


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_wrong_database_number(redis_server: Server, form: tuple[str, ...]) -> None:
    """A database number that the server does not have is the only error reported."""
    outcome = doctor(f"{redis_server.url}/99", *form)
    assert outcome == Outcome(2, "", "lucia doctor: ResponseError: DB index is out of range\n")
    assert not list(Path().iterdir())


def test_other_databases_are_named_if_this_one_is_empty(redis_server: Server) -> None:
    """If a database has no sessions, other databases with keys are named."""
    with Inspector(redis_server) as inspector:
        fill(inspector, 1, 2)
        outcome = doctor(f"{redis_server.url}/5")
        assert outcome.code == 0
        assert outcome.errors == (
            "No sessions in database 5, but other databases of this server have keys: "
            "3 in database 0. Check the number at the end of the URL.\n"
        )
        assert doctor(f"{redis_server.url}/5", "--json").errors == outcome.errors
        inspector.client.acl_setuser(
            "quiet", enabled=True, passwords=["+secret"], commands=["+@all", "-info"], keys=["*"]
        )
        quiet = redis_server.url.replace("//", "//quiet:secret@")
        assert doctor(f"{quiet}/5").errors == ""
        inspector.client.acl_deluser("quiet")


def test_refused_before_the_first_key(redis_server: Server) -> None:
    """A walk that fails before the first key reports only the reason: nothing can be resumed."""
    with Inspector(redis_server) as inspector:
        inspector.client.acl_setuser(
            "limited", enabled=True, passwords=["+secret"], commands=["+@all", "-scan"], keys=["*"]
        )
        outcome = doctor(redis_server.url.replace("//", "//limited:secret@"))
        inspector.client.acl_deluser("limited")
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.errors.startswith("lucia doctor: NoPermissionError")
    assert "--resume" not in outcome.errors
    assert not list(Path().iterdir())


def test_bad_keys_can_be_found(redis_server: Server) -> None:
    """With --verbose, a damaged key is shown by a pattern with at most a quarter of its id."""
    with Inspector(redis_server) as inspector:
        patient = DamagedStore(inspector)
        session_id = f"x{new_session_id()[1:]}"  # must not start with "s" as "short" below does
        damaged = (
            patient.layout.session_key(session_id),
            patient.layout.marker_key(new_session_id()),
        )
        for key in damaged:
            inspector.client.set(key, "{}", px=50_000)
        inspector.client.hset(patient.layout.session_key("a[b*c?\\-of-another-program"), "a", "b")
        inspector.client.set(patient.layout.session_key("short"), "{}", px=50_000)
        inspector.client.set(patient.layout.index_key("mallory"), "no index")
        inspector.client.rpush(patient.layout.throttle_key("0" * 32), "1")
        examples = doctor(redis_server.url, "--json", "--verbose").report["examples"]
        shown = {
            example["key"]: example["kind"] for example in examples if example["key"] is not None
        }
        assert shown == {
            f"{damaged[0][:16]}*": "undecodable_record",
            f"{damaged[1][:33]}*": "damaged_marker",
            "session:a?b?c?*": "key_of_another_type",
            "session:s*": "undecodable_record",
            "session:throttle:00000000*": "throttle_without_ttl",
        }
        for pattern in shown:
            assert len(list(inspector.client.scan_iter(match=pattern))) == 1, pattern
        assert [example["user"] for example in examples if example["key"] is None] == ["mallory"]
        verbose = doctor(redis_server.url, "--verbose").out
        assert f"undecodable_record: keys like '{damaged[0][:16]}*'\n" in verbose
        assert "key_of_another_type: user 'mallory'\n" in verbose
        assert "None" not in verbose


def test_eviction_policy(tmp_path: Path) -> None:
    """An eviction policy other than noeviction, or an unreadable one, is a finding."""
    with own_server("redis-server", tmp_path, "--maxmemory-policy", "allkeys-lru") as server:
        outcome = doctor(server.url, "--fix", "--json")
        assert outcome.counts("left") == {Kind.EVICTION: 1}
        assert outcome.report["servers"] == [{"name": "", "eviction_policy": "allkeys-lru"}]
        assert outcome.code == 1
        assert "maxmemory-policy to noeviction" in doctor(server.url).out
        client: Any = Inspector.looking_at(server).client
        for rights, found in (
            (["-config"], Kind.EVICTION),
            (["-config", "-info"], Kind.EVICTION_UNKNOWN),
        ):
            client.acl_setuser(
                "limited",
                enabled=True,
                passwords=["+secret"],
                commands=["+@all", *rights],
                keys=["*"],
                reset=True,
            )
            limited = server.url.replace("//", "//limited:secret@")
            assert doctor(limited, "--json", "--no-cluster").counts() == {found: 1}
        client.close()


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A progress bar is shown on a terminal, also before the second examination."""
    monkeypatch.setenv("TERM", "xterm")  # the tests may run without a terminal
    for is_terminal in (True, False):
        text = StringIO()
        with doctor_command._progress(Console(file=text, force_terminal=is_terminal)) as progress:
            progress(10, None, 0)
            progress(20, 40, 0)
            progress(40, 30, 5)
        assert ("second examination in 5 s" in text.getvalue()) is is_terminal


# Resuming


@contextmanager
def amid(
    server: Server, *arguments: object, cwd: Path | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Start the command, and make it hang after three and a half pages of SCAN."""
    with LossyProxy(server.port).lose("SCAN", 1, after=3, halves=True) as proxy:
        process = start("doctor", f"redis://127.0.0.1:{proxy.port}", *arguments, cwd=cwd)
        until(lambda: proxy.lost or process.poll() is not None, 60)
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(redis_server: Server, tmp_path: Path, number: signal.Signals) -> None:
    """A signal stops the walk with exit code 2; a resumed walk counts everything once.

    The state file has no ids.
    """
    file = tmp_path / "state.json"
    with Inspector(redis_server) as inspector:
        fill(inspector, 10, MANY // 10, endless=10)
        with amid(redis_server, "--json", "--resume", file) as process:
            process.send_signal(number)
            outcome = finish(process)
        assert outcome.code == 2
        assert (
            outcome.errors
            == f"lucia doctor: interrupted. To resume, run the same command with --resume {file}\n"
        )
        assert not outcome.report["complete"]
        state = json.loads(file.read_text())
        assert state["cursor"] != "0"
        assert 0 < state["tally"]["keys"]["session"] < MANY
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "user-" not in file.read_text()
        gone_on = doctor(redis_server.url, "--json", "--resume", file)
        assert gone_on.counts() == {Kind.SESSION_WITHOUT_TTL: 10}
        assert gone_on.report["keys"]["session"] == MANY
        assert not file.exists()


def test_interrupted_without_a_file(redis_server: Server, tmp_path: Path) -> None:
    """Without --resume, the file is written to the current folder."""
    with Inspector(redis_server) as inspector:
        fill(inspector, 10, MANY // 10)
        with amid(redis_server, cwd=tmp_path) as process:
            process.send_signal(signal.SIGINT)
            outcome = finish(process)
        assert "--resume lucia-doctor.json" in outcome.errors
        assert "so far" in outcome.out
        assert (tmp_path / "lucia-doctor.json").exists()


def test_resumed_fix(redis_server: Server, tmp_path: Path) -> None:
    """A resumed --fix fixes everything, and counts nothing twice."""
    file = tmp_path / "state.json"
    with Inspector(redis_server) as inspector:
        fill(inspector, 10, MANY // 10, endless=10)
        for number in range(50):
            inspector.client.lrem(
                inspector.layout.index_key(f"user-{number % 10}"), 0, f"user-{number % 10}-{number}"
            )
        with amid(redis_server, "--json", "--fix", "--resume", file) as process:
            process.send_signal(signal.SIGINT)
            assert finish(process).code == 2
        gone_on = doctor(redis_server.url, "--json", "--fix", "--resume", file)
        assert gone_on.code == 0
        assert 0 < gone_on.counts("fixed")[Kind.UNINDEXED_SESSION] <= 50
        assert doctor(redis_server.url, "--json").counts() == {}


def test_lost_connection(tmp_path: Path) -> None:
    """A lost server ends the walk with exit code 2, the client's error, and how to resume."""
    with own_server("redis-server", tmp_path) as server, Inspector(server) as inspector:
        fill(inspector, 10, MANY // 10)
        with amid(server, "--resume", tmp_path / "state.json") as process:
            shut_down(server.port)
            outcome = finish(process)
    assert outcome.code == 2
    assert "Error: " in outcome.errors
    assert "To resume, run the same command with --resume" in outcome.errors


def _state(file: Path, url: str, **changes: Any) -> dict[str, Any]:
    """Write a state file as a run does, with changes."""
    settings = {
        name: value for name, value in doctor(url, "--json").report.items() if name in SETTINGS
    }
    empty: dict[str, Any] = {"keys": {}, "found": {}, "fixed": {}}
    state = {
        "version": 2,
        "settings": settings,
        "done": {},
        "node": None,
        "run_id": None,
        "cursor": "0",
        "tally": empty,
        **changes,
    }
    file.write_text(json.dumps(state))
    return state


SETTINGS = (
    "layout", "session_namespace", "user_session_namespace",
    "fix", "legacy_writers", "delete_damaged", "move_bare", "others",
)  # fmt: skip


def test_server_that_was_restarted(redis_server: Server, tmp_path: Path) -> None:
    """If the server was restarted, or its run id is unknown, the walk starts at the first key."""
    with Inspector(redis_server) as inspector:
        fill(inspector, 3, 1, endless=3)
        tally = {"keys": {"session": 99}, "found": {"dead_session": 99}, "fixed": {}}
        for run_id in ("another", None):
            _state(
                tmp_path / "state",
                redis_server.url,
                node="",
                run_id=run_id,
                cursor="12345",
                tally=tally,
            )
            outcome = doctor(redis_server.url, "--json", "--resume", tmp_path / "state")
            assert outcome.counts() == {Kind.SESSION_WITHOUT_TTL: 3}
            assert outcome.report["keys"]["session"] == 3


def test_nodes_that_are_done(redis_server: Server, tmp_path: Path) -> None:
    """A node that is done is not walked again, and its counts are kept."""
    with Inspector(redis_server) as inspector:
        fill(inspector, 3, 1, endless=3)
        done = {
            "": {
                "keys": {"session": 7},
                "found": {"dead_session": 2},
                "fixed": {"dead_session": 2},
            }
        }
        _state(tmp_path / "state", redis_server.url, done=done)
        outcome = doctor(redis_server.url, "--json", "--resume", tmp_path / "state")
        assert outcome.counts() == {Kind.DEAD_SESSION: 2}
        assert outcome.code == 0


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no JSON", "no state file"),
        ("[]", "no state file"),
        ("{}", "no state file"),
        ('{"version": 2, "settings": {}}', "another delete_damaged"),
        ('{"version": 1}', "another version"),
    ],
)
def test_file_that_is_no_state(
    redis_server: Server, tmp_path: Path, content: str, told: str
) -> None:
    """A file that is not a state file, or of another version or walk, is refused and unchanged."""
    file = tmp_path / "state"
    file.write_text(content)
    outcome = doctor(redis_server.url, "--resume", file)
    assert outcome.code == 2
    assert told in outcome.errors
    assert file.read_text() == content


def test_state_that_is_damaged(redis_server: Server, tmp_path: Path) -> None:
    """A damaged state file is refused."""
    with Inspector(redis_server):
        _state(tmp_path / "state", redis_server.url, cursor="x")
        assert "no state file" in doctor(redis_server.url, "--resume", tmp_path / "state").errors


def test_folder_that_is_not_there(redis_server: Server, tmp_path: Path) -> None:
    """An unreadable state file is reported."""
    assert doctor(redis_server.url, "--resume", tmp_path).code == 2


# Servers and rights


def test_cluster_or_not(cluster: Cluster, redis_server: Server) -> None:
    """A cluster is detected or named; a server that refuses INFO counts as a single one."""
    cluster.on_each("FLUSHALL")
    assert len(doctor(cluster.url, "--json").report["servers"]) == 3
    assert len(doctor(cluster.url, "--json", "--cluster").report["servers"]) == 3
    with Inspector(redis_server) as inspector:
        inspector.client.acl_setuser(
            "quiet", enabled=True, passwords=["+secret"], commands=["+@all", "-info"], keys=["*"]
        )
        quiet = doctor(redis_server.url.replace("//", "//quiet:secret@"), "--json")
        assert quiet.report["servers"] == [{"name": "", "eviction_policy": "noeviction"}]
        inspector.client.acl_deluser("quiet")
    assert doctor(redis_server.url, "--cluster").code == 2


def test_without_scripts(server: Server) -> None:
    """If scripts are refused, plain commands fix everything except duplicate entries."""
    with Inspector(server) as inspector:
        patient = DamagedStore(inspector)
        patient.in_every_way()
        inspector.client.acl_setuser(
            "plain",
            enabled=True,
            passwords=["+secret"],
            commands=["+@all", "-@scripting"],
            keys=["*"],
        )
        address = server.url.replace("//", "//plain:secret@")
        outcome = doctor(address, "--json", "--fix", "--delete-damaged", "--move-bare")
        assert outcome.counts() == patient.damage
        assert outcome.counts("left") == {Kind.DUPLICATE_ENTRY: 1}
        assert doctor(server.url, "--json").counts() == {Kind.DUPLICATE_ENTRY: 1}
        inspector.client.acl_deluser("plain")


LOOKING = {
    "default": ("scan", "type", "pttl", "mget", "time", "lrange", "llen", "lpos"),
    "lucia-v2": ("scan", "type", "pttl", "mget", "time", "sscan", "scard", "sismember"),
}
ASKING = ("dbsize", "info", "config|get")
FIXING = {
    "default": ("evalsha", "eval", "pexpireat", "unlink", "lpush", "lrem"),
    "lucia-v2": ("evalsha", "eval", "pexpireat", "unlink", "sadd", "srem"),
}


def _heals(
    address: str, inspector: Inspector, layout: str, commands: Iterable[str], *options: str
) -> bool:
    """Return whether a user with these rights finds all damage and, with --fix, fixes it."""
    inspector.on_each("FLUSHALL")
    inspector.on_each("SCRIPT", "FLUSH")
    patient = DamagedStore(inspector)
    patient.in_every_way(bare=False)
    patterns = [f"~{inspector.layout.session_key('*')}", f"~{inspector.layout.index_key('*')}"]
    inspector.on_each(
        "ACL",
        "SETUSER",
        "nurse",
        "reset",
        "on",
        ">secret",
        *patterns,
        *(f"+{command}" for command in commands),
    )
    outcome = doctor(
        address.replace("//", "//nurse:secret@"),
        "--json",
        "--no-others",
        "--layout",
        layout,
        *options,
    )
    inspector.on_each("ACL", "DELUSER", "nurse")
    return outcome.code == int("--fix" not in options) and outcome.counts() == patient.damage


def test_documented_rights() -> None:
    """The documentation names each right."""
    page = (Path(__file__).parents[2] / "docs/doctor.md").read_text()
    for command in (
        *ASKING,
        *(
            each
            for rights in (LOOKING, FIXING)
            for commands in rights.values()
            for each in commands
        ),
    ):
        assert f"+{command}" in page, command


@pytest.mark.parametrize("layout", LAYOUTS)
def test_least_rights(server: Server, layout: str) -> None:
    """The documented rights suffice; each is needed, except for questions about the server."""
    looking, fix = LOOKING[layout], ("--no-cluster", "--fix", "--delete-damaged")
    with Inspector(server, LAYOUTS[layout]) as inspector:
        assert _heals(server.url, inspector, layout, (*looking, *ASKING), "--no-cluster")
        enough = (*looking, *ASKING, *FIXING[layout])
        assert _heals(server.url, inspector, layout, enough, *fix)
        assert _heals(server.url, inspector, layout, (*looking, "info", *FIXING[layout]), *fix)
        for command in (*looking, *FIXING[layout]):
            assert not _heals(
                server.url, inspector, layout, (each for each in enough if each != command), *fix
            ), command


def test_least_rights_in_a_cluster(cluster: Cluster) -> None:
    """A cluster needs two more rights."""
    rights = (*LOOKING["default"], *ASKING, "cluster|slots", "command")
    with ClusterInspector(cluster) as inspector:
        assert _heals(cluster.url, inspector, "default", rights)


def test_others_without_a_right_to_them(redis_server: Server) -> None:
    """Other keys that may not be read are one finding, and the store's own keys are examined."""
    with Inspector(redis_server) as inspector:
        fill(inspector, 1, 2, endless=1)
        inspector.client.mset({f"foreign-{number}": 1 for number in range(2_000)})
        inspector.client.acl_setuser(
            "nurse",
            enabled=True,
            passwords=["+secret"],
            commands=["+@all"],
            keys=["session:*", "userSession:*"],
        )
        outcome = doctor(redis_server.url.replace("//", "//nurse:secret@"), "--json")
        assert outcome.counts() == {Kind.OTHERS_UNREADABLE: 1, Kind.SESSION_WITHOUT_TTL: 1}
        assert (
            "None" not in doctor(redis_server.url.replace("//", "//nurse:secret@"), "--verbose").out
        )
        inspector.client.acl_deluser("nurse")


def test_check_changes_no_key(redis_server: Server) -> None:
    """A run with a state file and without --fix changes no key."""
    with Inspector(redis_server) as inspector:
        DamagedStore(inspector).in_every_way()
        before = dump(inspector)
        doctor(redis_server.url, "--resume", "never-written.json")
        assert dump(inspector) == before
        assert not Path("never-written.json").exists()
