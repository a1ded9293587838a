"""The response to each of the library's errors, for integrations of further frameworks."""

from lucia._rules.responses import ERRORS, ErrorResponse, response_for

__all__ = ["ERRORS", "ErrorResponse", "response_for"]
