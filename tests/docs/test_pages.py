"""Pages with Python: each runs in a new environment, with the page's own install line."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Final, Literal

import pytest
import redis

from tests.docs.run_page import BLOCK, SHOWN_DATABASE, SHOWN_URL
from tools.servers import Server, until, unused_port

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [
    path
    for path in sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
    if any(block[0] == "python" for block in BLOCK.findall(path.read_text()))
]
SERVED: Final = [path for path in PAGES if "\nuvicorn main:app\n" in path.read_text()]
UV: Final = Path(sys.executable).with_name("uv")
PAGE_RUNNER: Final = Path(__file__).with_name("run_page.py")

_PACKAGE: Final = re.compile(r"\blucia-auth(?=[\[\s\"']|$)")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([UV, "build", "-q", "--wheel", "-o", folder, ROOT], check=True)
    return next(folder.glob("lucia_auth-*.whl"))


def environment_in(folder: Path, server: Server, installer: Literal["pip", "uv"]) -> dict[str, str]:
    """Create a virtual environment, and return the variables of a shell in which it is active.

    Its command ``pip`` is pip itself, or runs uv, which installs the same in a tenth of the time.
    """
    if installer == "pip":
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    else:
        subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder / "venv"], check=True)
        command = folder / "venv/bin/pip"
        command.write_text(f'#!/bin/sh\nexec "{UV}" pip "$@" --link-mode copy\n')
        command.chmod(0o755)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "COV", "PYTEST", "SESSION_KEY"))
    }
    path = f"{folder / 'venv/bin'}:{inherited['PATH']}"
    added = {
        "PATH": path,
        "VIRTUAL_ENV": str(folder / "venv"),
        "REDIS_URL": server.url,
    }
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return inherited | added


def preparations(page: Path) -> list[str]:
    """Return the shell blocks of a page that install something."""
    blocks = BLOCK.findall(page.read_text())
    return [text for name, text in blocks if name == "bash" and text.startswith("pip install ")]


def after(commands: str, wheel: Path, server: Server, *command: str | Path) -> list[str | Path]:
    """Return a command that runs in the shell of a reader who has run these commands.

    So it has the variables that they export. They install the wheel and use the test server.
    """
    script = _PACKAGE.sub(lambda _: str(wheel), commands).replace(SHOWN_URL, server.url)
    return ["bash", "-euc", f'{script}\nexec "$@"', "bash", *command]


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


def test_pages_export_what_they_read() -> None:
    """A page that reads a variable of the environment exports it where it installs things."""
    needed = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r'os\.environ\["(\w+)"\]', page.read_text())
    }
    exported = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"(?m)^export (\w+)=", "".join(preparations(page)))
    }
    assert needed - exported == {("production.md", "REDIS_URL")}


def test_pages_hash_ids() -> None:
    """Each Redis adapter in a page has `id_keys`, unless the block says why it has raw ids."""
    adapters = [
        (page.name, ast.unparse(node), any(each.arg == "id_keys" for each in node.keywords))
        for page in PAGES
        for language, block in BLOCK.findall(page.read_text())
        if language == "python" and not block.startswith(">>>") and "raw ids" not in block
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("RedisSessionAdapter")
    ]
    assert [(page, call) for page, call, hashes in adapters if not hashes] == []
    assert len(adapters) > 10


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(
    page: Path, wheel: Path, redis_server: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In a new environment with only what the page installs, its Python blocks run to the end."""
    installer: Literal["pip", "uv"] = "pip" if page.stem == "README" else "uv"
    variables = environment_in(tmp_path, redis_server, installer)
    python = tmp_path / "venv/bin/python"
    with ExitStack() as stack:
        if shown := SHOWN_DATABASE.search(page.read_text()):
            server = request.getfixturevalue(shown[1] or "secantusdb")
            variables["DATABASE_URL"] = stack.enter_context(server.document_database())
        done = subprocess.run(
            after("".join(preparations(page)), wheel, redis_server, python, PAGE_RUNNER, page),
            cwd=tmp_path,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert done.returncode == 0, done.stdout[-5_000:]


@contextmanager
def serving(folder: Path, server: Server, wheel: Path, commands: str) -> Iterator[str]:
    """Run ``uvicorn main:app`` on a free port after these commands, and yield its origin."""
    port = unused_port()
    uvicorn = after(commands, wheel, server, "uvicorn", "main:app", "--port", str(port))
    variables = environment_in(folder, server, "uv")
    with subprocess.Popen(uvicorn, cwd=folder, env=variables) as process:
        try:
            yield f"http://localhost:{port}"
        finally:
            process.terminate()


def sign_up(origin: str, path: str) -> int:
    """Send a sign-up as a browser does, once the server listens, and return the status."""
    until(lambda: is_listening(origin), 300)  # what it needs is installed first
    with closing(HTTPConnection(origin.removeprefix("http://"))) as connection:
        headers = {"Origin": origin, "Content-Type": "application/x-www-form-urlencoded"}
        form = "name=alice&username=alice&password=correct+horse"
        connection.request("POST", path, form, headers)
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
    blocks = BLOCK.findall(page.read_text())
    main = next(found for language, found in blocks if language == "python")
    (tmp_path / "main.py").write_text(main.replace(SHOWN_URL, redis_server.url))
    with serving(tmp_path, redis_server, wheel, preparations(page)[0]) as origin:
        path, status = ("/auth/signup", 201) if "web.router(" in main else ("/signup", 200)
        assert sign_up(origin, path) == status
