"""The small application of each framework's page, started as the page says, and driven."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.docs.run_page import BLOCK
from tests.docs.test_pages import ROOT, after, environment_in, preparations, wheel
from tools.examples import with_examples
from tools.servers import Server, until, unused_port

__all__ = ["wheel"]

EXAMPLES: Final = ROOT / "examples/small"
PAGES: Final = {
    path.stem: path
    for path in sorted(ROOT.glob("docs/*.md"))
    if f"<!-- examples/small/{path.stem}_app.py -->" in path.read_text()
}
PORT_OPTIONS: Final = {
    "uvicorn": ["--port", "{port}"],
    "hypercorn": ["--bind", "127.0.0.1:{port}"],
    "gunicorn": ["--bind", "127.0.0.1:{port}"],
}
"""How each server of the pages is told its port."""

MOST_LINES: Final = 16


def start_of(page: Path, port: int) -> list[str]:
    """Return the command of a page that starts the application, on this port."""
    commands = [text for language, text in BLOCK.findall(page.read_text()) if language == "bash"]
    words = next(text for text in commands if not text.startswith("pip install")).split()
    return [*words, *(option.format(port=port) for option in PORT_OPTIONS[words[0]])]


def test_pages_show_the_files() -> None:
    """Each framework has an example, and its page shows the files that run."""
    assert PAGES.keys() == {"fastapi", "flask", "litestar", "quart", "starlette"}
    for page in ROOT.glob("docs/*.md"):
        text = page.read_text()
        assert with_examples(text) == text, f"run tools/examples.py: {page.name} has other files"


@pytest.mark.parametrize("name", PAGES)
def test_examples_are_small(name: str) -> None:
    """The whole application has at most 16 lines in each framework, with its imports."""
    lines = (EXAMPLES / f"{name}_app.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= MOST_LINES


@contextmanager
def started(command: list[str | Path], folder: Path, variables: dict[str, str]) -> Iterator[None]:
    """Run a server in a folder with the files of a page."""
    with subprocess.Popen(command, cwd=folder, env=variables) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # older hypercorns wait for ever
                process.kill()


def write_files(name: str, folder: Path) -> None:
    """Write the files that a page says to save."""
    stores = "flask_stores.py" if name == "flask" else "stores.py"
    (folder / stores).write_text((EXAMPLES / stores).read_text())
    (folder / "app.py").write_text((EXAMPLES / f"{name}_app.py").read_text())


def drive(url: str, *, greets_by_name: bool = False) -> None:
    """Sign up, log in on a second device, log it out from the first one, and log out."""

    def browser() -> httpx.Client:
        return httpx.Client(base_url=url, headers={"Origin": url}, trust_env=False, timeout=30)

    def is_up() -> bool:
        try:
            return httpx.get(f"{url}/auth/me", trust_env=False).status_code == 401
        except httpx.TransportError:
            return False

    until(is_up, 60)
    with browser() as laptop, browser() as phone:
        page = laptop.get("/", headers={"Accept": "text/html"})
        assert page.headers["location"].endswith("/auth/login?next=/")
        assert laptop.get("/").status_code == 401
        name = f"anna{secrets.token_hex(4)}"
        anna = {"username": name, "password": "correct horse"}
        user_id = laptop.post("/auth/signup", json=anna).json()["user_id"]
        assert f"Hello {name if greets_by_name else user_id}" in laptop.get("/").text
        assert phone.post("/auth/login", data=anna).status_code == 200
        newest, oldest = laptop.get("/auth/devices").json()
        assert (newest["current"], oldest["current"]) == (False, True)
        assert laptop.post(f"/auth/devices/{newest['handle']}/revoke").status_code == 204
        assert phone.get("/").status_code == 401
        evil = {"Origin": "https://evil.example"}
        assert laptop.post("/auth/logout", headers=evil).status_code == 403
        assert laptop.post("/auth/logout").status_code == 204
        assert laptop.get("/").status_code == 401


@pytest.mark.no_cover
@pytest.mark.parametrize("name", PAGES)
def test_example(name: str, redis_server: Server, tmp_path: Path) -> None:
    """The files run by the page's command, and the application works."""
    write_files(name, tmp_path)
    port = unused_port()
    variables = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    variables |= {"REDIS_URL": redis_server.url, "SESSION_KEY": secrets.token_hex(32)}
    command = ["-m", *start_of(PAGES[name], port)]
    with started([sys.executable, *command], tmp_path, variables):
        drive(f"http://127.0.0.1:{port}")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_example_in_a_new_environment(
    name: str, wheel: Path, redis_server: Server, tmp_path: Path
) -> None:
    """The page's own install line brings everything that its files need."""
    write_files(name, tmp_path)
    page, port = PAGES[name], unused_port()
    variables = environment_in(tmp_path, redis_server, "uv")
    command = after(preparations(page)[0], wheel, redis_server, *start_of(page, port))
    with started(command, tmp_path, variables):
        drive(f"http://127.0.0.1:{port}")
