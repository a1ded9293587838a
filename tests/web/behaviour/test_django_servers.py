"""The cases for applications in Django."""

from collections.abc import Iterator

import pytest

from tests.web.behaviour.cases import *  # noqa: F403 -- each is collected here
from tests.web.behaviour.sites import SITES, Site, serving

pytestmark = pytest.mark.no_cover


@pytest.fixture(
    scope="module",
    params=[
        "Django, uvicorn",
        "Django with an Auth alone, uvicorn",
        "Django, threads of gunicorn",
        "Django, gevent in gunicorn",
    ],
)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Yield each site in turn."""
    with serving(SITES[request.param], tmp_path_factory.mktemp("site")) as site:
        yield site
