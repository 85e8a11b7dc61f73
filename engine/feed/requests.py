"""What clients ask: decoded into one type, answered always, errors with a code and a sentence."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta
from picows import WSCloseCode

from engine import clock
from engine.feed.accounts import PRIVATE_CHAINS
from engine.feed.chains import INTERVALS, PUBLIC_CHAINS, Chain
from engine.feed.client import Client, Name
from engine.feed.encode import Body
from engine.feed.subscription import Subscription
from engine.instruments import Instrument

if TYPE_CHECKING:
    from engine.feed.stage import Feed, Identity

DEPTH_MAX = 1_000
DEFAULT_INTERVAL = "1m"
ANSWER_TEXT_MAX = 300
# With so many wrong tokens a connection is closed.
WRONG_TOKENS_MAX = 5

Text = Annotated[str, Meta(max_length=256)]


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """Any request. `id` is given back with the answer."""

    op: Text
    id: int | Text | None = None
    channel: Text | None = None
    symbol: Text | None = None
    depth: Annotated[int, Meta(ge=1, le=DEPTH_MAX)] | None = None
    interval: Text | None = None
    resume_from: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    log: Text | None = None
    token: Annotated[str, Meta(max_length=4_096)] | None = None


class _OnlyId(msgspec.Struct):
    id: int | Text | None = None


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


# What a request may carry beside op and id.
FIELDS = {
    "auth": ("token",),
    "subscribe": ("channel", "symbol", "depth", "interval", "resume_from", "log"),
    "unsubscribe": ("channel", "symbol", "interval"),
    "list": (),
    "ping": (),
}


class Requests:
    """Answers the requests of all clients."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._json = msgspec.json.Decoder(Request)
        self._msgpack = msgspec.msgpack.Decoder(Request)
        self._operations: dict[str, Callable[[Client, Request], Body]] = {
            "auth": self._auth, "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe, "list": self._list, "ping": self._ping}

    def receive(self, client: Client, is_text: bool, payload: bytes) -> None:
        """Take one message of a client and answer it. A text is JSON, the rest MessagePack."""
        self._feed.meters.requests.add()
        if is_text and not _is_utf8(payload):
            client.close(WSCloseCode.INVALID_TEXT, "the text is not UTF-8")
            return
        request_id: int | str | None = None
        try:
            if client.over_rate:
                raise Refused("rate_limited", f"at most "
                              f"{self._feed.config.requests_per_second} requests in a second")
            request = self._decode(is_text, payload)
            request_id = request.id
            body = self._operate(client, request)
        except Refused as refused:
            self._feed.meters.refused.add()
            if request_id is None:
                request_id = _id_of(is_text, payload)
            body = {"ok": False, "code": refused.code, "message": refused.message}
        client.answer({"id": request_id, **body})
        if client.wrong_tokens >= WRONG_TOKENS_MAX:
            client.close(WSCloseCode.POLICY_VIOLATION, "too many wrong tokens")
        self._feed.joins.serve(client)

    def _decode(self, is_text: bool, payload: bytes) -> Request:
        try:
            return (self._json if is_text else self._msgpack).decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refused("bad_request", str(error)[:ANSWER_TEXT_MAX]) from error

    def _operate(self, client: Client, request: Request) -> Body:
        operation = self._operations.get(request.op)
        if operation is None:
            raise Refused("unknown_op", f"op is one of {', '.join(self._operations)}")
        allowed = FIELDS[request.op]
        for name in FIELDS["subscribe"] + FIELDS["auth"]:
            if getattr(request, name) is not None and name not in allowed:
                raise Refused("bad_request", f"{request.op} has no {name}")
        if self._feed.config.require_login and client.identity is None \
                and request.op in ("subscribe", "unsubscribe"):
            raise Refused("not_authenticated", "log in first: op auth with a token")
        return {"ok": True, **operation(client, request)}

    # -- operations --------------------------------------------------------------------------

    def _auth(self, client: Client, request: Request) -> Body:
        if request.token is None:
            raise Refused("bad_request", "auth needs a token")
        identity = self._feed.authenticate(request.token, client.host)
        if identity is None:
            self._feed.meters.failed_logins.add()
            client.wrong_tokens += 1
            raise Refused("not_authenticated", "the token is not valid")
        known = self._identity(client)
        if known is not None and known.account_id != identity.account_id and any(
                held.chain.account_id for held in client.subscriptions.values()):
            raise Refused("forbidden", "end the private subscriptions of the other account first")
        client.identity, client.token = identity, request.token
        return {"account": identity.username}

    def _ping(self, client: Client, request: Request) -> Body:
        return {"time": clock.now_ns(), "seq": self._feed.market.applied_seq}

    def _list(self, client: Client, request: Request) -> Body:
        return {"subscriptions": [_row(held.chain) for held in client.subscriptions.values()]}

    def _subscribe(self, client: Client, request: Request) -> Body:
        feed = self._feed
        kind, param, account_id = self._kind(client, request)
        instruments = self._instruments(request)
        names: list[Name] = [_name(kind, one, param) for one in instruments]
        held = len(client.subscriptions.keys() | set(names))
        if held > feed.config.subscriptions_max:
            raise Refused("too_many_subscriptions",
                          f"at most {feed.config.subscriptions_max} subscriptions of a client")
        reason = self._reset_reason(request)
        resume_from = None if reason else request.resume_from
        for name, instrument in zip(names, instruments, strict=True):
            chain = feed.registry.get(kind, instrument, param, account_id)
            feed.joins.add(Subscription(client, chain, resume_from, reason), name)
        return {"channel": kind.channel, "symbols": [one.symbol for one in instruments],
                "log": feed.log_id, "seq": feed.market.applied_seq}

    def _unsubscribe(self, client: Client, request: Request) -> Body:
        if request.channel not in PUBLIC_CHAINS and request.channel not in PRIVATE_CHAINS:
            raise _unknown_channel()
        symbols = {one.symbol for one in self._instruments(request)}
        interval = self._interval(request) if request.interval else None
        names = [name for name in client.subscriptions
                 if name[0] == request.channel and name[1] in symbols
                 and interval in (None, name[2])]
        if not names:
            raise Refused("not_subscribed", "there is no such subscription")
        for name in names:
            self._feed.joins.end(client, name)
        return {"channel": request.channel,
                "symbols": list(dict.fromkeys(name[1] for name in names))}

    # -- what a request means ----------------------------------------------------------------

    def _kind(self, client: Client, request: Request) -> tuple[type[Chain], int, int]:
        """The kind of chain, its depth or interval, and the account of a private one."""
        if request.channel is None:
            raise Refused("bad_request", "subscribe needs a channel")
        if request.depth is not None and request.channel != "book":
            raise Refused("bad_request", "depth belongs to the channel book")
        if request.interval is not None and request.channel != "candles":
            raise Refused("bad_request", "interval belongs to the channel candles")
        private = PRIVATE_CHAINS.get(request.channel)
        if private is not None:
            identity = self._identity(client)
            if identity is None:
                raise Refused("not_authenticated", "log in first: op auth with a token")
            return private, 0, identity.account_id
        if request.channel not in PUBLIC_CHAINS:
            raise _unknown_channel()
        param = request.depth or 0
        if request.channel == "candles":
            param = self._interval(request)
        return PUBLIC_CHAINS[request.channel], param, 0

    def _identity(self, client: Client) -> Identity | None:
        """Who the client is: who it logged in as, or who acts without a login."""
        return client.identity or self._feed.demo()

    def _interval(self, request: Request) -> int:
        seconds = INTERVALS.get(request.interval or DEFAULT_INTERVAL)
        if seconds is None:
            raise Refused("bad_request", f"interval is one of {', '.join(INTERVALS)}")
        return seconds

    def _instruments(self, request: Request) -> list[Instrument]:
        """The instruments of a symbol or a pattern; all of them for a private channel without."""
        symbols = self._feed.symbols
        symbol = request.symbol
        if symbol is None and request.channel in PRIVATE_CHAINS:
            symbol = "*"
        if symbol is None:
            raise Refused("bad_request", f"{request.op} needs a symbol")
        found = symbols.get(symbol)
        if found is not None:
            return [found]
        if not any(sign in symbol for sign in "*?["):
            raise Refused("unknown_symbol", f"there is no instrument {symbol[:64]}")
        by_id = {one.id: one for one in symbols.values()
                 if fnmatch.fnmatchcase(one.symbol, symbol)}
        if not by_id:
            raise Refused("unknown_symbol", f"no instrument is like {symbol[:64]}")
        return [by_id[number] for number in sorted(by_id)]

    def _reset_reason(self, request: Request) -> str:
        """Why a resume can't be even tried; "" if it can, or was not asked for."""
        feed = self._feed
        if request.resume_from is None:
            return ""
        if request.log is not None and request.log != feed.log_id:
            return "the position is one of another log"
        if request.resume_from > feed.market.applied_seq:
            return "the position is beyond the end of the log"
        return ""


def _unknown_channel() -> Refused:
    return Refused("unknown_channel",
                   f"channel is one of {', '.join([*PUBLIC_CHAINS, *PRIVATE_CHAINS])}")


def _name(kind: type[Chain], instrument: Instrument, param: int) -> Name:
    return kind.channel, instrument.symbol, param if kind.channel == "candles" else 0


def _row(chain: Chain) -> Body:
    """A subscription as `list` shows it."""
    row: Body = {"channel": chain.channel, "symbol": chain.instrument.symbol}
    if chain.channel == "book":
        row["depth"] = chain.param or None
    if chain.channel == "candles":
        row["interval"] = next(name for name, seconds in INTERVALS.items()
                               if seconds == chain.param)
    return row


def _id_of(is_text: bool, payload: bytes) -> Any:
    """The id of a request that is wrong in another way."""
    decoder: Any = msgspec.json if is_text else msgspec.msgpack
    try:
        return decoder.decode(payload, type=_OnlyId).id
    except (msgspec.DecodeError, RecursionError):
        return None


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
