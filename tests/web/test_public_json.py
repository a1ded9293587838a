"""A FastAPI route sends every member of a session or a key except its secret."""

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel, TypeAdapter

from lucia import AsyncAuth, Device, Key, PersistentKey, Session, SessionUser, SingleUseKey, User
from lucia.middleware.fastapi import FastAPIAuth
from tests.support.sessions import changed
from tests.support.sessions import session as make_session
from tests.web.driver import get, log_in

TIME = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "s" * 40
SESSION = make_session(
    session_id=SECRET,
    user_id="ann",
    active_period_expires_at=TIME,
    idle_period_expires_at=TIME,
    state="active",
    fresh=True,
    handle="the-handle",
    created_at=TIME,
    metadata={"via": "web"},
)
KEY = SingleUseKey(
    provider_id="password_reset",
    provider_user_id=SECRET,
    user_id="ann",
    password_defined=False,
    expires_at=TIME,
    expired=False,
)
PERSISTENT = PersistentKey(
    provider_id="username",
    provider_user_id="ann",
    user_id="ann",
    password_defined=True,
    primary=True,
)
SESSION_MEMBERS = {
    "user_id",
    "active_period_expires_at",
    "idle_period_expires_at",
    "state",
    "fresh",
    "handle",
    "created_at",
    "metadata",
}
KEY_MEMBERS = {"provider_id", "user_id", "password_defined", "expires_at", "expired"}


class Page(BaseModel):
    """A model of the application that contains the library's objects."""

    session: Session
    more: list[Session] = []
    both: SessionUser[User] | None = None
    keys: list[Key] = []


PAGE = Page(
    session=SESSION, more=[SESSION], both=SessionUser(SESSION, User("ann")), keys=[KEY, PERSISTENT]
)


def routes(app: FastAPI) -> None:
    """Add a route for each way in which FastAPI decides how to serialize a return value."""

    @app.get("/not-annotated")
    async def not_annotated():  # type: ignore[no-untyped-def]
        return SESSION

    @app.get("/any")
    async def any_() -> Any:
        return SESSION

    @app.get("/object")
    async def object_() -> object:
        return SESSION

    @app.get("/session")
    async def session() -> Session:
        return SESSION

    @app.get("/optional")
    async def optional() -> Session | None:
        return SESSION

    @app.get("/response-model", response_model=Session)
    async def response_model() -> Any:
        return SESSION

    @app.get("/list")
    async def list_() -> list[Session]:
        return [SESSION]

    @app.get("/dict")
    async def dict_() -> dict[str, Session]:
        return {"session": SESSION}

    @app.get("/untyped-dict")
    async def untyped_dict() -> dict[str, Any]:
        return {
            "session": SESSION,
            "keys": [KEY, PERSISTENT],
            "both": SessionUser(SESSION, User("ann")),
        }

    @app.get("/both")
    async def both() -> SessionUser[User]:
        return SessionUser(SESSION, User("ann"))

    @app.get("/both-not-annotated")
    async def both_not_annotated():  # type: ignore[no-untyped-def]
        return SessionUser(SESSION, User("ann"))

    @app.get("/model")
    async def model() -> Page:
        return PAGE

    @app.get("/model-not-annotated")
    async def model_not_annotated():  # type: ignore[no-untyped-def]
        return PAGE

    @app.get("/keys")
    async def keys() -> list[Key]:
        return [KEY, PERSISTENT]

    @app.get("/keys-not-annotated")
    async def keys_not_annotated():  # type: ignore[no-untyped-def]
        return [KEY, PERSISTENT]

    @app.get("/encoded")
    async def encoded() -> JSONResponse:
        return JSONResponse(jsonable_encoder([SESSION, KEY, PAGE]))


APP = FastAPI()
routes(APP)
PATHS = [route.path for route in APP.routes if isinstance(route, APIRoute)]


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a JSON value."""
    if isinstance(value, dict):
        yield value
    for each in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from objects(each)


@pytest.mark.parametrize("path", PATHS)
def test_no_route_sends_what_logs_in(path: str) -> None:
    """No route sends a session id or a single-use key's secret; every other member is sent."""
    with TestClient(APP) as client:
        answer = client.get(path)
    assert answer.status_code == 200
    assert SECRET not in answer.text
    found = list(objects(answer.json()))
    sessions = [each for each in found if "handle" in each]
    single_use = [each for each in found if "expired" in each]
    assert sessions or single_use
    assert all(each.keys() == SESSION_MEMBERS for each in sessions)
    assert all(each.keys() == KEY_MEMBERS for each in single_use)


def test_all_routes_were_asked() -> None:
    """The list of paths is complete."""
    assert len(PATHS) == 16


def test_a_device_and_a_session_have_the_same_json() -> None:
    """A session has the JSON members of a device, and `fresh`."""
    names = {field.name for field in dataclasses.fields(Device)}
    assert names | {"fresh"} == SESSION_MEMBERS


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_no_schema_names_the_secrets(mode: Any) -> None:
    """The JSON schemas, also those of an OpenAPI document, have every member but the secrets."""
    models = list[Session | SessionUser[User] | Key[str] | Page]
    definitions = TypeAdapter(models).json_schema(mode=mode)["$defs"]
    assert definitions["Session"]["properties"].keys() == SESSION_MEMBERS
    assert definitions["SingleUseKey_str_"]["properties"].keys() == KEY_MEMBERS
    assert "provider_user_id" in definitions["PersistentKey_str_"]["properties"]
    members = APP.openapi()["components"]["schemas"]
    assert members["Session"]["properties"].keys() == SESSION_MEMBERS
    (single_use_key,) = (name for name in members if name.startswith("SingleUseKey"))
    assert members[single_use_key]["properties"].keys() == KEY_MEMBERS


def test_the_document_of_an_application_does_not_explain_the_secret() -> None:
    """An OpenAPI document does not mention the session id, which its readers never get."""
    assert "session_id" not in json.dumps(APP.openapi())


async def test_a_dependency_can_be_returned(auth: AsyncAuth[User]) -> None:
    """A route that returns its dependency sends no session id, with or without annotation."""
    web = FastAPIAuth(auth)
    app = FastAPI()
    web.install(app)

    @app.get("/session")
    async def session(session: Annotated[Session, Depends(web.session)]) -> Session:
        return session

    @app.get("/both")
    async def both(  # type: ignore[no-untyped-def]
        both: Annotated[SessionUser[User], Depends(web.session_user)],
    ):
        return both

    user = await auth.create_user(primary_key=None)
    session_id = await log_in(auth, user.user_id)

    for path in ("/session", "/both"):
        answer = await get(app, session_id, path=path)
        assert answer.status == 200
        assert session_id.encode() not in answer.body
        assert user.user_id.encode() in answer.body


@pytest.mark.parametrize("value", [SESSION, KEY])
def test_what_walks_the_fields_finds_no_secret(value: Any) -> None:
    """`dataclasses.fields`, `asdict` and `astuple`, which serializers use, skip the secret."""
    assert SECRET not in f"{dataclasses.asdict(value)}{dataclasses.astuple(value)}{value!r}"
    with pytest.raises(TypeError):
        vars(value)
    with pytest.raises(TypeError, match=r"missing 1 required|unexpected keyword argument"):
        dataclasses.replace(value, user_id="bob")


@pytest.mark.parametrize("value", [SESSION, KEY])
@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda value: pickle.loads(pickle.dumps(value)),  # noqa: S301 -- pickled here
    ],
)
def test_a_copy_keeps_the_secret(value: Any, copied: Callable[[Any], Any]) -> None:
    """Copies and pickles keep the secret, and equal their originals."""
    made = copied(value)
    assert type(made) is type(value)
    assert made == value
    assert hash(made) == hash(value)
    if isinstance(value, Session):
        assert made.session_id == SECRET
        other: Any = changed(value, session_id="other")
    else:
        assert made.provider_user_id == SECRET
        other = dataclasses.replace(value, provider_user_id="other")
    assert other != value
    assert changed(SESSION) == SESSION
    assert SECRET.encode() in pickle.dumps(value)
