"""The demo's check and its command line."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo import check as checks
from examples.demo.__main__ import address, folder, listen, main, run_check, session_key
from examples.demo.app import COOKIE
from examples.demo.redis_view import RedisView
from examples.demo.servers import Server as Found
from tests.demo.test_servers import answers, path_with
from tools.servers import Server

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that the command line replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_check_passes(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a real server every check passes, and no whole session id is printed."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    assert main(["--check"]) == 0
    printed = capsys.readouterr().out
    assert "Every promise was kept" in printed
    assert printed.count("Redis holds") == len(checks.STEPS) + printed.count("ok  Redis holds")
    assert not re.search(r"\b[0-9A-Za-z]{40}\b", printed)


async def test_a_broken_promise_is_exit_code_1(
    redis_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed step ends the check with exit code 1 and names what failed."""

    async def revoke_behind_its_back(world: checks.World) -> None:
        """Delete the session's record by hand."""
        await world.inspector.delete(f"session:{world.redis.stored(world.first.cookies[COOKIE])}")
        checks.must(
            checks.is_member(await world.get(world.first)), "the first browser is still logged in"
        )

    async def never(world: checks.World) -> None:
        raise AssertionError("a step ran after a failed one")

    steps = (checks.sign_up, revoke_behind_its_back, never)
    assert await checks.check(Found(redis_server.url, "Redis"), tmp_path, steps) == 1
    assert "BROKEN  the first browser is still logged in: it did not" in capsys.readouterr().out


async def test_the_check_sees_a_page_that_tells_an_id(
    redis_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page with a whole session id fails the check."""

    async def show_the_id(world: checks.World) -> None:
        """Sign up, and change the name to show to the session's id."""
        await checks.sign_up(world)
        name = {"display_name": world.first.cookies[COOKIE]}
        await world.demo.accounts.adapter.update_user_attributes(world.user_id, name)
        await world.get(world.first)

    assert await checks.check(Found(redis_server.url, "Redis"), tmp_path, (show_the_id,)) == 1
    assert "no page carries a whole session id" in capsys.readouterr().out


def test_without_a_server_the_check_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a server the check says what to install, and exits with 2."""
    assert run_check(tmp_path, None) == 2
    assert "Install redis-server or valkey-server" in capsys.readouterr().err


def test_a_redis_url_that_does_not_answer_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If nothing answers at REDIS_URL, the demo says so and exits with 2."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    assert main(["--check"]) == 2
    assert "no Redis answers" in capsys.readouterr().err


def test_a_port_that_was_asked_for_and_is_taken_is_exit_code_2(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port given on the command line that is in use is an error."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    assert main(["--port", str(redis_server.port)]) == 2
    assert "in use" in capsys.readouterr().err


def test_the_default_port_gives_way() -> None:
    """If the default port is in use, the demo takes a free one."""
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


def test_the_folder_stays_if_it_was_asked_for(tmp_path: Path) -> None:
    """A given folder is created for its owner alone, and kept; otherwise it is temporary."""
    with folder(tmp_path / "deep" / "data") as kept:
        assert kept.stat().st_mode & 0o777 == 0o700
    assert kept.is_dir()
    with folder(None) as temporary:
        assert temporary.is_dir()
    assert not temporary.exists()


def test_the_key_of_a_folder_stays(tmp_path: Path) -> None:
    """A folder gets a key once, for its owner alone, so that sessions outlive a restart."""
    key = session_key(tmp_path)
    assert session_key(tmp_path) == key
    assert len(key) == 32
    assert (tmp_path / "session.key").stat().st_mode & 0o777 == 0o600


def test_the_address_to_open() -> None:
    """The printed URL has a host that a browser can open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert address("127.0.0.1", listener) == f"http://localhost:{port}"
        assert address("::", listener) == f"http://{socket.gethostname()}:{port}"
        assert address("::1", listener) == f"http://[::1]:{port}"


def end(process: "subprocess.Popen[str]") -> int:
    """Return the exit code of a process; if it hangs, raise an error with its threads' stacks."""
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        _, errors = process.communicate(timeout=30)
        raise AssertionError(f"the process does not exit:\n{errors}") from None


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 0),
        (signal.SIGTERM, 128 + signal.SIGTERM),
        (signal.SIGHUP, 128 + signal.SIGHUP),
    ],
)
def test_a_signal_leaves_no_server_behind(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """SIGINT, SIGTERM and SIGHUP stop the server that was started, and delete its folder."""
    environ = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    environ |= {
        "PATH": path_with(tmp_path / "bin", "redis-server"),
        "TMPDIR": str(tmp_path),
        "PYTHONFAULTHANDLER": "1",
    }
    command = [sys.executable, "-m", "examples.demo", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        port = re.search(r"redis-cli -p (\d+)", lines[0])
        assert port is not None, (lines, process.stderr and process.stderr.read())
        assert answers(f"redis://127.0.0.1:{port[1]}")
        process.send_signal(number)
        try:
            assert end(process) == code
        finally:
            process.kill()
    assert not answers(f"redis://127.0.0.1:{port[1]}")
    assert not list(tmp_path.glob("lucia-demo-*"))


def test_ctrl_c_during_the_check(redis_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that is interrupted did not succeed, and prints no traceback."""

    def interrupt(_data: Path, _server: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setattr("examples.demo.__main__.run_check", interrupt)
    assert main(["--check"]) == 128 + signal.SIGINT


SIGNAL_IN_A_FINALIZER = """
import signal
import socket
import sys

import uvicorn
from examples.demo.__main__ import main

serve = uvicorn.Server.run


class Signal:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def run(server, sockets):
    Signal()
    serve(server, sockets)


uvicorn.Server.run = run
sys.exit(main(["--port", "0"]))
"""


def test_a_signal_while_a_finalizer_runs_is_not_lost(redis_server: Server) -> None:
    """A signal during a ``__del__``, where Python drops exceptions, stops the demo."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_IN_A_FINALIZER],
        cwd=ROOT,
        env=os.environ | {"REDIS_URL": redis_server.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr


async def test_view_skips_records_that_are_no_sessions(redis_server: Server) -> None:
    """A record that is no session is not shown, and a missing session is not created."""
    view = RedisView.connect(redis_server.url, "Redis", bytes(32))
    await view.client.delete("userSession:view-user", "session:view-broken")
    await view.client.rpush("userSession:view-user", "view-broken", view.stored("view-gone"))
    await view.client.set("session:view-broken", "[]")
    assert [key.kind for key in await view.held("view-user", "", 0)] == ["list"]
    await view.let_go_idle("view-gone", 0)
    assert not await view.client.exists(f"session:{view.stored('view-gone')}")
    await view.client.delete("userSession:view-user", "session:view-broken")
    await view.close()
