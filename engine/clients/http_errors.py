"""What the HTTP gateway may answer in place of what was asked for.

Each has the `status`, the `code` for programs, a sentence and `details`; `RejectedError` is a rule
of the venue's, the others are about the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.clients.errors import ClientError


class HttpError(ClientError):
    """The base of all answers that are errors."""

    def __init__(self, status: int, code: str, message: str, details: Mapping[str, Any],
                 retry_after_s: float = 0.0) -> None:
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message = status, code, message
        self.details = dict(details)
        self.retry_after_s = retry_after_s
        # Whether the request had been sent before without an answer.
        self.repeated = False


class BadRequestError(HttpError):
    """The request is malformed (400, 405, 413, 431)."""


class AuthenticationError(HttpError):
    """No key, a wrong one, or one that is over (401)."""


class ForbiddenError(HttpError):
    """The key may not do this (403)."""


class NotFoundError(HttpError):
    """There is no such order, instrument or account (404)."""


class ConflictError(HttpError):
    """The order is not live any more, or the client_order_id stands for another order (409)."""


class RejectedError(HttpError):
    """A rule of the venue refused it (422)."""


class RateLimitedError(HttpError):
    """Too many requests or orders in this second (429)."""


class UnavailableError(HttpError):
    """The venue is stopping or failed (5xx)."""


_BY_STATUS: dict[int, type[HttpError]] = {
    401: AuthenticationError, 403: ForbiddenError, 404: NotFoundError, 409: ConflictError,
    422: RejectedError, 429: RateLimitedError}


def http_error(status: int, code: str, message: str, details: Mapping[str, Any],
               retry_after_s: float) -> HttpError:
    """The error of this status."""
    kind = _BY_STATUS.get(status, UnavailableError if status >= 500 else BadRequestError)
    return kind(status, code, message, details, retry_after_s)
