"""HTML from the templates, and the headers that keep a page from doing anything but what it is for."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .browsers import describe

HERE = Path(__file__).parent

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # not no-referrer, with which browsers send "Origin: null"
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def duration(milliseconds: float) -> str:
    """Such as ``14 d 23:59:59``, ``5:09`` or ``0:00``; the page's script counts it down in the same form."""
    seconds = max(0, int(milliseconds // 1000))
    days, rest = divmod(seconds, 86_400)
    hours, minutes = rest // 3600, rest // 60 % 60
    clock = f"{hours}:{minutes:02}:{rest % 60:02}" if days or hours else f"{minutes}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock


def clock_time(when: datetime) -> str:
    """The time of day of today, else with the date; the page's script puts the person's own time zone in its place."""
    when = when.astimezone(UTC)
    return (
        f"{when:%H:%M:%S} UTC"
        if when.date() == datetime.now(UTC).date()
        else f"{when.day} {when:%B %Y, %H:%M} UTC"
    )


_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(duration=duration, clock_time=clock_time, browser=describe)


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The page that a template makes of these values."""
    return HTMLResponse(_templates.get_template(template).render(values), status)


class SecurityHeaders:
    """Middleware that gives every response the security headers, unless it has its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
