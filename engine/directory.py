"""The instrument and account tables: what the files say against what the log knows.

The log holds both tables, and the rules by which ids of clients are remembered and numbers over UDP
are taken, so that it can be read without the files. At each start what is new or
changed goes in as commands, before anybody can log in. What may never change is refused as a
configuration error: an id stands for one instrument, or one account, for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from cython_core.event import CommandBatch
from cython_core.model import Act
from engine.accounts import Account
from engine.config import ApiConfig, OrderEntryConfig
from engine.instruments import Instrument
from engine.tables import Problems

# What a resting order's numbers mean: none of it changes while orders rest.
SCALE_FIELDS = ("price_decimals", "quantity_decimals", "tick_units", "lot_size")
INSTRUMENT_FIELDS = ("symbol", "wire_symbol", *SCALE_FIELDS, "quantity_max_lots")
# Why an instrument is halted that the file has no longer.
REMOVED = "not in the file"
ACCOUNT_FIELDS = ("username", "firm", "quantity_max_lots", "notional_max", "open_orders_max",
                  "collar_bps", "messages_per_second")

Row = Mapping[str, Any]


class Known(Protocol):
    """The recovered matcher, as far as the tables go."""

    def instruments(self) -> dict[int, dict[str, Any]]:
        """The instruments of the log, by id."""

    def accounts(self) -> dict[int, dict[str, Any]]:
        """The accounts of the log, by id."""

    def rules(self) -> dict[str, int]:
        """How long ids of clients are remembered, and how wide the window of numbers is."""


def definitions(known: Known, instruments: Iterable[Instrument], accounts: Iterable[Account],
                instruments_file: str | Path, accounts_file: str | Path,
                api: ApiConfig | None = None,
                order_entry: OrderEntryConfig | None = None) -> CommandBatch:
    """Commands that bring the log's tables and rules up to the files'; without `api` or
    `order_entry` their rules stay what they are.

    Raises ConfigError with every contradiction.
    """
    problems = Problems()
    batch = CommandBatch()
    instruments = list(instruments)
    logged_instruments, logged_accounts = known.instruments(), known.accounts()
    for instrument in instruments:
        old = logged_instruments.get(instrument.id)
        _check_instrument(instrument, old, logged_instruments, instruments_file, problems)
        if old is None or differs(instrument, old, INSTRUMENT_FIELDS):
            _define_instrument(batch, instrument)
    _halt_removed(batch, instruments, logged_instruments)
    for account in accounts:
        known_as = logged_accounts.get(account.id)
        _check_account(account, known_as, logged_accounts, accounts_file, problems)
        if known_as is None or known_as["role"] != account.role_code \
                or differs(account, known_as, ACCOUNT_FIELDS):
            _define_account(batch, account)
    rules = known.rules()
    if api is not None:
        rules |= rules_of(api)
    if order_entry is not None:
        rules["udp_window"] = order_entry.udp_window
    if rules != known.rules():
        batch.set_rules(rules["window_ns"], rules["kept_min"], rules["kept_max"],
                        rules["udp_window"])
    problems.raise_all()
    return batch


def rules_of(api: ApiConfig) -> dict[str, int]:
    """The rules for ids of clients as the log has them: window in nanoseconds, least kept of an
    account, most kept of all."""
    return {"window_ns": api.client_id_window_s * 10**9, "kept_min": api.client_ids_kept_min,
            "kept_max": api.client_ids_max}


def _halt_removed(batch: CommandBatch, instruments: Iterable[Instrument],
                  logged: Mapping[int, Row]) -> None:
    """What the file has no longer takes no orders; those that rest can be canceled. It trades
    again when the file has it again, unless an operator halted it."""
    listed = {one.id for one in instruments}
    for instrument_id, row in logged.items():
        if instrument_id not in listed and not row["halted"]:
            batch.halt_instrument(instrument_id, reason=REMOVED)
        elif instrument_id in listed and row["halted"] and row["halt_reason"] == REMOVED:
            batch.resume_instrument(instrument_id, reason="in the file again")


def account_acts(batch: CommandBatch, before: Mapping[int, Account],
                 after: Mapping[int, Account], logged: Mapping[int, Row]) -> None:
    """What a reload changes of accounts and no definition says, for the log."""
    def tell(account_id: int, text: str) -> None:
        batch.admin_act(int(Act.OTHER), account_id=account_id, reason=text)

    for account_id in before.keys() - after.keys():
        tell(account_id, "account removed")
    for account_id, account in after.items():
        if account_id in before:
            if account.password_hash != before[account_id].password_hash:
                tell(account_id, "password changed")
        elif account_id in logged:
            tell(account_id, "account is back")


def unchangeable(instruments: Iterable[Instrument], before: Iterable[Instrument],
                 file: str | Path) -> Problems:
    """What of an instrument can't change while the venue runs: whoever has seen its scales counts
    with them."""
    problems, old = Problems(), {one.id: one for one in before}
    for one in instruments:
        for field in SCALE_FIELDS if one.id in old else ():
            was, now = getattr(old[one.id], field), getattr(one, field)
            if was != now:
                problems.note(file, f"instrument {one.symbol}.{field}",
                              f"{was} until the next start", now)
    return problems


def differs(row: object, old: Row, fields: Iterable[str]) -> bool:
    """Whether any of the fields has another value in the log."""
    return any(getattr(row, field) != old[field] for field in fields)


def _check_instrument(instrument: Instrument, old: Row | None, logged: Mapping[int, Row],
                      file: str | Path, problems: Problems) -> None:
    where = f"instrument {instrument.symbol}"
    for other_id, other in logged.items():
        if other["symbol"] == instrument.symbol and other_id != instrument.id:
            problems.note(file, f"{where}.id", f"{other_id}, which the log knows it by",
                          instrument.id)
    if old is None:
        return
    if old["symbol"] != instrument.symbol:
        problems.note(file, f"{where}.id", f"an id that was never used "
                      f"({instrument.id} is {old['symbol']} in the log)", instrument.id)
    if old["wire_symbol"] != instrument.wire_symbol:
        # Messages that were sent are made again from the log, with the symbol of their time.
        problems.note(file, f"{where}.wire_symbol", f'"{old["wire_symbol"]}", as in the log',
                      instrument.wire_symbol)
    changed = [field for field in SCALE_FIELDS if getattr(instrument, field) != old[field]]
    if changed and old["resting_orders"]:
        for field in changed:
            problems.note(file, f"{where}.{field}", f"{old[field]} while orders rest",
                          getattr(instrument, field))


def _check_account(account: Account, old: Row | None, logged: Mapping[int, Row],
                   file: str | Path, problems: Problems) -> None:
    where = f"account {account.username}"
    for other_id, other in logged.items():
        if other["username"] == account.username and other_id != account.id:
            problems.note(file, f"{where}.id", f"{other_id}, which the log knows it by",
                          account.id)
    if old is not None and old["username"] != account.username:
        problems.note(file, f"{where}.id", f"an id that was never used "
                      f"({account.id} is {old['username']} in the log)", account.id)


def _define_instrument(batch: CommandBatch, one: Instrument) -> None:
    batch.define_instrument(one.id, one.symbol, one.wire_symbol, one.price_decimals,
                            one.tick_units, one.quantity_decimals, one.lot_size,
                            one.quantity_max_lots)


def _define_account(batch: CommandBatch, one: Account) -> None:
    batch.define_account(one.id, one.username, one.firm, one.role_code, one.quantity_max_lots,
                         one.notional_max, one.open_orders_max, one.collar_bps,
                         one.messages_per_second)
