"""The cache of users by itself: its size limit, threads and processes."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from lucia import UserCache, UserRow

AGE = timedelta(minutes=5)


def keep(cache: UserCache, *user_ids: str) -> None:
    """Read these users, one after another, into the cache."""
    for user_id in user_ids:
        cache.keep(UserRow(id=user_id), cache.begin())


def kept(cache: UserCache, user_ids: str) -> str:
    """Return those of the users that are in the cache."""
    return "".join(user_id for user_id in user_ids if cache.find(user_id))


def test_the_one_read_longest_ago_goes_first() -> None:
    """The user who was read longest ago is evicted first, however often it was used since."""
    cache = UserCache(max_age=AGE, max_users=3)
    keep(cache, "a", "b", "c", "a")
    assert kept(cache, "abc") == "abc"
    keep(cache, "d")
    assert kept(cache, "abcd") == "acd"
    keep(cache, *"efghij")
    assert kept(cache, "abcdefghij") == "hij"


def test_what_was_dropped_meanwhile_is_not_kept() -> None:
    """A user read before a concurrent drop is not cached, even if another one was dropped."""
    changes: list[Callable[[UserCache], None]] = [
        lambda cache: cache.drop("a"),
        lambda cache: cache.drop("b"),
        UserCache.clear,
    ]
    for change in changes:
        cache = UserCache(max_age=AGE)
        reading = cache.begin()
        change(cache)
        cache.keep(UserRow(id="a"), reading)
        assert kept(cache, "a") == ""


def test_drop_and_clear() -> None:
    """``drop`` removes the given users, and ``clear`` all of them."""
    cache = UserCache(max_age=AGE)
    keep(cache, *"abcd")
    cache.drop("a", "c", "x")
    assert kept(cache, "abcd") == "bd"
    cache.clear()
    assert kept(cache, "abcd") == ""


def test_many_threads_keep_to_the_bound() -> None:
    """Concurrent calls of many threads keep to the size limit."""
    cache = UserCache(max_age=AGE, max_users=10)

    def work(number: int) -> None:
        keep(cache, str(number % 50))
        cache.find(str(number % 7))
        cache.drop(str(number % 11))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(5_000)))
    keep(cache, *map(str, range(100, 110)))
    assert [number for number in range(110) if cache.find(str(number))] == [*range(100, 110)]


def test_a_fork_begins_with_none() -> None:
    """A forked child starts with an empty cache, even if another thread held the lock."""
    program = (
        "import os\n"
        "from datetime import timedelta\n"
        "from lucia import UserCache, UserRow\n"
        "cache = UserCache(max_age=timedelta(minutes=5))\n"
        "cache.keep(UserRow(id='a'), cache.begin())\n"
        "with cache._kept.get().lock:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        print(cache.find('a'))\n"
        "        cache.keep(UserRow(id='b'), cache.begin())\n"
        "        print(cache.find('b'), flush=True)\n"
        "        os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(cache.find('a'), cache.find('b'))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("None\nUserRow(id='b')\nUserRow(id='a') None\n", "")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_age": 10}, TypeError),
        ({"max_age": timedelta(0)}, ValueError),
        ({"max_age": timedelta(seconds=-1)}, ValueError),
        ({"max_age": AGE, "max_users": 0}, ValueError),
        ({"max_age": AGE, "max_users": True}, TypeError),
        ({"max_age": AGE, "max_users": "10"}, TypeError),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    """Invalid settings are refused at once."""
    with pytest.raises(error, match=r"max_age|max_users"):
        UserCache(**settings)


def test_its_repr_tells_no_user() -> None:
    """The repr has the size limit and the age, and no user."""
    cache = UserCache(max_age=timedelta(seconds=1.5))
    keep(cache, "alice")
    assert repr(cache) == "<UserCache of 10000 users for 1.5 s>"
