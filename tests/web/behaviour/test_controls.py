"""The cases find what they are for: each fails for an application with that fault."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.web.behaviour import cases
from tests.web.behaviour.sites import SITES, serving

pytestmark = pytest.mark.no_cover

FAULTS: dict[str, list[Callable[..., Any]]] = {
    "always sets": [cases.test_a_visitor_gets_no_cookie],
    "loses on errors": [
        cases.test_a_cookie_stays_on_the_response_to_an_error,
        partial(cases.test_an_idle_session_is_renewed_on_every_kind_of_response, path="/gone"),
    ],
    "loses on streams": [
        partial(cases.test_an_idle_session_is_renewed_on_every_kind_of_response, path="/stream"),
    ],
    "forgets Vary": [cases.test_signing_up_sets_the_cookie],
    "clears in an outage": [cases.test_an_outage],
    "takes an outage for a visitor": [cases.test_an_outage],
    "redirects anywhere": [partial(cases.test_no_open_redirect, following="https://evil.example/")],
    "checks no origin": [cases.test_other_origins, cases.test_a_foreign_page_gets_json],
    "keeps sessions in memory": [cases.test_all_processes_know_the_session],
    "leaks connections": [cases.test_clients_that_hang_up],
    "renews by logging in": [cases.test_parallel_requests_renew_once],
    "forgets to log out": [cases.test_logging_out, cases.test_nothing_survives_a_logout],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_case_finds_the_fault(fault: str, tmp_path: Path) -> None:
    """The cases for a promise fail for an application that breaks it."""
    kind = SITES["an application with a fault"]
    with serving(kind, tmp_path, BEHAVIOUR_FAULT=fault) as site:
        for case in FAULTS[fault]:
            # ValueError: a case that unpacks the one cookie of a response finds none.
            with pytest.raises((AssertionError, ValueError)):
                case(site)
