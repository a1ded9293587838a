"""The routes and responses that the applications without a framework share."""

import json
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qs, quote

from lucia import NotAuthenticated
from lucia.middleware.accounts import (
    PAGE_HEADERS,
    AccountRoute,
    Reply,
    Submission,
    read_body,
    to_json,
)
from lucia.middleware.responses import response_for
from tests.web.behaviour.apps.stores import OWN_HEADERS, numbers

PREFIX = "/auth"


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: Iterable[bytes] = ()

    @property
    def line(self) -> str:
        """The status and its name."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


def json_answer(content: object, status: int = 200) -> Answer:
    """Return a response of JSON."""
    return Answer(status, [("Content-Type", "application/json")], [json.dumps(content).encode()])


CRASHED = json_answer({"detail": "Something went wrong."}, 500)
GONE = json_answer({"detail": "Not found."}, 404)
AFTER_VALIDATION = {
    "/gone": GONE,
    "/redirect": Answer(303, [("Location", "/who")]),
    "/own-headers": Answer(200, [*OWN_HEADERS.items(), ("Set-Cookie", "theme=dark")]),
    "/stream": Answer(200, [("Content-Type", "text/plain")], numbers()),
}
"""The responses of routes that ask who it is, and do nothing with it."""


def error_answer(error: Exception, method: str, path: str, accept: str) -> Answer:
    """Return the response to an error of the library, or of the application."""
    if isinstance(error, NotAuthenticated) and "text/html" in accept:
        following = f"?next={quote(path)}" if method == "GET" else ""
        return Answer(303, [("Location", f"{PREFIX}/login{following}")])
    response = response_for(error, "cookie")
    answer = json_answer({"detail": response.detail}, response.status)
    return answer._replace(headers=[*answer.headers, *response.headers.items()])


def find_route(
    routes: Sequence[AccountRoute], method: str, path: str
) -> tuple[AccountRoute, str] | None:
    """Return the ready route of a request and the handle in its path, or None."""
    for route in routes:
        pattern = re.escape(PREFIX + route.path).replace(r"\{handle\}", "([^/]+)")
        match = re.fullmatch(pattern, path)
        if match and route.method == method:
            return route, match[1] if match.groups() else ""
    return None


def submission_of(
    body: bytes, content_type: str, accept: str, agent: str, path: str, query: str, handle: str
) -> Submission:
    """Return what a client sent to a ready route."""
    fields, is_form = read_body(content_type, body)
    return Submission(
        fields=fields,
        is_form=is_form,
        wants_page="text/html" in accept,
        path=path,
        query_next=parse_qs(query).get("next", [None])[0],
        handle=handle,
        user_agent=agent,
    )


def reply_answer(reply: Reply) -> Answer:
    """Return the response of a ready route."""
    headers = list(reply.headers.items())
    if reply.location is not None:
        return Answer(reply.status, [*headers, ("Location", reply.location)])
    if reply.html is not None:
        headers += [*PAGE_HEADERS.items(), ("Content-Type", "text/html; charset=utf-8")]
        return Answer(reply.status, headers, [reply.html.encode()])
    if reply.status == 204:
        return Answer(204, headers)
    return Answer(
        reply.status, [*headers, ("Content-Type", "application/json")], [to_json(reply.content)]
    )
