"""The pages of the ready routes, as plain HTML without scripts."""

from collections.abc import Callable, Mapping
from html import escape
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from lucia._rules.accounts import LoggedInDevice, Page, PageName

__all__ = ["PAGE_HEADERS", "render_page"]

PAGE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # No other site may show these pages in a frame, where a click could be stolen.
        "Content-Security-Policy": "frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
    }
)
"""Sent with each page."""

_STYLE: Final = (
    "body{font-family:system-ui,sans-serif;max-width:26rem;margin:3rem auto;padding:0 1rem}"
    "label,input,button{display:block;font:inherit;margin-top:.5rem}"
    "input{width:100%;box-sizing:border-box;padding:.4rem}li{margin:1rem 0}"
)


def render_page(page: Page) -> str:
    """Return the HTML of a page."""
    title, body = _BODIES[page.name](page)
    detail = f'<p role="alert">{escape(page.detail)}</p>' if page.detail else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1>{detail}{body}</body></html>"
    )


def _form(page: Page, inputs: str, button: str, action: str = "") -> str:
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in page.hidden.items()
    )
    # Without an action the form is sent to the URL of the page, with its query.
    target = f' action="{escape(page.prefix + action)}"' if action else ""
    return f'<form method="post"{target}>{hidden}{inputs}<button>{button}</button></form>'


def _input(name: str, label: str, kind: str, autocomplete: str, value: str = "") -> str:
    return (
        f'<label for="{name}">{label}</label><input id="{name}" name="{name}" type="{kind}" '
        f'autocomplete="{autocomplete}" value="{escape(value)}" required>'
    )


def _credentials(page: Page, autocomplete: str) -> str:
    return _input("username", "Name", "text", "username", page.username) + _input(
        "password", "Password", "password", autocomplete
    )


def _link(page: Page, path: str, text: str) -> str:
    """Return a link to another page from which the person goes on as from this one."""
    query = "" if page.next is None else f"?next={quote(page.next, safe='/')}"
    return f'<p><a href="{escape(page.prefix + path + query)}">{text}</a></p>'


def _sign_up(page: Page) -> tuple[str, str]:
    link = _link(page, "/login", "Log in")
    return "Sign up", _form(page, _credentials(page, "new-password"), "Sign up") + link


def _log_in(page: Page) -> tuple[str, str]:
    link = _link(page, "/signup", "Sign up") if page.can_sign_up else ""
    return "Log in", _form(page, _credentials(page, "current-password"), "Log in") + link


def _change_password(page: Page) -> tuple[str, str]:
    inputs = _input(
        "current_password", "Current password", "password", "current-password"
    ) + _input("new_password", "New password", "password", "new-password")
    return "Change the password", _form(page, inputs, "Change the password")


def _devices(page: Page) -> tuple[str, str]:
    items = "".join(f"<li>{_device(page, device)}</li>" for device in page.devices)
    others = _form(page, "", "Log out on all other devices", "/devices/revoke-others")
    out = _form(page, "", "Log out", "/logout")
    link = f'<p><a href="{escape(page.prefix)}/password">Change the password</a></p>'
    return "Devices", f"<ul>{items}</ul>{others}{out}{link}"


def _device(page: Page, device: LoggedInDevice) -> str:
    name = escape(str(device.metadata.get("user_agent", "Unknown device")))
    since = f"{device.created_at:%Y-%m-%d %H:%M} UTC"
    if device.current:
        return f"{name}, since {since} (this device)"
    action = f"/devices/{device.handle}/revoke"
    return f"{name}, since {since}{_form(page, '', 'Log out', action)}"


_BODIES: Final[Mapping[PageName, Callable[[Page], tuple[str, str]]]] = MappingProxyType(
    {
        "sign_up": _sign_up,
        "log_in": _log_in,
        "change_password": _change_password,
        "devices": _devices,
    }
)
