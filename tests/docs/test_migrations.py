"""The pages about moving from other libraries, beyond what their own blocks show.

Each test runs the definitions of a page: the application before with its users, the move, and the
application after. So what is tested here is the code that readers copy.
"""

import ast
import asyncio
import inspect
import re
import secrets
import unicodedata
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from unittest.mock import patch
from uuid import UUID, uuid4

import bcrypt
import jwt
import pytest
import pytest_asyncio
import redis
from fastapi import FastAPI
from httpx import AsyncClient
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from pwdlib.hashers.bcrypt import BcryptHasher
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from werkzeug.security import check_password_hash, generate_password_hash

from lucia import InvalidPassword, NotAuthenticated, PasswordHasher, StoreUnavailable
from lucia.adapters.redis import RedisSessionAdapter
from tests.docs.run_page import SHOWN_URL
from tools.servers import Server

DOCS: Final = Path(__file__).parents[2] / "docs"
FASTAPI_USERS: Final = "moving-from-fastapi-users.md"
FLASK_LOGIN: Final = "moving-from-flask-login.md"
JWT: Final = "moving-from-jwt.md"

INTRODUCTION: Final = ""
"""In place of a heading: what is above the first one."""

ODD: Final = "ﬁsch ½ cafe\u0301"
"""A password that NFKC changes."""

LONG: Final = "horse " * 20
"""A password with more than the 72 bytes that bcrypt looks at."""


def sections(page: str, language: Literal["python", "py"] = "python") -> dict[str, list[str]]:
    """Return the code blocks of a page by the heading that they are under."""
    found: dict[str, list[str]] = {INTRODUCTION: []}
    heading = INTRODUCTION
    for title, name, code in re.findall(
        r"(?ms)^## (.*?)$|^```(\w+)\n(.*?)^```$", (DOCS / page).read_text()
    ):
        if title:
            heading = title
            found[heading] = []
        elif name == language:
            found[heading].append(code)
    return found


def code_of(page: str, *headings: str) -> list[str]:
    """Return the Python blocks under these headings."""
    found = sections(page)
    return [code for heading in headings for code in found[heading]]


def compiled(code: str) -> Any:
    """Return the code object of a block, which may have ``await`` outside of a function."""
    return compile(code, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


async def run(blocks: Sequence[str], names: dict[str, Any]) -> None:
    """Run blocks in one namespace, as the page's readers do."""
    for code in blocks:
        outcome = eval(compiled(code), names)  # noqa: S307 -- the code is the project's own pages
        if inspect.iscoroutine(outcome):
            await outcome


@pytest.fixture(scope="module", autouse=True)
def session_key() -> Iterator[None]:
    """Set what the pages' shell would set."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SESSION_KEY", secrets.token_hex(32))
        yield


def placed(blocks: Sequence[str], folder: Path, server: Server) -> list[str]:
    """Return blocks that use this server, which is emptied, and a database in this folder."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return [
        code.replace(SHOWN_URL, server.url).replace("///app.db", f"///{folder}/app.db")
        for code in blocks
    ]


async def close(names: Mapping[str, Any]) -> None:
    """Close what an async page has opened."""
    await names["auth"].aclose()
    await names["redis"].aclose()
    await names["engine"].dispose()


def bearer(token: str) -> dict[str, str]:
    """Return the header of a client with a token."""
    return {"Authorization": f"Bearer {token}"}


# Passwords


@pytest.mark.parametrize("page", [FASTAPI_USERS, JWT])
async def test_hashes_of_pwdlib(page: str) -> None:
    """The hasher and pwdlib verify each other's hashes, also of passwords that NFKC changes."""
    names: dict[str, Any] = {"__name__": "__main__"}
    await run(code_of(page, "Passwords"), names)
    hasher = names["FormerHash"]()
    assert isinstance(hasher, PasswordHasher)
    pwdlib = PasswordHash.recommended()
    theirs, ours = pwdlib.hash(ODD), hasher.hash(ODD)
    assert hasher.verify(ODD, theirs)
    assert pwdlib.verify(ODD, ours)
    assert not hasher.verify("wrong", theirs)
    assert not hasher.needs_rehash(theirs)
    assert not hasher.needs_rehash(ours)
    other = Argon2Hasher(time_cost=2, memory_cost=1024, parallelism=1).hash(ODD)
    assert hasher.verify(ODD, other)
    assert hasher.needs_rehash(other)
    library = names["ScryptHash"](ln=4, r=1, p=1).hash(unicodedata.normalize("NFKC", ODD))
    assert hasher.verify(ODD, library)
    assert hasher.needs_rehash(library)


async def test_hashes_of_bcrypt() -> None:
    """The page about fastapi-users verifies bcrypt, also of long passwords, which passlib cut."""
    names: dict[str, Any] = {"__name__": "__main__"}
    await run(code_of(FASTAPI_USERS, "Passwords"), names)
    hasher = names["FormerHash"]()
    for password in ("correct horse", ODD, LONG):
        cut = password.encode()[:72]
        for hashed in (
            BcryptHasher(4).hash(cut),
            bcrypt.hashpw(cut, bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
        ):
            assert hasher.verify(password, hashed)
            assert not hasher.verify("wrong", hashed)
            assert hasher.needs_rehash(hashed)


async def test_hashes_of_werkzeug() -> None:
    """The hasher and Werkzeug verify each other's hashes; the last one replaces Werkzeug's."""
    names: dict[str, Any] = {
        "__name__": "__main__",
        "check_password_hash": check_password_hash,
        "generate_password_hash": generate_password_hash,
    }
    replacing = next(
        code for code in code_of(FLASK_LOGIN, "Leave Flask-Login") if "ReplacingHash" in code
    )
    await run([*code_of(FLASK_LOGIN, "Passwords"), replacing.partition("class OwnBase")[0]], names)
    hasher, last = names["FormerHash"](), names["ReplacingHash"]()
    assert check_password_hash(hasher.hash(ODD), ODD)
    for method, is_old in [("scrypt", False), ("pbkdf2:sha256:1000", True)]:
        theirs = generate_password_hash(ODD, method)
        for each in (hasher, last):
            assert each.verify(ODD, theirs)
            assert not each.verify("wrong", theirs)
        assert hasher.needs_rehash(theirs) is is_old
        assert last.needs_rehash(theirs)
    replaced = last.hash(ODD)
    assert hasher.verify(ODD, replaced)
    assert last.verify(ODD, replaced)
    assert not last.needs_rehash(replaced)


# fastapi-users


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def moved(
    redis_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Any]]:
    """Run the page about fastapi-users up to the check, and return its namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = code_of(
        FASTAPI_USERS,
        INTRODUCTION,
        "Passwords",
        "Move the users",
        "The application after",
        "Exchange tokens",
    )
    await run(placed(blocks, tmp_path_factory.mktemp("moved"), redis_server), names)
    yield names
    await close(names)


async def test_move_of_users(redis_server: Server, tmp_path: Path) -> None:
    """Two users with one address are refused, and bcrypt's oldest prefix becomes a newer one."""
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = code_of(FASTAPI_USERS, INTRODUCTION, "Passwords")
    await run(placed(blocks, tmp_path, redis_server), names)
    engine, user = names["engine"], names["User"]
    twin = user.email == "ANNA@example.com"
    async with engine.begin() as connection:
        values = {"id": uuid4(), "email": "ANNA@example.com", "hashed_password": "!"}
        await connection.execute(insert(user).values(values))
    with pytest.raises(ValueError, match=r"several users: \['anna@example.com'\]"):
        await run(code_of(FASTAPI_USERS, "Move the users"), names)

    oldest = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4, b"2a")).decode()
    async with engine.begin() as connection:
        await connection.execute(delete(user).where(twin))
        anna = user.email == "Anna@example.com"
        await connection.execute(update(user).where(anna).values(hashed_password=oldest))
        names["Base"].metadata.remove(names["tables"].key)  # so that the block can run once more
    await run(code_of(FASTAPI_USERS, "Move the users"), names)
    async with engine.connect() as connection:
        key = names["tables"].key.c
        sought = select(key.hashed_password).where(key.id == "email:anna@example.com")
        hashed = await connection.scalar(sought)
    assert hashed == oldest.replace("$2a$", "$2b$")
    assert names["FormerHash"]().verify("correct horse", hashed)
    await engine.dispose()


@pytest.mark.asyncio(loop_scope="module")
async def test_exchange_of_fastapi_users(moved: dict[str, Any]) -> None:
    """The exchange refuses what fastapi-users would, and tokens that never expire."""
    anna = moved["ids"]["anna@example.com"]
    soon = datetime.now(UTC) + timedelta(minutes=1)
    audience = ["fastapi-users:auth"]

    def token(secret: str = moved["SECRET"], **claims: Any) -> str:
        given = {"sub": anna, "aud": audience, "exp": soon, **claims}
        return jwt.encode({name: value for name, value in given.items() if value}, secret)

    refused = [
        token("another secret, which is long enough"),
        token(exp=soon - timedelta(hours=1)),
        token(exp=None),
        token(aud=["fastapi-users:reset"]),
        token(sub="anna"),
        token(sub=str(uuid4())),
        "",
        "nonsense",
    ]
    async with moved["client_of"](moved["app"]) as client:
        for each in refused:
            answer = await client.post("/auth/exchange", headers=bearer(each))
            assert answer.status_code == 401
        good = bearer(token())
        answers = await asyncio.gather(
            *(client.post("/auth/exchange", headers=good) for _ in range(10))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + 9 * [401]
        assert len(await moved["auth"].get_all_user_sessions(UUID(anna))) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_exchange_of_a_cookie(moved: dict[str, Any]) -> None:
    """A browser's cookie of fastapi-users becomes a session's cookie, on this site alone."""
    token = moved["former"]["anna@example.com"]["Authorization"].removeprefix("Bearer ")
    async with moved["client_of"](moved["app"]) as client:
        client.cookies.set("fastapiusersauth", token)
        foreign = {"Origin": "https://evil.example"}
        answer = await client.post("/auth/exchange-cookie", headers=foreign)
        assert answer.status_code == 403
        answer = await client.post("/auth/exchange-cookie")
        assert (answer.status_code, answer.content) == (204, b"")
        assert client.cookies.get("auth_session")
        deleted = [each for each in answer.headers.get_list("set-cookie") if "Max-Age=0" in each]
        assert deleted[0].startswith('fastapiusersauth="";')
        assert (await client.get("/hello")).json() == "Hello Anna@example.com"


@pytest.mark.asyncio(loop_scope="module")
async def test_exchange_of_other_strategies(moved: dict[str, Any]) -> None:
    """Tokens of the strategies with a database and with Redis are exchanged once each."""
    from fastapi_users.authentication.strategy import DatabaseStrategy, RedisStrategy
    from fastapi_users_db_sqlalchemy.access_token import (
        SQLAlchemyAccessTokenDatabase,
        SQLAlchemyBaseAccessTokenTableUUID,
    )

    engine, base, user = moved["engine"], moved["Base"], moved["User"]
    token_table: Any = type("FormerToken", (SQLAlchemyBaseAccessTokenTableUUID, base), {})
    moved["FormerToken"] = token_table
    async with engine.begin() as connection:
        await connection.run_sync(base.metadata.create_all)
    async with AsyncSession(engine, expire_on_commit=False) as db:
        anna = (await db.scalars(select(user).where(user.email == "Anna@example.com"))).one()
        rows: Any = DatabaseStrategy(SQLAlchemyAccessTokenDatabase(db, token_table), 3600)
        keys: Any = RedisStrategy(moved["redis"], 3600)
        of_row, of_key = await rows.write_token(anna), await keys.write_token(anna)
        old = await rows.write_token(anna)
        await db.execute(
            update(token_table)
            .where(token_table.token == old)
            .values(created_at=datetime.now(UTC) - timedelta(hours=2))
        )
        await db.commit()
    by_row, by_key = sections(FASTAPI_USERS, "py")["Exchange tokens"]
    async with moved["client_of"](moved["app"]) as client:
        for code, token, statuses in [
            (by_row, of_row, [200, 401]),
            (by_row, old, [401]),
            (by_key, of_key, [200, 401]),
        ]:
            await run([code], moved)
            for status in statuses:
                answer = await client.post("/auth/exchange", headers=bearer(token))
                assert answer.status_code == status


@pytest.mark.asyncio(loop_scope="module")
async def test_routes_of_fastapi_users(moved: dict[str, Any]) -> None:
    """The table names every route of fastapi-users, and ready routes that exist."""
    before, after = routes(moved["before"]), routes(moved["app"])
    cells = [line.split("|") for line in table(FASTAPI_USERS, "Route by route")]
    theirs = {route for _, left, *_ in cells for route in named_routes(left)}
    ours = {route for _, _, right, *_ in cells for route in named_routes(right)}
    assert theirs == before - {"GET /hello"}
    assert {f"{method} /auth{path}" for method, path in map(str.split, ours)} <= after
    assert len(ours) > 8


def routes(app: FastAPI) -> set[str]:
    """Return the routes in an application's document, such as ``POST /auth/login``."""
    return {
        f"{method.upper()} {path}"
        for path, item in app.openapi()["paths"].items()
        for method in item
    }


def named_routes(cell: str) -> set[str]:
    """Return the routes that a cell of a table names."""
    return set(re.findall(r"`((?:GET|POST|PATCH|DELETE) /[^`]*)`", cell))


def table(page: str, heading: str) -> list[str]:
    """Return the rows of the tables under a heading."""
    text = (DOCS / page).read_text().split(f"\n## {heading}\n")[1].partition("\n## ")[0]
    return [line for line in text.splitlines() if line.startswith("|")]


# JWT


async def test_exchange_of_refresh_tokens(redis_server: Server, tmp_path: Path) -> None:
    """The exchange refuses what the application before would, and of ten at once takes one."""
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = code_of(
        JWT,
        INTRODUCTION,
        "Passwords",
        "Move the users",
        "The application after",
        "Exchange refresh tokens",
    )
    await run(placed(blocks, tmp_path, redis_server), names)
    soon = datetime.now(UTC) + timedelta(minutes=1)

    def token(secret: str = names["SECRET"], **claims: Any) -> dict[str, str]:
        given = {"sub": "1", "type": "refresh", "jti": uuid4().hex, "exp": soon, **claims}
        kept = {name: value for name, value in given.items() if value}
        return {"refresh_token": jwt.encode(kept, secret)}

    refused = [
        token("another secret, which is long enough"),
        token(exp=soon - timedelta(hours=1)),
        token(exp=None),
        token(jti=None),
        token(type="access"),
        token(sub="9"),
        {"refresh_token": ""},
    ]
    async with names["client_of"](names["app"]) as client:
        for each in refused:
            assert (await client.post("/refresh", json=each)).status_code == 401
        good = token()
        answers = await asyncio.gather(*(client.post("/refresh", json=good) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [200] + 9 * [401]
        await check_button(client)
    await close(names)


async def check_button(client: AsyncClient) -> None:
    """Check that the documentation of the routes asks for a token where clients do."""
    schemes = (await client.get("/openapi.json")).json()["components"]["securitySchemes"]
    flows = [scheme["flows"]["password"]["tokenUrl"] for scheme in schemes.values()]
    assert flows == ["token"]


# Flask-Login


@pytest.fixture
def flask_page(redis_server: Server, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Run the page about Flask-Login up to the check, and return its namespace."""
    names: dict[str, Any] = {"__name__": "__main__"}
    blocks = code_of(
        FLASK_LOGIN,
        INTRODUCTION,
        "Passwords",
        "Move the users",
        "The application after",
        "Take over logins",
        "Fresh logins",
    )
    for code in placed(blocks, tmp_path, redis_server):
        exec(compiled(code), names)  # noqa: S102 -- as above
    yield names
    for each in ("annas", "berts", "redis"):
        names[each].close()
    names["db"].remove()
    names["engine"].dispose()


def sessions_of(names: Mapping[str, Any], user_id: int) -> list[Mapping[str, Any]]:
    """Return what the device list says of a user's logins."""
    return [device.metadata for device in names["auth"].get_all_user_sessions(user_id)]


def test_take_over_during_an_outage(flask_page: dict[str, Any]) -> None:
    """If Redis is down, the old cookies stay, and are taken over afterwards."""
    with flask_page["browser_of"](flask_page["app"], flask_page["annas"].cookies) as client:
        with patch.object(RedisSessionAdapter, "set_session", side_effect=StoreUnavailable):
            assert client.get("/notes").status_code == 503
        assert {"remember_token", "session"} <= set(client.cookies)
        assert client.get("/notes").text == "buy hay"
        assert "remember_token" not in client.cookies
    assert sessions_of(flask_page, 1) == [{"via": "Flask-Login"}]


def test_what_is_not_taken_over(flask_page: dict[str, Any]) -> None:
    """Requests of scripts, of other sites, of people who are gone, and forged cookies."""
    app, browser_of = flask_page["app"], flask_page["browser_of"]
    with browser_of(app, flask_page["annas"].cookies) as client:
        assert client.get("/notes", headers={"Accept": "*/*"}).status_code == 401
        foreign = {"Origin": "https://evil.example"}
        assert client.post("/auth/logout", headers=foreign).status_code == 403
        assert "remember_token" in client.cookies
        client.cookies.clear()
        client.cookies.set("remember_token", "1|forged")
        assert client.get("/notes").status_code == 303
    assert sessions_of(flask_page, 1) == []
    flask_page["auth"].delete_user(2)
    with browser_of(app, flask_page["berts"].cookies) as client:
        assert client.get("/notes").status_code == 303


def test_take_over_of_one_who_is_logged_in(flask_page: dict[str, Any]) -> None:
    """Old cookies beside a session are dropped: the session stays."""
    with flask_page["browser_of"](flask_page["app"], flask_page["annas"].cookies) as client:
        script = {"Accept": "*/*"}
        credentials = {"username": "bert", "password": "correct horse"}
        assert client.post("/auth/login", json=credentials, headers=script).status_code == 200
        assert client.get("/notes").text == "sell hay"
        assert "remember_token" not in client.cookies
    assert sessions_of(flask_page, 1) == []


def test_fresh_logins(flask_page: dict[str, Any]) -> None:
    """A login of long ago is not fresh."""
    with flask_page["browser_of"](flask_page["app"]) as client:
        assert client.get("/account").headers["location"] == "/auth/login?next=/account"
        client.post("/auth/login", data={"username": "anna", "password": "correct horse"})
        assert client.get("/account").status_code == 200

        class Later(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + timedelta(minutes=16)

        with patch.dict(flask_page, datetime=Later):
            assert client.get("/account").status_code == 302


def test_unauthorized_handler(flask_page: dict[str, Any]) -> None:
    """An error handler for ``NotAuthenticated`` does what ``unauthorized_handler`` did."""
    app = flask_page["Flask"]("other")
    flask_page["FlaskAuth"](flask_page["auth"], app, login_view="/login")
    app.register_error_handler(NotAuthenticated, lambda _: ("Members only.", 401))
    app.get("/notes")(flask_page["login_required"](lambda: "notes"))
    with flask_page["browser_of"](app) as client:
        assert (client.get("/notes").status_code, client.get("/notes").text) == (
            401,
            "Members only.",
        )


def test_names_of_flask_login(flask_page: dict[str, Any]) -> None:
    """The table says what becomes of every public name of Flask-Login, but for its defaults."""
    text = "\n".join(table(FLASK_LOGIN, "Name by name"))
    assert "`user_logged_in`, `user_logged_out` and the other signals" in text
    names = {
        name
        for name in flask_page["flask_login"].__all__
        if name != "__version__"
        and not name.startswith(("user_", "AUTH_", "COOKIE_", "LOGIN_", "REFRESH_"))
    }
    assert [name for name in sorted(names) if not re.search(rf"`{name}\b", text)] == []
    assert len(names) > 15


def test_wrong_passwords_on_the_flask_page(flask_page: dict[str, Any]) -> None:
    """The older kind of hash is verified, and replaced at its owner's login."""
    auth, tables = flask_page["auth"], flask_page["tables"]
    with pytest.raises(InvalidPassword):
        auth.use_key("username", "bert", "wrong")
    auth.use_key("username", "bert", "correct horse")
    with flask_page["engine"].connect() as connection:
        sought = select(tables.key.c.hashed_password).where(tables.key.c.user_id == 2)
        assert connection.scalar(sought).startswith("scrypt:32768:8:1$")
        assert connection.scalar(select(func.count()).select_from(tables.key)) == 2
