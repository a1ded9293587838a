"""Flask-Session, with its Redis interface opened by a request.

Its write after each request is not measured.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from flask import Flask, Request, Response
from flask_session import Session  # type: ignore[import-untyped] # it has no types
from redis import Redis
from werkzeug.test import create_environ

from bench.peer import RECORD, Peer
from bench.peers import CONNECTIONS, KEEPALIVE


@contextmanager
def open_peer(url: str) -> Generator[Peer]:
    """Set the extension up as the documentation shows."""
    with Redis.from_url(url, max_connections=CONNECTIONS, socket_keepalive=KEEPALIVE) as client:
        app = Flask(__name__)
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
        Session(app)
        interface: Any = app.session_interface

        def request(cookies: str) -> Request:
            return Request(create_environ(headers={"Cookie": cookies}))

        def create(user_id: str) -> str:
            session = interface.open_session(app, request(""))
            session.update(RECORD | {"user_id": user_id})
            interface.save_session(app, session, Response())
            return str(session.sid)

        requests: dict[str, Request] = {}

        def validate(session_id: str) -> str | None:
            if (known := requests.get(session_id)) is None:
                known = requests[session_id] = request(f"session={session_id}")
            user_id: str | None = interface.open_session(app, known).get("user_id")
            return user_id

        yield Peer(create=create, validate=validate, user_id=lambda user_id: user_id)
