"""What a route is: the table from which the server, the OpenAPI document and the tests are made.

A handler knows nothing of the server: it gets a `Call` and returns a `Reply`, or raises
`ApiError`. So the same handler answers on any port, and a test can call it.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from cython_core.model import Source

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

JSON = b"application/json"
# Dictionaries of the market's own modules have whole numbers above 2**53 as texts already.
ENCODER = msgspec.json.Encoder()


class Access(enum.IntEnum):
    """What a route asks of who calls; each includes those before it."""

    PUBLIC = 0
    READ = 1
    TRADE = 2
    ADMIN = 3


class Identity(msgspec.Struct, frozen=True):
    """Who calls, and by which door. `key` is the key's id ("demo" without credentials on
    loopback), at most 16 characters; it and `mark`, at most 24 characters by which the door finds
    a command again, are written beside every command into the log."""

    account_id: int
    username: str
    access: Access
    key: str
    source: int = int(Source.HTTP)
    mark: str = ""


ANONYMOUS = Identity(0, "", Access.PUBLIC, "")


class Call(msgspec.Struct, gc=False):
    """One request, checked: `query` and `body` are of the route's types (an empty dict and None
    without; no body at all is an empty object), `path` has the values of the path's names."""

    identity: Identity
    path: Mapping[str, str]
    query: Any
    body: Any
    headers: Headers = ()
    address: str = ""


class Reply(msgspec.Struct, gc=False):
    """What is sent back. `stream` in place of `body` makes its parts (none of them empty) while
    the client reads; when it raises, the connection is cut, so that nobody takes a part for the
    whole."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = JSON
    headers: Headers = ()
    stream: AsyncGenerator[bytes, None] | None = None


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One way to call the gateway.

    `path` is written as OpenAPI does: `/v1/orders/{id}`; a name at the end that may hold slashes
    is `{file:path}`. `query`, `body` and `answer` are msgspec types: they check what comes in and
    describe the route. `errors` are the codes a caller may meet besides those of every route.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access = Access.READ
    tag: str = "Orders"
    body: Any = None
    query: type[msgspec.Struct] | None = None
    answer: Any = None
    status: int = 200
    content_type: str = "application/json"
    # Other types in which the same is answered, as bytes.
    content_types: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    # Other statuses with the same answer, and what each means.
    also: tuple[tuple[int, str], ...] = ()
    description: str = ""
    # Not in the OpenAPI document: files of the pages.
    hidden: bool = False


class ApiError(Exception):
    """A request that cannot be served, as PROTOCOLS 7 writes it: `code` is for programs,
    `message` a sentence for people."""

    def __init__(self, status: int, code: str, message: str,
                 details: Mapping[str, Any] | None = None, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.details = dict(details or {})
        self.headers = headers

    def reply(self) -> Reply:
        """The error as it is sent."""
        return Reply(self.status, ENCODER.encode({
            "code": self.code, "message": self.message, "details": self.details}),
            headers=self.headers)


def json_reply(value: Any, status: int = 200, headers: Headers = ()) -> Reply:
    """Any value that msgspec encodes."""
    return Reply(status, ENCODER.encode(value), headers=headers)
