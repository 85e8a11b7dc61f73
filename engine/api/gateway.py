"""Requests to handlers: who calls, how often, what is in it, and what goes back.

No server stands in here: `server.py` brings requests from uvicorn, the feed's port may bring
others, and a test calls `answer` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from engine import clock, log
from engine.api.auth import Auth
from engine.api.limits import Addresses, too_many
from engine.api.route import ANONYMOUS, Access, ApiError, Call, Headers, Reply, Route
from engine.api.table import Table
from engine.api.wrong import wrong_input
from engine.errors import EngineError

RETRY_AFTER_S = 5
# A query has at most so many names.
_NAMES_MAX = 64

Observer = Callable[[Route, int, int], None]


class Bound:
    """A route with what checks its input, made once."""

    __slots__ = ("access", "decode", "public", "query", "route")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.access = route.access
        self.public = route.access is Access.PUBLIC
        self.query = route.query
        self.decode = msgspec.json.Decoder(route.body).decode if route.body is not None else None


class Gateway:
    """Serves the routes of a table."""

    def __init__(self, auth: Auth, requests_per_second: int) -> None:
        self.auth = auth
        self.table: Table[Bound] = Table()
        self.draining = False
        # Told of every answer: the route, its status, nanoseconds spent.
        self.observe: Observer | None = None
        self._addresses = Addresses(requests_per_second)
        self._log = log.get("api")

    def add(self, routes: Iterable[Route]) -> None:
        """Serve these too. Raises ValueError for a path that is taken."""
        for route in routes:
            self.table.add(route.method, route.path, Bound(route))

    @property
    def routes(self) -> list[Route]:
        """Every route, as added."""
        return [bound.route for bound in self.table]

    def drain(self) -> None:
        """The venue stops: what is under way is finished, nothing new is begun."""
        self.draining = True

    async def answer(self, method: str, path: bytes, query: bytes, headers: Headers,
                     body: bytes, address: str) -> Reply:
        """The reply to a request; `path` and `query` are as they were sent, names of headers in
        lower case. Raises nothing: what goes wrong is a reply too."""
        found = self.table.find(method, unquote(path.decode("latin-1")))
        if isinstance(found, ApiError):
            return found.reply()
        bound, values = found
        return await self.serve(bound, values, method, path, query, headers, body, address)

    async def serve(self, bound: Bound, values: Mapping[str, str], method: str, path: bytes,
                    query: bytes, headers: Headers, body: bytes, address: str) -> Reply:
        """The reply of one route. Raises nothing."""
        started_ns = clock.now_ns()
        limits: Headers = ()
        try:
            if bound.public:
                identity = ANONYMOUS
                window = self._addresses.window(address)
            else:
                client = self.auth.identify(method, path + b"?" + query if query else path,
                                            headers, body, address)
                identity, window = client.identity, client.window
            allowed = window.take(started_ns)
            limits = window.headers()
            if not allowed:
                raise too_many(f"more than {window.limit} requests in a second")
            if identity.access < bound.access:
                raise _forbidden(bound.access)
            if self.draining and not bound.public:
                raise stopping()
            reply = await bound.route.handler(Call(
                identity, values, _query(bound.query, query),
                _body(bound, body), headers, address))
        except ApiError as error:
            reply = error.reply()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            reply = wrong_input(error).reply()
        except EngineError as error:
            reply = ApiError(503, "unavailable", str(error)).reply()
        except Exception:
            self._log.exception("a route failed", route=bound.route.path, key=bound.route.path)
            reply = ApiError(500, "internal_error", "this is a mistake of the venue's; its log "
                             "says more").reply()
        if limits:
            reply.headers = (*limits, *reply.headers)
        if self.observe is not None:
            self.observe(bound.route, reply.status, clock.now_ns() - started_ns)
        return reply


def _body(bound: Bound, body: bytes) -> Any:
    """The body as the route's type; an empty one is an empty object. Raises msgspec.MsgspecError,
    ApiError 400."""
    if bound.decode is None:
        return None
    try:
        return bound.decode(body or b"{}")
    except RecursionError:
        raise ApiError(400, "bad_json", "the body is nested too deeply") from None


def stopping() -> ApiError:
    """The answer while the venue stops."""
    return ApiError(503, "stopping", "the venue is stopping; try again when it is back",
                    headers=((b"retry-after", b"%d" % RETRY_AFTER_S), (b"connection", b"close")))


def _forbidden(access: Access) -> ApiError:
    need = {Access.TRADE: "trader", Access.ADMIN: "admin"}.get(access, "read-only")
    return ApiError(403, "forbidden", f"this needs a key with the role {need}",
                    {"role_needed": need})


def _query(kind: type[msgspec.Struct] | None, query: bytes) -> Any:
    """The query as the route's type. Raises msgspec.ValidationError, ApiError 400."""
    if kind is None:
        if query:
            raise ApiError(400, "unknown_field", "this route takes no query")
        return {}
    if not query:
        return kind() if not msgspec.structs.fields(kind) else _convert({}, kind)
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True,
                          max_num_fields=_NAMES_MAX, errors="strict")
    except (ValueError, UnicodeDecodeError) as error:
        raise ApiError(400, "bad_query", f"the query cannot be read: {error}") from None
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ApiError(400, "bad_query", "a name stands twice in the query")
    return _convert(values, kind)


def _convert(values: dict[str, str], kind: type[msgspec.Struct]) -> Any:
    made = msgspec.convert(values, kind, strict=False)
    attributes = _attributes(kind)
    for name, value in values.items():
        # `null` reads as nothing: `side=null` must not mean every side.
        if getattr(made, attributes[name]) is None:
            raise ApiError(400, "bad_value", f"{name}: {value!r} is no value; leave the name out",
                           {"field": name})
    return made


@lru_cache(maxsize=256)
def _attributes(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The attribute for each name in a query: `from` is no name that Python takes."""
    return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
