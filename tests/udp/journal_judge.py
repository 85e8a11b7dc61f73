"""The log of a venue held against the slow oracle, in the order in which commands arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cython_core.matcher import commands_of
from cython_core.model import Act, Flag, Kind, Source
from engine.journal.reader import LogWalk
from engine.journal.storage import FileStorage
from tests.oracle.commands import Command
from tests.oracle.naive_venue import NaiveVenue

EventDict = dict[str, Any]
# So much of a log is looked at in one piece.
RUN_UNITS = 4_096
DEFINITIONS = {
    Kind.CMD_DEFINE_INSTRUMENT: ("symbol", "wire_symbol", "price_decimals", "quantity_decimals",
                                 "tick_units", "lot_size", "quantity_max_lots", "state"),
    Kind.CMD_DEFINE_ACCOUNT: ("username", "firm", "role", "quantity_max_lots", "notional_max",
                              "open_orders_max", "collar_bps", "messages_per_second"),
}
PLAIN = ("account_id", "user_ref_num", "user_ref_idx", "instrument_id", "side", "quantity_lots",
         "price_units", "time_in_force", "display", "capacity", "iso", "cross", "client_order",
         "orig_user_ref_num", "command_side", "options", "firm", "symbol", "group_id",
         "client_order_id")
RULE_NAMES = {"kind", "seq", "account_id", "instrument_id", "time_ns", "user_ref_num",
              "user_ref_idx", "source", "first", "flags", "origin"}


def oracle_command(row: EventDict) -> Command:
    """A logged command as the oracle takes it."""
    kind = Kind[row["kind"].upper()]
    command = Command(kind, source=Source[row["source"].upper()],
                      flags=Flag(row.get("flags", 0) & ~Flag.FIRST),
                      **{name: row[name] for name in PLAIN if name in row})
    if Flag.DOOR_REASON in command.flags:
        command.door_reason = row["reason"]
    command.raw = bytes.fromhex(row.get("raw", ""))
    if kind in DEFINITIONS:
        command.definition = {name: row[name] for name in DEFINITIONS[kind]}
        command.symbol = ""
    if kind == Kind.CMD_SET_RULES:
        command.definition = {name: value for name, value in row.items()
                              if name not in RULE_NAMES}
    if origin := row.get("origin"):
        command.request_id, command.order_id = origin["request_id"], origin["order_id"]
        command.actor_account_id = origin["actor_account_id"]
        command.key, command.reason = origin["key"], origin["reason"]
        command.act = Act[origin["act"].upper()] if origin["act"] != "none" else 0
    return command


def logged(data_dir: Path) -> Iterator[tuple[list[EventDict], list[EventDict]]]:
    """(events, the commands that gave them) of each run of the log."""
    for run in LogWalk(FileStorage(data_dir)).runs(RUN_UNITS):
        yield run.batch.dicts(), commands_of(run.batch).dicts()


def judge(data_dir: Path) -> NaiveVenue:
    """Run the log's commands through the oracle; raises AssertionError at the first event that it
    would not have given. Returns the oracle as it stands in the end."""
    oracle = NaiveVenue()
    for events, commands in logged(data_dir):
        place = 0
        for row in commands:
            expected = oracle.apply([oracle_command(row)], 0, events[place]["time_ns"])
            found = events[place:place + len(expected)]
            assert found == expected, (
                f"the log's events are not the oracle's\nlog    {found}\noracle {expected}\n"
                f"command {row}")
            assert expected, f"the oracle ignores a command that was done: {row}"
            place += len(expected)
        assert place == len(events)
    return oracle


def numbers_used(data_dir: Path) -> Counter[tuple[int, int, int]]:
    """How often each (account, channel, number) was accepted, rejected or taken by a replace."""
    return Counter(
        (event["account_id"], event["user_ref_idx"], event["user_ref_num"])
        for events, _ in logged(data_dir) for event in events
        if event["kind"] in ("accepted", "rejected", "replaced"))


def trades_by_price(data_dir: Path) -> Counter[tuple[int, int]]:
    """{(instrument, price): lots} of every fill."""
    found: Counter[tuple[int, int]] = Counter()
    for events, _ in logged(data_dir):
        for event in events:
            if event["kind"] == "fill":
                found[event["instrument_id"], event["price_units"]] += event["quantity_lots"]
    return found
