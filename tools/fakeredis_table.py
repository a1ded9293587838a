"""Write the table in docs/testing.md: which requirements the Redis adapters meet on fakeredis.

    python tools/fakeredis_table.py            run the suites, and write the table
    python tools/fakeredis_table.py --check    write nothing; print what is wrong and exit with 1

The requirements are the tests of ``RenewingSessionAdapterSuite``. They run with sync and async
clients, with Lua scripts and without, as fakeredis is without its extra ``lua``. The versions above
the table are those that it was made with: the check compares the results alone.
"""

import argparse
import asyncio
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from lucia.adapters.redis import AsyncRedisSessionAdapter, RedisSessionAdapter
from lucia.testing import AsyncRenewingSessionAdapterSuite, RenewingSessionAdapterSuite

__all__ = ["Broken", "Results", "main", "measured", "table"]

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs/testing.md"
BEGIN: Final = "<!-- written by tools/fakeredis_table.py -->\n"
END: Final = "<!-- end of what is written -->\n"

TOPICS: Final[Mapping[str, str]] = {
    "Reading a session": "get|times|attributes",
    "The session list": "list|many",
    "Revoking sessions": "delete|keep|login_after",
    "Expiry": "expired",
    "Session ids": "duplicate|set_at_once|taken|longest|odd|similar|unknown_user",
    "Exact ids": "other_spellings|renew_other_spellings",
    "Renewing a session": "renew|successor|no_grace|no_successor|end_of_grace",
    "A cap on logins": "cap",
}
"""The headings of docs/promises.md, and how the names of the tests begin; the first one counts."""

_SECONDS: Final = 300
"""How long a run of the suites may take. It takes a few seconds."""


class Broken(Exception):
    """The suites did not run to their end, or a test has no topic."""


class Results(NamedTuple):
    """Whether there were scripts, and whether each test passed, by its name."""

    has_scripts: bool
    sync: Mapping[str, bool]
    asynchronous: Mapping[str, bool]


def main(arguments: Sequence[str] | None = None, page: Path = PAGE) -> int:
    """Write or check the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it differs")
    parser.add_argument("--measure", choices=["lua", "plain"], help="print results as JSON")
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(_measure(with_lua=options.measure == "lua")))
        return 0
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    found, _, after = rest.partition(END)
    try:
        expected = table(*measured())
    except Broken as error:
        print(error, file=sys.stderr)
        return 1
    if not options.check:
        page.write_text(f"{before}{BEGIN}{expected}{END}{after}", encoding="utf-8")
    elif _without_versions(found) != _without_versions(expected):
        print(f"{page} is out of date: run python tools/fakeredis_table.py", file=sys.stderr)
        return 1
    return 0


def measured() -> tuple[Results, Results]:
    """Run the suites with scripts and without, each in a process of its own.

    Raises:
        Broken: a process failed.
    """
    with ThreadPoolExecutor() as pool:
        with_lua, plain = pool.map(_run, ("lua", "plain"))
    if not with_lua.has_scripts or plain.has_scripts:
        raise Broken("fakeredis has scripts without lupa, or none with it: install fakeredis[lua]")
    return with_lua, plain


def _run(kind: str) -> Results:
    command = [sys.executable, __file__, "--measure", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)  # noqa: S603
    if done.returncode:
        raise Broken(done.stderr)
    return Results(*json.loads(done.stdout))


def table(with_lua: Results, plain: Results) -> str:
    """Return the table in Markdown, below a line that sums it up.

    Raises:
        Broken: a test has no topic.
    """
    names = sorted(with_lua.sync, key=_topic_number)
    runs = [with_lua.sync, with_lua.asynchronous, plain.sync, plain.asynchronous]
    holding = sum(all(run[name] for run in runs) for name in names)
    summary = (
        f"With fakeredis {version('fakeredis')} and redis-py {version('redis')}, {holding} of the "
        f"{len(names)} requirements hold everywhere: in sync and in async code, with the extra "
        "`lua` and without it.\n\n"
    )
    header = (
        "| promise | requirement | `FakeRedis` | `FakeAsyncRedis` |\n| --- | --- | --- | --- |\n"
    )
    rows: list[str] = []
    for name in names:
        heading = [*TOPICS][_topic_number(name)]
        told = inspect.getdoc(getattr(RenewingSessionAdapterSuite, name)) or ""
        cells = [
            f"[{heading}](promises.md#{heading.lower().replace(' ', '-')})",
            told.partition("\n")[0].replace("``", "`").replace("|", r"\|"),
            _cell(with_lua.sync[name], plain.sync[name]),
            _cell(with_lua.asynchronous[name], plain.asynchronous[name]),
        ]
        rows.append(f"| {' | '.join(cells)} |\n")
    return summary + header + "".join(rows)


def _cell(with_lua: bool, plain: bool) -> str:
    return {
        (True, True): "holds",
        (True, False): "holds with `lua`",
        (False, True): "holds without `lua`",
        (False, False): "**does not hold**",
    }[with_lua, plain]


def _topic_number(name: str) -> int:
    for number, beginnings in enumerate(TOPICS.values()):
        if re.match(rf"test_({beginnings})", name):
            return number
    raise Broken(f"{name} has no topic: add it to TOPICS in tools/fakeredis_table.py")


def _without_versions(text: str) -> str:
    return re.sub(r"(fakeredis|redis-py) [\w.]+", r"\1", text)


def _measure(*, with_lua: bool) -> Results:
    """Run the suites in this process, which has not imported fakeredis yet."""
    if not with_lua:
        modules: dict[str, Any] = sys.modules
        modules["lupa"] = None  # importing it is an ImportError now
    import fakeredis  # it looks for lupa when it is imported

    def run(name: str) -> None:
        with fakeredis.FakeRedis() as client:
            test: Callable[..., object] = getattr(RenewingSessionAdapterSuite(), name)
            test(RedisSessionAdapter(client))

    async def run_in_loop(name: str) -> None:
        async with fakeredis.FakeAsyncRedis() as client:
            test: Callable[..., Any] = getattr(AsyncRenewingSessionAdapterSuite(), name)
            await test(AsyncRedisSessionAdapter(client))

    def run_async(name: str) -> None:
        asyncio.run(run_in_loop(name))

    with fakeredis.FakeRedis() as client:
        has_scripts = _passes(partial(client.eval, "return 1", 0))
    classes = reversed(RenewingSessionAdapterSuite.__mro__)
    names = [name for class_ in classes for name in vars(class_) if name.startswith("test_")]
    return Results(
        has_scripts,
        {name: _passes(partial(run, name)) for name in names},
        {name: _passes(partial(run_async, name)) for name in names},
    )


def _passes(test: Callable[[], object]) -> bool:
    try:
        test()
    except Exception:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
