"""Routes that the tests add to the applications of the page about other frameworks.

Each function takes an application of one framework:

* ``/crash``, ``/gone``, ``/redirect``, ``/stream`` and ``/own-headers`` validate the session. Then
  they fail, respond 404, redirect, stream, and respond with headers of their own.
* ``/late`` and ``/cut`` start the response. Then the former validates the session, and the latter
  raises an error of the library.
* ``/busy`` begins to make a response and raises an error of the library, and ``/address`` tells the
  client's address.
* ``/socket`` is a WebSocket that is told whose session it is. ``/refused-socket`` and
  ``/closed-socket`` raise an error of the library before and after they are accepted.
"""

import importlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from lucia import TooManyAttempts

__all__ = [
    "PARTS",
    "add_to_aiohttp",
    "add_to_bottle",
    "add_to_falcon_asgi",
    "add_to_falcon_wsgi",
    "add_to_sanic",
    "add_to_tornado",
]

PARTS: Final = [b"%d\n" % number for number in range(1_000)]
"""The parts of the stream."""

OWN_HEADERS: Final = {"Vary": "Accept-Language", "Cache-Control": "public, max-age=60"}
BUSY: Final = TooManyAttempts(retry_after=7)


def path_of(name: str) -> str:
    """Return the path of a route by the name of its function."""
    return f"/{name.replace('_', '-')}"


def name_of(session: Any) -> str:
    """Return whose session it is."""
    return "nobody" if session is None else str(session.user_id)


def add_to_aiohttp(app: Any) -> None:
    """Add the routes to an application of aiohttp."""
    from aiohttp import web

    key: Any = importlib.import_module("sessions").LUCIA

    async def crash(request: web.Request) -> web.Response:
        await request[key].validate()
        raise ZeroDivisionError

    async def gone(request: web.Request) -> web.Response:
        await request[key].validate()
        raise web.HTTPNotFound

    async def redirect(request: web.Request) -> web.Response:
        await request[key].validate()
        raise web.HTTPSeeOther("/me")

    async def stream(request: web.Request) -> web.StreamResponse:
        await request[key].validate()
        response = web.StreamResponse()
        await response.prepare(request)
        for part in PARTS:
            await response.write(part)
        return response

    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"late ")
        await response.write(name_of(await request[key].validate()).encode())
        return response

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"part")
        raise BUSY

    async def own_headers(request: web.Request) -> web.Response:
        await request[key].validate()
        response = web.Response(headers=OWN_HEADERS)
        response.set_cookie("theme", "dark")
        return response

    async def address(request: web.Request) -> web.Response:
        return web.Response(text=request[key].client_address)

    async def busy(request: web.Request) -> web.Response:
        raise BUSY

    async def socket(request: web.Request) -> web.WebSocketResponse:
        session = await request[key].validate()
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_str(name_of(session))
        return response

    async def closed_socket(request: web.Request) -> web.WebSocketResponse:
        await web.WebSocketResponse().prepare(request)
        raise BUSY

    app.router.add_get("/refused-socket", busy)
    for handler in (crash, gone, redirect, stream, late, cut, own_headers, address, busy):
        app.router.add_get(path_of(handler.__name__), handler)
    for handler in (socket, closed_socket):
        app.router.add_get(path_of(handler.__name__), handler)


def add_to_sanic(app: Any) -> None:
    """Add the routes to an application of Sanic."""
    from sanic import HTTPResponse, response
    from sanic.exceptions import NotFound

    async def crash(request: Any) -> HTTPResponse:
        await request.ctx.lucia.validate()
        raise ZeroDivisionError

    async def gone(request: Any) -> HTTPResponse:
        await request.ctx.lucia.validate()
        raise NotFound

    async def redirect(request: Any) -> HTTPResponse:
        await request.ctx.lucia.validate()
        return response.redirect("/me", status=303)

    async def stream(request: Any) -> None:
        await request.ctx.lucia.validate()
        stream = await request.respond()
        for part in PARTS:
            await stream.send(part)
        await stream.eof()

    async def late(request: Any) -> None:
        stream = await request.respond()
        await stream.send(b"late ")
        await stream.send(name_of(await request.ctx.lucia.validate()))
        await stream.eof()

    async def cut(request: Any) -> None:
        stream = await request.respond()
        await stream.send(b"part")
        raise BUSY

    async def own_headers(request: Any) -> HTTPResponse:
        await request.ctx.lucia.validate()
        answer = response.text("", headers=OWN_HEADERS)
        answer.add_cookie("theme", "dark")
        return answer

    async def address(request: Any) -> HTTPResponse:
        return response.text(request.ctx.lucia.client_address)

    async def busy(request: Any) -> HTTPResponse:
        raise BUSY

    async def socket(request: Any, ws: Any) -> None:
        await ws.send(name_of(await request.ctx.lucia.validate()))

    async def closed_socket(request: Any, ws: Any) -> None:
        raise BUSY

    for handler in (crash, gone, redirect, stream, late, cut, own_headers, address, busy):
        app.add_route(handler, path_of(handler.__name__))
    app.add_websocket_route(socket, "/socket")
    app.add_websocket_route(closed_socket, "/closed-socket")


def add_to_falcon_asgi(app: Any) -> None:
    """Add the routes to an ASGI application of Falcon."""
    import falcon

    class Further:
        async def on_get_crash(self, req: Any, resp: Any) -> None:
            await req.context.lucia.validate()
            raise ZeroDivisionError

        async def on_get_gone(self, req: Any, resp: Any) -> None:
            await req.context.lucia.validate()
            raise falcon.HTTPNotFound

        async def on_get_redirect(self, req: Any, resp: Any) -> None:
            await req.context.lucia.validate()
            raise falcon.HTTPSeeOther("/me")

        async def on_get_stream(self, req: Any, resp: Any) -> None:
            await req.context.lucia.validate()

            async def parts() -> AsyncIterator[bytes]:
                for part in PARTS:
                    yield part

            resp.stream = parts()

        async def on_get_late(self, req: Any, resp: Any) -> None:
            async def parts() -> AsyncIterator[bytes]:
                yield b"late "
                yield name_of(await req.context.lucia.validate()).encode()

            resp.stream = parts()

        async def on_get_cut(self, req: Any, resp: Any) -> None:
            async def parts() -> AsyncIterator[bytes]:
                yield b"part"
                raise BUSY

            resp.stream = parts()

        async def on_get_own_headers(self, req: Any, resp: Any) -> None:
            await req.context.lucia.validate()
            resp.set_headers(OWN_HEADERS)
            resp.set_cookie("theme", "dark", secure=False)

        async def on_get_address(self, req: Any, resp: Any) -> None:
            resp.text = req.context.lucia.client_address

        async def on_get_busy(self, req: Any, resp: Any) -> None:
            resp.content_type = "text/plain"
            raise BUSY

        async def on_websocket_socket(self, req: Any, ws: Any) -> None:
            session = await req.context.lucia.validate()
            await ws.accept()
            await ws.send_text(name_of(session))

        async def on_websocket_refused_socket(self, req: Any, ws: Any) -> None:
            raise BUSY

        async def on_websocket_closed_socket(self, req: Any, ws: Any) -> None:
            await ws.accept()
            raise BUSY

    _add_to_falcon(app, Further())


def add_to_falcon_wsgi(app: Any) -> None:
    """Add the routes to a WSGI application of Falcon."""
    import falcon

    class Further:
        def on_get_crash(self, req: Any, resp: Any) -> None:
            req.context.lucia.validate()
            raise ZeroDivisionError

        def on_get_gone(self, req: Any, resp: Any) -> None:
            req.context.lucia.validate()
            raise falcon.HTTPNotFound

        def on_get_redirect(self, req: Any, resp: Any) -> None:
            req.context.lucia.validate()
            raise falcon.HTTPSeeOther("/me")

        def on_get_stream(self, req: Any, resp: Any) -> None:
            req.context.lucia.validate()
            resp.stream = iter(PARTS)

        def on_get_late(self, req: Any, resp: Any) -> None:
            def parts() -> Iterator[bytes]:
                yield b"late "
                yield name_of(req.context.lucia.validate()).encode()

            resp.stream = parts()

        def on_get_cut(self, req: Any, resp: Any) -> None:
            def parts() -> Iterator[bytes]:
                yield b"part"
                raise BUSY

            resp.stream = parts()

        def on_get_own_headers(self, req: Any, resp: Any) -> None:
            req.context.lucia.validate()
            resp.set_headers(OWN_HEADERS)
            resp.set_cookie("theme", "dark", secure=False)

        def on_get_address(self, req: Any, resp: Any) -> None:
            resp.text = req.context.lucia.client_address

        def on_get_busy(self, req: Any, resp: Any) -> None:
            resp.content_type = "text/plain"
            raise BUSY

    _add_to_falcon(app, Further())


def _add_to_falcon(app: Any, further: object) -> None:
    for name in dir(further):
        if name.startswith("on_"):
            suffix = name.split("_", 2)[2]
            app.app.add_route(path_of(suffix), further, suffix=suffix)


def add_to_bottle(app: Any) -> None:
    """Add the routes to an application of Bottle."""
    bottle: Any = importlib.import_module("bottle")
    request = bottle.request

    def crash() -> str:
        request.lucia.validate()
        raise ZeroDivisionError

    def gone() -> None:
        request.lucia.validate()
        bottle.abort(404)

    def redirect() -> None:
        request.lucia.validate()
        bottle.redirect("/me", 303)

    def stream() -> Iterator[bytes]:
        request.lucia.validate()
        yield from PARTS

    def late() -> Iterator[bytes]:
        yield b"late "
        yield name_of(request.lucia.validate()).encode()

    def cut() -> Iterator[bytes]:
        yield b"part"
        raise BUSY

    def own_headers() -> str:
        request.lucia.validate()
        for name, value in OWN_HEADERS.items():
            bottle.response.set_header(name, value)
        bottle.response.set_cookie("theme", "dark")
        return ""

    def address() -> str:
        return str(request.lucia.client_address)

    def busy() -> str:
        raise BUSY

    for handler in (crash, gone, redirect, stream, late, cut, own_headers, address, busy):
        app.app.get(path_of(handler.__name__), callback=handler)


def add_to_tornado(app: Any) -> None:
    """Add the routes to an application of Tornado."""
    from tornado.web import HTTPError, RequestHandler
    from tornado.websocket import WebSocketHandler

    mixin: Any = importlib.import_module("sessions").LuciaMixin

    class Handler(mixin, RequestHandler):  # type: ignore[misc]
        lucia: Any

    class Crash(Handler):
        async def get(self) -> None:
            await self.lucia.validate()
            raise ZeroDivisionError

    class Gone(Handler):
        async def get(self) -> None:
            await self.lucia.validate()
            raise HTTPError(404)

    class Redirect(Handler):
        async def get(self) -> None:
            await self.lucia.validate()
            self.redirect("/me", status=303)

    class Stream(Handler):
        async def get(self) -> None:
            await self.lucia.validate()
            for part in PARTS:
                self.write(part)
                await self.flush()

    class Late(Handler):
        async def get(self) -> None:
            self.write(b"late ")
            await self.flush()
            self.write(name_of(await self.lucia.validate()))

    class Cut(Handler):
        async def get(self) -> None:
            self.write(b"part")
            await self.flush()
            raise BUSY

    class OwnHeaders(Handler):
        async def get(self) -> None:
            await self.lucia.validate()
            for name, value in OWN_HEADERS.items():
                self.set_header(name, value)
            self.set_cookie("theme", "dark")

    class Address(Handler):
        async def get(self) -> None:
            self.write(self.lucia.client_address)

    class Busy(Handler):
        async def get(self) -> None:
            self.write(b"part")
            raise BUSY

    class Socket(mixin, WebSocketHandler):  # type: ignore[misc]
        lucia: Any

        async def prepare(self) -> None:
            super().prepare()
            self.session = await self.lucia.validate()

        async def open(self, *args: str, **kwargs: str) -> None:
            await self.write_message(name_of(self.session))

    class RefusedSocket(Socket):
        async def prepare(self) -> None:
            await super().prepare()
            raise BUSY

    class ClosedSocket(Socket):
        async def open(self, *args: str, **kwargs: str) -> None:
            raise BUSY

    routes = [
        ("/crash", Crash),
        ("/gone", Gone),
        ("/redirect", Redirect),
        ("/stream", Stream),
        ("/late", Late),
        ("/cut", Cut),
        ("/own-headers", OwnHeaders),
        ("/address", Address),
        ("/busy", Busy),
        ("/socket", Socket),
        ("/refused-socket", RefusedSocket),
        ("/closed-socket", ClosedSocket),
    ]
    app.add_handlers(".*", routes)
