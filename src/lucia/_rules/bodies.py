"""The bodies of requests to the ready routes: JSON objects and forms, in UTF-8 and not too long."""

import json
from collections.abc import Mapping
from email.message import Message
from typing import Any, Final, cast
from urllib.parse import parse_qsl

from lucia.errors import InvalidInput

__all__ = ["MAX_BODY_BYTES", "body_too_long", "check_body_length", "check_charset", "read_body"]

MAX_BODY_BYTES: Final = 65_536
"""The longest body that the routes read."""

_MAX_FIELDS: Final = 100


def read_body(content_type: str, body: bytes) -> tuple[Mapping[str, Any], bool]:
    """Return the fields of a body, and whether it is a form.

    Raises:
        InvalidInput: it is neither a JSON object nor a form, is malformed, or is too long.
    """
    check_body_length(len(body))
    check_charset(content_type)
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return _read_form(body), True
    if not body:
        return {}, kind != "application/json"  # a form without fields
    if kind != "application/json":
        raise InvalidInput("the body must be JSON (application/json) or a form")
    return _read_json(body), False


def check_charset(content_type: str) -> None:
    """Refuse a body in another encoding than UTF-8.

    Parsers of forms would use any codec that Python has, of which some are slow, and some make text
    that can't be sent back.

    Raises:
        InvalidInput: the Content-Type names another one.
    """
    message = Message()
    message["Content-Type"] = content_type
    for name, value in message.get_params(failobj=[]):
        if name.lower() == "charset" and value.lower() not in ("utf-8", "utf8", "us-ascii"):
            raise InvalidInput("the body must be in UTF-8")


def check_body_length(length: int) -> None:
    """Raise `InvalidInput` if a body is too long, by its bytes."""
    if length > MAX_BODY_BYTES:
        raise body_too_long()


def body_too_long() -> InvalidInput:
    """Return the error for a body that is too long."""
    return InvalidInput(f"the body is longer than {MAX_BODY_BYTES} bytes")


def _read_json(body: bytes) -> Mapping[str, Any]:
    """Return the members of a JSON object.

    Raises:
        InvalidInput: it is not JSON, or another JSON value.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("the body is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object")
    return cast("dict[str, Any]", value)


def _read_form(body: bytes) -> Mapping[str, Any]:
    """Return the fields of a URL-encoded form.

    Raises:
        InvalidInput: it is malformed.
    """
    try:
        return dict(parse_qsl(body.decode(), True, errors="strict", max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise InvalidInput("the body is not a form") from None
