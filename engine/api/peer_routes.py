"""`POST /api/v1/performance/engines/parallel-query`: one endpoint of every peer at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from engine import clock
from engine.api.peers import PeerPart, Peers
from engine.api.route import Access, ApiError, Call, Reply, Route, json_reply

PATH = "/api/v1/performance/engines/parallel-query"


class PeerQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to ask: the path of a GET route of this venue, with its query; of all peers, or of
    those that are named. `timeout_ms` shortens peers.timeout_ms."""

    endpoint: Annotated[str, Meta(min_length=1, max_length=2_048, pattern=r"^/[!-~]*$")]
    peers: list[str] = []
    timeout_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0


class PeerAnswers(msgspec.Struct, frozen=True):
    """A part of each peer, in the order of the configuration; `ok` says whether all are there."""

    endpoint: str
    ok: bool
    ms: float
    results: list[PeerPart]


class PeerRoutes:
    """The route, around the peers. `access_of` says what a path of ours asks of who calls, None
    for a path that nobody answers."""

    def __init__(self, peers: Peers, timeout_ms: int,
                 access_of: Callable[[str], Access | None]) -> None:
        self._peers, self._timeout_ms, self._access_of = peers, timeout_ms, access_of

    async def ask(self, call: Call) -> Reply:
        """Every peer's part. A peer that is dead costs its time-out until its breaker opens, and
        nothing from then on."""
        query: PeerQuery = call.body
        self._check(query, call)
        started_ns = clock.monotonic_ns()
        timeout_ms = min(query.timeout_ms or self._timeout_ms, self._timeout_ms)
        parts = await self._peers.ask(query.endpoint, query.peers, timeout_ms)
        ms = round((clock.monotonic_ns() - started_ns) / clock.NS_PER_MS, 3)
        return json_reply(PeerAnswers(query.endpoint, all(part.ok for part in parts), ms, parts))

    def _check(self, query: PeerQuery, call: Call) -> None:
        names = self._peers.names
        if not names:
            raise ApiError(404, "no_peers", "this venue has no peers: peers.urls is empty")
        unknown = [name for name in query.peers if name not in names]
        if unknown:
            raise ApiError(404, "unknown_peer", f"there is no peer {unknown[0]}",
                           {"peers": names})
        access = self._access_of(unquote(query.endpoint.partition("?")[0]))
        if access is None:
            raise ApiError(404, "unknown_endpoint",
                           "the endpoint is no path that this venue answers to GET")
        # Peers are asked with the venue's own token: what is not for everybody is asked for those
        # who may use that.
        if access is not Access.PUBLIC and call.identity.access < Access.ADMIN:
            raise ApiError(403, "forbidden", "only administrators may ask this of peers")

    def routes(self) -> list[Route]:
        """The one route."""
        return [Route(
            method="POST", path=PATH, handler=self.ask, body=PeerQuery, answer=PeerAnswers,
            summary="One endpoint of every peer, asked at once", tag="Operations",
            errors=(403, 404), description="A peer without an answer has an error in its part; "
            "the others are answered all the same.")]


def access_in(find: Callable[[str, str], Any]) -> Callable[[str], Access | None]:
    """`access_of` by a gateway's table."""
    def access_of(path: str) -> Access | None:
        found = find("GET", path)
        return None if isinstance(found, ApiError) else found[0].access

    return access_of
