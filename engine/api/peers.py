"""Other instances of the venue, asked for one endpoint all at once.

For those who run one daemon for each group of instruments: one question, one answer with a part
of each. A peer that fails again and again is left alone: its breaker opens, and its part says so
at once. Whether it is back is then found out beside the questions, so none waits for it.

aiohttp is imported with the first question: a start without peers stays quick.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from engine import clock, log
from engine.breaker import Breaker, State
from engine.brief import brief
from engine.config import PeersConfig, peer_urls
from engine.errors import ConfigError, EngineError
from engine.metrics import Metrics
from engine.tasks import end_all

if TYPE_CHECKING:
    from aiohttp import ClientSession

# What a peer whose breaker is open is asked, to see whether it is back.
PROBE = "/health"
READ_BYTES = 2**16
_STATES = {State.CLOSED: "closed", State.HALF_OPEN: "half_open", State.OPEN: "open"}


def speak_tls(config: PeersConfig) -> bool:
    """Whether one of the peers does."""
    return any(url.startswith("https:") for url in peer_urls(config).values())


class PeerError(EngineError):
    """A peer has no answer."""


class Answer(NamedTuple):
    """What a peer said: its status and body, `text` when that is no JSON; and when."""

    status: int
    body: bytes
    text: bool
    at_ns: int


class PeerPart(msgspec.Struct, frozen=True):
    """One peer's part: `status` and `body` when it answered (a text when it is no JSON), else
    `error`. `ms` is what the part took here, `cached` whether it was known from a moment ago,
    `breaker` closed, half_open (it is being tried) or open (it is left alone)."""

    peer: str
    ok: bool
    status: int | None
    ms: float
    cached: bool
    breaker: str
    body: Any = None
    error: str = ""


class Peer:
    """One other instance."""

    def __init__(self, name: str, url: str, config: PeersConfig) -> None:
        self.name, self.url = name, url
        self.breaker = Breaker(config.failures_max, config.retry_min_ms * clock.NS_PER_MS,
                               config.retry_max_ms * clock.NS_PER_MS)
        self.retry_ns = 0
        self.probe: asyncio.Task[None] | None = None
        self.error = ""

    @property
    def state(self) -> str:
        """The breaker, as it is shown."""
        return _STATES[self.breaker.state]

    def failed(self, error: str) -> None:
        """A question had no answer."""
        self.error = error
        self.retry_ns = clock.monotonic_ns() + self.breaker.failed(random.random())

    def succeeded(self) -> None:
        """It answered."""
        self.error = ""
        self.breaker.succeeded()


class Peers:
    """Asks the configured peers. Belongs to the loop that asks first. Raises ConfigError when the
    token can't be read."""

    def __init__(self, config: PeersConfig, metrics: Metrics | None = None,
                 tls: ssl.SSLContext | None = None) -> None:
        """`tls` is for peers with an https:// address; without it the system's authorities."""
        self._config, self._tls = config, tls
        self._token = _token(config)
        self._peers = {name: Peer(name, url, config) for name, url in peer_urls(config).items()}
        self._session: ClientSession | None = None
        self._opening: asyncio.Lock | None = None
        # Answers of a moment ago, the oldest first; questions under way.
        self._known: OrderedDict[tuple[str, str], Answer] = OrderedDict()
        self._asked: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._log = log.get("peers")
        self._count = _Counters(metrics or Metrics(), self._peers)

    @property
    def names(self) -> list[str]:
        """Every peer's name."""
        return list(self._peers)

    async def ask(self, path: str, names: Sequence[str] = (),
                  timeout_ms: int = 0) -> list[PeerPart]:
        """The parts of these peers, of all without names, in the order of the configuration.
        `path` begins with a slash and may have a query. Never raises; KeyError for a name that
        is no peer's."""
        chosen = [self._peers[name] for name in dict.fromkeys(names)] or self._peers.values()
        timeout_s = (timeout_ms or self._config.timeout_ms) / 1_000
        return list(await asyncio.gather(*(self._part(peer, path, timeout_s)
                                           for peer in chosen)))

    async def close(self) -> None:
        """Ask nothing more."""
        tasks = [*self._asked.values(),
                 *(peer.probe for peer in self._peers.values() if peer.probe is not None)]
        await end_all(tasks)
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- one part --------------------------------------------------------------------------------

    async def _part(self, peer: Peer, path: str, timeout_s: float) -> PeerPart:
        started_ns = clock.monotonic_ns()
        self._count.questions.add()
        answer = self._cached(peer, path)
        cached, error = answer is not None, ""
        if answer is None:
            try:
                answer = await self._question(peer, path, timeout_s)
            except PeerError as trouble:
                error = str(trouble)
                self._count.failures.add()
        else:
            self._count.cached.add()
        ms = round((clock.monotonic_ns() - started_ns) / clock.NS_PER_MS, 3)
        if answer is None:
            return PeerPart(peer.name, False, None, ms, cached, peer.state, error=error)
        body = str(answer.body, "utf-8", "replace") if answer.text else msgspec.Raw(answer.body)
        return PeerPart(peer.name, 200 <= answer.status < 300, answer.status, ms, cached,
                        peer.state, body)

    def _cached(self, peer: Peer, path: str) -> Answer | None:
        answer = self._known.get((peer.name, path))
        age_ns = self._config.cache_ms * clock.NS_PER_MS
        if answer is None or clock.monotonic_ns() - answer.at_ns >= age_ns:
            return None
        return answer

    async def _question(self, peer: Peer, path: str, timeout_s: float) -> Answer:
        """Ask, together with others who ask the same just now. Raises PeerError."""
        if peer.breaker.state is not State.CLOSED:
            self._look(peer)
            raise PeerError(f"it is left alone for a while: {peer.error}")
        key = peer.name, path
        task = self._asked.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(peer, path))
            self._asked[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        try:
            # Shielded: who has no more time does not end it for the others.
            return await asyncio.wait_for(asyncio.shield(task), timeout_s)
        except TimeoutError:
            raise PeerError(f"no answer within {timeout_s:g} s") from None

    def _done(self, key: tuple[str, str], task: asyncio.Task[Answer]) -> None:
        del self._asked[key]
        if not task.cancelled():
            # Looked at, also when nobody waits any more.
            task.exception()

    def _look(self, peer: Peer) -> None:
        """Find out whether a peer that is left alone is back; nobody waits for this."""
        if peer.probe is None and clock.monotonic_ns() >= peer.retry_ns:
            peer.breaker.waited()
            peer.probe = asyncio.get_running_loop().create_task(self._try(peer))

    async def _try(self, peer: Peer) -> None:
        try:
            await self._fetch(peer, PROBE)
            self._log.info("peer is back", peer=peer.name)
        except PeerError:
            pass
        finally:
            peer.probe = None

    async def _fetch(self, peer: Peer, path: str) -> Answer:
        """Ask over the network, and remember. Raises PeerError."""
        try:
            answer = await self._get(peer, path)
        except PeerError as error:
            was = peer.breaker.state
            peer.failed(str(error))
            if peer.breaker.state is State.OPEN and was is State.CLOSED:
                self._log.warning("peer is left alone", peer=peer.name, error=peer.error)
            raise
        peer.succeeded()
        if self._config.cache_ms:
            self._known[peer.name, path] = answer
            self._known.move_to_end((peer.name, path))
            while len(self._known) > self._config.cache_entries_max:
                self._known.popitem(last=False)
        return answer

    async def _get(self, peer: Peer, path: str) -> Answer:
        import aiohttp

        try:
            session = await self._open()
            async with session.get(peer.url + path, allow_redirects=False) as response:
                body = await self._read(response.content)
        except TimeoutError:
            raise PeerError(f"no answer within {self._config.timeout_ms / 1_000:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise PeerError(brief(error)) from error
        return Answer(response.status, body, not _is_json(body), clock.monotonic_ns())

    async def _read(self, content: Any) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := await content.read(READ_BYTES):
            size += len(part)
            if size > self._config.answer_max_bytes:
                raise PeerError(f"its answer has more than {self._config.answer_max_bytes} bytes")
            parts.append(part)
        return b"".join(parts)

    async def _open(self) -> ClientSession:
        if self._opening is None:
            self._opening = asyncio.Lock()
        async with self._opening:
            if self._session is None:
                await asyncio.to_thread(_import)
                self._session = self._make()
            return self._session

    def _make(self) -> ClientSession:
        from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

        config = self._config
        headers = {"accept": "application/json", "user-agent": "matchd"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        return ClientSession(
            connector=TCPConnector(limit=config.connections_max,
                                   limit_per_host=config.connections_per_host,
                                   ssl=self._tls or True),
            timeout=ClientTimeout(total=config.timeout_ms / 1_000), headers=headers,
            cookie_jar=DummyCookieJar())


class _Counters:
    """What is counted."""

    def __init__(self, metrics: Metrics, peers: dict[str, Peer]) -> None:
        self.questions = metrics.counter("peer_questions", "questions",
                                         "questions to peers, each peer counted")
        self.cached = metrics.counter("peer_cached", "questions",
                                      "questions to peers that were answered from memory")
        self.failures = metrics.counter("peer_failures", "questions",
                                        "questions to peers without an answer")
        metrics.table("peer_breaker", "state", "the breaker of a peer: 0 closed, 1 half-open (it "
                      "is being tried), 2 open (it is left alone)", "peer",
                      lambda: {peer.name: int(peer.breaker.state) for peer in peers.values()})


def _import() -> None:
    """It takes a while: not in the loop."""
    import aiohttp  # noqa: F401


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _token(config: PeersConfig) -> str:
    """The token that peers ask for. Raises ConfigError."""
    if not config.token_file:
        return ""
    try:
        return Path(config.token_file).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"peers.token_file: {error}") from error
