"""How the demo finds or starts its Redis server."""

import shutil
from pathlib import Path

import pytest
import redis
from redis.exceptions import RedisError

from examples.demo import servers
from examples.demo.servers import ServerError, find_program, wheel_program
from tools.servers import Server


def answers(url: str) -> bool:
    """Return whether a Redis answers at this URL."""
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except RedisError:
        return False


def path_with(folder: Path, *programs: str) -> str:
    """Return a PATH with a single folder that has only these programs."""
    folder.mkdir()
    for program in programs:
        (folder / program).symlink_to(shutil.which(program) or "missing")
    return str(folder)


def program_that(folder: Path, does: str) -> str:
    """Return a PATH with a single folder whose ``redis-server`` runs this instead."""
    folder.mkdir()
    script = folder / "redis-server"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    return str(folder)


def test_redis_url_goes_first(redis_server: Server, tmp_path: Path) -> None:
    """With REDIS_URL no server is started, and the description does not show the URL."""
    environ = {"REDIS_URL": redis_server.url, "PATH": path_with(tmp_path / "bin", "redis-server")}
    with servers.redis_server(tmp_path, environ) as server:
        assert server is not None
        assert server.url == redis_server.url
        assert server.about.startswith("Redis ")
        assert server.about.endswith(", from REDIS_URL")
    assert not (tmp_path / "redis.log").exists()


@pytest.mark.parametrize(
    ("program", "name"), [("redis-server", "Redis "), ("valkey-server", "Valkey ")]
)
def test_a_program_on_path_is_started_and_stopped(program: str, name: str, tmp_path: Path) -> None:
    """Either program on PATH is started, on localhost only, and stopped after the block."""
    with servers.redis_server(
        tmp_path, {"PATH": path_with(tmp_path / "bin", program)}, wheels=()
    ) as server:
        assert server is not None
        assert server.about.startswith(name)
        assert answers(server.url)
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            settings = client.config_get("bind", "dir", "save")
        assert settings == {"bind": "127.0.0.1", "dir": str(tmp_path), "save": ""}
    assert not answers(server.url)


def test_redis_goes_before_valkey(tmp_path: Path) -> None:
    """If both programs are on PATH, ``redis-server`` is used."""
    path = path_with(tmp_path / "bin", "redis-server", "valkey-server")
    assert find_program(path, ()) == f"{path}/redis-server"


def test_a_wheel_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a program on PATH, the one of an installed wheel is started."""
    for package in ("wheel_without_a_server", "wheel_with_a_server"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(
            "raise RuntimeError('it need not be imported')"
        )
    path_with(tmp_path / "wheel_with_a_server" / "bin", "redis-server")
    monkeypatch.syspath_prepend(str(tmp_path))
    wheels = ("wheel_that_is_not_there", "wheel_without_a_server", "wheel_with_a_server")
    assert wheel_program(wheels) == str(tmp_path / "wheel_with_a_server" / "bin" / "redis-server")
    with servers.redis_server(tmp_path, {"PATH": str(tmp_path)}, wheels=wheels) as server:
        assert server is not None
        assert answers(server.url)


def test_without_any_there_is_none(tmp_path: Path) -> None:
    """Without REDIS_URL, a program or a wheel there is no server, which is not an error."""
    with servers.redis_server(tmp_path, {"PATH": str(tmp_path)}, wheels=()) as server:
        assert server is None


@pytest.mark.parametrize(
    "url", ["redis://:secret-password@127.0.0.1:1", "nonsense:secret-password"]
)
def test_a_redis_url_that_does_not_answer_is_an_error(url: str, tmp_path: Path) -> None:
    """If nothing answers at REDIS_URL, an error is raised that does not quote the URL."""
    with pytest.raises(ServerError) as raised, servers.redis_server(tmp_path, {"REDIS_URL": url}):
        pass
    assert "secret-password" not in str(raised.value)


@pytest.mark.parametrize(
    ("does", "says"), [("echo no memory; exit 1", "no memory"), ("exit 1", "it wrote no log")]
)
def test_a_program_that_does_not_start_is_an_error(does: str, says: str, tmp_path: Path) -> None:
    """A server program that exits at once is an error with the end of its log."""
    environ = {"PATH": program_that(tmp_path / "bin", does)}
    with pytest.raises(ServerError, match=says), servers.redis_server(tmp_path, environ):
        pass


def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    """A server program that neither answers nor terminates is killed."""
    pid = tmp_path / "pid"
    environ = {
        "PATH": program_that(
            tmp_path / "bin",
            f"trap '' TERM; echo $$ >{pid}; while :; do read -t 60 x </dev/zero; done",
        )
    }
    with pytest.raises(ServerError), servers.redis_server(tmp_path, environ, patience=0.5):
        pass
    assert not Path("/proc", pid.read_text().strip()).exists()
