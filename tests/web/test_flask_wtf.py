"""Flask-WTF's ``CSRFProtect`` beside the origin check: both protect, and the pages pass both."""

import re

import pytest
from flask import Flask
from flask_wtf import CSRFProtect  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from lucia import Auth, ScryptHash, User
from lucia.adapters.memory import MemoryAdapter
from lucia.middleware.flask import FlaskAuth

ORIGIN = "http://localhost"
FORM = {"username": "anna", "password": "correct horse"}
HTML = {"Accept": "text/html"}


def make_app(*, exempt: bool) -> Flask:
    """Return an application with both protections."""
    store = MemoryAdapter()
    auth: Auth[User] = Auth(users=store, sessions=store, env="DEV", hash=ScryptHash(ln=4))
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "signs the tokens"
    csrf = CSRFProtect(app)
    web = FlaskAuth(auth, app)
    blueprint = web.blueprint(url_prefix="/auth")
    app.register_blueprint(blueprint)
    if exempt:
        csrf.exempt(blueprint)
    return app


def test_pages_have_the_token() -> None:
    """The form of a page has the token, and is refused without it or from another site."""
    client = make_app(exempt=False).test_client()
    client.environ_base["HTTP_ORIGIN"] = ORIGIN
    assert client.post("/auth/signup", data=FORM, headers=HTML).status_code == 400
    page = client.get("/auth/signup", headers=HTML).text
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    fields = {**FORM, "csrf_token": found[1]}
    evil = {**HTML, "Origin": "https://evil.example"}
    assert client.post("/auth/signup", data=fields, headers=evil).status_code == 403
    created = client.post("/auth/signup", data=fields, headers=HTML)
    assert (created.status_code, created.location) == (303, "/")
    devices = client.get("/auth/devices", headers=HTML).text
    assert devices.count('name="csrf_token"') == devices.count("<form")


@pytest.mark.parametrize(("exempt", "status"), [(True, 201), (False, 400)])
def test_programs(exempt: bool, status: int) -> None:
    """Programs send the token in a header, or the application exempts the routes."""
    client = make_app(exempt=exempt).test_client()
    client.environ_base["HTTP_ORIGIN"] = ORIGIN
    assert client.post("/auth/signup", json=FORM).status_code == status
