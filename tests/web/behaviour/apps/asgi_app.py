"""The application in ASGI, without a framework."""

import asyncio

from lucia import AsyncAuthRequest, NotAuthenticated, User
from lucia.middleware.accounts import AsyncAccountRoutes
from lucia.middleware.asgi import LuciaMiddleware, Receive, Scope, Send, auth_request
from tests.web.behaviour.apps.plain import (
    AFTER_VALIDATION,
    GONE,
    Answer,
    error_answer,
    find_route,
    json_answer,
    reply_answer,
    submission_of,
)
from tests.web.behaviour.apps.stores import async_auth, shown

auth = async_auth()
accounts = AsyncAccountRoutes(auth, "cookie")


async def respond(
    scope: Scope, headers: dict[str, str], receive: Receive, request: AsyncAuthRequest[User]
) -> Answer:
    method, path = scope["method"].replace("HEAD", "GET"), scope["path"]
    found = find_route(accounts.routes, method, path)
    if found is not None:
        route, handle = found
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        submission = submission_of(
            body,
            headers.get("content-type", ""),
            headers.get("accept", ""),
            headers.get("user-agent", ""),
            path,
            scope["query_string"].decode(),
            handle,
        )
        return reply_answer(await accounts.handle(route, request, submission))
    if path == "/unused":
        return json_answer({})
    if path == "/crash" and method == "POST":
        await request.sign_in("ann")
    session = await request.validate()
    if path == "/crash":
        raise ZeroDivisionError
    if path in AFTER_VALIDATION:
        return AFTER_VALIDATION[path]
    if path == "/private" and session is None:
        raise NotAuthenticated
    if path == "/slow":
        await asyncio.sleep(0.2)
    return json_answer(shown(session)) if path in ("/who", "/private", "/slow") else GONE


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":  # no lifespan
        return
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    try:
        answer = await respond(scope, headers, receive, auth_request(auth, scope))
    except Exception as error:
        answer = error_answer(error, scope["method"], scope["path"], headers.get("accept", ""))
    raw = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    for part in answer.body if scope["method"] != "HEAD" else ():
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


app = LuciaMiddleware(application, auth=auth, forbid_cross_site=True)
