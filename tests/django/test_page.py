"""The page about Django: its files make a project, whose own tests pass."""

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import redis

from tests.docs.run_page import SHOWN_URL
from tests.docs.test_examples import drive, started
from tools.servers import Server, unused_port

PAGE: Final = Path(__file__).parents[2].joinpath("docs/django.md").read_text()
FILES: Final = re.findall(r"(?ms)^```py\n# (\S+?\.py)(, .*?)?\n(.*?)^```$", PAGE)
"""The name of each file, whether it is further text for that file, and the text."""

EXAMPLES: Final = Path(__file__).parents[2] / "examples/small/django"
MOST_LINES: Final = 16
COMMANDS: Final = [
    line
    for block in re.findall(r"(?ms)^```bash\n(.*?)^```$", PAGE)
    for line in block.splitlines()
    if line.startswith(("django-admin", "python"))
]


def run(folder: Path, *arguments: str) -> str:
    """Run Python in the folder, and return what it printed."""
    # Without the settings of a test runner, and with the warnings of Django's next version.
    variables = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO")}
    variables["SESSION_KEY"] = secrets.token_hex(32)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", *arguments],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5_000:]
    return done.stdout


def write(folder: Path, *apps: str, url: str = SHOWN_URL) -> None:
    """Write the files of these apps into a project."""
    for name, is_more, text in FILES:
        if name.partition("/")[0] in apps:
            with (folder / name).open("a" if is_more else "w") as file:
                file.write(text.replace(SHOWN_URL, url))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a new project with a new app, as the page's first commands make it."""
    start, app, *_ = COMMANDS
    run(tmp_path, "-m", *start.replace("django-admin", "django").split())
    run(tmp_path, *app.split()[1:])
    return tmp_path


def test_project(project: Path, redis_server: Server) -> None:
    """The page's project has all migrations, and passes its tests, sync and async."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    write(project, "mysite", "accounts", url=redis_server.url)
    run(project, "manage.py", "makemigrations", "--check")
    migrate, test, serve = (command.split()[1:] for command in COMMANDS[2:])
    run(project, *migrate)
    assert "Ran 6 tests" in run(project, *test)
    assert serve == ["manage.py", "runserver"]
    assert "[X] 0001_initial" in run(project, "manage.py", "showmigrations", "lucia")
    run(project, "manage.py", "migrate", "lucia", "zero")
    assert "[ ] 0001_initial" in run(project, "manage.py", "showmigrations", "lucia")


def test_example(project: Path, redis_server: Server) -> None:
    """The page's first files make the small application of all frameworks, and it works.

    Without what Django has generated and what names the stores, it has at most 16 lines.
    """
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()  # or new users would find the logins of former ones with their ids
    lines = 0
    for shown in EXAMPLES.glob("*.py"):
        name, is_more, text = next(each for each in FILES if each[0].endswith(f"/{shown.name}"))
        assert text.rstrip() in shown.read_text()
        file = project / name
        generated = file.read_text().replace("'", '"') if file.exists() else ""
        if shown.stem != "auth":
            known = generated.splitlines()
            lines += sum(1 for line in text.splitlines() if line.strip() and line not in known)
        file.write_text(generated + text if is_more else text)
    assert 0 < lines <= MOST_LINES
    run(project, "manage.py", "migrate")
    port = unused_port()
    variables = {key: value for key, value in os.environ.items() if "COVERAGE" not in key}
    variables |= {"REDIS_URL": redis_server.url, "SESSION_KEY": secrets.token_hex(32)}
    command: list[str | Path] = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
    with started(command, project, variables):
        drive(f"http://127.0.0.1:{port}", greets_by_name=True)


def test_own_models(project: Path) -> None:
    """The page's own models need no app of the library in the settings."""
    run(project, "manage.py", "startapp", "members")
    write(project, "members")
    with (project / "mysite/settings.py").open("a") as file:
        file.write('INSTALLED_APPS += ["members"]\n')
    run(project, "manage.py", "makemigrations", "members")
    run(project, "manage.py", "migrate")
    script = """
from lucia import PrimaryKey
from members.auth import auth
from members.models import MemberKey
user = auth.create_user(
    primary_key=PrimaryKey("email", "anna@example.com", "correct horse"),
    attributes={"email": "anna@example.com"},
)
key = MemberKey.objects.get()
print(key.user_id == user.user_id, key, MemberKey._meta.db_table)
"""
    output = run(project, "manage.py", "shell", "-c", script)
    assert output.splitlines()[-1] == "True email key member_key"
