"""Render the templates, and set the security headers of pages."""

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
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # not no-referrer, with which browsers send "Origin: null"
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def duration(milliseconds: float) -> str:
    """Format a duration as ``14 d 23:59:59`` or ``5:09``, as the page's script does."""
    seconds = max(0, int(milliseconds // 1000))
    days, rest = divmod(seconds, 86_400)
    hours, minutes = rest // 3600, rest // 60 % 60
    clock = f"{hours}:{minutes:02}:{rest % 60:02}" if days or hours else f"{minutes}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock


def clock_time(when: datetime) -> str:
    """Format a time in UTC. The page's script replaces it by the time in the local zone."""
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
    """Render a template."""
    return HTMLResponse(_templates.get_template(template).render(values), status)


class SecurityHeaders:
    """Middleware that adds the security headers that a response lacks."""

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
