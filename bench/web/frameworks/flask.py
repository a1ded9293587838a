"""Flask: with lucia-auth, and with Flask-Login over Flask-Session."""

from typing import Literal

import flask_login  # type: ignore[import-untyped] # it has no types
from flask import Flask
from flask_session import Session  # type: ignore[import-untyped] # it has no types

from bench.drive import user_ids
from bench.web import Web
from bench.web.frameworks import client, make_auth
from lucia.middleware.flask import FlaskAuth, current_session, login_required

Library = Literal["none", "lucia", "flask_login"]


class User(flask_login.UserMixin):  # type: ignore[misc] # it has no types
    """A user, as Flask-Login requires it."""

    def __init__(self, user_id: str) -> None:
        self.id = user_id


def make_web(url: str, *, library: Library) -> Web:
    """Set the application up as the library's documentation shows."""
    return {"none": without, "lucia": with_lucia, "flask_login": with_flask_login}[library](url)


def without(_: str) -> Web:
    """Make the application without authentication."""
    app, nobody = Flask(__name__), user_ids(1)[0]

    @app.get("/me")
    def me() -> dict[str, str]:
        return {"user_id": nobody}

    return Web(app=app, guarded=False)


def with_lucia(url: str) -> Web:
    """Make the application with lucia-auth."""
    app = Flask(__name__)
    web = FlaskAuth(make_auth(url), app)

    @app.post("/login/<user_id>")
    def login(user_id: str) -> dict[str, str]:
        web.request().sign_in(user_id)
        return {"user_id": user_id}

    @app.get("/me")
    @login_required
    def me() -> dict[str, str]:
        return {"user_id": current_session.user_id}

    return Web(app=app)


def with_flask_login(url: str) -> Web:
    """Make the application with Flask-Login over Flask-Session, and users in memory."""
    app = Flask(__name__)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client(url))
    Session(app)
    flask_login.LoginManager(app).user_loader(User)

    @app.post("/login/<user_id>")
    def login(user_id: str) -> dict[str, str]:
        flask_login.login_user(User(user_id))
        return {"user_id": user_id}

    @app.get("/me")
    @flask_login.login_required  # type: ignore[untyped-decorator]
    def me() -> dict[str, str]:
        return {"user_id": flask_login.current_user.id}

    return Web(app=app)
