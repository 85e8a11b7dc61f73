"""Orders that come in a queue, as maps of names and values: what an entry means, who may send it,
and its answer, which is the one that HTTP gives.

A queue hands an entry over again when it does not know whether the entry was done. An order is
known by its client's id then, as over HTTP; cancels and changes by the mark that is written beside
each command into the log (`look_back`). So an entry is done once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from cython_core.matcher import Matcher
from cython_core.model import Source
from engine import log
from engine.accounts import Account, AccountTable, fold_username
from engine.api import types
from engine.api.auth import ACCESS
from engine.api.find import CLIENT_PREFIX
from engine.api.orders import OrderRoutes
from engine.api.route import Access, ApiError, Call, Identity, Reply
from engine.api.wrong import wrong_input
from engine.errors import EngineError
from engine.market.stage import Market

KEY = "redis"
# What is at hand of a mark in the log.
MARK_MAX = 24
REQUEST_ID_MAX = 128
_SOURCE = int(Source.REDIS)
NOBODY = Identity(0, "", Access.PUBLIC, KEY)
_YES_NO = {"true": True, "1": True, "false": False, "0": False}


class _Cancel(msgspec.Struct, forbid_unknown_fields=True):
    """Which order to cancel."""

    order_id: str | int | None = None
    client_order_id: types.ClientId | None = None


class _Change(_Cancel):
    """Which order to change, and to what."""

    quantity: types.Decimal | None = None
    price: types.Decimal | None = None
    time_in_force: types.TimeInForce | None = None
    post_only: bool | None = None
    new_client_order_id: types.ClientId | None = None


class Planned(msgspec.Struct, gc=False):
    """An entry that was looked at. Entries of one `lane` (an account) are begun in their order.

    `names` are the order ids that it brings or names, in its words; `op` "" is an entry that
    cannot be done, whose answer `refusal` is."""

    op: str = ""
    lane: str = ""
    names: tuple[str, ...] = ()
    request_id: str = ""
    mark: str = ""
    client_order_id: str = ""
    refusal: Reply | None = None
    who: Identity = NOBODY
    target: str = ""
    body: Any = None


class QueuedOrders:
    """The door of a queue. `allowed` are the usernames it may trade for; without any, everybody
    who may trade at all, and an entry that names nobody acts as a request over HTTP without
    credentials does: as `demo` says."""

    def __init__(self, routes: OrderRoutes, market: Market, matcher: Matcher,
                 accounts: Iterable[Account], allowed: Collection[str],
                 demo: Callable[[], Identity | None] = lambda: None) -> None:
        self._routes, self._market, self._matcher = routes, market, matcher
        self._demo = demo
        self._accounts = AccountTable.of(accounts).by_name
        self._allowed = frozenset(map(fold_username, allowed))
        self._log = log.get("intake")
        self._do: Mapping[str, Callable[[Planned], Awaitable[Reply]]] = {
            "enter": self._enter, "cancel": self._cancel, "change": self._change}

    # -- what an entry means -------------------------------------------------------------------

    def plan(self, fields: dict[str, Any], entry_id: str, texts: bool) -> Planned:
        """Look at an entry. `entry_id` is unique for ever, "" where the queue knows none; with
        `texts` every value is a text. Raises nothing."""
        planned = Planned()
        try:
            self._plan(planned, fields, entry_id, texts)
        except ApiError as error:
            planned.op, planned.refusal = "", error.reply()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            planned.op, planned.refusal = "", wrong_input(error).reply()
        return planned

    def unreadable(self, problem: str) -> Planned:
        """An entry that is no map of names and values."""
        return Planned(refusal=ApiError(400, "bad_entry", f"this is no order: {problem}").reply())

    def _plan(self, planned: Planned, fields: dict[str, Any], entry_id: str,
              texts: bool) -> None:
        name = fields.get("client_order_id")
        if isinstance(name, str) and len(name) <= REQUEST_ID_MAX:
            # So that an answer can be told apart also when something else is wrong.
            planned.client_order_id = name
        request_id = fields.pop("request_id", None)
        if request_id is not None:
            planned.request_id = _request_id(request_id)
        op = fields.pop("op", "enter")
        if op not in self._do:
            raise _bad("bad_value", "op", 'op is "enter", "cancel" or "change"')
        named = fields.pop("account", None)
        account = self._account(self._unnamed() if named is None else named)
        if texts and "post_only" in fields:
            fields["post_only"] = _YES_NO.get(fields["post_only"], fields["post_only"])
        planned.mark = _mark(entry_id, account.username, planned.request_id)
        planned.lane = account.username
        planned.who = Identity(account.id, account.username, Access.TRADE, KEY, _SOURCE,
                               planned.mark)
        if op == "enter":
            _plan_enter(planned, fields, entry_id)
        else:
            _plan_other(planned, fields, op)
        planned.op = op

    def _unnamed(self) -> str | None:
        """Who trades where an entry does not say."""
        if self._allowed:
            return next(iter(self._allowed)) if len(self._allowed) == 1 else None
        demo = self._demo()
        return demo.username if demo is not None else None

    def _account(self, username: object) -> Account:
        if username is None:
            raise _bad("missing_field", "account", "account is missing")
        if not isinstance(username, str):
            raise _bad("bad_value", "account", "account is a username")
        account = self._accounts.get(fold_username(username))
        if account is None:
            raise ApiError(403, "unknown_account", f"there is no account {username!r}",
                           {"account": username})
        if self._allowed and account.username not in self._allowed:
            raise ApiError(403, "forbidden", "this queue does not trade for this account",
                           {"account": username})
        if ACCESS[account.role] < Access.TRADE:
            raise ApiError(403, "forbidden", "this account may not trade", {"account": username})
        return account

    # -- doing it ------------------------------------------------------------------------------

    async def ready(self, planned: Planned) -> None:
        """Wait until the entry's account can trade here; later ones of it need not wait."""
        if planned.op:
            await self._market.use_account(planned.who.account_id)

    async def do(self, planned: Planned, done_seq: int = 0) -> tuple[int, bytes, bool]:
        """Do it and wait until it is durable: status and body as over HTTP, and whether this is
        the answer to something that was done before. `done_seq` is what `look_back` found.
        Raises nothing but CancelledError."""
        try:
            if planned.refusal is not None:
                reply = planned.refusal
            elif done_seq and planned.op != "enter":
                reply = await self._routes.answer_again(planned.who, done_seq)
                return reply.status, reply.body, True
            else:
                reply = await self._do[planned.op](planned)
        except ApiError as error:
            reply = error.reply()
        except EngineError as error:
            reply = ApiError(503, "unavailable", str(error)).reply()
        except Exception:
            self._log.exception("an entry of the order queue failed", key=planned.op)
            reply = ApiError(500, "internal_error", "this is a mistake of the venue's; its log "
                             "says more").reply()
        return reply.status, reply.body, (b"idempotent-replay", b"true") in reply.headers

    async def _enter(self, planned: Planned) -> Reply:
        return await self._routes.enter(_call(planned))

    async def _cancel(self, planned: Planned) -> Reply:
        return await self._routes.cancel(_call(planned))

    async def _change(self, planned: Planned) -> Reply:
        return await self._routes.change(_call(planned))

    # -- what was done before ------------------------------------------------------------------

    def position(self) -> tuple[str, int]:
        """The log's name and the newest event: what is done from now on is behind it."""
        return self._market.log_name, self._matcher.next_seq - 1

    async def look_back(self, marks: Collection[str], after_seq: int) -> dict[str, int]:
        """Which of these marks are in the log behind `after_seq`: the seq of each one's first
        event. Raises NotKeptError when the log no longer tells."""
        last = self._market.applied_seq
        if after_seq >= last or not marks:
            return {}
        return await self._market.history.find_marked(KEY, marks, after_seq + 1, last)


def _call(planned: Planned) -> Call:
    return Call(planned.who, {"id": planned.target}, None, planned.body)


def _plan_enter(planned: Planned, fields: dict[str, Any], entry_id: str) -> None:
    if fields.get("client_order_id") is None:
        if not entry_id:
            raise _bad("missing_field", "client_order_id", "client_order_id is missing: in a list "
                       "nothing else tells an order from the same order sent again")
        fields["client_order_id"] = f"entry:{entry_id}"
    planned.body = order = msgspec.convert(fields, types.NewOrder)
    planned.client_order_id = order.client_order_id or ""
    planned.names = (CLIENT_PREFIX + planned.client_order_id,)


def _plan_other(planned: Planned, fields: dict[str, Any], op: str) -> None:
    named = msgspec.convert(fields, _Change if op == "change" else _Cancel)
    if (named.order_id is None) == (named.client_order_id is None):
        raise _bad("missing_field", "order_id", f"say which order to {op}: order_id or "
                   "client_order_id")
    if not planned.mark:
        raise _bad("missing_field", "request_id", "request_id is missing: in a list nothing else "
                   f"tells a {op} from the same {op} sent again")
    if named.client_order_id is not None:
        planned.target = CLIENT_PREFIX + named.client_order_id
    else:
        planned.target = _order_id(named.order_id)
    planned.names = (planned.target,)
    if isinstance(named, _Change):
        if named.new_client_order_id is not None:
            planned.names = (planned.target, CLIENT_PREFIX + named.new_client_order_id)
        planned.body = types.OrderChange(named.quantity, named.price, named.time_in_force,
                                         named.post_only, named.new_client_order_id)


def _order_id(order_id: str | int | None) -> str:
    text = str(order_id)
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise _bad("bad_value", "order_id", "order_id is a number")
    return text


def _request_id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) \
            or not 0 < len(str(value)) <= REQUEST_ID_MAX:
        raise _bad("bad_value", "request_id", "request_id is a text of at most "
                   f"{REQUEST_ID_MAX} characters, or a whole number")
    return str(value)


def _mark(entry_id: str, username: str, request_id: str) -> str:
    """What is written beside the command: the entry's id, or as good as one made of the
    request's; "" where there is neither."""
    if entry_id:
        return entry_id if len(entry_id) <= MARK_MAX else _digest(entry_id)
    return _digest(f"{username}\n{request_id}") if request_id else ""


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:MARK_MAX]


def _bad(code: str, field: str, message: str) -> ApiError:
    return ApiError(400, code, message, {"field": field})
