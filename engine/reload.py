"""What a reload changes, as commands for the log and in words for the operator."""

from __future__ import annotations

import msgspec

from cython_core.event import CommandBatch
from engine.config import Settings, changed_keys
from engine.directory import Known, account_acts, definitions, unchangeable


class Changes(msgspec.Struct, frozen=True):
    """Symbols and usernames of what is another now; keys of matchd.toml that a reload leaves."""

    instruments_added: list[str]
    instruments_removed: list[str]
    instruments_changed: list[str]
    accounts_added: list[str]
    accounts_removed: list[str]
    accounts_changed: list[str]
    need_a_restart: list[str]

    @classmethod
    def between(cls, before: Settings, after: Settings) -> Changes:
        """The changes from one reading to the next."""
        found: list[list[str]] = []
        for old, new in (({one.id: (one.symbol, one) for one in before.instruments},
                          {one.id: (one.symbol, one) for one in after.instruments}),
                         ({one.id: (one.username, one) for one in before.accounts},
                          {one.id: (one.username, one) for one in after.accounts})):
            found += [[new[number][0] for number in sorted(new.keys() - old.keys())],
                      [old[number][0] for number in sorted(old.keys() - new.keys())],
                      [new[number][0] for number in sorted(new.keys() & old.keys())
                       if new[number] != old[number]]]
        return cls(found[0], found[1], found[2], found[3], found[4], found[5],
                   changed_keys(before.config, after.config))

    def as_dict(self) -> dict[str, list[str]]:
        """The same with names."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


def changed_tables(known: Known, before: Settings, after: Settings) -> CommandBatch:
    """Commands that bring the log from one reading of the tables to the next. Raises ConfigError
    with every contradiction."""
    _, instruments_file, accounts_file = after.paths
    unchangeable(after.instruments, before.instruments, instruments_file).raise_all()
    batch = definitions(known, after.instruments, after.accounts, instruments_file, accounts_file)
    account_acts(batch, {one.id: one for one in before.accounts},
                 {one.id: one for one in after.accounts}, known.accounts())
    return batch
