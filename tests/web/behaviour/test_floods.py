"""A flood of log-ins does not stop other pages, whatever the server's threads are."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.web.behaviour.sites import SITES, Site, serving

pytestmark = [pytest.mark.no_cover, pytest.mark.slow]

FLOODING = 12
"""How many clients log in."""

HASHED_LONG = {"BEHAVIOUR_LN": "14", "BEHAVIOUR_FLOOD": "1"}
"""Each password takes some hundredths of a second, in a pool of the default size."""


@contextmanager
def flood(site: Site) -> Iterator[list[int]]:
    """Log in with wrong passwords without end; yield the statuses of the responses so far."""
    statuses: list[int] = []
    is_over = threading.Event()

    def log_in(number: int) -> None:
        with site.browser() as client:
            while not is_over.is_set():
                form = {"username": f"nobody{number}", "password": "wrong"}
                statuses.append(client.post("/auth/login", json=form).status_code)
                if statuses[-1] == 503:
                    is_over.wait(0.1)  # clients in a loop would take the processor from the server

    with ThreadPoolExecutor(FLOODING) as pool:
        threads = [pool.submit(log_in, number) for number in range(FLOODING)]
        try:
            yield statuses
        finally:
            is_over.set()
        for thread in threads:
            thread.result()


def log_ins_per_page(site: Site, pages: int) -> float:
    """Return how many passwords were verified while a page was served, during a flood."""
    with site.browser() as client, flood(site) as statuses:
        while statuses.count(401) < 5:
            client.get("/who")
        before = statuses.count(401)
        for _ in range(pages):
            assert client.get("/who").status_code == 200
        return (statuses.count(401) - before) / pages


@pytest.mark.parametrize(
    "name", ["Flask, one process of threads", "Flask, one process of gevent", "Starlette, uvicorn"]
)
def test_pages_are_served_during_a_flood_of_log_ins(name: str, tmp_path: Path) -> None:
    """Many pages are served while one password is verified."""
    with serving(SITES[name], tmp_path, **HASHED_LONG) as site:
        assert log_ins_per_page(site, 40) < 1


def test_control_hashing_in_greenlets(tmp_path: Path) -> None:
    """If passwords are hashed in the greenlets themselves, each page waits for a password."""
    kind = SITES["Flask, one process of gevent"]
    with serving(kind, tmp_path, **HASHED_LONG, BEHAVIOUR_BLOCKING="1") as site:
        assert log_ins_per_page(site, 4) > 1
