"""The web application: one route for each thing that a person can do, as in any application."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Form, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from lucia import (
    AsyncAuth,
    AsyncSessionAdapter,
    DuplicateKeyId,
    InvalidCredentials,
    InvalidRequest,
    InvalidSessionId,
    NotAuthenticated,
    Overloaded,
    PrimaryKey,
    SessionExpiry,
    TooManyAttempts,
)
from lucia._rules.sessions import system_clock
from lucia.adapters.memory import AsyncMemoryAdapter
from lucia.adapters.redis import AsyncRedisSessionAdapter
from lucia.middleware.starlette import StarletteAuth

from .accounts import Accounts, Member
from .journal import Journals
from .pages import HERE, SecurityHeaders, render
from .redis_view import RedisView
from .visit import Demo, Login, Visit, login, visit

COOKIE = "auth_session"

RENEWED = (
    "A new id, and so a new hash in Redis, under the same handle, {handle}. "
    "For 60 seconds a marker leads from the used id to it, for requests in flight."
)

router = APIRouter()
ThisVisit = Annotated[Visit, Depends(visit)]
ThisLogin = Annotated[Login, Depends(login)]
Username = Annotated[str, Form(pattern=r"^\s*[A-Za-z0-9._-]{2,32}\s*$")]
DisplayName = Annotated[str, Form(max_length=80)]
Password = Annotated[str, Form(max_length=1000)]
NewPassword = Annotated[str, Form(min_length=8, max_length=1000)]


@router.get("/")
async def home(visit: ThisVisit) -> Response:
    """Show the member's or the visitor's page. This renews an idle session."""
    found = await visit.request.validate_user()
    if found is None:
        await visit.note_reading(
            "No session has this id any more, and no renewal leads on from it: a visitor."
        )
        return await visitor_page(visit)
    if found.session.fresh:
        await visit.note(
            "Use the idle session",
            RENEWED.format(handle=found.session.handle),
        )
        visit.journal.notice = "Welcome back. The session was idle, so this request renewed it."
    else:
        await visit.note_reading("An active session: one read, and nothing written.")
    return await member_page(visit, Login(found.session, found.user))


@router.get("/idle")
async def idle(visit: ThisVisit) -> Response:
    """Show the member's page without renewing an idle session."""
    try:
        found = await visit.auth.get_session_user(visit.http.cookies.get(COOKIE, ""))
    except InvalidSessionId:
        return RedirectResponse("/", status_code=303)
    return await member_page(visit, Login(found.session, found.user))


@router.post("/signup")
async def sign_up(
    visit: ThisVisit,
    username: Username,
    password: NewPassword,
    display_name: Annotated[str, Form(max_length=80)] = "",
) -> Response:
    """Create an account and log in."""
    name = username.strip().lower()
    attributes = {"username": name, "display_name": display_name.strip() or username.strip()}
    try:
        user = await visit.auth.create_user(
            primary_key=PrimaryKey("username", name, password), attributes=attributes
        )
    except DuplicateKeyId:
        return await visitor_page(visit, "That name is taken. Choose another one.", 409)
    await visit.request.sign_in(user.user_id, **visit.metadata)
    return await visit.done(
        "Sign up", f"Welcome, {user.display_name}. You are signed up and logged in."
    )


@router.post("/login")
async def log_in(visit: ThisVisit, username: Username, password: Password) -> Response:
    """Log in by name and password."""
    try:
        await visit.request.sign_in_with_key(
            "username", username.strip().lower(), password, **visit.metadata
        )
    except InvalidCredentials:
        await visit.note(
            "Log in",
            "Refused: a failure is counted for this name and this address; no session is created.",
        )
        return await visitor_page(visit, "Wrong name or password.", 401)
    except TooManyAttempts as error:
        await visit.note(
            "Log in", "Refused before the password was checked: there were too many wrong ones."
        )
        return await visitor_page(
            visit, f"Too many wrong passwords. Try again in {error.retry_after} s.", 429
        )
    return await visit.done(
        "Log in", "Logged in: a new session, and its id in this browser's cookie."
    )


@router.post("/logout")
async def log_out(visit: ThisVisit) -> Response:
    """Log this browser out."""
    await visit.request.sign_out()
    return await visit.done(
        "Log out", "Logged out: the session is gone, and the cookie from this browser."
    )


@router.post("/devices/logout")
async def log_out_device(
    visit: ThisVisit, login: ThisLogin, handle: Annotated[str, Form(max_length=100)]
) -> Response:
    """Log out one of the user's browsers, by the handle of its session."""
    if handle == login.session.handle:
        return await log_out(visit)
    was_revoked = await visit.auth.invalidate_user_session(login.user.user_id, handle)
    outcome = (
        "That browser is logged out: its next click is a visitor's."
        if was_revoked
        else "That login was over already."
    )
    return await visit.done("Log out one browser", outcome)


@router.post("/logout/others")
async def log_out_others(visit: ThisVisit, login: ThisLogin) -> Response:
    """Log out everywhere but here."""
    await visit.auth.invalidate_all_user_sessions(login.user.user_id, keep=login.session.session_id)
    return await visit.done(
        "Log out everywhere else", "Every other browser is logged out; this one stays."
    )


@router.post("/logout/everywhere")
async def log_out_everywhere(visit: ThisVisit, login: ThisLogin) -> Response:
    """Log out everywhere."""
    await visit.auth.invalidate_all_user_sessions(login.user.user_id)
    await visit.request.sign_out()
    return await visit.done(
        "Log out everywhere", "Logged out everywhere: no session of yours is left."
    )


@router.post("/password")
async def change_password(
    visit: ThisVisit, login: ThisLogin, password: Password, new_password: NewPassword
) -> Response:
    """Change the password. Every other browser is logged out; this one goes on under a new id."""
    name = login.user.username
    try:
        await visit.auth.use_key("username", name, password)
    except InvalidCredentials:
        return await visit.done(
            "Change the password", "The current password is wrong. Nothing was changed."
        )
    session = await visit.auth.update_key_password(
        "username", name, new_password, keep_session=login.session.session_id
    )
    visit.request.set_session(session)
    return await visit.done(
        "Change the password",
        "Changed. Every other browser is logged out, and this one has a new session id.",
    )


@router.post("/idle")
async def let_go_idle(visit: ThisVisit, login: ThisLogin) -> Response:
    """End this session's active period, as if the person had been away."""
    if visit.demo.redis is not None:
        await visit.demo.redis.let_go_idle(login.session.session_id, system_clock())
    return await visit.done(
        "Let the session go idle", "This session is idle now. Its next use renews it.", "/idle"
    )


@router.post("/delete")
async def delete_account(visit: ThisVisit, login: ThisLogin, password: Password) -> Response:
    """Delete the account: keys, sessions and user."""
    try:
        await visit.auth.use_key("username", login.user.username, password)
    except InvalidCredentials:
        return await visit.done(
            "Delete the account", "The password is wrong. The account is still there."
        )
    await visit.auth.delete_user(login.user.user_id)
    await visit.request.sign_out()
    return await visit.done(
        "Delete the account", "The account is deleted: its keys, its sessions and its user."
    )


@router.get("/live")
async def live(http: Request) -> Response:
    """Return the current logins and keys, which a page polls. Never renews; is not recorded."""
    demo: Demo = http.app.state.demo
    try:
        found = await demo.looking.get_session_user(http.cookies.get(COOKIE, ""))
    except InvalidSessionId:
        return Response(status_code=401)
    return render(
        "live.html", **await member_values(demo, Login(found.session, found.user), frozenset())
    )


async def visitor_page(visit: Visit, error: str = "", status: int = 200) -> Response:
    """Show the page with the forms. A cookie without a session stays: only a logout clears it."""
    return await visit.page(
        "visitor.html",
        status,
        error=error,
        is_over=COOKIE in visit.http.cookies and bool(visit.commands),
    )


async def member_page(visit: Visit, login: Login) -> Response:
    """Show the page of a user who is logged in."""
    entries = visit.journal.entries
    return await visit.page(
        "member.html",
        **await member_values(visit.demo, login, entries[0].written if entries else frozenset()),
    )


async def member_values(demo: Demo, login: Login, written: frozenset[str]) -> dict[str, Any]:
    """Return what the templates show of a login: the user's devices, and the keys in Redis."""
    user, session = login.user, login.session
    return {
        "user": user,
        "session": session,
        "devices": await demo.looking.get_all_user_sessions(user.user_id),
        "keys": await demo.redis.held(user.user_id, session.session_id, system_clock())
        if demo.redis
        else [],
        "written": written,
        "about": demo.redis.about if demo.redis else None,
    }


async def answer(http: Request, error: Exception) -> Response:
    """Return the page for an error."""
    if isinstance(error, NotAuthenticated):
        return RedirectResponse("/", status_code=303)
    if isinstance(error, InvalidRequest):
        return render(
            "error.html",
            403,
            title="Refused: this request comes from another site",
            reason=str(error),
            kind="origin",
        )
    if isinstance(error, Overloaded):
        return render(
            "error.html",
            503,
            title="Too many passwords at once",
            reason="Try again in a moment.",
            kind="",
        )
    if isinstance(error, TooManyAttempts):
        return render(
            "error.html",
            429,
            title="Too many wrong passwords",
            reason=f"Try again in {error.retry_after} s.",
            kind="",
        )
    if isinstance(error, HTTPException) and error.status_code == 405:
        return RedirectResponse("/", status_code=303)  # the address of a form, opened as a page
    if isinstance(error, HTTPException):
        return render(
            "error.html",
            error.status_code,
            title="There is no such page",
            reason=error.detail,
            kind="",
        )
    return render(
        "error.html",
        422,
        title="That form was not filled in right",
        reason="Go back and check what you typed.",
        kind="form",
    )


def make_auth(
    accounts: Accounts, sessions: AsyncSessionAdapter, expiry: SessionExpiry | None
) -> AsyncAuth[Member]:
    """Return an ``AsyncAuth`` over these users and sessions."""
    return AsyncAuth(
        users=accounts.adapter,
        sessions=sessions,
        env="DEV",  # the demo has no https; "PROD" makes the cookie Secure
        transform_database_user=Member.from_row,
        session_expires_in=expiry
        or SessionExpiry(
            active=timedelta(hours=24), idle=timedelta(days=14), absolute=timedelta(days=90)
        ),
    )


def create_app(
    accounts: Accounts, redis: RedisView | None, expiry: SessionExpiry | None = None
) -> FastAPI:
    """Return the application. Without Redis, sessions are in the memory of this process."""
    if redis is None:
        auth = looking = make_auth(accounts, AsyncMemoryAdapter(), expiry)
    else:
        auth, looking = (
            # "refuse": no session of the demo was ever stored under its id as it is.
            make_auth(
                accounts,
                AsyncRedisSessionAdapter(client, id_keys=[redis.key], raw_ids="refuse"),
                expiry,
            )
            for client in (redis.client, redis.plain)
        )
    web = StarletteAuth(auth)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        await accounts.create_tables()
        async with auth, looking:
            yield
        await accounts.close()
        if redis is not None:
            await redis.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.demo = Demo(auth, looking, web, accounts, redis, Journals())
    web.install(app)
    app.add_middleware(SecurityHeaders)
    for error in (
        InvalidRequest,
        NotAuthenticated,
        Overloaded,
        TooManyAttempts,
        RequestValidationError,
        HTTPException,
    ):
        app.add_exception_handler(error, answer)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(HERE, "static")))
    return app
