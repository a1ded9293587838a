"""Pages with Python: each runs in a new environment, with the page's own install line."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import pytest
import redis

from tests.docs.run_page import BLOCK, PACKAGE, SHOWN_DATABASE, SHOWN_URL
from tools.servers import Server, until, unused_port

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [
    path
    for path in sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
    if any(block[0] == "python" for block in BLOCK.findall(path.read_text()))
]
SERVED: Final = [path for path in PAGES if "\nuvicorn main:app\n" in path.read_text()]
PAGE_RUNNER: Final = Path(__file__).with_name("run_page.py")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True
    )
    return next(folder.glob("lucia_auth-*.whl"))


def environment_in(folder: Path, wheel: Path, server: Server) -> tuple[Path, dict[str, str]]:
    """Create a virtual environment; return its Python and the variables of an active shell."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COV", "PYTEST"))
    }
    path = f"{folder / 'venv/bin'}:{inherited['PATH']}"
    added = {
        "PATH": path,
        "VIRTUAL_ENV": str(folder / "venv"),
        "LUCIA_WHEEL": str(wheel),
        "REDIS_URL": server.url,
    }
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return folder / "venv/bin/python", inherited | added


def run(folder: Path, variables: Mapping[str, str], *command: str | Path) -> None:
    """Run a command in the folder, and show its output if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5_000:]


def test_pages_say_what_to_install() -> None:
    """A page shows an install line before its first Python block."""
    missing = []
    for page in PAGES:
        blocks = BLOCK.findall(page.read_text())
        first = [language for language, _ in blocks].index("python")
        if not any(text.startswith("pip install ") for _, text in blocks[:first]):
            missing.append(page.name)
    assert missing == []
    assert len(PAGES) > 10


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(
    page: Path, wheel: Path, redis_server: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In a new environment with only what the page installs, its Python blocks run to the end."""
    python, variables = environment_in(tmp_path, wheel, redis_server)
    with ExitStack() as stack:
        if shown := SHOWN_DATABASE.search(page.read_text()):
            server = request.getfixturevalue(shown[1] or "secantusdb")
            variables["DATABASE_URL"] = stack.enter_context(server.document_database())
        run(tmp_path, variables, python, PAGE_RUNNER, page)


@contextmanager
def serving(folder: Path, variables: Mapping[str, str]) -> Iterator[str]:
    """Run ``uvicorn main:app`` on a free port, and yield its origin."""
    port = unused_port()
    with subprocess.Popen(
        [folder / "venv/bin/uvicorn", "main:app", "--port", str(port)], cwd=folder, env=variables
    ) as process:
        try:
            yield f"http://localhost:{port}"
        finally:
            process.terminate()


def sign_up(origin: str) -> int:
    """Send a sign-up as a browser does, once the server listens, and return the status."""
    until(lambda: is_listening(origin), 60)
    with closing(HTTPConnection(origin.removeprefix("http://"))) as connection:
        headers = {"Origin": origin, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/signup", "name=alice&password=correct+horse", headers)
        return connection.getresponse().status


def is_listening(origin: str) -> bool:
    """Return whether a server accepts connections at the origin."""
    with closing(HTTPConnection(origin.removeprefix("http://"))) as connection, suppress(OSError):
        connection.connect()
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("page", SERVED, ids=lambda page: page.stem)
def test_served_page(page: Path, wheel: Path, redis_server: Server, tmp_path: Path) -> None:
    """A page's first block runs as ``main.py`` with uvicorn, if the page says so."""
    _, variables = environment_in(tmp_path, wheel, redis_server)
    text = page.read_text()
    install = next(
        found
        for language, found in BLOCK.findall(text)
        if language == "bash" and found.startswith("pip install ")
    )
    run(tmp_path, variables, "bash", "-euc", PACKAGE.sub(lambda _: str(wheel), install))
    main = next(found for language, found in BLOCK.findall(text) if language == "python")
    (tmp_path / "main.py").write_text(main.replace(SHOWN_URL, redis_server.url))
    with serving(tmp_path, variables) as origin:
        assert sign_up(origin) == 200
