"""What an operator does over HTTP. Every act is an event in the log, with the account and the key
that did it and the words it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from cython_core.event import CommandBatch
from cython_core.ledger import Answer
from cython_core.model import Act, Source
from engine.accounts import Account, AccountTable
from engine.api import types
from engine.api.desk import Desk
from engine.api.reasons import rejected
from engine.api.route import Access, ApiError, Call, Handler, Reply, Route, json_reply
from engine.api.terms import Instruments

_SOURCE = int(Source.ADMIN)


class Known(Protocol):
    """The matcher, as far as accounts go."""

    def accounts(self) -> dict[int, dict[str, Any]]:
        """The accounts of the log, by id."""


class Live(Protocol):
    """A live session."""

    @property
    def address(self) -> str:
        """Where the client is."""

    @property
    def transport(self) -> str:
        """How it reaches us: "tcp" or "udp"."""


class Seat(Protocol):
    """One account's place at order entry."""

    @property
    def account(self) -> Account:
        """Whose it is."""

    @property
    def live(self) -> Live | None:
        """The session that has it."""


class Door(Protocol):
    """Order entry, as an operator sees it."""

    @property
    def generation(self) -> int:
        """Of the running session."""

    @property
    def session_id(self) -> str:
        """The running session's name."""

    def seats(self) -> Sequence[Seat]:
        """Every account's place."""

    def next_number(self, account_id: int) -> int:
        """The number of the account's next message."""

    def disconnect(self, account_id: int, reason: str) -> bool:
        """Close the account's connection; whether there was one."""


class Parts(NamedTuple):
    """What an operator's acts reach."""

    desk: Desk
    matcher: Known
    accounts: Iterable[Account]
    instruments: Instruments
    door: Door
    # Begins a snapshot; whether one was begun (False while one is being written).
    snapshot: Callable[[], bool]


class AdminRoutes:
    """Halts, kill switches, cancels, snapshots, sessions."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._accounts = AccountTable.of(parts.accounts).by_name

    def routes(self) -> list[Route]:
        """For the gateway's table."""
        instrument, account = "/v1/admin/instruments/{symbol:path}", "/v1/admin/accounts/{username}"
        sessions = "/v1/admin/sessions"
        return [
            _act(f"{instrument}/halt", self.halt, "Halt an instrument: orders rest, and can only "
                 "be canceled", types.Act, (404,)),
            _act(f"{instrument}/resume", self.resume, "Let an instrument trade again", types.Act,
                 (404,)),
            _act(f"{account}/disable", self.disable, "Kill switch: refuse an account's orders and "
                 "cancel those it has", types.CanceledAct, (404,)),
            _act(f"{account}/enable", self.enable, "Take an account's orders again", types.Act,
                 (404,)),
            _act("/v1/admin/cancel-all", self.cancel_all, "Cancel orders of one account or of "
                 "all", types.CanceledAct, (404,), types.CancelAll),
            _act("/v1/admin/snapshot", self.snapshot, "Write a snapshot now",
                 types.SnapshotTaken),
            Route(method="GET", path=sessions, handler=self.sessions, access=Access.ADMIN,
                  summary="Order-entry sessions of all accounts", tag="Administration",
                  answer=types.Sessions),
            _act(f"{sessions}/{{username}}/disconnect", self.disconnect, "Close an account's "
                 "order-entry connection", types.Disconnected, (404,)),
        ]

    # -- instruments ---------------------------------------------------------------------------

    async def halt(self, call: Call) -> Reply:
        """`POST /v1/admin/instruments/{symbol}/halt`."""
        instrument = self._parts.instruments.of(call.path["symbol"], 404)
        return _done(await self._send(call, lambda batch, who: batch.halt_instrument(
            instrument.id, **who)))

    async def resume(self, call: Call) -> Reply:
        """`POST /v1/admin/instruments/{symbol}/resume`."""
        instrument = self._parts.instruments.of(call.path["symbol"], 404)
        return _done(await self._send(call, lambda batch, who: batch.resume_instrument(
            instrument.id, **who)))

    # -- accounts ------------------------------------------------------------------------------

    async def disable(self, call: Call) -> Reply:
        """`POST /v1/admin/accounts/{username}/disable`: both commands are in one batch, so no
        order comes between."""
        account = self._account(call)
        disabled = self._send(call, lambda batch, who: batch.order_entry(
            account.id, 0, False, **who))
        canceled = self._send(call, lambda batch, who: batch.mass_cancel(
            account.id, 0, **who))
        answer = _checked(await disabled)
        return json_reply(types.CanceledAct(answer.seq, answer.time_ns,
                                            _checked(await canceled).canceled))

    async def enable(self, call: Call) -> Reply:
        """`POST /v1/admin/accounts/{username}/enable`."""
        account = self._account(call)
        return _done(await self._send(call, lambda batch, who: batch.order_entry(
            account.id, 0, True, **who)))

    async def cancel_all(self, call: Call) -> Reply:
        """`POST /v1/admin/cancel-all`."""
        body: types.CancelAll = call.body
        instrument = self._parts.instruments.of(body.symbol, 404) if body.symbol else None
        symbol, instrument_id = ("", 0) if instrument is None else (
            instrument.wire_symbol, instrument.id)

        def cancel(account_id: int) -> asyncio.Future[Answer]:
            return self._send(call, lambda batch, who: batch.mass_cancel(
                account_id, 0, instrument_id=instrument_id, symbol=symbol, **who))

        answers = [cancel(account_id) for account_id in self._whose(body.account)]
        done = [_checked(await answer) for answer in answers]
        if not done:
            # Nobody has orders: the act is in the log all the same.
            done = [_checked(await self._send(call, lambda batch, who: batch.admin_act(
                int(Act.OTHER), **who)))]
        return json_reply(types.CanceledAct(done[0].seq, done[0].time_ns,
                                            sum(answer.canceled for answer in done)))

    def _whose(self, username: str | None) -> list[int]:
        if username is not None:
            return [self._named(username).id]
        return [account_id for account_id, row in self._parts.matcher.accounts().items()
                if row["open_orders"]]

    # -- the venue -----------------------------------------------------------------------------

    async def snapshot(self, call: Call) -> Reply:
        """`POST /v1/admin/snapshot`."""
        answer = _checked(await self._send(call, lambda batch, who: batch.admin_act(
            int(Act.SNAPSHOT), **who)))
        return json_reply(types.SnapshotTaken(answer.seq, answer.time_ns,
                                              self._parts.snapshot()))

    async def sessions(self, call: Call) -> Reply:
        """`GET /v1/admin/sessions`."""
        door = self._parts.door
        rows = [types.SessionRow(seat.account.username, seat.account.id, seat.live is not None,
                                 seat.live.transport if seat.live else "",
                                 seat.live.address if seat.live else "",
                                 door.next_number(seat.account.id)) for seat in door.seats()]
        return json_reply(types.Sessions(door.generation, door.session_id, rows))

    async def disconnect(self, call: Call) -> Reply:
        """`POST /v1/admin/sessions/{username}/disconnect`."""
        account = self._account(call)
        answer = _checked(await self._send(call, lambda batch, who: batch.admin_act(
            int(Act.DISCONNECT), account.id, **who)))
        return json_reply(types.Disconnected(
            answer.seq, answer.time_ns,
            self._parts.door.disconnect(account.id, f"closed by {call.identity.username}")))

    # -- the common part -----------------------------------------------------------------------

    def _account(self, call: Call) -> Account:
        return self._named(call.path["username"])

    def _named(self, username: str) -> Account:
        found = self._accounts.get(username.upper())
        if found is None:
            raise ApiError(404, "unknown_account", f"there is no account {username!r}")
        return found

    def _send(self, call: Call, fill: Callable[[CommandBatch, dict[str, Any]], None],
              ) -> asyncio.Future[Answer]:
        """Send a command that says who acts, ahead of what waits at the doors."""
        who = {"source": _SOURCE, "actor_account_id": call.identity.account_id,
               "key": call.identity.key, "reason": call.body.reason}
        return self._parts.desk.send_inside(
            lambda batch, request_id: fill(batch, who | {"request_id": request_id}))


def _act(path: str, handler: Handler, summary: str, answer: Any, errors: tuple[int, ...] = (),
         body: Any = types.AdminNote) -> Route:
    return Route(method="POST", path=path, handler=handler, access=Access.ADMIN, summary=summary,
                 tag="Administration", body=body, answer=answer, errors=errors)


def _done(answer: Answer) -> Reply:
    _checked(answer)
    return json_reply(types.Act(answer.seq, answer.time_ns))


def _checked(answer: Answer) -> Answer:
    if answer.reason:
        raise rejected(answer.reason, {"seq": answer.seq})
    return answer
