"""The session cookie: its attributes, the Set-Cookie header, and finding it in a request.

Formats: RFC 6265 and its successor draft-ietf-httpbis-rfc6265bis (name prefixes).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Final, Literal

from lucia._rules.sessions import is_session_id
from lucia.models import Session, to_datetime

Env = Literal["DEV", "PROD"]

SESSION_COOKIE_NAME: Final = "auth_session"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*", re.ASCII)
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*", re.ASCII)
_DOMAIN = re.compile(r"\.?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*", re.ASCII)
# In lower case, since browsers compare the prefixes of names without regard to case.
_SECURE_PREFIXES: Final = ("__host-", "__secure-", "__http-")
_SAME_SITE: Final = ("lax", "strict", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCookie:
    """Name and attributes of the session cookie.

    Args:
        name: ``__Host-auth_session`` is recommended in production unless subdomains share the
            cookie.
        same_site: whether browsers send it with requests from other sites.
        path: browsers send it to this path and those below.
        domain: None for this host alone; a domain includes its subdomains.

    Raises:
        ValueError: an attribute is malformed, or the name's prefix forbids it.
    """

    name: str = SESSION_COOKIE_NAME
    same_site: Literal["lax", "strict", "none"] = "lax"
    path: str = "/"
    domain: str | None = None

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.name):
            raise ValueError(
                f"cookie name {self.name!r} is not a token: use letters, digits, '-' and '_'"
            )
        if self.same_site not in _SAME_SITE:
            raise ValueError(
                f"same_site must be one of {', '.join(_SAME_SITE)}, got {self.same_site!r}"
            )
        if not _PATH.fullmatch(self.path):
            raise ValueError(f"cookie path must begin with '/' and hold no ';', got {self.path!r}")
        if self.domain is not None and not _DOMAIN.fullmatch(self.domain):
            raise ValueError(
                "cookie domain must be a host name, with letters outside ASCII in the form xn--…, "
                f"got {self.domain!r}"
            )
        if self.name.lower().startswith("__host-") and (
            self.path != "/" or self.domain is not None
        ):
            raise ValueError(
                f"a cookie named {self.name!r} needs path='/' and no domain: browsers refuse others"
            )

    def check_env(self, env: Env) -> None:
        """Refuse a cookie that browsers would drop.

        Raises:
            ValueError: the name's prefix or ``same_site="none"`` needs a Secure cookie, and cookies
                are Secure only if ``env`` is ``PROD``.
        """
        if env == "PROD":
            return
        if self.name.lower().startswith(_SECURE_PREFIXES):
            raise ValueError(
                f"a cookie named {self.name!r} must be Secure, "
                "and cookies are Secure only if env is 'PROD'"
            )
        if self.same_site == "none":
            raise ValueError(
                "same_site='none' needs a Secure cookie, "
                "and cookies are Secure only if env is 'PROD'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """A cookie to set on a response; its ``repr`` does not have the value."""

    name: str
    value: str = field(repr=False)
    expires: datetime
    path: str
    same_site: Literal["lax", "strict", "none"]
    domain: str | None
    secure: bool
    http_only: bool = True

    def serialize(self) -> str:
        """Return the value of the Set-Cookie header. It contains the session id: don't log it.

        Raises:
            ValueError: the value contains a character that cookies can't.
        """
        if not _VALUE.fullmatch(self.value):
            raise ValueError(
                f"the value of the cookie {self.name!r} contains a character that cookies can't"
            )
        parts = [
            f"{self.name}={self.value}",
            f"Expires={format_datetime(self.expires, usegmt=True)}",
        ]
        if self.domain is not None:
            parts.append(f"Domain={self.domain}")
        parts += [f"Path={self.path}", f"SameSite={self.same_site.capitalize()}"]
        parts += [
            name for name, on in (("HttpOnly", self.http_only), ("Secure", self.secure)) if on
        ]
        return "; ".join(parts)


def create_session_cookie(session: Session | None, options: SessionCookie, env: Env) -> Cookie:
    """Return the cookie that carries ``session``, or the one that clears it."""
    # They differ only in value and expiry: browsers replace a cookie only by one with the same
    # name, path and domain.
    return Cookie(
        name=options.name,
        value="" if session is None else session.session_id,
        expires=to_datetime(0) if session is None else session.idle_period_expires_at,
        path=options.path,
        same_site=options.same_site,
        domain=options.domain,
        secure=env == "PROD",
    )


def find_cookie(headers: Sequence[str], name: str) -> str | None:
    """Return the first well-formed session id among the cookies of this name.

    If there is none, return the first value that is not empty, which is never sent to the store; or
    None. No header raises an error.
    """
    malformed = None
    for header in headers:
        for pair in header.split(";"):
            if name in pair:  # cheap test that most pairs fail
                key, separator, value = pair.partition("=")
                # Spaces and tabs alone: stripped of other white space, a cookie that a sibling
                # domain set would pass for one with a __Host- prefix.
                if separator and key.strip(" \t") == name:
                    value = value.strip(" \t")
                    # A sibling domain or an old path can leave a cookie of the same name that is
                    # sent first. A malformed one is skipped. That weakens nothing: whoever planted
                    # it could have planted a well-formed one instead.
                    if is_session_id(value):
                        return value
                    malformed = malformed or value or None
    return malformed
