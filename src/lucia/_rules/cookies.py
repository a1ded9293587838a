"""The session cookie: its options, the text of Set-Cookie, and finding it in a Cookie header.

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
_SECURE_PREFIXES: Final = ("__host-", "__secure-", "__http-")
_SAME_SITE: Final = ("lax", "strict", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCookie:
    """The parts of the session cookie that can be chosen.

    Args:
        name: ``__Host-auth_session`` is recommended in production when nobody else shares the cookie.
        same_site: whether other sites' requests carry it.
        path: below which paths it is sent.
        domain: None for the host alone; a domain for its subdomains too.

    Raises:
        ValueError: a part is malformed, or the name's prefix forbids it.
    """

    name: str = SESSION_COOKIE_NAME
    same_site: Literal["lax", "strict", "none"] = "lax"
    path: str = "/"
    domain: str | None = None

    def __post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.name):
            raise ValueError(
                f"cookie name {self.name!r} is no token: use letters, digits, '-' and '_'"
            )
        if self.same_site not in _SAME_SITE:
            raise ValueError(
                f"same_site must be one of {', '.join(_SAME_SITE)}, got {self.same_site!r}"
            )
        if not _PATH.fullmatch(self.path):
            raise ValueError(f"cookie path must begin with '/' and hold no ';', got {self.path!r}")
        if self.domain is not None and not _DOMAIN.fullmatch(self.domain):
            raise ValueError(
                f"cookie domain must be a host's name, with other letters than ASCII in the form xn--…, got {self.domain!r}"
            )
        if self.name.lower().startswith("__host-") and (
            self.path != "/" or self.domain is not None
        ):
            raise ValueError(
                f"a cookie named {self.name!r} needs path='/' and no domain, else browsers refuse it"
            )

    def check_env(self, env: Env) -> None:
        """Refuse what browsers would drop.

        Raises:
            ValueError: the name's prefix or ``same_site="none"`` needs a Secure cookie, which is set in PROD alone.
        """
        if env == "PROD":
            return
        if self.name.lower().startswith(_SECURE_PREFIXES):
            raise ValueError(
                f"a cookie named {self.name!r} must be Secure, and cookies are Secure exactly when env is 'PROD'"
            )
        if self.same_site == "none":
            raise ValueError(
                "same_site='none' needs a Secure cookie, and cookies are Secure exactly when env is 'PROD'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """One cookie of a response. ``serialize()`` is the text of Set-Cookie; the value stays out of the ``repr``."""

    name: str
    value: str = field(repr=False)
    expires: datetime
    path: str
    same_site: Literal["lax", "strict", "none"]
    domain: str | None
    secure: bool
    http_only: bool = True

    def serialize(self) -> str:
        """The value of a Set-Cookie header; it holds the session id, so keep it out of logs.

        Raises:
            ValueError: the value holds a character that a cookie can't.
        """
        if not _VALUE.fullmatch(self.value):
            raise ValueError(
                f"the value of the cookie {self.name!r} holds a character that a cookie can't"
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
    """The cookie that carries ``session``, or that clears it: the two differ in value and expiry alone."""
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
    """Return the session id in a request's Cookie headers: the first cookie of this name that can be one.

    If none can, return the first that is not empty, which is never sent to the store; or None.

    Nothing in the headers raises, and nothing odd hides a good cookie. Names and values are trimmed
    of spaces and tabs only: other white space would let a sibling domain's cookie pass for one with
    a ``__Host-`` prefix.
    """
    malformed = None
    for header in headers:
        for pair in header.split(";"):
            if name in pair:  # few are
                key, separator, value = pair.partition("=")
                if separator and key.strip(" \t") == name:
                    value = value.strip(" \t")
                    # A sibling domain or an old path can leave a cookie of the same name that is
                    # sent first. One that can be no id is skipped: whoever could plant it could as
                    # well plant one that can, so skipping it gives nothing away.
                    if is_session_id(value):
                        return value
                    malformed = malformed or value or None
    return malformed
